"""What must never happen to nodes of Serf, looked at after every step and at all that they tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, assert_never

from raftlog.engine import NodeId
from raftlog.serf.config import SerfConfig
from raftlog.serf.events import (
    KeysChanged,
    Member,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberReaped,
    MemberUpdated,
    NameTaken,
    QueryCame,
    QueryResult,
    Status,
    Told,
    UserEventCame,
)
from raftlog.serf.node import SerfNode
from raftlog.sim.subject import Violation

CLOCKS: Final = ("intent", "event", "query")


@dataclass(slots=True)
class Seen:
    """Of one life of a node; gone with it."""

    incarnations: dict[str, int] = field(default_factory=dict)  # of the members that it knows
    times: tuple[int, int, int] = (0, 0, 0)  # Lamport's, by CLOCKS
    leaving: tuple[str, ...] = ()  # members that are LEAVING
    leaving_before: tuple[str, ...] = ()  # that were before the step
    told: dict[str, Member] = field(default_factory=dict)  # who is there by what the application was told
    events: dict[bytes, int] = field(default_factory=dict)  # payload of a user event: its Lamport time
    queries: set[tuple[int, int]] = field(default_factory=set)  # (time, id); never iterated


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of somebody's."""

    source: NodeId
    wants_ack: bool
    nodes: tuple[str, ...]  # whom it is for; empty: all


class Checks:
    """Of one run."""

    def __init__(self, config: SerfConfig) -> None:
        self._config = config
        self._event_senders: dict[bytes, NodeId] = {}  # by payload, which is never used again
        self._queries: dict[bytes, Asked] = {}  # by payload, which is never used again
        self._gone: dict[NodeId, bool] = {}  # who was told that it has left, until it begins anew
        self._moved: dict[NodeId, bool] = {}  # who is, or was, at another address than at first
        self.failures_told = 0  # how often somebody was said to have failed

    # ── what is done to the nodes ──

    def began(self, node: NodeId) -> None:
        self._gone.pop(node, None)

    def has_left(self, node: NodeId) -> None:
        self._gone[node] = True

    def moved(self, node: NodeId) -> None:
        self._moved[node] = True

    def sends_event(self, node: NodeId, payload: bytes) -> None:
        self._event_senders[payload] = node

    def asks(self, payload: bytes, asked: Asked) -> None:
        self._queries[payload] = asked

    # ── what they do ──

    def stepped(self, name: NodeId, node: SerfNode, seen: Seen) -> None:
        before, seen.incarnations = (
            seen.incarnations,
            {member.name: member.incarnation for member in node.swim.members.values()},
        )
        for member, incarnation in seen.incarnations.items():
            if incarnation < before.get(member, 0):
                raise Violation(
                    "an incarnation went back", f"{name} of {member}: {before[member]} to {incarnation}"
                )
        times = node.lamport_times
        for clock, was, time in zip(CLOCKS, seen.times, times, strict=True):
            if time < was:
                raise Violation("a Lamport clock went back", f"{name}: of {clock}s, {was} to {time}")
        seen.times = times
        seen.leaving_before, seen.leaving = seen.leaving, ()
        if node.counts()["members_leaving"]:
            seen.leaving = tuple(member.name for member in node.members() if member.status is Status.LEAVING)

    def sending(self, name: NodeId, data: bytes) -> None:
        bytes_max = self._config.swim.packet_bytes_max
        if len(data) > bytes_max:
            raise Violation("a packet above its limit", f"{name}: {len(data)} of {bytes_max} bytes")
        if name in self._gone:
            raise Violation("spoke after it had left", f"{name}: {len(data)} bytes")

    def told(self, name: NodeId, seen: Seen, event: Told) -> None:
        match event:
            case MemberJoined() | MemberUpdated() | MemberFailed() | MemberLeft() | MemberReaped():
                self._member_told(name, seen, event)
            case UserEventCame(payload=payload, time=time):
                self._event_told(name, seen, payload, time)
            case QueryCame(payload=payload, time=time, id=id):
                self._query_told(name, seen, payload, (time, id))
            case NameTaken(other=other) if name not in self._moved:
                raise Violation("a name was taken", f"{name}: by {other}, and it never was elsewhere")
            case NameTaken() | KeysChanged():
                pass
            case _:
                assert_never(event)

    def _member_told(
        self,
        name: NodeId,
        seen: Seen,
        event: MemberJoined | MemberUpdated | MemberFailed | MemberLeft | MemberReaped,
    ) -> None:
        member = event.member
        known = seen.told.get(member.name)
        was = None if known is None else known.status
        match event:
            case MemberJoined():
                is_fit = was in (None, Status.LEFT, Status.FAILED)
                status = Status.ALIVE
            case MemberUpdated():
                is_fit = was is not None
                status = was or Status.ALIVE
            case MemberFailed():
                is_fit = was is Status.ALIVE
                status = Status.FAILED
                self.failures_told += 1
            case MemberLeft():
                is_fit = was in (Status.ALIVE, Status.FAILED)
                status = Status.LEFT
            case MemberReaped():
                is_fit = was in (Status.LEFT, Status.FAILED)
                status = Status.LEFT
            case _:
                assert_never(event)
        if isinstance(event, MemberFailed) and member.name in seen.leaving_before:
            raise Violation("who was leaving is said to have failed", f"{name}: of {member.name}")
        if not is_fit:
            was_text = "unknown" if was is None else was.value
            raise Violation(
                "news of a member that does not follow",
                f"{name}: {type(event).__name__} of {member.name}, which was {was_text}",
            )
        if isinstance(event, MemberReaped):
            del seen.told[member.name]
        else:
            seen.told[member.name] = Member(
                name=member.name, address=member.address, tags=member.tags, status=status
            )

    def _event_told(self, name: NodeId, seen: Seen, payload: bytes, time: int) -> None:
        if payload not in self._event_senders:
            raise Violation("a user event that nobody sent", f"{name}: {payload!r} at {time}")
        if payload in seen.events:
            raise Violation(
                "a user event came twice", f"{name}: {payload!r} at {seen.events[payload]} and {time}"
            )
        seen.events[payload] = time

    def _query_told(self, name: NodeId, seen: Seen, payload: bytes, key: tuple[int, int]) -> None:
        asked = self._queries.get(payload)
        if asked is None:
            raise Violation("a query that nobody asked", f"{name}: {payload!r} at {key[0]}")
        if asked.nodes and name not in asked.nodes:
            raise Violation("a query that was for others", f"{name}: {payload!r}, for {asked.nodes}")
        if key in seen.queries:
            raise Violation("a query came twice", f"{name}: {payload!r} at {key[0]}")
        seen.queries.add(key)

    def query_ended(self, payload: bytes, result: QueryResult) -> None:
        """Whoever asked it was told this result."""
        asked = self._queries[payload]
        answered = [*result.responses, *result.acks]
        strangers = [node for node in answered if asked.nodes and node not in asked.nodes]
        if strangers or len(set(result.acks)) < len(result.acks) or (result.acks and not asked.wants_ack):
            raise Violation("answers that do not fit the query", f"{asked}: {result}")
        for node, response in result.responses.items():
            if response != answer_of(node, payload):
                raise Violation("an answer of somebody else", f"{node} to {payload!r}: {response!r}")

    def has_told_all(self, name: NodeId, node: SerfNode, seen: Seen) -> None:
        """Raise Violation if the application knows other members than the node does."""
        known = {member.name: _as_told(member) for member in node.members()}
        told = {member.name: _as_told(member) for member in seen.told.values()}
        if told != known:
            raise Violation("the application was told otherwise", f"{name}: {told}, known are {known}")


def _as_told(member: Member) -> tuple[str, dict[str, str], str]:
    """Nobody is told when a member is LEAVING."""
    status = Status.ALIVE if member.status is Status.LEAVING else member.status
    return member.address, dict(member.tags), status.value


def answer_of(node: str, payload: bytes) -> bytes:
    """What a node answers to a query."""
    return node.encode() + b" heard " + payload
