from __future__ import annotations

import errno
from pathlib import Path

import pytest

from logstore import Config, DiskFull, LogPoisoned
from logstore.testing import CrashFileSystem
from logstore.testing.disk import Operation
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import HardState, Write
from raftlog.storage import RaftStorage
from tests.raftlog.storage.builders import (
    N1,
    NEW_LEARNER,
    SMALL,
    THREE,
    all_entries,
    append,
    batches,
    commands,
    founded,
    joined,
    opened,
    parts_of,
    restarted,
    some_states,
    with_snapshot,
)

PATH = "/data"


# ── writing ────────────────────────────────────────────────────────────────────────────────────────


def test_many_writes_are_one_append_with_one_sync() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    append(storage, commands(1))
    before = len(fs.operations)

    storage.write(
        [Write(HardState(2), entries=commands(2, 2, first=3)), Write(entries=commands(2, first=5), commit=4)]
        + [Write(HardState(3), entries=commands(3, first=index)) for index in range(6, 20)]
    )

    done = [
        (each.kind, each.path.rpartition("/")[2]) for each in fs.operations[before:] if each.kind != "map"
    ]
    store = f"{2:020d}.store"
    assert done == [
        ("write", "state-a"), ("sync", "state-a"), ("write", "state-b"), ("sync", "state-b"),
        ("write", store), ("sync", store), ("write", "commit"),
    ]  # fmt: skip
    assert all_entries(storage) == [*commands(1, 2, 2, 2), *commands(*[3] * 14, first=6)]
    assert (storage.hard_state(), storage.commit) == (HardState(3), 4)


def test_hard_state_that_is_known_is_not_written_again() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    storage.write([Write(HardState(2, N1))])
    before = len(fs.operations)

    storage.write([Write(HardState(2, N1)), Write()])

    assert fs.operations[before:] == []


def test_entries_take_the_place_of_those_with_their_indexes(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1, 1, 1))

    append(storage, commands(2, 2, first=4))

    assert all_entries(storage) == commands(1, 1, 2, 2)
    assert all_entries(restarted(storage)) == commands(1, 1, 2, 2)


@pytest.mark.parametrize("first", [2, 4, 5, 6])
def test_conflict_within_a_group_is_settled_before_anything_is_written(tmp_path: Path, first: int) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1))

    storage.write([Write(entries=commands(1, 1, first=4)), Write(entries=commands(2, 2, first=first))])

    assert all_entries(storage) == [*commands(1, 1, 1, 1)[: first - 2], *commands(2, 2, first=first)]


def test_entries_of_all_kinds_come_back_as_they_were(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    kinds = [
        Entry(2, 1, EntryKind.NO_OP, b""),
        Entry(3, 1, EntryKind.COMMAND, b"c" * 1_001),
        Entry(4, 1, EntryKind.CONFIGURATION, NEW_LEARNER),
    ]
    append(storage, [*kinds, *batches(1, first=5)])

    found = all_entries(storage)

    assert found[:3] == kinds and [type(each.kind) for each in found] == [EntryKind] * 4
    assert found[3][:3] == (5, 1, EntryKind.RECORDS)
    assert [record.value for record in storage.log.scan()] == [b"5.1", b"x" * 50]
    assert found[3].data[56:] == batches(1, first=5)[0].data[56:]  # the stamp is the disk's


def test_commit_index_survives_a_killed_process_and_is_never_above_what_a_power_loss_leaves() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    for index in range(2, 6):
        append(storage, commands(1, first=index), commit=index)

    assert founded(PATH, CrashFileSystem(fs.files())).open_storage(Config()).commit == 5
    seen = set()
    for _, disk in some_states(fs, most=10):
        found = founded(PATH, disk).open_storage(Config())
        assert found.commit <= found.last_index
        seen.add(found.commit)
    assert seen == {0, 2, 3, 4, 5}


def test_commit_index_never_goes_back(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1), commit=3)
    append(storage, commands(1, first=4), commit=2)

    assert storage.commit == 3
    assert restarted(storage).commit == 3


def test_retention_of_an_embedded_log_is_not_applied(tmp_path: Path) -> None:
    storage = opened(tmp_path, config=Config(segment_bytes_max=1_000, retention_records_max=1))
    for index in range(2, 60):
        append(storage, batches(1, first=index))

    assert restarted(storage, config=Config(retention_records_max=1)).first_index == 2


# ── a full disk ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("nth", range(1, 12))
def test_group_that_met_a_full_disk_can_be_written_again(nth: int) -> None:
    """Any write or creation of a file may be the one without room."""
    leader = with_snapshot(founded("/leader", CrashFileSystem()).open_storage(SMALL))
    parts = parts_of(leader, 200)
    fs = CrashFileSystem()
    storage = joined(PATH, fs).open_storage(SMALL)
    group = [Write(HardState(1)), *(Write(snapshot=part) for part in parts)]
    group += [Write(HardState(2), entries=all_entries(leader)[:3]), Write(entries=all_entries(leader)[3:])]
    fs.fail("write", nth=nth, error=errno.ENOSPC)
    fs.fail("create", nth=nth, error=errno.ENOSPC)

    failures = 0
    while True:
        try:
            storage.write(group)
            break
        except DiskFull:
            failures += 1
        except LogPoisoned:  # the new log was half made; the next opening makes it
            failures += 1
            storage = RaftStorage(CrashFileSystem(fs.files()), PATH, SMALL)
            assert storage.log.base == leader.log.base
            group = group[-2:]

    assert failures >= (nth < 6)
    assert all_entries(storage) == all_entries(leader)
    assert storage.hard_state() == HardState(2)
    latest = leader.latest_views()
    assert latest is not None and storage.latest_views() == latest


def test_disk_that_was_full_behind_an_install_does_not_install_again() -> None:
    leader = with_snapshot(founded("/leader", CrashFileSystem()).open_storage(SMALL))
    fs = CrashFileSystem()
    storage = joined(PATH, fs).open_storage(SMALL)
    *parts, last = (Write(snapshot=part) for part in parts_of(leader, 100))
    storage.write(parts)
    group = [last, Write(entries=all_entries(leader))]
    failed: list[Operation] = []

    def refuse_the_first_entries(operation: Operation) -> None:
        if (
            operation.kind == "write"
            and operation.path.endswith(".store")
            and operation.position
            and not failed
        ):
            failed.append(operation)
            raise OSError(errno.ENOSPC, "no room")

    fs.before_operation = refuse_the_first_entries
    with pytest.raises(DiskFull):
        storage.write(group)
    storage.write(group)

    assert failed
    assert all_entries(storage) == all_entries(leader)


def test_full_disk_leaves_the_views_snapshot_as_it_was() -> None:
    fs = CrashFileSystem()
    storage = founded(PATH, fs).open_storage(Config())
    append(storage, commands(1, 1))
    fs.fail("write", error=errno.ENOSPC)

    with pytest.raises(DiskFull):
        storage.save_views(3, {"members": b"later"}, THREE)

    assert storage.latest_views() == (1, {"members": b"first"})
    assert storage.save_views(3, {"members": b"later"}, THREE) > 0
    assert storage.latest_views() == (3, {"members": b"later"})
