"""What two servers tell each other before the first message, and when they part.

The one that dialled says Hello, the other answers Welcome, or Refusal with the reason. A server is its node name, in one
cluster; its data directory has an id, so that a name on a new, empty disk is not taken for the one that has voted.

Both know which directory a name has from the list of members, which is part of the log. A server that was away knows an
old list: if it meets a name with another directory, the newer of both lists is right.

Each frame's payload is JSON of one object, so that a later version can add to it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, Final, Self

from raftlog.engine import NodeId
from raftlog.errors import RaftlogError
from raftlog.net.connection import HANDSHAKE_BYTES_MAX, Connection, ConnectionEnded
from raftlog.wire.frames import Frame

PROTOCOL: Final = 1  # changes when frames or messages are no longer understood by the version before

HELLO: Final = 1  # types of frames
WELCOME: Final = 2
REFUSAL: Final = 3
MESSAGE: Final = 4  # of Raft, once both have agreed
PYSYNCOBJ_MESSAGE: Final = 5  # of the other engine

TEXT_CHARACTERS_MAX: Final = 300  # of a name, id or address: enough for a host name of 253 and a port
REASON_CHARACTERS_MAX: Final = 500


class HandshakeFailed(RaftlogError):
    """The other server refused this one, or is not the one that was wanted. It fails until one of them is changed."""


class Lane(Enum):
    """What a connection is for, so that heartbeats and votes do not wait behind data."""

    CONTROL = "control"
    BULK = "bulk"
    CHECK = "check"  # it ends after the introductions


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a server says of itself beside its name."""

    cluster_id: str
    directory_id: str
    address: str  # where others reach it
    format_min: int = 1  # versions of the log's format that it can read and write
    format_max: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What both sides say."""

    cluster_id: str
    node: str
    directory_id: str
    address: str
    protocol: int
    format_min: int
    format_max: int
    members_version: int  # of the list of members that it knows: an index of the log

    def to_bytes(self) -> bytes:
        return json.dumps(
            {key: _plain(value) for key, value in asdict(self).items()}, ensure_ascii=False
        ).encode()

    @classmethod
    def from_bytes(cls, data: memoryview) -> Self:
        """What the other side says of itself; HandshakeFailed if it cannot be read. Unknown keys are left out."""
        try:
            content = json.loads(bytes(data))
            return cls(**{field.name: _checked(field.type, content[field.name]) for field in fields(cls)})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise HandshakeFailed(f"not an introduction: {bytes(data[:100])!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Introduction):
    """From the one that dialled."""

    to: str  # the node that it wants; "" to check whoever is there
    lane: Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(Introduction):
    """From the one that was dialled."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Lane) else value


def _checked(type: Any, value: Any) -> Any:
    """The value of a field of this type, given as a word; ValueError if it is another's."""
    if type == "Lane":
        return Lane(value)
    if type == "int":
        if value.__class__ is not int or not 0 <= value < 2**63:
            raise ValueError(f"not a number: {value!r}")
    elif not isinstance(value, str) or not value.isprintable() or len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"not a text: {value!r}")
    return value


# ── whether they go together ────────────────────────────────────────────────────────────────────────


def why_refuse(own: Introduction, other: Introduction, *, known_directory: str) -> str | None:
    """Why this server does not speak with the other; None if it does.

    A new server, whose cluster id is empty, speaks with the first cluster that calls it, and becomes a part of it.
    `known_directory` is what the list of members says of the other's name, "" if nothing.
    """
    if other.protocol != own.protocol:
        return (
            f"{other.node} speaks version {other.protocol} of the protocol, {own.node} version {own.protocol}"
        )
    if not other.cluster_id or own.cluster_id not in ("", other.cluster_id):
        return f"{other.node} is of cluster {other.cluster_id!r}, {own.node} of {own.cluster_id!r}"
    if other.node == own.node:
        return f"{own.node} got a connection from itself, or another server has its name"
    if max(other.format_min, own.format_min) > min(other.format_max, own.format_max):
        return (
            f"{other.node} knows formats {other.format_min} to {other.format_max},"
            f" {own.node} {own.format_min} to {own.format_max}"
        )
    is_known = known_directory in ("", other.directory_id)
    if not is_known and other.members_version <= own.members_version:
        return (
            f"{other.node} has a replaced disk: its directory is {other.directory_id!r}, that of the member"
            f" {known_directory!r}; join it again"
        )
    return None


def why_refuse_hello(own: Introduction, hello: Hello, *, known_directory: str) -> str | None:
    if not hello.to and hello.lane is Lane.CHECK:
        return None  # it only asks who is there
    if hello.to != own.node:
        return f"this is {own.node}, not {hello.to}, which {hello.node} looks for"
    return why_refuse(own, hello, known_directory=known_directory)


def why_refuse_welcome(
    own: Introduction, welcome: Welcome, wanted: NodeId, *, known_directory: str
) -> str | None:
    if welcome.node != wanted:
        return f"{welcome.address} is {welcome.node}, not {wanted}"
    return why_refuse(own, welcome, known_directory=known_directory)


# ── over a connection ───────────────────────────────────────────────────────────────────────────────


def introduction(node: NodeId, identity: Identity, *, members_version: int) -> dict[str, Any]:
    """The arguments that Hello and Welcome share."""
    return {
        "node": node, "protocol": PROTOCOL, "members_version": members_version,
        **{field.name: getattr(identity, field.name) for field in fields(identity)},
    }  # fmt: skip


async def say_hello(connection: Connection, hello: Hello) -> Welcome:
    """Introduce this side and return the other's answer; HandshakeFailed with its reason, or ConnectionEnded."""
    connection.write_frame(HELLO, hello.to_bytes())
    frame = await _next_frame(connection)
    if frame.type == REFUSAL:
        raise HandshakeFailed(f"refused by {connection.peer_address}: {_readable(frame.payload)}")
    if frame.type != WELCOME:
        raise HandshakeFailed(f"{connection.peer_address} answered a frame of type {frame.type}")
    return Welcome.from_bytes(frame.payload)


async def hear_hello(connection: Connection) -> Hello:
    frame = await _next_frame(connection)
    if frame.type != HELLO:
        raise HandshakeFailed(f"a frame of type {frame.type} came where a hello must be")
    return Hello.from_bytes(frame.payload)


async def refuse(connection: Connection, reason: str, *, after_hello: bool = False) -> None:
    """Tell the other side why, and end the connection; what it says first is waited for if `after_hello`.

    (Closing a socket that has unread bytes would take the reason back.)
    """
    try:
        if after_hello:
            await _next_frame(connection)
    except (ConnectionEnded, TimeoutError):
        connection.abort(reason)
    else:
        connection.write_frame(REFUSAL, reason[:REASON_CHARACTERS_MAX].encode()[:HANDSHAKE_BYTES_MAX])
        connection.close(reason)


async def _next_frame(connection: Connection) -> Frame:
    async with asyncio.timeout_at(connection.answer_by):
        return await connection.next_frame()


def _readable(payload: memoryview) -> str:
    text = bytes(payload).decode(errors="replace")[:REASON_CHARACTERS_MAX]
    return "".join(character if character.isprintable() else "?" for character in text)
