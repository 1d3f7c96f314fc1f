"""What members tell each other, as values. Bytes are made of them by raftlog/serf/codec."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from raftlog.engine import NodeId

Address = NodeId  # ip:port, [ip]:port for IPv6; engines' messages go from address to address, for names can be wrong


class Versions(NamedTuple):
    """Of the protocols that a member speaks; those of Serf are the "delegate" versions of memberlist."""

    protocol_min: int = 1
    protocol_max: int = 5
    protocol: int = 2
    serf_min: int = 2
    serf_max: int = 5
    serf: int = 4


class State(IntEnum):
    """Of a member, as memberlist has it on the wire."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


# ── memberlist ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Ping:
    sequence: int
    node: str  # who is meant: whoever has the address now may be another
    source_address: Address | None = None  # where to answer; None: where the packet came from
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class IndirectPing:
    sequence: int
    target: Address
    node: str
    wants_nack: bool = False
    source_address: Address | None = None
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    sequence: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """Whoever was asked to ping got no ack; it at least is there."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Suspect:
    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class Alive:
    incarnation: int
    node: str
    address: Address
    meta: bytes
    versions: Versions = Versions()


@dataclass(frozen=True, slots=True)
class Dead:
    """A member says it of itself when it leaves."""

    incarnation: int
    node: str
    accuser: str


class NodeState(NamedTuple):
    """A member in a whole state."""

    node: str
    address: Address
    meta: bytes
    incarnation: int
    state: State
    versions: Versions


@dataclass(frozen=True, slots=True)
class PushPull:
    """A whole state; streams only. The answer is the other's."""

    nodes: tuple[NodeState, ...]
    user_state: bytes
    is_join: bool


@dataclass(frozen=True, slots=True)
class UserMessage:
    """Of the protocol above: the bytes of one of Serf's messages."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Streams only: why the other side did not understand."""

    error: str


SwimMessage = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | PushPull | UserMessage | ErrorReply


# ── Serf ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    time: int  # Lamport's
    node: str
    is_pruned: bool = False  # forget it at once


@dataclass(frozen=True, slots=True)
class JoinIntent:
    time: int
    node: str


class EventRecord(NamedTuple):
    name: str
    payload: bytes


class EventsAt(NamedTuple):
    """User events of one Lamport time."""

    time: int
    events: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class SerfState:
    """The `user_state` of a PushPull."""

    time: int
    status_times: dict[str, int]  # when each member joined or left, by Lamport's clock
    left_members: tuple[str, ...]
    event_time: int
    events: tuple[EventsAt, ...]
    query_time: int


@dataclass(frozen=True, slots=True)
class UserEvent:
    time: int
    name: str
    payload: bytes
    can_coalesce: bool = False


class TagFilter(NamedTuple):
    tag: str
    expression: str  # regular; RE2 in Go


@dataclass(frozen=True, slots=True)
class Query:
    time: int
    id: int  # drawn by whoever asks
    source_address: Address
    source_node: str
    name: str
    payload: bytes
    timeout_s: float
    node_filters: tuple[tuple[str, ...], ...] = ()  # a node must be in each of these
    tag_filters: tuple[TagFilter, ...] = ()  # and match all of these
    wants_ack: bool = False
    is_broadcast: bool = True
    relay_factor: int = 0


@dataclass(frozen=True, slots=True)
class QueryResponse:
    time: int
    id: int
    node: str
    is_ack: bool = False
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Relay:
    """Pass `message` on to this address."""

    address: Address
    node: str
    message: bytes


@dataclass(frozen=True, slots=True)
class ConflictResponse:
    """The answer to the query _serf_conflict: whom the asked node knows by that name."""

    node: str
    address: Address
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    key: bytes


@dataclass(frozen=True, slots=True)
class KeyResponse:
    is_done: bool
    message: str
    keys: tuple[str, ...] = ()  # base64
    primary_key: str = ""


SerfMessage = (
    LeaveIntent
    | JoinIntent
    | SerfState
    | UserEvent
    | Query
    | QueryResponse
    | Relay
    | ConflictResponse
    | KeyRequest
    | KeyResponse
)
