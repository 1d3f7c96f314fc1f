from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import pytest

from logstore import Config
from logstore.testing import CrashFileSystem
from raftlog.engine import NodeId
from raftlog.raft import RaftConfig, RaftNode
from raftlog.raft.log import LostEntries
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import HardState, UnreadableEntries, Write
from raftlog.storage import DamagedState
from tests.raftlog.storage.builders import (
    N1,
    SMALL,
    THREE,
    append,
    batches,
    commands,
    founded,
    joined,
    opened,
    records,
    restarted,
    with_snapshot,
)

PATH = "/data"


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
