"""What is durable of one Raft node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, Write


class RaftDisk:
    """Implements raftlog.raft.storage.Storage, and what the world asks of a disk (raftlog/sim/disk.py).

    The views are durable only as the latest snapshot: after a restart, what follows it is applied again.
    """

    def __init__(self, bootstrap: Configuration) -> None:
        self._hard_state = HardState()
        self._commit = 0
        self._bootstrap = bootstrap  # in force before the first entry
        self._first = 1
        self._term_before = 0  # of the entry before the first
        self._log: list[Entry] = []
        self._snapshot: Snapshot | None = None
        self._data = b""  # of the snapshot
        self._incoming: tuple[Snapshot, bytes] | None = None  # a part of a snapshot, kept aside

    # ── for the node ────────────────────────────────────────────────────────────────────────────────

    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def commit(self) -> int:
        return self._commit

    def configuration(self) -> Configuration:
        return self._bootstrap if self._snapshot is None else self._snapshot.configuration

    @property
    def applied(self) -> int:
        return 0 if self._snapshot is None else self._snapshot.index

    @property
    def first_index(self) -> int:
        return self._first

    @property
    def last_index(self) -> int:
        return self._first + len(self._log) - 1

    def term(self, index: int) -> int:
        assert self._first - 1 <= index <= self.last_index, (self._first, index, self.last_index)
        return self._term_before if index == self._first - 1 else self._log[index - self._first].term

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        assert self._first <= first < end <= self.last_index + 1, (self._first, first, end, self.last_index)
        found = self._log[first - self._first : end - self._first]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if size > bytes_max and count:
                return found[:count]
        return found

    def snapshot(self) -> Snapshot | None:
        return self._snapshot

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        return self._data[position : position + bytes_max] if snapshot == self._snapshot else None

    # ── for the world ───────────────────────────────────────────────────────────────────────────────

    def write(self, write: Write) -> None:
        self._write_state(write)
        self._put(write.entries)
        if write.entries:
            self._commit = max(self._commit, write.commit)

    def write_torn(self, write: Write, random: Random) -> None:
        """All but some of the last entries; what these were to take the place of is gone."""
        if write.entries:
            self._write_state(write)
            self._put(write.entries)
            del self._log[len(self._log) - 1 - random.randrange(len(write.entries)) :]

    def _write_state(self, write: Write) -> None:
        if write.hard_state is not None:
            self._hard_state = write.hard_state
        if write.snapshot is not None:
            self._keep(write.snapshot)

    def _keep(self, part: SnapshotPart) -> None:
        data = b"" if part.position == 0 or self._incoming is None else self._incoming[1]
        assert part.position == len(data), (
            f"part at {part.position} of a snapshot, {len(data)} bytes are here"
        )
        data += part.data
        if not part.is_last:
            self._incoming = (part.snapshot, data)
            return
        assert len(data) == part.snapshot.size_bytes
        self._incoming = None
        self._snapshot, self._data = part.snapshot, data
        self._log, self._first, self._term_before = [], part.snapshot.index + 1, part.snapshot.term

    def _put(self, entries: Sequence[Entry]) -> None:
        if entries:
            first = entries[0].index
            assert self._first <= first <= self.last_index + 1, (self._first, first, self.last_index)
            del self._log[first - self._first :]
            self._log += entries

    def compact(self, snapshot: Snapshot, data: bytes, keep: int) -> None:
        """Take this for the latest snapshot, and forget the entries that it contains, but the last `keep`."""
        assert self.applied <= snapshot.index <= self.last_index
        self._snapshot, self._data = snapshot, data
        first = max(self._first, snapshot.index + 1 - keep)
        self._term_before = self.term(first - 1)
        del self._log[: first - self._first]
        self._first = first

    # ── for the checks ──────────────────────────────────────────────────────────────────────────────

    @property
    def snapshot_bytes(self) -> bytes:
        return self._data

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry with this index and term is here, or in the snapshot."""
        if index < self._first:
            return True  # only what was committed is ever left out: checked when it was
        return index <= self.last_index and self._log[index - self._first].term == term

    def configurations(self, is_live: Callable[[int, int], bool]) -> list[Configuration]:
        """Those that were, are, or may come to be in force here by what is on this disk.

        `is_live` tells of an entry's index and term whether it is committed or may still be.
        """
        configuration = self.configuration()
        found = [configuration]
        for entry in self._log[max(0, self.applied + 1 - self._first) :]:
            if entry.kind is EntryKind.CONFIGURATION and is_live(entry.index, entry.term):
                try:
                    change = ConfigurationChange.from_bytes(entry.data)
                    configuration = apply_change(configuration, change).configuration
                except InvalidChange:
                    continue  # ignored by the node, too
                found.append(configuration)
        return found

    def __repr__(self) -> str:
        return f"{self._hard_state} log {self._first}..{self.last_index} snapshot {self.applied}"
