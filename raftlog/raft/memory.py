"""A storage in memory: for tests, benchmarks and simulations. What is written is there at once."""

from __future__ import annotations

from collections.abc import Sequence

from raftlog.raft.configuration import Configuration
from raftlog.raft.log import cut
from raftlog.raft.messages import Entry, Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, Write


class MemoryStorage:
    """Implements raftlog.raft.storage.Storage."""

    def __init__(self, configuration: Configuration, *, index: int = 0, term: int = 0) -> None:
        """A log that begins after entry (index, term), whose views hold everything up to there."""
        self._hard_state = HardState()
        self._commit = index
        self._snapshot = Snapshot(index, term, configuration, 0)
        self._data = b""
        self._incoming = bytearray()
        self._log: list[Entry] = []
        self._before = (index, term)  # of the first entry

    # ── what a node reads ───────────────────────────────────────────────────────────────────────────

    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def commit(self) -> int:
        return self._commit

    def configuration(self) -> Configuration:
        return self._snapshot.configuration

    @property
    def applied(self) -> int:
        return self._snapshot.index

    @property
    def first_index(self) -> int:
        return self._before[0] + 1

    @property
    def last_index(self) -> int:
        return self._before[0] + len(self._log)

    def term(self, index: int) -> int:
        position = index - self._before[0] - 1
        assert position >= -1, f"entry {index} is gone"
        return self._log[position].term if position >= 0 else self._before[1]

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        start = self._before[0] + 1
        assert start <= first < end <= start + len(self._log), (start, first, end, len(self._log))
        return cut(self._log[first - start : end - start], bytes_max)[0]

    def snapshot(self) -> Snapshot | None:
        return self._snapshot if self._snapshot.index else None

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        return self._data[position : position + bytes_max] if snapshot == self._snapshot else None

    # ── what changes it ─────────────────────────────────────────────────────────────────────────────

    def write(self, write: Write) -> None:
        """Carry out what a Persist effect asks for."""
        if write.hard_state is not None:
            self._hard_state = write.hard_state
        if write.snapshot is not None:
            self._take_part(write.snapshot)
        if write.entries:
            del self._log[write.entries[0].index - self.first_index :]
            self._log += write.entries
        self._commit = max(self._commit, write.commit)

    def _take_part(self, part: SnapshotPart) -> None:
        if part.position == 0:
            self._incoming.clear()
        assert part.position == len(self._incoming)
        self._incoming += part.data
        if part.is_last:
            self._snapshot, self._data = part.snapshot, bytes(self._incoming)
            self._log = []
            self._before = (part.snapshot.index, part.snapshot.term)

    def compact(self, snapshot: Snapshot, data: bytes) -> None:
        """The views' snapshot takes the place of the entries up to its index."""
        self._before, kept = (snapshot.index, self.term(snapshot.index)), snapshot.index - self._before[0]
        del self._log[:kept]
        self._snapshot, self._data = snapshot, data
