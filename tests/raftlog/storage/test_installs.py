from __future__ import annotations

from pathlib import Path

import pytest

from logstore import Config
from logstore.testing import CrashFileSystem
from raftlog.raft.configuration import ChangeKind
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import SnapshotPart, Write
from raftlog.storage import BadSnapshot
from tests.raftlog.raft.builders import change
from tests.raftlog.storage.builders import (
    FOUR,
    N1,
    N2,
    SMALL,
    THREE,
    all_entries,
    append,
    commands,
    founded,
    frames_of,
    joined,
    opened,
    parts_of,
    restarted,
    send_everything,
    some_states,
    with_snapshot,
)

PATH = "/data"


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
