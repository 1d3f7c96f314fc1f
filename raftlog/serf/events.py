"""What a Serf node tells the application (`Emit`), and what the application asks of it (`step`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from raftlog.serf.messages import Address, TagFilter, Versions


class Status(Enum):
    """Of a member, as Serf has it."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    name: str
    address: Address  # of its gossip
    tags: Mapping[str, str]
    status: Status
    versions: Versions = Versions()


# ── told ──


@dataclass(frozen=True, slots=True)
class MemberJoined:
    member: Member


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """Its tags or its address changed."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """On purpose."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberFailed:
    member: Member


@dataclass(frozen=True, slots=True)
class MemberReaped:
    """It was gone for so long that it is forgotten."""

    member: Member


@dataclass(frozen=True, slots=True)
class UserEventCame:
    name: str
    payload: bytes
    time: int


@dataclass(frozen=True, slots=True)
class QueryCame:
    """Answer with `Respond(id=..., time=...)` before the timeout, or not at all."""

    name: str
    payload: bytes
    id: int
    time: int
    source_node: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """The keyring is another: keep it where the next start finds it."""


@dataclass(frozen=True, slots=True)
class NameTaken:
    """Most members know another node by this node's name. Real Serf stops then; here whoever runs the node decides."""

    other: Address


Told = (
    MemberJoined
    | MemberUpdated
    | MemberLeft
    | MemberFailed
    | MemberReaped
    | UserEventCame
    | QueryCame
    | KeysChanged
    | NameTaken
)


# ── asked; each request gets a Reply ──


@dataclass(frozen=True, slots=True)
class Join:
    """Exchange states with these; Reply: {address: "" or why not}."""

    request: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye; Reply (None) when it has been told. Nothing is sent after."""

    request: int


@dataclass(frozen=True, slots=True)
class SetTags:
    """Reply: None, or a ValueError if they are too large."""

    request: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SendUserEvent:
    """Reply: None, or a ValueError if it is too large."""

    request: int
    name: str
    payload: bytes
    can_coalesce: bool = True


@dataclass(frozen=True, slots=True)
class SendQuery:
    """Reply, when its time is over or all have answered: a QueryResult, or a ValueError if it is too large."""

    request: int
    name: str
    payload: bytes
    nodes: tuple[str, ...] = ()  # empty: all
    tags: tuple[TagFilter, ...] = ()
    wants_ack: bool = False
    relay_factor: int = 0
    timeout_s: float | None = None  # None: by the size of the cluster


@dataclass(frozen=True, slots=True)
class Respond:
    """To a query that came. No Reply; one that is too late or too large is noted and dropped."""

    id: int
    time: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RemoveFailed:
    """Have a failed member taken for one that left (force-leave). Reply: None, or KeyError."""

    request: int
    node: str
    is_pruned: bool = False


class KeyAction(Enum):
    INSTALL = "install"
    USE = "use"
    REMOVE = "remove"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class ChangeKeys:
    """Ask all members by a query. Reply: a KeysResult, or a ValueError if the key is too large for one."""

    request: int
    action: KeyAction
    key: bytes = b""  # 16, 24 or 32 bytes; none for LIST


Request = Join | Leave | SetTags | SendUserEvent | SendQuery | Respond | RemoveFailed | ChangeKeys


@dataclass(frozen=True, slots=True)
class QueryResult:
    acks: tuple[str, ...]
    responses: Mapping[str, bytes]  # node -> payload


@dataclass(frozen=True, slots=True)
class KeysResult:
    members: int  # that were asked
    answers: int
    errors: Mapping[str, str]  # node -> why not
    keys: Mapping[str, int] = field(default_factory=dict)  # base64 -> how many have it (LIST)
    primary_keys: Mapping[str, int] = field(default_factory=dict)
