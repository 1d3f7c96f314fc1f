"""The disk and the views of a node in a script of etcd's rafttest: a log, and a snapshot after every applied entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raftlog.raft.configuration import Configuration
from raftlog.raft.log import cut
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import HardState, Write


class Kept(NamedTuple):
    snapshot: Snapshot
    data: bytes


class ScriptStorage:
    """What raftlog.raft asks of a storage, and what scripts do to it. The views append what is applied to their data.

    The snapshot that is offered is always that of the last applied entry, wherever the log was compacted to.
    """

    def __init__(self, *, index: int, configuration: Configuration, data: bytes) -> None:
        """As if a snapshot at this index, of term 1, had been installed; a new disk if the index is 0."""
        self.commit = index
        self.applied = index
        self.history = [Kept(Snapshot(index, min(index, 1), configuration, len(data)), data)]
        self._hard_state = HardState()
        self._base_index = index  # of the entry before the first
        self._base_term = min(index, 1)
        self._log: list[Entry] = []
        self._arriving = b""  # of a snapshot in parts

    def hard_state(self) -> HardState:
        return self._hard_state

    def configuration(self) -> Configuration:
        return self.history[-1].snapshot.configuration

    @property
    def first_index(self) -> int:
        return self._base_index + 1

    @property
    def last_index(self) -> int:
        return self._base_index + len(self._log)

    def term(self, index: int) -> int:
        return self._base_term if index == self._base_index else self._log[index - self.first_index].term

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        assert self.first_index <= first < end <= self.last_index + 1
        return cut(self._log[first - self.first_index : end - self.first_index], bytes_max)[0]

    def all_entries(self) -> Sequence[Entry]:
        return self._log

    def snapshot(self) -> Snapshot | None:
        latest = self.history[-1].snapshot
        return latest if latest.index else None

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        for kept in self.history:
            if kept.snapshot.index == snapshot.index:
                return kept.data[position : position + bytes_max]
        return None

    def write(self, write: Write) -> None:
        if write.hard_state is not None:
            self._hard_state = write.hard_state
        part = write.snapshot
        if part is not None:
            self._arriving = self._arriving[: part.position] + part.data
            if part.is_last:
                self._base_index, self._base_term = part.snapshot.index, part.snapshot.term
                self._log = []
                self.history.append(Kept(part.snapshot, self._arriving))
        if write.entries:
            first = write.entries[0].index
            assert self.first_index <= first <= self.last_index + 1, (
                self.first_index,
                first,
                self.last_index,
            )
            self._log = [*self._log[: first - self.first_index], *write.entries]
            self.commit = max(self.commit, write.commit)

    def apply(self, entry: Entry, configuration: Configuration) -> None:
        data = self.history[-1].data
        if entry.kind is not EntryKind.CONFIGURATION:
            data += entry.data
        self.history.append(Kept(Snapshot(entry.index, entry.term, configuration, len(data)), data))

    def compact(self, index: int) -> None:
        """Forget every entry up to this one; ValueError if it is not there."""
        if not self.first_index <= index <= self.last_index:
            raise ValueError(f"entry {index} is not in the log {self.first_index}..{self.last_index}")
        self._base_term = self.term(index)
        self._log = self._log[index - self._base_index :]
        self._base_index = index
