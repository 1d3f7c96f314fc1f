"""memberlist's messages as bytes: the kind in one byte, then a msgpack map.

A user message is the kind and then the bytes of the protocol above as they are. What only streams carry, a whole state
and an error, and the other form of user messages there, is in streams.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, assert_never

from raftlog.serf.codec import kinds
from raftlog.serf.codec.addresses import to_wire
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import Fields, pack, unpack_fields
from raftlog.serf.config import META_BYTES_MAX
from raftlog.serf.messages import (
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Nack,
    Ping,
    Suspect,
    SwimMessage,
    UserMessage,
    Versions,
)

PacketMessage = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | UserMessage

NO_VERSIONS: Final = Versions(0, 0, 0, 0, 0, 0)  # of a member that did not say any


def encode(message: PacketMessage) -> bytes:
    """The bytes of a message that packets carry. ValueError if an address is no `ip:port`."""
    match message:
        case Ping():
            ping = {"SeqNo": message.sequence, "Node": message.node}
            return _bytes(kinds.PING, {**ping, **_source(message.source_address, message.source_node)})
        case IndirectPing():
            target, port = to_wire(message.target)
            ping = {"SeqNo": message.sequence, "Node": message.node, "Nack": message.wants_nack}
            source = _source(message.source_address, message.source_node)
            return _bytes(kinds.INDIRECT_PING, {**ping, "Target": target, "Port": port, **source})
        case Ack():
            return _bytes(kinds.ACK, {"SeqNo": message.sequence, "Payload": message.payload})
        case Nack():
            return _bytes(kinds.NACK, {"SeqNo": message.sequence})
        case Suspect():
            return _bytes(kinds.SUSPECT, _accusation(message))
        case Alive():
            ip, port = to_wire(message.address)
            member = {"Incarnation": message.incarnation, "Node": message.node, "Addr": ip, "Port": port}
            return _bytes(kinds.ALIVE, {**member, "Meta": message.meta, "Vsn": bytes(message.versions)})
        case Dead():
            return _bytes(kinds.DEAD, _accusation(message))
        case UserMessage():
            return bytes([kinds.USER]) + message.data
        case _:
            assert_never(message)


def decode(data: bytes) -> SwimMessage:
    """The message that a packet, out of all its envelopes, carries. BadPacket if it is none."""
    if not data:
        raise BadPacket("message: expected a kind, found nothing")
    if data[0] == kinds.USER:
        return UserMessage(data[1:])
    known = DECODERS.get(data[0])
    if known is None:
        raise BadPacket(f"message: expected one that packets carry, found kind {data[0]}")
    what, decoder = known
    return decoder(unpack_fields(data[1:], what))


def versions_of(fields: Fields) -> Versions:
    """Six bytes; of a member that sent fewer nothing is known."""
    sent = fields.blob(b"Vsn", 64)
    return Versions(*sent[:6]) if len(sent) >= 6 else NO_VERSIONS


def _bytes(kind: int, fields: Mapping[str, object]) -> bytes:
    return bytes([kind]) + pack(fields)


def _source(address: Address | None, node: str) -> dict[str, object]:
    """Left out where there is none, as Go does: it means where the packet came from."""
    fields: dict[str, object] = {}
    if address is not None:
        fields["SourceAddr"], fields["SourcePort"] = to_wire(address)
    if node:
        fields["SourceNode"] = node
    return fields


def _accusation(message: Suspect | Dead) -> dict[str, object]:
    return {"Incarnation": message.incarnation, "Node": message.node, "From": message.accuser}


def _ping(fields: Fields) -> Ping:
    return Ping(
        fields.uint(b"SeqNo", 32),
        fields.name(b"Node"),
        fields.address_or_none(b"SourceAddr", b"SourcePort"),
        fields.name(b"SourceNode"),
    )


def _indirect_ping(fields: Fields) -> IndirectPing:
    return IndirectPing(
        fields.uint(b"SeqNo", 32),
        fields.address(b"Target", b"Port"),
        fields.name(b"Node"),
        fields.flag(b"Nack"),
        fields.address_or_none(b"SourceAddr", b"SourcePort"),
        fields.name(b"SourceNode"),
    )


def _ack(fields: Fields) -> Ack:
    return Ack(fields.uint(b"SeqNo", 32), fields.blob(b"Payload"))


def _nack(fields: Fields) -> Nack:
    return Nack(fields.uint(b"SeqNo", 32))


def _suspect(fields: Fields) -> Suspect:
    return Suspect(fields.uint(b"Incarnation", 32), fields.name(b"Node"), fields.name(b"From"))


def _alive(fields: Fields) -> Alive:
    return Alive(
        fields.uint(b"Incarnation", 32),
        fields.name(b"Node"),
        fields.address(b"Addr", b"Port"),
        fields.blob(b"Meta", META_BYTES_MAX),
        versions_of(fields),
    )


def _dead(fields: Fields) -> Dead:
    return Dead(fields.uint(b"Incarnation", 32), fields.name(b"Node"), fields.name(b"From"))


DECODERS: Final[Mapping[int, tuple[str, Callable[[Fields], SwimMessage]]]] = {
    kinds.PING: ("ping", _ping),
    kinds.INDIRECT_PING: ("indirect ping", _indirect_ping),
    kinds.ACK: ("ack", _ack),
    kinds.NACK: ("nack", _nack),
    kinds.SUSPECT: ("suspect", _suspect),
    kinds.ALIVE: ("alive", _alive),
    kinds.DEAD: ("dead", _dead),
}
