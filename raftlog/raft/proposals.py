"""What became of the requests to append: never a false answer.

A proposal is known to be committed when its index is committed and the entry there has its term; to be dropped when the
index is committed with another. That its entry was cut from *this* log says nothing: another node may hold it still, win
an election and commit it (as in figure 8 of the paper). So proposals outlive the leadership that appended them for a
while, and then end as unknown.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from raftlog.engine import Reply
from raftlog.raft.events import Committed, Dropped, Unknown
from raftlog.raft.log import RaftLog


class _Waiting(NamedTuple):
    last: int
    number: int  # of the proposal: none is compared further
    first: int
    term: int
    request: int


class Proposals:
    """Those that were appended here and whose outcome is not known."""

    __slots__ = ("_number", "_waiting", "expire_at")

    expire_at: float | None  # when they end as unknown; None while this node leads

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []  # a heap
        self._number = 0
        self.expire_at = None

    def __len__(self) -> int:
        return len(self._waiting)

    def appended(self, request: int, first: int, last: int, term: int) -> None:
        self._number += 1
        heappush(self._waiting, _Waiting(last, self._number, first, term, request))

    def resolve(self, log: RaftLog) -> list[Reply]:
        """The outcomes of all that are below the commit index now."""
        waiting, committed = self._waiting, log.committed
        replies = []
        while waiting and waiting[0].last <= committed:
            last, _, first, term, request = heappop(waiting)
            first_term, last_term = log.term(first), log.term(last)
            if first_term == term == last_term:
                replies.append(Reply(request, Committed(first, last, term)))
            elif first_term is None or first_term == term:
                replies.append(Reply(request, Unknown()))  # hidden in a snapshot; or only a part is there
            else:
                replies.append(Reply(request, Dropped()))
        return replies

    def give_up(self) -> list[Reply]:
        """All that are left end as unknown."""
        replies = [Reply(waiting.request, Unknown()) for waiting in sorted(self._waiting)]
        self._waiting.clear()
        self.expire_at = None
        return replies
