from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logstore import Config
from logstore.testing import CrashFileSystem
from logstore.testing.disk import Operation
from raftlog.raft.messages import Entry, EntryKind
from tests.raftlog.storage.builders import (
    FOUR,
    NEW_LEARNER,
    THREE,
    append,
    batches,
    commands,
    founded,
    opened,
    restarted,
    some_states,
    with_snapshot,
)

PATH = "/data"


# ── snapshots of the views ─────────────────────────────────────────────────────────────────────────


def test_views_and_configuration_are_there_after_a_restart(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(
        storage, [*commands(1, 1), Entry(4, 1, EntryKind.CONFIGURATION, NEW_LEARNER), *commands(1, first=5)]
    )

    size = storage.save_views(5, {"a": b"A", "b": b""}, FOUR)
    storage = restarted(storage)

    assert storage.latest_views() == (5, {"a": b"A", "b": b""})
    assert (storage.applied, storage.views_index, storage.configuration()) == (5, 5, FOUR)
    assert size == (tmp_path / "snapshots" / f"{5:020d}.snapshot").stat().st_size


def test_change_behind_the_snapshot_counts_from_where_it_is_applied(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(
        storage,
        [*commands(1, 1), Entry(4, 1, EntryKind.CONFIGURATION, NEW_LEARNER), *commands(1, 1, first=5)],
    )
    storage.save_views(3, {}, THREE)

    storage = restarted(storage)
    assert storage.configuration() == THREE
    storage.save_views(5, {}, FOUR)

    assert restarted(storage).configuration() == FOUR


def test_change_that_was_cut_off_never_counts(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, [*commands(1, 1), Entry(4, 1, EntryKind.CONFIGURATION, NEW_LEARNER)])
    append(storage, commands(2, 2, first=4))

    storage.save_views(5, {}, THREE)

    assert restarted(storage).configuration() == THREE


def test_slow_disk_that_saves_the_views_holds_up_no_reader() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    append(storage, commands(1, 1, 1))
    found: list[object] = []
    with ThreadPoolExecutor(1) as other_thread:

        def look(_: Operation) -> None:
            for read in (storage.latest_views, storage.snapshot, storage.hard_state):
                found.append(other_thread.submit(read).result(timeout=20))

        fs.before_operation = look
        storage.save_views(4, {"a": b"new"}, THREE)

    assert (1, {"members": b"first"}) in found
    assert None not in found


def test_older_snapshot_is_not_saved_over_a_newer_one(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1))
    size = storage.save_views(4, {"a": b"new"}, THREE)

    assert storage.save_views(4, {"a": b"other"}, THREE) == size
    assert storage.save_views(3, {"a": b"old"}, THREE) == size

    assert storage.latest_views() == (4, {"a": b"new"})


def test_two_snapshots_are_kept_and_unfinished_files_removed(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1, 1))
    for index in (2, 3, 4):
        storage.save_views(index, {}, THREE)
    for name in ("incoming.tmp", f"{9:020d}.snapshot.tmp"):
        (tmp_path / "snapshots" / name).write_bytes(b"half")

    restarted(storage)

    assert sorted(each.name for each in (tmp_path / "snapshots").iterdir()) == [
        f"{index:020d}.snapshot" for index in (3, 4)
    ]


def test_power_loss_at_any_moment_of_saving_leaves_the_old_snapshot_or_the_new() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    append(storage, [*commands(1, 1), Entry(4, 1, EntryKind.CONFIGURATION, NEW_LEARNER)])
    storage.save_views(3, {"a": b"old"}, THREE)
    start = len(fs.operations)
    storage.save_views(4, {"a": b"new"}, FOUR)
    end, seen = len(fs.operations), set()

    for done, disk in some_states(fs, most=20, start=start):
        found = founded(PATH, disk).open_storage(Config())
        latest = found.latest_views()
        is_new = latest == (4, {"a": b"new"})
        assert is_new or (latest == (3, {"a": b"old"}) and done < end)
        assert (found.applied, found.configuration()) == ((4, FOUR) if is_new else (3, THREE))
        seen.add(is_new)

    assert seen == {True, False}


# ── where the log begins ───────────────────────────────────────────────────────────────────────────


def test_log_forgets_only_what_the_views_hold(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    for index in range(2, 40):
        append(storage, batches(1, first=index))

    assert not storage.forget(1 << 40, below_index=40)
    storage.save_views(20, {}, THREE)
    assert storage.forget(1 << 40, below_index=40)

    assert 10 < storage.first_index <= 21
    assert storage.remove_forgotten() > 0
    assert storage.remove_forgotten() == 0
    first = storage.first_index
    storage = restarted(storage)
    assert (storage.first_index, storage.applied, storage.last_index) == (first, 20, 39)
    assert storage.term(first - 1) == 1


@pytest.mark.parametrize(("lowest", "below_index"), [(0, 40), (1 << 40, 2)])
def test_log_forgets_only_below_both_bounds(tmp_path: Path, lowest: int, below_index: int) -> None:
    storage = opened(tmp_path)
    for index in range(2, 40):
        append(storage, batches(1, first=index))
    storage.save_views(39, {}, THREE)

    assert not storage.forget(lowest, below_index=below_index)

    assert storage.first_index == 2


def test_snapshot_for_followers_stays_the_same_while_the_log_begins_at_one_place(tmp_path: Path) -> None:
    storage = with_snapshot(opened(tmp_path))
    snapshot = storage.snapshot()
    assert snapshot is not None
    assert (snapshot.index, snapshot.term) == (storage.first_index - 1, storage.term(storage.first_index - 1))
    data = storage.snapshot_data(snapshot, 0, 1 << 20)
    assert data is not None and len(data) == snapshot.size_bytes

    last = storage.last_index
    storage.save_views(last, {"members": b"new"}, FOUR)
    assert storage.snapshot() == snapshot
    assert storage.snapshot_data(snapshot, 7, 20) == data[7:27]

    for index in range(last + 1, last + 20):
        append(storage, batches(2, first=index))
    storage.save_views(last + 19, {"members": b"new"}, FOUR)
    assert storage.forget(1 << 40, below_index=last + 1)
    newer = storage.snapshot()
    assert newer is not None and newer.index > snapshot.index
    assert storage.snapshot_data(snapshot, 0, 1 << 20) is None
    assert storage.snapshot_data(newer, 0, 1 << 20)


def test_configuration_of_the_snapshot_is_that_where_the_log_begins(tmp_path: Path) -> None:
    storage = with_snapshot(opened(tmp_path), keep=12)
    snapshot = storage.snapshot()

    assert snapshot is not None and snapshot.configuration == THREE
    assert storage.configuration() == FOUR
