"""The log as one reads it, in the words of the system that this one grew from."""

from __future__ import annotations

from collections.abc import Sequence

from raftlog.raft.log import RaftLog
from raftlog.raft.messages import Entry, EntryKind

NULL_ENTRY = Entry(0, 0, EntryKind.NO_OP, b"")  # what every log begins with
_ALL_BYTES = 1 << 62


class LogView:
    """Read only. Entries that a snapshot has taken the place of are not there: IndexError names the range that is."""

    __slots__ = ("_log",)

    def __init__(self, log: RaftLog) -> None:
        self._log = log

    def get(self, index: int) -> Entry:
        """The entry at `index`; 0 is the null entry."""
        if index == 0:
            return NULL_ENTRY
        self._require(index)
        return self._log.entries(index, index + 1, _ALL_BYTES)[0][0]

    def prev(self, index: int) -> Entry:
        """The entry before `index`, which may be one past the last."""
        if index < 1:
            raise IndexError(f"nothing is before entry {index}: entries are numbered from 1")
        return self.get(index - 1)

    def after(self, index: int) -> Sequence[Entry]:
        """The entries from `index` on, itself included; none when it is one past the last."""
        if index == self._log.last_index + 1:
            return ()
        self._require(index)
        found: list[Entry] = []
        while index <= self._log.last_index:
            found += self._log.entries(index, self._log.last_index + 1, _ALL_BYTES)[0]
            index = found[-1].index + 1
        return found

    def _require(self, index: int) -> None:
        first, last = self._log.first_index, self._log.last_index
        if not first <= index <= last:
            raise IndexError(f"entry {index} is not in the log, which holds {first}..{last}")

    @property
    def last_index(self) -> int:
        return self._log.last_index

    @property
    def last_term(self) -> int:
        return self._log.last_term

    @property
    def commit_index(self) -> int:
        return self._log.committed

    @property
    def last_applied(self) -> int:
        return self._log.applied

    def as_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends with (index, term) is at least as up to date as this one (paper, 5.4.1)."""
        return term > self._log.last_term or (term == self._log.last_term and index >= self._log.last_index)
