"""SWIM as a value: one member of a memberlist cluster.

Replays of old packets change nothing: claims of old incarnations lose to what is known (also of those who are gone, for
members are kept until the protocol above forgets them), acks of old pings fit no probe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from random import Random
from typing import Final, assert_never

from raftlog.engine import Answered, Asked, Effect, Receive, Unanswered, Wake
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import META_BYTES_MAX, SwimConfig
from raftlog.serf.messages import (
    Ack,
    Address,
    Alive,
    Dead,
    ErrorReply,
    IndirectPing,
    Nack,
    Ping,
    PushPull,
    Suspect,
    SwimMessage,
    UserMessage,
    Versions,
)
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.awareness import Awareness
from raftlog.serf.swim.claims import Claims
from raftlog.serf.swim.exchange import Exchange
from raftlog.serf.swim.gossip import Gossip
from raftlog.serf.swim.members import Members, SwimMember
from raftlog.serf.swim.post import Post
from raftlog.serf.swim.probing import Probing, Sequence
from raftlog.serf.swim.relaying import Relaying
from raftlog.serf.swim.rumours import Rumours

SPOKEN: Final = Versions()  # by this implementation

Event = Receive[bytes] | Asked[bytes] | Answered[bytes] | Unanswered | Wake


class Swim:
    """Knows who is alive. Bytes in, bytes out; see raftlog.engine for what its owner owes it."""

    def __init__(
        self,
        config: SwimConfig,
        name: str,
        address: Address,
        meta: bytes,
        codec: Codec,
        random: Random,
        above: Above,
        *,
        versions: Versions = SPOKEN,
    ) -> None:
        """ValueError if `meta` is above META_BYTES_MAX."""
        _check_meta(meta)
        self._config = config
        self._name = name
        self._start_with = (address, meta, versions)
        self._codec = codec
        self._above = above
        self._members = Members(
            random, name=name, count_max=config.members_max, remember_s=config.gossip_to_the_dead_s
        )
        self._rumours = Rumours(mult=config.retransmit_mult, count_max=config.rumours_max)
        self._awareness = Awareness(config.awareness_max)
        self._post = Post(
            codec, self._members, self._rumours, above, packet_bytes_max=config.packet_bytes_max
        )
        self._claims = Claims(config, name, self._members, self._rumours, self._awareness, self._post, above)
        sequence = Sequence(random)
        self._probing = Probing(
            config, self._members, self._claims, self._awareness, sequence, self._post, above, random
        )
        self._relaying = Relaying(config, self._claims, sequence, self._post)
        self._gossip = Gossip(config, self._members, self._rumours, self._post, above)
        self._exchange = Exchange(config, self._members, self._claims, self._post, above, random)
        self._second_began_at = -inf  # that packets are counted in
        self._packets = 0  # in this second

    def start(self, now: float) -> None:
        """Be alive, at incarnation 1. Tells `above.joined` of this node. Once, before anything else."""
        self._claims.start(*self._start_with, now)
        self._probing.start(now)
        self._exchange.start(now)
        self._gossip.start(now)

    # ── as an engine ──

    def step(self, event: Event, now: float) -> None:
        """Take in what happened, and do what is due. Nothing that came from the network raises."""
        match event:
            case Receive():
                self._receive(event, now)
            case Asked():
                self._be_asked(event, now)
            case Answered():
                self._be_answered(event, now)
            case Unanswered():
                if self._exchange.has_asked(event.request):
                    self._exchange.take_failure(event.request, event.reason)
            case Wake():
                pass
            case _:
                assert_never(event)
        self._claims.end_suspicions(now)
        self._probing.advance(now)
        self._relaying.advance(now)
        self._exchange.advance(now)
        self._gossip.advance(now)

    def drain(self) -> list[Effect]:
        """Send, Ask, Reply and Note, in order. A Reply to an Asked that deserves no answer has b"": close it."""
        return self._post.drain()

    def deadline(self) -> float:
        """When to step Wake; infinite if nothing is waited for. Ask again after each step and each call."""
        return min(
            self._claims.suspicions.deadline,
            self._probing.deadline,
            self._relaying.deadline,
            self._exchange.deadline,
            self._gossip.deadline,
        )

    # ── for the protocol above ──

    def join(self, address: Address, on_outcome: Callable[[str], None], now: float) -> None:
        """Exchange states with this one; tell "" or why not, within a later step or, at a limit, at once."""
        self._exchange.join(address, on_outcome)

    def leave(self, now: float) -> None:
        """Say goodbye; wait for `has_told_leave` before the node is stopped. For good: there is no way back."""
        if not self.has_left:
            self._claims.leave(now)

    def set_meta(self, meta: bytes, now: float) -> None:
        """Tell all of new meta. ValueError if it is above META_BYTES_MAX; nothing changed then."""
        _check_meta(meta)
        if not self.has_left:
            self._claims.set_meta(meta)

    def send(self, address: Address, data: bytes, now: float) -> None:
        """A user message to one address, by packet."""
        self._post.send(address, UserMessage(data))

    def forget(self, name: str) -> None:
        """Of a member that is gone: as if it had never been. Ignored for others."""
        self._members.forget(name)

    @property
    def members(self) -> Mapping[str, SwimMember]:
        """By name, this node and those gone but not forgotten included. A view: it changes with the next step."""
        return self._members.view

    @property
    def alive_count(self) -> int:
        """Members that are alive or suspected, this node included."""
        return self._members.alive_count

    @property
    def incarnation(self) -> int:
        """Of this node; never goes back."""
        return self._claims.own.incarnation

    @property
    def health_score(self) -> int:
        """Lifeguard's: 0 is healthy, below awareness_max."""
        return self._awareness.score

    @property
    def rumours_waiting(self) -> int:
        return len(self._rumours)

    @property
    def refused(self) -> Counter[str]:
        """What came and was not taken in, by why."""
        return self._post.refused

    @property
    def has_left(self) -> bool:
        return self._claims.has_left

    @property
    def has_told_leave(self) -> bool:
        """The leave was sent as often as any rumour is, or nobody is there to hear it."""
        return self.has_left and (self._name not in self._rumours or not self._members.others)

    # ── what comes ──

    def _receive(self, event: Receive[bytes], now: float) -> None:
        if self._is_too_much(now):
            self._post.refuse("too many packets", now, sender=event.sender)
            return
        try:
            messages = self._codec.open_packet(event.message)
        except BadPacket as error:
            self._post.refuse("bad packet", now, sender=event.sender, detail=str(error))
            return
        for message in messages:
            self._take(message, event.sender, now)

    def _take(self, message: SwimMessage, sender: Address, now: float) -> None:
        match message:
            case Ping():
                if self._is_meant(message, sender, now):
                    ack = Ack(message.sequence, self._above.ack_payload())
                    self._post.send(message.source_address or sender, ack)
            case IndirectPing():
                self._relaying.take_question(message, sender, now)
            case Ack():
                self._probing.take_ack(message, now)
                self._relaying.take_ack(message)
            case Nack():
                self._probing.take_nack(message.sequence)
            case Suspect():
                self._claims.take_suspect(message, now)
            case Alive():
                self._claims.take_alive(message, now)
            case Dead():
                self._claims.take_dead(message, now)
            case UserMessage():
                self._above.user_message(message.data)
            case PushPull() | ErrorReply():
                self._post.refuse("not for packets", now, sender=sender)
            case _:
                assert_never(message)

    def _be_asked(self, event: Asked[bytes], now: float) -> None:
        if self._is_too_much(now):
            self._post.refuse("too many packets", now, sender=event.sender)
            self._post.reply(event.request, None)
            return
        try:
            message = self._codec.open_stream(event.message)
        except BadPacket as error:
            self._post.refuse("bad stream", now, sender=event.sender, detail=str(error))
            self._post.reply(event.request, ErrorReply(str(error)))
            return
        match message:
            case PushPull():
                self._exchange.answer(event.request, message, event.sender, now)
            case Ping() if self._is_meant(message, event.sender, now):
                self._post.reply(event.request, Ack(message.sequence))
            case UserMessage():
                self._above.user_message(message.data)
                self._post.reply(event.request, None)
            case _:
                self._post.refuse("not for streams", now, sender=event.sender)
                self._post.reply(event.request, None)

    def _be_answered(self, event: Answered[bytes], now: float) -> None:
        try:
            answer = self._codec.open_stream(event.message, is_reply=True)
        except BadPacket as error:
            self._post.refuse("bad stream", now, sender="", detail=str(error))
            answer = ErrorReply(str(error))
        if self._exchange.has_asked(event.request):
            self._exchange.take_answer(event.request, answer, now)
        else:
            self._probing.take_stream_answer(event.request, answer)

    def _is_meant(self, ping: Ping, sender: Address, now: float) -> bool:
        """A ping by name may be for whoever had this address before."""
        if ping.node in ("", self._name):
            return True
        self._post.refuse("ping for another", now, sender=sender, detail=ping.node)
        return False

    def _is_too_much(self, now: float) -> bool:
        """Within this second."""
        if now - self._second_began_at >= 1:
            self._second_began_at, self._packets = now, 0
        self._packets += 1
        return self._packets > self._config.packets_per_second_max


def _check_meta(meta: bytes) -> None:
    if len(meta) > META_BYTES_MAX:
        raise ValueError(f"meta has {len(meta)} bytes; a member can have {META_BYTES_MAX} at most")
