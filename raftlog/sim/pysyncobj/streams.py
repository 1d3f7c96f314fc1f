"""TCP as PySyncObj sees it, over a network that loses, repeats and reorders.

PySyncObj relies on what TCP gives: messages of one connection arrive in order and once, or the connection ends. This
is that, as a value: numbered messages, acknowledgements, repetition after a timeout, and the three rules of PySyncObj's
own TCPTransport that decide when nodes are connected:

1. Of two nodes the one with the greater address connects; a node that does not know the caller refuses it.
2. A connection on which nothing was read for `read_timeout_s` ends when the next message is sent or comes in (an idle
   one is not looked at, so two followers that did not talk for long lose the first message of the next election).
3. After a connection ended, the next attempt is made `retry_s` after the last one.

Kinder than TCP in one thing: a new connection from the same node ends the old one, and what was still under way on it
is lost; with TCP it could yet arrive.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, assert_never

from raftlog.engine import NodeId

RESEND_S = 0.2  # Linux' shortest retransmission timeout; doubles with each repetition
RESEND_S_MAX = 1.6
RESEND_MESSAGES_MAX = 16  # of one connection at once; the rest follows when these are acknowledged

Fields = tuple[tuple[str, Any], ...]  # a message of PySyncObj, a dict of plain values, as a value


@dataclass(frozen=True, slots=True)
class Hello:
    """Connect, under this number."""

    connection: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The connection stands."""

    connection: int


@dataclass(frozen=True, slots=True)
class Data:
    """The message with this number, counted from 0 each way."""

    connection: int
    number: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Received:
    """Every message below `count` has arrived."""

    connection: int
    count: int


@dataclass(frozen=True, slots=True)
class Reset:
    """There is no such connection any more."""

    connection: int


Packet = Hello | Welcome | Data | Received | Reset


@dataclass(slots=True)
class Connection:
    """One end of a connection."""

    number: int
    read_at: float  # when a message was last read; rule 2
    is_open: bool  # False while the Hello is under way
    sent: int = 0  # messages ever given to it; numbers below are taken
    received: int = 0  # messages handed on; all below have been
    unacknowledged: dict[int, Fields] = field(default_factory=dict)  # ascending numbers
    early: dict[int, Fields] = field(default_factory=dict)  # arrived before one that is missing
    resend_at: float | None = None  # None while nothing is unacknowledged
    resend_s: float = RESEND_S


class Streams:
    """All connections of one node."""

    def __init__(
        self,
        address: NodeId,
        *,
        rng: random.Random,
        read_timeout_s: float,
        retry_s: float,
        send: Callable[[NodeId, Packet], None],
        connected: Callable[[NodeId], None],
        disconnected: Callable[[NodeId], None],
    ) -> None:
        self._address = address
        self._rng = rng
        self._read_timeout_s = read_timeout_s
        self._retry_s = retry_s
        self._send = send
        self._connected = connected
        self._disconnected = disconnected
        self._peers: dict[NodeId, Connection | None] = {}  # those that this node knows
        self._attempt_at: dict[NodeId, float] = {}  # when to connect again at the earliest

    def add(self, peer: NodeId) -> None:
        """Know this node from now on; the connection is made by `tick`."""
        self._peers.setdefault(peer, None)

    def drop(self, peer: NodeId) -> None:
        """Know this node no more."""
        if peer in self._peers:
            self._close(peer, tell=True)
            self._peers.pop(peer, None)
            self._attempt_at.pop(peer, None)

    def is_connected(self, peer: NodeId) -> bool:
        """Whether messages to it are taken."""
        connection = self._peers.get(peer)
        return connection is not None and connection.is_open

    def send(self, peer: NodeId, fields: Fields, now: float) -> bool:
        """Give a message to the connection; whether there is one."""
        connection = self._peers.get(peer)
        if connection is None or not connection.is_open:
            return False
        if now - connection.read_at > self._read_timeout_s:
            self._close(peer, tell=True)
            return False
        connection.unacknowledged[connection.sent] = fields
        self._send(peer, Data(connection.number, connection.sent, fields))
        connection.sent += 1
        if connection.resend_at is None:
            connection.resend_at = now + connection.resend_s
        return True

    def receive(self, peer: NodeId, packet: Packet, now: float) -> list[Fields]:
        """The messages that can be handed on now, in order."""
        match packet:
            case Hello():
                self._accept(peer, packet.connection, now)
                return []
            case Welcome() | Data() | Received() | Reset():
                connection = self._peers.get(peer)
                if connection is None or connection.number != packet.connection:
                    if not isinstance(packet, Reset):
                        self._send(peer, Reset(packet.connection))
                    return []
            case _:
                assert_never(packet)
        match packet:
            case Welcome():
                if not connection.is_open:
                    connection.is_open = True
                    connection.read_at = now
                    self._connected(peer)
                return []
            case Reset():
                self._close(peer, tell=False)
                return []
            case Received():
                self._acknowledged(connection, packet.count, now)
                return []
            case Data():
                return self._read(peer, connection, packet, now)
            case _:
                assert_never(packet)

    def farewell(self) -> list[tuple[NodeId, Packet]]:
        """What the operating system tells the peers when the process was killed."""
        connections = [
            (peer, connection) for peer, connection in self._peers.items() if connection is not None
        ]
        return [(peer, Reset(connection.number)) for peer, connection in connections]

    def tick(self, now: float) -> None:
        """Connect where it is time to, and repeat what was not acknowledged."""
        for peer in list(self._peers):
            connection = self._peers[peer]
            if connection is None or not connection.is_open:
                if self._address > peer and now >= self._attempt_at.get(peer, now):
                    self._connect(peer, now)
            elif connection.resend_at is not None and now >= connection.resend_at:
                connection.resend_s = min(connection.resend_s * 2, RESEND_S_MAX)
                connection.resend_at = now + connection.resend_s
                for number in list(connection.unacknowledged)[:RESEND_MESSAGES_MAX]:
                    self._send(peer, Data(connection.number, number, connection.unacknowledged[number]))

    def _connect(self, peer: NodeId, now: float) -> None:
        number = self._rng.getrandbits(32)  # chance, not a count: a count would start again after a crash
        self._peers[peer] = Connection(number, read_at=now, is_open=False)
        self._attempt_at[peer] = now + self._retry_s
        self._send(peer, Hello(number))

    def _accept(self, peer: NodeId, number: int, now: float) -> None:
        if peer not in self._peers:
            self._send(peer, Reset(number))
            return
        connection = self._peers[peer]
        if connection is None or connection.number != number:
            self._close(peer, tell=False)
            self._peers[peer] = Connection(number, read_at=now, is_open=True)
            self._connected(peer)
        self._send(peer, Welcome(number))

    def _close(self, peer: NodeId, *, tell: bool) -> None:
        connection = self._peers[peer]
        if connection is None:
            return
        self._peers[peer] = None
        if tell:
            self._send(peer, Reset(connection.number))
        if connection.is_open:
            self._disconnected(peer)

    def _acknowledged(self, connection: Connection, count: int, now: float) -> None:
        before = len(connection.unacknowledged)
        for number in [number for number in connection.unacknowledged if number < count]:
            del connection.unacknowledged[number]
        if len(connection.unacknowledged) < before:
            connection.resend_s = RESEND_S
            connection.resend_at = now + RESEND_S if connection.unacknowledged else None

    def _read(self, peer: NodeId, connection: Connection, packet: Data, now: float) -> list[Fields]:
        if not connection.is_open:
            return []  # it overtook the Welcome; it will be repeated
        if now - connection.read_at > self._read_timeout_s:
            self._close(peer, tell=True)
            return []
        if packet.number >= connection.received:
            connection.early[packet.number] = packet.fields
        messages: list[Fields] = []
        while connection.received in connection.early:
            messages.append(connection.early.pop(connection.received))
            connection.received += 1
        if messages:
            connection.read_at = now
        self._send(peer, Received(connection.number, connection.received))
        return messages
