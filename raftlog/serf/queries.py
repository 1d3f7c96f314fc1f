"""Queries: a question to all or some members, and the answers that come within a time.

A query is told to everybody as a user event is. Who it is for sends an acknowledgement, if one is wanted, and an answer
straight to whoever asked, in packets that may be lost; copies relayed by others (`relay_factor`) make that less likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from raftlog.serf import expressions
from raftlog.serf.config import SerfConfig
from raftlog.serf.events import QueryResult
from raftlog.serf.lamport import LamportClock
from raftlog.serf.messages import Query, QueryResponse, TagFilter

IDS_PER_TIME_MAX: Final = 256  # remembered; more queries of one Lamport time are taken for known
OPEN_MAX: Final = 1024  # queries that came and may still be answered; beyond it the oldest cannot be any more
EXPRESSION_LENGTH_MAX: Final = 256  # of a filter; a longer one matches nothing


def timeout_s(config: SerfConfig, members: int) -> float:
    """How long a query is open if nothing is said about it."""
    return config.swim.gossip_interval_s * config.query_timeout_mult * math.ceil(math.log10(members + 1))


def is_for(query: Query, name: str, tags: Mapping[str, str]) -> bool:
    """Whether the member with this name and these tags is asked."""
    return all(name in names for names in query.node_filters) and all(
        matches(tag_filter, tags) for tag_filter in query.tag_filters
    )


def matches(tag_filter: TagFilter, tags: Mapping[str, str]) -> bool:
    """Whether the tag has a part that the expression describes; a tag that is missing is empty, as in Go."""
    if len(tag_filter.expression) > EXPRESSION_LENGTH_MAX:
        return False
    try:
        return expressions.search(tag_filter.expression, tags.get(tag_filter.tag, ""))
    except expressions.BadExpression:
        return False


@dataclass(slots=True)
class Running:
    """A query of this node."""

    query: Query
    ends_at: float
    names_max: int  # who may answer; more answers than there were members are made up
    expected: frozenset[str] | None  # who is asked; None: nobody knows, wait until it ends
    on_end: Callable[[QueryResult], None]
    acks: dict[str, None] = field(default_factory=dict)  # in the order of coming
    responses: dict[str, bytes] = field(default_factory=dict)

    def take(self, response: QueryResponse) -> bool:
        """False if it was known or is one too many."""
        known: Mapping[str, object] = self.acks if response.is_ack else self.responses
        if response.node in known or len(known) >= self.names_max:
            return False
        if response.is_ack:
            if not self.query.wants_ack:
                return False
            self.acks[response.node] = None
        else:
            self.responses[response.node] = response.payload
        return True

    @property
    def has_all(self) -> bool:
        if self.expected is None:
            return False
        return self.expected <= self.responses.keys() and (
            not self.query.wants_ack or self.expected <= self.acks.keys()
        )

    def result(self) -> QueryResult:
        return QueryResult(tuple(self.acks), dict(self.responses))


@dataclass(frozen=True, slots=True)
class Open:
    """A query that came and may be answered once."""

    query: Query
    ends_at: float


class Queries:
    """Which queries were seen, which of this node run, which of others wait for this node's answer."""

    def __init__(self, times: int) -> None:
        self.clock = LamportClock()
        self._times = times
        self._seen: dict[int, set[int]] = {}  # Lamport time -> ids
        self.running: dict[tuple[int, int], Running] = {}  # by time and id
        self._open: dict[tuple[int, int], Open] = {}  # in the order of coming

    def take(self, query: Query) -> bool:
        """True if it is new here: to be looked at and passed on."""
        self.clock.witness(query.time)
        oldest_kept = self.clock.time - self._times
        if query.time < oldest_kept:
            return False
        ids = self._seen.setdefault(query.time, set())
        if query.id in ids or len(ids) >= IDS_PER_TIME_MAX:
            return False
        ids.add(query.id)
        if len(self._seen) > self._times:
            for time in sorted(self._seen):
                if time < oldest_kept:
                    del self._seen[time]
        return True

    # ── this node's own ──

    def begin(self, running: Running) -> None:
        self.running[running.query.time, running.query.id] = running

    def answered(self, response: QueryResponse, now: float) -> Running | None:
        """The query that has all its answers with this one."""
        running = self.running.get((response.time, response.id))
        if running is None or now >= running.ends_at or not running.take(response) or not running.has_all:
            return None
        return self.running.pop((response.time, response.id))

    def ended(self, now: float) -> list[Running]:
        """Queries whose time is over."""
        over = [key for key, running in self.running.items() if now >= running.ends_at]
        return [self.running.pop(key) for key in over]

    @property
    def deadline(self) -> float:
        return min((running.ends_at for running in self.running.values()), default=math.inf)

    # ── others' ──

    def open(self, query: Query, now: float, *, timeout_s: float) -> None:
        """It may be answered once, until its time is over."""
        for key in [key for key, one in self._open.items() if now >= one.ends_at]:
            del self._open[key]
        while len(self._open) >= OPEN_MAX:
            del self._open[next(iter(self._open))]
        self._open[query.time, query.id] = Open(query, now + timeout_s)

    def close(self, time: int, id: int, now: float) -> Query | None:
        """The query that is answered now; None if it was never asked, was answered, or is over."""
        one = self._open.pop((time, id), None)
        return one.query if one is not None and now < one.ends_at else None
