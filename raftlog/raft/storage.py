"""What a node needs of the disk: to read what is there, and what is to be written, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration
from raftlog.raft.messages import Entry, Snapshot


class UnreadableEntries(Exception):
    """The storage cannot give these entries now. What needs them waits; all else goes on."""


class HardState(NamedTuple):
    """What must survive a crash beside the log."""

    term: int = 0
    vote: NodeId | None = None  # for whom in this term


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """Bytes of a snapshot that is being received, to be kept aside from `position` on.

    Position 0 begins anew. With `is_last` it is whole, and takes the place of the log and the views at once: either both
    are as before, or the log begins after the snapshot's index.
    """

    snapshot: Snapshot
    position: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Write:
    """What a `Persist` effect carries; all of it is durable, or none, or a prefix of the entries.

    The order is: hard state, then snapshot part, then entries. Entries take the place of everything at and above the
    index of the first. `commit` is written with the entries and as durable as they are; without any it need not be
    written. (A node whose log holds a configuration change knows by it that the change before was committed. Without
    that it could campaign under a configuration two changes old, whose majorities need not meet those of today. Where
    only a prefix of the entries is durable, RaftNode concludes it from the changes in the log.)
    """

    hard_state: HardState | None = None  # None: as it was
    snapshot: SnapshotPart | None = None
    entries: Sequence[Entry] = ()
    commit: int = 0  # the highest index known to be committed


class Storage(Protocol):
    """What is durable. It changes only by the writes that the node hands out, and by compaction from below."""

    def hard_state(self) -> HardState:
        """What was written last."""

    @property
    def commit(self) -> int:
        """Of the last write with entries that is whole; a lower bound of what is committed."""

    def configuration(self) -> Configuration:
        """In force at `applied`; without members if it is not known.

        It is known to those that begin a cluster together. Who joins one later learns it from a snapshot, and leads
        nobody before: so a cluster should begin with a snapshot (at any index above 0), which every newcomer is sent.
        """

    @property
    def applied(self) -> int:
        """Up to where the views hold entries durably; at least the snapshot's index. Read once, at the start."""

    @property
    def first_index(self) -> int:
        """Of the log; last_index + 1 when it is empty."""

    @property
    def last_index(self) -> int: ...

    def term(self, index: int) -> int:
        """Of an entry; first_index - 1 <= index <= last_index (that of the entry before the first is kept)."""

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        """Entries first..end-1, all there, cut after the last that fits bytes_max of data; at least one.

        UnreadableEntries if the first is damaged on the disk, perhaps until a replica has mended it.
        """

    def snapshot(self) -> Snapshot | None:
        """The latest one, at or above first_index - 1; None if there is none at this time."""

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        """A part of its data; None if that snapshot is not kept any more."""
