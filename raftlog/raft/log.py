"""What a node believes about its log: what it has, what of it is durable, committed and applied.

    applied <= applying <= min(committed, durable)      committed <= last_index      durable <= last_index

Entries below `tail_first` are read from the storage; those from there on are kept here until they are durable, because
the storage may not have them yet, or may still have others in their place; and a little longer, until they are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import Storage

ENTRY_OVERHEAD_BYTES = 16  # what an entry counts for beside its data, so that empty ones are not free
KEPT_ENTRIES_MAX = 4096  # durable entries that wait to be applied; if there are more, the storage is asked
SCAN_BYTES = 1 << 20  # read at once when the log is loaded

_data = itemgetter(3)
_kind = itemgetter(2)


class LostEntries(Exception):
    """The log ends before entries that this node had vouched for. It must not go on; replace it by a new node."""


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A configuration change in the log that is not applied yet."""

    index: int
    data: bytes


class RaftLog:
    __slots__ = (
        "_whole", "applied", "applying", "changes", "committed", "durable", "handed_end", "installing", "last_index",
        "last_term", "storage", "tail", "tail_first",
    )  # fmt: skip

    storage: Storage
    tail: list[Entry]  # the entries from tail_first on
    tail_first: int
    last_index: int
    last_term: int
    handed_end: int  # entries below it have been handed out to be written
    durable: int  # the highest index up to which the storage holds this log; moved by what was persisted
    committed: int  # the highest index known to be stored by a quorum
    applying: int  # the highest index handed out to be applied
    applied: int  # the highest index applied
    installing: Snapshot | None  # received whole and not yet durable; it is the log's beginning
    changes: list[PendingChange]  # those above `applied`, ascending

    def __init__(self, storage: Storage) -> None:
        """Raises LostEntries if the storage contradicts itself."""
        first, last = storage.first_index, storage.last_index
        self.storage = storage
        self.tail, self.tail_first = [], last + 1
        self.last_index, self.last_term = last, storage.term(last)
        self.handed_end, self.durable = last + 1, last
        self.applied = self.applying = storage.applied
        self.committed = max(storage.commit, storage.applied, first - 1)
        self.installing = None
        # What was asked for last: first, end, entries, bytes.
        self._whole: tuple[int, int, Sequence[Entry], int] | None = None
        if self.committed > last or self.applied < first - 1:
            raise LostEntries(
                f"the log holds entries {first}..{last}, but {storage.commit} was committed and {storage.applied} applied"
            )
        self.changes = []
        index = self.applied + 1
        while index <= last:
            entries = storage.entries(index, last + 1, SCAN_BYTES)
            self._note_changes(entries)
            index = entries[-1].index + 1

    @property
    def first_index(self) -> int:
        """Of the oldest entry that is kept."""
        return self.storage.first_index if self.installing is None else self.installing.index + 1

    def term(self, index: int) -> int | None:
        """Of an entry, or of the one before the first; None if it is not known (any more, or yet)."""
        position = index - self.tail_first
        if position >= 0:
            return self.tail[position].term if position < len(self.tail) else None
        if index == self.last_index:
            return self.last_term
        if self.installing is not None:
            return self.installing.term if index == self.installing.index else None
        return self.storage.term(index) if index >= self.storage.first_index - 1 else None

    def entries(self, first: int, end: int, bytes_max: int) -> tuple[Sequence[Entry], int]:
        """Entries first..end-1, cut after the last that fits, at least one; and their bytes. All must be there."""
        # More cannot fit, so nothing is done for what is beyond.
        end = min(end, first + bytes_max // ENTRY_OVERHEAD_BYTES + 1)
        # The followers of a leader are mostly sent the same, and it applies that.
        known = self._whole
        if known is not None and known[0] == first and known[1] == end and known[3] <= bytes_max:
            return known[2:]
        assert self.first_index <= first < end <= self.last_index + 1, (first, end)
        if first >= self.tail_first:
            found, size = cut(self.tail[first - self.tail_first : end - self.tail_first], bytes_max)
        else:
            middle = min(end, self.tail_first)
            found, size = cut(self.storage.entries(first, middle, bytes_max), bytes_max)
            if end > middle and found[-1].index + 1 == middle:
                more, more_size = cut(self.tail[: end - middle], bytes_max - size)
                if size + more_size <= bytes_max:
                    found, size = [*found, *more], size + more_size
        if found[-1].index + 1 == end:
            self._whole = (first, end, found, size)
        return found, size

    # ── growing ─────────────────────────────────────────────────────────────────────────────────────

    def append(self, entries: Sequence[Entry], *, has_changes: bool = True) -> None:
        """Entries that follow the last one; `has_changes`: configuration changes may be among them."""
        assert entries[0].index == self.last_index + 1
        self.tail.extend(entries)
        self.last_index, self.last_term = entries[-1].index, entries[-1].term
        if has_changes:
            self._note_changes(entries)

    def _note_changes(self, entries: Sequence[Entry]) -> None:
        if EntryKind.CONFIGURATION in map(_kind, entries):
            self.changes += [
                PendingChange(e.index, e.data) for e in entries if e.kind == EntryKind.CONFIGURATION
            ]

    def matches(self, index: int, term: int) -> bool:
        return self.term(index) == term

    def first_conflict(self, entries: Sequence[Entry]) -> int:
        """The position in `entries` of the first that this log does not have; len(entries) if it has them all."""
        known_end = self.last_index + 1
        for position, entry in enumerate(entries):
            if entry.index >= known_end or self.term(entry.index) != entry.term:
                return position
        return len(entries)

    def truncate(self, end: int) -> None:
        """Forget every entry at or above `end`; none of them is committed."""
        assert self.committed < end <= self.last_index, f"entry {end} is committed (up to {self.committed})"
        if end > self.tail_first:
            del self.tail[end - self.tail_first :]
        else:
            self.tail.clear()
            self.tail_first = end
        term = self.term(end - 1)
        assert term is not None
        self.last_index, self.last_term = end - 1, term
        self.handed_end = min(self.handed_end, end)
        self.durable = min(self.durable, end - 1)
        self._whole = None
        while self.changes and self.changes[-1].index >= end:
            self.changes.pop()

    def match_below(self, index: int, term: int) -> tuple[int, int]:
        """The highest index <= `index` whose term is <= `term`, and its term: no entry above it can match a log that
        has `term` at `index`. Where this log does not reach so low: the highest index it does not know, and 0.

        Source: etcd raft's findConflictByTerm; as terms ascend, it can be searched by halves.
        """
        low, high = self.first_index - 1, min(index, self.last_index)
        if high < low:
            return high, 0
        lowest = self.term(low)
        assert lowest is not None
        if lowest > term:
            return max(low - 1, 0), 0
        while low < high:  # term(low) <= term, always
            middle = (low + high + 1) // 2
            if (self.term(middle) or 0) <= term:
                low = middle
            else:
                high = middle - 1
        return low, self.term(low) or 0

    # ── committing, persisting, applying ────────────────────────────────────────────────────────────

    def commit_to(self, index: int) -> None:
        """Raises LostEntries, and nothing is changed, if the log does not reach that far."""
        if index > self.committed:
            if index > self.last_index:
                raise LostEntries(
                    f"entries up to {index} are committed and were durable here, but the log ends at {self.last_index}"
                )
            self.committed = index

    def hand_out(self) -> Sequence[Entry]:
        """The entries that have not been handed out to be written."""
        entries = self.tail[self.handed_end - self.tail_first :]
        self.handed_end = self.last_index + 1
        return entries

    def persisted_to(self, index: int) -> None:
        """The storage holds this log up to `index`."""
        if index > self.durable:
            self.durable = index
            self._forget()

    def _forget(self) -> None:
        """Leave to the storage what it holds; but not at once, because it will be applied soon."""
        last = self.durable
        if last > self.applying and last - self.applying <= KEPT_ENTRIES_MAX:
            last = self.applying
        if last >= self.tail_first:
            del self.tail[: last + 1 - self.tail_first]
            self.tail_first = last + 1

    def next_to_apply(self, bytes_max: int) -> tuple[Sequence[Entry], int]:
        """Committed, durable entries that have not been handed out, and their bytes."""
        end = min(self.committed, self.durable) + 1
        if self.installing is not None or self.applying + 1 >= end:
            return (), 0
        entries, size = self.entries(self.applying + 1, end, bytes_max)
        self.applying = entries[-1].index
        self._forget()
        return entries, size

    def applied_to(self, index: int) -> list[PendingChange]:
        """Returns the configuration changes that are applied by this, in order."""
        assert self.applied <= index <= self.applying, (self.applied, index, self.applying)
        self.applied = index
        applied = []
        while self.changes and self.changes[0].index <= index:
            applied.append(self.changes.pop(0))
        return applied

    @property
    def has_unapplied_change(self) -> bool:
        """A configuration change is committed and not in force yet."""
        return bool(self.changes) and self.changes[0].index <= self.committed

    # ── snapshots ───────────────────────────────────────────────────────────────────────────────────

    def install(self, snapshot: Snapshot) -> None:
        """The log begins anew after the snapshot, whose index is above `committed`."""
        assert snapshot.index > self.committed
        self.installing = snapshot
        self.tail, self.tail_first = [], snapshot.index + 1
        self.last_index, self.last_term = snapshot.index, snapshot.term
        self.handed_end = snapshot.index + 1
        # Of the log that was; the snapshot's once it is persisted.
        self.durable = min(self.durable, self.applying)
        self.committed = snapshot.index
        self.changes = []
        self._whole = None

    def installed(self, snapshot: Snapshot) -> None:
        """It is durable, and the views are what it says."""
        self.applied = self.applying = max(self.applied, snapshot.index)
        if self.installing is not None and self.installing.index == snapshot.index:
            self.installing = None
        self.persisted_to(snapshot.index)


def cut(entries: Sequence[Entry], bytes_max: int) -> tuple[Sequence[Entry], int]:
    """The first entries that fit, at least one, and their bytes."""
    size = sum(map(len, map(_data, entries))) + ENTRY_OVERHEAD_BYTES * len(entries)
    if size <= bytes_max or len(entries) == 1:
        return entries, size
    size = count = 0
    for entry in entries:
        more = size + len(entry.data) + ENTRY_OVERHEAD_BYTES
        if more > bytes_max and count:
            break
        size, count = more, count + 1
    return entries[:count], size
