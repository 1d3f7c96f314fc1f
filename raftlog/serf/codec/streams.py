"""One side of a stream, out of its envelopes, as bytes.

A ping, an ack and an error are as in a packet. A whole state is the kind, a header, the states of the members one after
the other, and the bytes of the protocol above. A user message is the kind, a header with its length, and its bytes.
"""

from __future__ import annotations

from typing import Final, assert_never

from raftlog.serf.codec import kinds, swim
from raftlog.serf.codec.addresses import to_wire
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import MANY_ITEMS_MAX, Fields, Unpacking, pack, unpack_fields
from raftlog.serf.config import META_BYTES_MAX
from raftlog.serf.messages import Ack, ErrorReply, NodeState, Ping, PushPull, State, SwimMessage, UserMessage

StreamMessage = PushPull | Ping | UserMessage | Ack | ErrorReply

NODES_MAX: Final = MANY_ITEMS_MAX  # in one state; more is refused
LENGTH_BITS: Final = 32  # of a declared length; what is there decides


def encode(message: StreamMessage) -> bytes:
    """The bytes of one side. ValueError if an address is no `ip:port`."""
    match message:
        case Ping() | Ack():
            return swim.encode(message)
        case ErrorReply():
            return bytes([kinds.ERROR]) + pack({"Error": message.error})
        case UserMessage():
            return bytes([kinds.USER]) + pack({"UserMsgLen": len(message.data)}) + message.data
        case PushPull():
            header = {
                "Nodes": len(message.nodes),
                "UserStateLen": len(message.user_state),
                "Join": message.is_join,
            }
            states = b"".join(map(_encode_state, message.nodes))
            return bytes([kinds.PUSH_PULL]) + pack(header) + states + message.user_state
        case _:
            assert_never(message)


def decode(data: bytes) -> SwimMessage:
    """The message of one whole side. BadPacket if it is none."""
    if not data:
        raise BadPacket("stream: expected a kind, found nothing")
    body = data[1:]
    match data[0]:
        case kinds.PING | kinds.ACK:
            return swim.decode(data)
        case kinds.ERROR:
            return ErrorReply(unpack_fields(body, "error").text(b"Error"))
        case kinds.USER:
            unpacking = Unpacking(body, "user message")
            length = unpacking.next_fields().uint(b"UserMsgLen", LENGTH_BITS)
            return UserMessage(_of_length(unpacking.rest(), length, "user message"))
        case kinds.PUSH_PULL:
            return _decode_state(body)
        case _:
            raise BadPacket(f"stream: expected a message that streams carry, found kind {data[0]}")


def node_count(header: Fields) -> int:
    """How many states follow the header of a whole state; BadPacket above NODES_MAX."""
    count = header.uint(b"Nodes", LENGTH_BITS)
    if count > NODES_MAX:
        raise BadPacket(f"state: expected {NODES_MAX} members at most, found {count}")
    return count


def _decode_state(body: bytes) -> PushPull:
    unpacking = Unpacking(body, "state")
    header = unpacking.next_fields()
    nodes = []
    for _ in range(node_count(header)):
        fields = unpacking.next_fields()
        try:
            nodes.append(_node_state(fields))
        except BadPacket:
            # A member with a name, an address or tags that cannot be held here is left out. Were the whole state
            # refused, one such stranger would cut this node off from all.
            continue
    user_state = _of_length(unpacking.rest(), header.uint(b"UserStateLen", LENGTH_BITS), "state")
    return PushPull(tuple(nodes), user_state, header.flag(b"Join"))


def _node_state(fields: Fields) -> NodeState:
    state = fields.uint(b"State", 8)
    if state > State.LEFT:
        raise BadPacket(f"state of a member: expected 0 to 3, found {state}")
    return NodeState(
        fields.name(b"Name"),
        fields.address(b"Addr", b"Port"),
        fields.blob(b"Meta", META_BYTES_MAX),
        fields.uint(b"Incarnation", 32),
        State(state),
        swim.versions_of(fields),
    )


def _encode_state(node: NodeState) -> bytes:
    ip, port = to_wire(node.address)
    fields = {"Name": node.node, "Addr": ip, "Port": port, "Meta": node.meta, "Incarnation": node.incarnation}
    return pack({**fields, "State": int(node.state), "Vsn": bytes(node.versions)})


def _of_length(data: bytes, length: int, what: str) -> bytes:
    if len(data) != length:
        raise BadPacket(f"{what}: expected {length} bytes behind the header, found {len(data)}")
    return data
