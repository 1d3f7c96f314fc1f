from __future__ import annotations

import errno
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from logstore import Config, DiskFull, LogPoisoned
from logstore.filesystem import OsFileSystem
from logstore.testing import CrashFileSystem
from logstore.testing.disk import Operation
from raftlog.engine import NodeId
from raftlog.raft import RaftConfig, RaftNode
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.log import LostEntries
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, UnreadableEntries, Write
from raftlog.storage import BadSnapshot, DamagedState, RaftStorage
from tests.raftlog.raft.builders import change
from tests.raftlog.storage.builders import (
    N1,
    N2,
    N4,
    SMALL,
    THREE,
    all_entries,
    append,
    batches,
    commands,
    founded,
    joined,
    parts_of,
    records,
    some_states,
)

PATH = "/data"
FOUR = Configuration(THREE.voters, learners=(N4,))
NEW_LEARNER = change((ChangeKind.ADD_LEARNER, N4)).to_bytes()


def opened(path: Path | str, *, config: Config = SMALL) -> RaftStorage:
    directory = founded(str(path))
    try:
        return directory.open_storage(config)
    finally:
        directory.close()


def restarted(storage: RaftStorage, *, config: Config = SMALL) -> RaftStorage:
    """The same files, opened by another process; they lie on a real disk."""
    storage.close()
    return RaftStorage(OsFileSystem(), storage.path, config)


def with_snapshot(storage: RaftStorage, *, entry_count: int = 20, keep: int = 5) -> RaftStorage:
    """Entries with records, views that hold most of them, and a log that begins later."""
    entries = [
        *batches(*[1] * (entry_count // 2)),
        Entry(2 + entry_count // 2, 1, EntryKind.CONFIGURATION, NEW_LEARNER),
        *batches(*[2] * (entry_count // 2), first=3 + entry_count // 2),
    ]
    for number in range(0, len(entries), 3):
        append(storage, entries[number : number + 3], commit=storage.last_index)
    index = storage.last_index - 2
    storage.save_views(index, {"members": b"members", "cursors": b"c" * 100}, FOUR)
    assert storage.forget(1 << 40, below_index=index + 1 - keep)
    storage.remove_forgotten()
    return storage


def frames_of(storage: RaftStorage) -> bytes:
    return b"".join(frame for each in storage.log.frames() for frame in [bytes(each.data)])


def send_everything(leader: RaftStorage, follower: RaftStorage, *, part_bytes: int = 100) -> None:
    """What a leader does for one that is far behind: its snapshot, and then its log."""
    for part in parts_of(leader, part_bytes):
        follower.write([Write(snapshot=part)])
    append(follower, all_entries(leader))


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────


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


# ── a full disk ─────────────────────────────────────────────────────────────────────────────────────


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


# ── snapshots of the views ──────────────────────────────────────────────────────────────────────────


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


# ── where the log begins ────────────────────────────────────────────────────────────────────────────


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


# ── taking the place of another log ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part_bytes", [37, 100, 1 << 20])
def test_follower_that_was_sent_everything_has_the_leaders_frames(tmp_path: Path, part_bytes: int) -> None:
    leader = with_snapshot(opened(tmp_path / "leader"))
    follower = joined(str(tmp_path / "follower")).open_storage(Config())

    send_everything(leader, follower, part_bytes=part_bytes)

    assert follower.log.base == leader.log.base
    assert (follower.log.start, follower.log.end) == (leader.log.start, leader.log.end)
    assert frames_of(follower) == frames_of(leader) != b""
    assert all_entries(follower) == all_entries(leader)
    assert follower.latest_views() == leader.latest_views()
    follower = restarted(follower, config=Config())
    assert (follower.applied, follower.configuration()) == (leader.views_index, FOUR)
    assert frames_of(follower) == frames_of(leader)


def test_until_its_log_reaches_the_views_a_follower_says_that_the_base_is_applied(tmp_path: Path) -> None:
    leader = with_snapshot(opened(tmp_path / "leader"), keep=12)
    base, index = leader.first_index - 1, leader.views_index
    follower = joined(str(tmp_path / "follower")).open_storage(SMALL)
    for part in parts_of(leader, 100):
        follower.write([Write(snapshot=part)])

    for end in (base, base + 1, index - 1, index, index + 1):
        if end > follower.last_index:
            append(follower, leader.entries(follower.last_index + 1, end + 1, 1 << 30))
        follower = restarted(follower)
        has_reached = end >= index
        assert (follower.applied, follower.views_index) == (index if has_reached else base, index)
        assert follower.configuration() == (FOUR if has_reached else THREE)


def test_what_is_installed_takes_the_place_of_the_log_that_was() -> None:
    leader = with_snapshot(founded("/leader", CrashFileSystem()).open_storage(SMALL))
    fs = CrashFileSystem()
    follower = founded(PATH, fs, node=N2).open_storage(SMALL)
    append(follower, commands(*[1] * 28))  # longer than what comes, and not committed
    append(follower, [Entry(30, 1, EntryKind.CONFIGURATION, change((ChangeKind.REMOVE, N1)).to_bytes())])
    follower.save_views(3, {"members": b"old"}, THREE)

    *parts, last = (Write(snapshot=part) for part in parts_of(leader, 100))
    follower.write(parts)
    follower.write([Write(entries=commands(1, first=31)), last])

    assert all_entries(follower) == []
    append(follower, all_entries(leader))
    assert all_entries(follower) == all_entries(leader)
    assert follower.latest_views() == leader.latest_views()
    assert [name for name in fs.files() if name.startswith("/data/snapshots/")] == [
        f"/data/snapshots/{leader.views_index:020d}.snapshot"
    ]
    append(follower, commands(*[3] * 10, first=leader.last_index + 1))
    follower.save_views(31, {}, FOUR)  # the change at 30 has gone with its log


def test_power_loss_at_any_moment_of_an_install_leaves_the_old_log_or_the_new() -> None:
    leader = with_snapshot(founded("/leader", CrashFileSystem()).open_storage(SMALL))
    fs = CrashFileSystem()
    follower = founded(PATH, fs, node=N2).open_storage(SMALL)
    old = commands(*[1] * 30)
    append(follower, old, commit=3)
    follower.save_views(3, {"members": b"old"}, THREE)
    start = len(fs.operations)
    for part in parts_of(leader, 150):
        follower.write([Write(snapshot=part)])
    end, seen = len(fs.operations), set()

    for done, disk in some_states(fs, most=12, start=start):
        found = founded(PATH, disk, node=N2).open_storage(SMALL)
        is_new = found.log.base == leader.log.base
        seen.add(is_new)
        if is_new:
            assert found.last_index == found.log.base.index == found.applied
            assert found.latest_views() == leader.latest_views()
            append(found, all_entries(leader))
            assert frames_of(found) == frames_of(leader)
        else:
            assert done < end
            assert all_entries(found) == old
            assert (found.latest_views(), found.applied) == ((3, {"members": b"old"}), 3)

    assert seen == {True, False}


def test_snapshot_that_is_not_what_it_claims_is_refused_and_the_log_stays(tmp_path: Path) -> None:
    leader = with_snapshot(opened(tmp_path / "leader"))
    (part,) = parts_of(leader, 1 << 20)
    snapshot, data = part.snapshot, part.data
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    views_of_its_own = (
        tmp_path / "leader" / "snapshots" / f"{leader.views_index:020d}.snapshot"
    ).read_bytes()
    other = Snapshot(snapshot.index - 1, snapshot.term, snapshot.configuration, snapshot.size_bytes)
    bad = [
        SnapshotPart(snapshot, 0, flipped, True),
        SnapshotPart(snapshot, 0, data[:-1], True),
        SnapshotPart(snapshot, 0, data + b"\0", True),
        SnapshotPart(snapshot, 10, data[10:], True),
        SnapshotPart(other, 0, data, True),
        SnapshotPart(
            Snapshot(snapshot.index, snapshot.term, THREE, len(views_of_its_own)), 0, views_of_its_own, True
        ),
    ]

    for number, each in enumerate(bad):
        follower = joined(str(tmp_path / str(number))).open_storage(SMALL)
        with pytest.raises(BadSnapshot):
            follower.write([Write(snapshot=each)])
        assert (follower.log.base.index, follower.last_index) == (0, 0)
        assert restarted(follower).latest_views() is None


def test_part_that_comes_again_and_a_snapshot_that_begins_anew_are_taken(tmp_path: Path) -> None:
    leader = with_snapshot(opened(tmp_path / "leader"))
    follower = joined(str(tmp_path / "follower")).open_storage(SMALL)
    parts = parts_of(leader, 100)

    for part in (parts[0], parts[1], parts[0], parts[1], parts[1], *parts[2:]):
        follower.write([Write(snapshot=part)])

    assert follower.latest_views() == leader.latest_views()


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)


def test_older_snapshot_serves_where_the_newest_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1, 1))
    for index in (3, 5):
        storage.save_views(index, {"a": b"%d" % index}, THREE)
    storage.close()
    flip(tmp_path / "snapshots" / f"{5:020d}.snapshot", -1)

    with caplog.at_level(logging.ERROR):
        storage = opened(tmp_path)

    assert (storage.latest_views(), storage.applied) == ((3, {"a": b"3"}), 3)
    assert "damaged snapshot" in caplog.text
    storage.save_views(5, {"a": b"again"}, THREE)
    assert restarted(storage).latest_views() == (5, {"a": b"again"})


def test_log_that_no_snapshot_leads_to_is_refused(tmp_path: Path) -> None:
    storage = with_snapshot(opened(tmp_path))
    index = storage.views_index
    storage.close()
    flip(tmp_path / "snapshots" / f"{index:020d}.snapshot", 30)

    with pytest.raises(DamagedState, match="no snapshot that can be read"):
        opened(tmp_path)

    opened_again = founded(str(tmp_path))
    opened_again.set_aside("no snapshot")
    assert opened_again.open_storage(SMALL).last_index == 0


def test_log_whose_end_is_not_known_is_refused(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, batches(1, 1, 1))
    append(storage, batches(1, first=5))
    storage.close()
    flip(tmp_path / "log" / f"{2:020d}.store", 150)

    with pytest.raises(DamagedState, match="the log is damaged"):
        opened(tmp_path)


def test_damaged_entry_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    storage = opened(tmp_path, config=Config())
    append(storage, [Entry(index, 1, EntryKind.COMMAND, b"c" * 500) for index in range(2, 8)])
    storage.save_views(7, {}, THREE)
    storage.close()
    flip(tmp_path / "log" / f"{2:020d}.store", 96 + 24 + 2 * 608 + 300)

    storage = opened(tmp_path, config=Config())

    assert [entry.index for entry in storage.entries(2, 8, 1 << 20)] == [2, 3]
    with pytest.raises(UnreadableEntries, match="entry 4"):
        storage.entries(4, 8, 1 << 20)
    assert [entry.index for entry in storage.entries(5, 8, 1 << 20)] == [5, 6, 7]


def test_node_whose_log_lost_what_it_had_applied_does_not_start(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1, 1))
    storage.save_views(5, {}, THREE)
    storage.log.truncate_entries(4)

    with pytest.raises(LostEntries):
        RaftNode(N1, RaftConfig(), restarted(storage), Random(1))


def test_node_whose_log_lost_what_was_committed_does_not_start(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    append(storage, commands(1, 1, 1, 1), commit=5)
    storage.log.truncate_entries(4)

    with pytest.raises(LostEntries):
        RaftNode(N1, RaftConfig(), restarted(storage), Random(1))


def test_entries_without_a_snapshot_before_them_are_refused(tmp_path: Path) -> None:
    storage = joined(str(tmp_path)).open_storage(SMALL)
    append(storage, [Entry(1, 1, EntryKind.NO_OP, b"")])

    with pytest.raises(DamagedState):
        restarted(storage)


def test_frame_that_was_damaged_on_its_way_is_not_written(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    data = bytearray(records(b"value"))
    data[-1] ^= 1

    with pytest.raises(ValueError, match="checksum|CRC"):
        append(storage, [Entry(2, 1, EntryKind.RECORDS, bytes(data))])

    assert storage.last_index == 1


def test_name_of_a_node_may_be_as_long_as_names_are() -> None:
    node = NodeId("n" * 63)
    storage = founded(PATH, CrashFileSystem()).open_storage(Config())
    storage.write([Write(HardState(1, node))])

    assert storage.hard_state() == HardState(1, node)
