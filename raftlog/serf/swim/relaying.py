"""Pings for others: whoever got no ack asks this node to try. Source: SWIM 3.1, "ping-req"; Lifeguard IV-A (nacks)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from raftlog.serf.config import SwimConfig
from raftlog.serf.messages import Ack, Address, IndirectPing, Nack, Ping
from raftlog.serf.swim.claims import Claims
from raftlog.serf.swim.post import Post
from raftlog.serf.swim.probing import Sequence

RELAYS_MAX: Final = 1024  # that wait for acks; more are refused, and who asks misses a nack


@dataclass(frozen=True, slots=True)
class _Relay:
    asked: int  # the sequence number of who asked
    to: Address
    wants_nack: bool
    ends_at: float


class Relaying:
    def __init__(self, config: SwimConfig, claims: Claims, sequence: Sequence, post: Post) -> None:
        self._config = config
        self._claims = claims
        self._sequence = sequence
        self._post = post
        self._waiting: dict[int, _Relay] = {}  # by the sequence number of this node; ends_at ascends

    @property
    def deadline(self) -> float:
        return next(iter(self._waiting.values())).ends_at if self._waiting else inf

    def take_question(self, question: IndirectPing, sender: Address, now: float) -> None:
        if len(self._waiting) >= RELAYS_MAX:
            self._post.refuse("too many indirect pings", now, sender=sender)
            return
        own = self._claims.own
        sequence = self._sequence.next()
        self._waiting[sequence] = _Relay(
            asked=question.sequence,
            to=question.source_address or sender,
            wants_nack=question.wants_nack,
            ends_at=now + self._config.probe_timeout_s,
        )
        self._post.send(question.target, Ping(sequence, question.node, own.address, own.name))

    def take_ack(self, ack: Ack) -> None:
        relay = self._waiting.pop(ack.sequence, None)
        if relay is not None:
            self._post.send(relay.to, Ack(relay.asked))

    def advance(self, now: float) -> None:
        while self.deadline <= now:
            relay = self._waiting.pop(next(iter(self._waiting)))
            if relay.wants_nack:
                self._post.send(relay.to, Nack(relay.asked))
