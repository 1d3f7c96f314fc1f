"""Builders of what the tests of the storage are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from logstore import Config, RecordBatch
from logstore.filesystem import FileSystem, OsFileSystem
from logstore.testing import CrashFileSystem
from raftlog.engine import NodeId
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import SnapshotPart, Write
from raftlog.storage import DataDirectory, RaftStorage
from tests.raftlog.raft.builders import change

N1, N2, N3, N4 = (NodeId(f"n{number}") for number in range(1, 5))
CLUSTER, OTHER_CLUSTER = "7d5d1b5c-0000-4000-8000-000000000001", "7d5d1b5c-0000-4000-8000-000000000002"
THREE = Configuration((N1, N2, N3))
FOUR = Configuration(THREE.voters, learners=(N4,))
NEW_LEARNER = change((ChangeKind.ADD_LEARNER, N4)).to_bytes()
SMALL = Config(segment_bytes_max=1_000, spare_segments_max=0)  # a segment is full after a few entries


class Fields(NamedTuple):
    address: str


MEMBERS = {node: Fields(f"{node}.test:8400") for node in (N1, N2, N3)}
ADDRESSES = {node: f"{node}.test:8400" for node in (N1, N2, N3)}


def founded(path: str, filesystem: FileSystem | None = None, *, node: NodeId = N1) -> DataDirectory:
    """A node that begins a cluster of three."""
    directory = DataDirectory.open(path, node_name=node, filesystem=filesystem)
    directory.bootstrap(CLUSTER, MEMBERS, {"members": b"first"})
    return directory


def joined(path: str, filesystem: FileSystem | None = None, *, node: NodeId = N4) -> DataDirectory:
    """A node that waits for a leader to send everything."""
    directory = DataDirectory.open(path, node_name=node, filesystem=filesystem)
    directory.join(CLUSTER, ADDRESSES)
    return directory


def records(*values: bytes, time: int = 0) -> bytes:
    """A frame as a leader proposes it."""
    frame = bytearray(RecordBatch.encode(list(values)).to_bytes())
    frame[32:40] = time.to_bytes(8, "little")
    return bytes(frame)


def commands(*terms: int, first: int = 2) -> list[Entry]:
    """One entry per term; those of the same index and term have the same data."""
    return [
        Entry(index, term, EntryKind.COMMAND, b"%d.%d" % (index, term))
        for index, term in enumerate(terms, first)
    ]


def batches(*terms: int, first: int = 2) -> list[Entry]:
    """As `commands`, of two records each."""
    return [
        Entry(index, term, EntryKind.RECORDS, records(b"%d.%d" % (index, term), b"x" * 50, time=index * 10))
        for index, term in enumerate(terms, first)
    ]


def all_entries(storage: RaftStorage) -> list[Entry]:
    if storage.first_index > storage.last_index:
        return []
    return list(storage.entries(storage.first_index, storage.last_index + 1, 1 << 30))


def parts_of(storage: RaftStorage, size: int) -> list[SnapshotPart]:
    """The snapshot that this node would send, cut into pieces."""
    snapshot = storage.snapshot()
    assert snapshot is not None
    return [
        SnapshotPart(snapshot, position, data, position + size >= snapshot.size_bytes)
        for position in range(0, snapshot.size_bytes, size)
        if (data := storage.snapshot_data(snapshot, position, size)) is not None
    ]


def append(storage: RaftStorage, entries: Sequence[Entry], *, commit: int = 0) -> None:
    storage.write([Write(entries=entries, commit=commit)])


def some_states(fs: CrashFileSystem, *, most: int, start: int = 0) -> Iterator[tuple[int, CrashFileSystem]]:
    """(operations done, what a power loss then leaves) for every moment, and of each at most so many states."""
    for point in fs.crash_points(start, cut_bytes=64):
        step = -(-point.count // most)
        for number in {*range(0, point.count, step), point.count - 1}:
            yield point.operation_count, point.state(number)


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
