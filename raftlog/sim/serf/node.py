"""A node of Serf as the world sees it: by its name, where the protocol knows addresses; with packets that can be read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from raftlog.engine import Answered, Ask, Asked, Effect, NodeId, Receive, Reply, Send, Unanswered
from raftlog.serf.codec import serf as serf_codec
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.packets import Codec
from raftlog.serf.messages import Address, SwimMessage, UserMessage
from raftlog.serf.node import SerfNode

PORT: Final = 7946


class Addresses:
    """Where nodes are: n1 at 10.0.0.1, and at 10.0.1.1 after its first move. A node is not heard where it was before."""

    def __init__(self) -> None:
        self._moves: dict[NodeId, int] = {}

    def of(self, node: NodeId) -> Address:
        return Address(f"10.0.{self._moves.get(node, 0)}.{node.removeprefix('n')}:{PORT}")

    def node_at(self, address: Address) -> NodeId:
        """The address itself if nobody is there: nothing arrives."""
        node = NodeId("n" + address.rpartition(":")[0].rpartition(".")[2])
        return node if self.of(node) == address else address

    def move(self, node: NodeId) -> None:
        self._moves[node] = self._moves.get(node, 0) + 1


@dataclass(frozen=True, slots=True)
class Packet:
    """What nodes send each other; as a text, what is in it."""

    data: bytes
    sender: Codec = field(repr=False, compare=False)  # reads it, if anybody looks
    is_stream: bool = False

    def __str__(self) -> str:
        try:
            if self.is_stream:
                return _text(self.sender.open_stream(self.data))
            return "; ".join(_text(message) for message in self.sender.open_packet(self.data))
        except BadPacket as error:
            return f"{len(self.data)} bytes: {error}"  # made before its sender lost a key


def _text(message: SwimMessage) -> str:
    return str(serf_codec.decode(message.data)) if isinstance(message, UserMessage) else str(message)


class NamedNode:
    """An engine around a SerfNode that speaks to the world by names."""

    def __init__(self, node: SerfNode, codec: Codec, addresses: Addresses) -> None:
        self.node = node
        self._codec = codec
        self._addresses = addresses

    def step(self, event: Any, now: float) -> None:
        match event:
            case Receive(sender=sender, message=Packet(data=data)):
                event = Receive(self._addresses.of(sender), data)
            case Asked(request=request, sender=sender, message=Packet(data=data)):
                event = Asked(request, self._addresses.of(sender), data)
            case Answered(request=request, message=Packet(data=b"")):
                event = Unanswered(request, "closed without an answer")
            case Answered(request=request, message=Packet(data=data)):
                event = Answered(request, data)
        self.node.step(event, now)

    def drain(self) -> list[Effect]:
        return [self._named(effect) for effect in self.node.drain()]

    def _named(self, effect: Effect) -> Effect:
        match effect:
            case Send(to=address, message=data):
                return Send(self._addresses.node_at(address), Packet(data, self._codec))
            case Ask(to=address, message=data):
                packet = Packet(data, self._codec, is_stream=True)
                return replace(effect, to=self._addresses.node_at(address), message=packet)
            case Reply(request=request, outcome=bytes(data)):
                return Reply(request, Packet(data, self._codec, is_stream=True))
        return effect

    def deadline(self) -> float | None:
        return self.node.deadline()
