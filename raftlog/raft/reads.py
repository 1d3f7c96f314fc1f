"""Linearizable reads without writing: the read-index of dissertation 6.4.

A leader that has committed an entry of its own term knows the latest commit index, as long as it still leads. So it notes
that index when a read arrives, sends one round of heartbeats, and answers when a quorum has replied to that round or a
later one. All reads that arrived before a round share it.

With leases (6.4.1) a leader answers at once while a quorum's replies show that no other can have been elected: followers
that heard of it give nobody their vote for election_timeout_s_min. That trusts that clocks run alike to clock_drift_max.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from raftlog.engine import NodeId

ROUNDS_MAX = 1024  # whose time of sending is remembered; the oldest are forgotten, and prove no lease


@dataclass(frozen=True, slots=True)
class WaitingRead:
    requester: NodeId
    request: int  # the requester's number
    index: int  # to have applied


class Reads:
    """Of one term of a leader."""

    __slots__ = ("_acknowledged", "_sent_at", "_waiting", "early", "round")

    early: list[tuple[NodeId, int]]  # came before this leader had committed an entry of its term
    round: int  # of the heartbeats sent last

    def __init__(self) -> None:
        self.early = []
        self.round = 0
        self._waiting: deque[tuple[int, WaitingRead]] = deque()  # with the first round that can confirm it
        self._acknowledged: dict[NodeId, int] = {}  # the highest round that each has replied to
        self._sent_at: deque[tuple[int, float]] = deque(maxlen=ROUNDS_MAX)  # that no quorum has replied to

    def __len__(self) -> int:
        return len(self.early) + len(self._waiting)

    @property
    def need_round(self) -> bool:
        """A read waits for a round that has not begun."""
        return bool(self._waiting) and self._waiting[-1][0] > self.round

    def add(self, read: WaitingRead) -> None:
        self._waiting.append((self.round + 1, read))

    def begin_round(self, now: float) -> int:
        self.round += 1
        self._sent_at.append((self.round, now))
        return self.round

    def acknowledge(self, node: NodeId, round_number: int) -> dict[NodeId, int]:
        """A node replied to a round, so it knew no later term then. Returns the latest of each."""
        if self._acknowledged.get(node, 0) < round_number <= self.round:
            self._acknowledged[node] = round_number
        return self._acknowledged

    def confirmed(self, round_number: int) -> tuple[list[WaitingRead], float | None]:
        """A quorum has replied to this round: the reads that are answered by that, and when the round was sent."""
        sent_at = None
        while self._sent_at and self._sent_at[0][0] <= round_number:
            sent_at = self._sent_at.popleft()[1]
        ready = []
        while self._waiting and self._waiting[0][0] <= round_number:
            ready.append(self._waiting.popleft()[1])
        return ready, sent_at

    def give_up(self) -> list[tuple[NodeId, int]]:
        """(requester, request) of all that wait, in the order in which they came."""
        left = [(read.requester, read.request) for _, read in self._waiting] + self.early
        self._waiting.clear()
        self.early = []
        return left


class AskedReads:
    """A follower's: those that it asked the leader for.

    Their numbers are none that an earlier life of this node has used: an answer that comes late is to no other question.
    """

    __slots__ = ("_last", "_open")

    def __init__(self, rng: Random) -> None:
        self._last = rng.getrandbits(62)
        # By number: the caller's request, and when it expires; in that order.
        self._open: dict[int, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def expire_at(self) -> float | None:
        """When the oldest one does."""
        return next(iter(self._open.values()))[1] if self._open else None

    def add(self, request: int, expires_at: float) -> int:
        """The number to ask with."""
        self._last += 1
        self._open[self._last] = (request, expires_at)
        return self._last

    def answered(self, number: int) -> int | None:
        """The request that this number stands for; None if it has ended."""
        request, _ = self._open.pop(number, (None, 0.0))
        return request

    def expired(self, now: float) -> list[int]:
        """The requests whose time is over."""
        ended = []
        while self.expire_at is not None and now >= self.expire_at:
            ended.append(self._open.pop(next(iter(self._open)))[0])
        return ended
