"""What became of the requests to append: never a false answer.

A proposal is known to be committed when its index is committed and the entry there has its term; to be dropped when the
index is committed with another, or when anything of a later term is committed before it (terms ascend in a log). That
its entry was cut from *this* log says nothing: another node may hold it still, win an election and commit it (as in
figure 8 of the paper). So proposals outlive the leadership that appended them for a while, and then end as unknown.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

from raftlog.engine import Reply
from raftlog.raft.events import Committed, Dropped, Outcome, Unknown
from raftlog.raft.log import RaftLog


class _Waiting(NamedTuple):
    last: int
    number: int  # of the proposal: none is compared further
    first: int
    term: int
    request: int


class Proposals:
    """Those that were appended here and whose outcome is not known."""

    __slots__ = ("_committed_term", "_number", "_waiting", "expire_at")

    expire_at: float | None  # when they end as unknown; None while this node leads

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []  # a heap
        self._number = 0
        self._committed_term = 0  # of the latest entry known to be committed
        self.expire_at = None

    def __len__(self) -> int:
        return len(self._waiting)

    def appended(self, request: int, first: int, last: int, term: int) -> None:
        self._number += 1
        heappush(self._waiting, _Waiting(last, self._number, first, term, request))

    def resolve(self, log: RaftLog) -> list[Reply]:
        """The outcomes that the commit index tells now."""
        waiting, committed = self._waiting, log.committed
        replies = []
        while waiting and waiting[0].last <= committed:
            replies.append(Reply(waiting[0].request, _outcome(waiting[0], log)))
            heappop(waiting)
        term = log.term(committed) or 0
        if term > self._committed_term:  # once per term
            self._committed_term = term
            overruled = sorted(each for each in waiting if each.term < term)
            self._waiting = [each for each in waiting if each.term >= term]
            heapify(self._waiting)
            replies += [Reply(each.request, _outcome(each, log)) for each in overruled]
        return replies

    def give_up(self) -> list[Reply]:
        """All that are left end as unknown."""
        replies = [Reply(waiting.request, Unknown()) for waiting in sorted(self._waiting)]
        self._waiting.clear()
        self.expire_at = None
        return replies


def _outcome(proposal: _Waiting, log: RaftLog) -> Outcome:
    """Of one whose place is committed, up to its last index or with a later term before that."""
    if proposal.first > log.committed:
        return Dropped()
    first_term = log.term(proposal.first)
    if first_term is None:
        return Unknown()  # hidden in a snapshot
    if first_term != proposal.term:
        return Dropped()
    if log.term(proposal.last) != proposal.term or proposal.last > log.committed:
        return Unknown()  # only a part of it is there
    return Committed(proposal.first, proposal.last, proposal.term)
