"""Failure detection: one other member is pinged at a time, then others ping it too; who is silent is suspected.

Source: SWIM 3.1 (ping, indirect pings), 4.3 (in rounds); Lifeguard IV-A (a node in ill health waits longer; nacks tell it
of its own trouble), IV-C (whoever is suspected is told so with the ping). The ping by a stream beside the indirect ones is
memberlist's: it finds networks that drop packets only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from raftlog.serf.config import SwimConfig
from raftlog.serf.messages import Ack, IndirectPing, Ping, State, Suspect, SwimMessage
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.awareness import Awareness
from raftlog.serf.swim.claims import Claims
from raftlog.serf.swim.members import Members, SwimMember
from raftlog.serf.swim.post import Post

STREAM_PING_PROTOCOL: Final = 3  # whoever speaks it answers pings by a stream
NACK_PROTOCOL: Final = 4  # whoever speaks it says that an indirect ping was not answered


class Sequence:
    """Numbers of pings: from one drawn by chance, so that acks of a former life do not fit."""

    def __init__(self, random: Random) -> None:
        self._last = random.getrandbits(32)

    def next(self) -> int:
        self._last = (self._last + 1) % 2**32
        return self._last


@dataclass(slots=True)
class _Probe:
    """Of one member as it was when it was pinged."""

    member: SwimMember
    ping: Ping
    sent_at: float
    ask_others_at: float  # infinite once they are asked
    ends_at: float
    nacks_expected: int = 0
    nacks: int = 0
    stream: int = 0  # the number of the question by a stream; 0: none
    has_stream_answered: bool = False


class Probing:
    """One probe at a time."""

    def __init__(
        self,
        config: SwimConfig,
        members: Members,
        claims: Claims,
        awareness: Awareness,
        sequence: Sequence,
        post: Post,
        above: Above,
        random: Random,
    ) -> None:
        self._config = config
        self._members = members
        self._claims = claims
        self._awareness = awareness
        self._sequence = sequence
        self._post = post
        self._above = above
        self._random = random
        self._probe: _Probe | None = None
        self._next_at = inf

    def start(self, now: float) -> None:
        self._next_at = now + self._random.random() * self._config.probe_interval_s

    @property
    def deadline(self) -> float:
        if self._probe is not None:
            return min(self._probe.ask_others_at, self._probe.ends_at)
        return self._next_at if self._members.count > 1 else inf

    def advance(self, now: float) -> None:
        """Do what is due."""
        if self._probe is not None and now >= self._probe.ask_others_at:
            self._ask_others(self._probe, now)
        if self._probe is not None and now >= self._probe.ends_at:
            self._end(self._probe, now)
        if self._probe is None and now >= self._next_at:
            self._begin(now)

    def take_ack(self, ack: Ack, now: float) -> None:
        probe = self._probe
        if probe is None or ack.sequence != probe.ping.sequence:
            return  # of a probe that is over, or sent again
        self._probe = None
        self._awareness.change(-1)
        if probe.ask_others_at != inf:  # else it may have come by another, and tells nothing of the way
            self._above.ping_done(probe.member, now - probe.sent_at, ack.payload)

    def take_nack(self, sequence: int) -> None:
        if self._probe is not None and sequence == self._probe.ping.sequence:
            self._probe.nacks += 1

    def take_stream_answer(self, request: int, answer: SwimMessage) -> None:
        """Counts when the probe ends: until then acks may still come by packets."""
        if self._probe is not None and self._probe.stream == request:
            sequence = self._probe.ping.sequence
            self._probe.has_stream_answered = isinstance(answer, Ack) and answer.sequence == sequence

    def _begin(self, now: float) -> None:
        config = self._config
        if now - self._next_at > config.probe_interval_s:
            # Nobody was there to be probed, or this node slept. A new phase, so that those who began together part.
            self._next_at = now + self._random.random() * config.probe_interval_s
            return
        self._next_at = now + config.probe_interval_s
        member = self._members.next(now)
        if member is None:
            return
        own = self._claims.own
        ping = Ping(self._sequence.next(), member.name, own.address, own.name)
        self._probe = _Probe(
            member=member,
            ping=ping,
            sent_at=now,
            ask_others_at=now + config.probe_timeout_s,
            ends_at=now + self._awareness.scaled(config.probe_interval_s),
        )
        if member.state is State.SUSPECT:
            self._post.send(member.address, ping, Suspect(member.incarnation, member.name, accuser=own.name))
        else:
            self._post.send(member.address, ping)

    def _ask_others(self, probe: _Probe, now: float) -> None:
        """To ping it; and ping it by a stream."""
        member, ping = probe.member, probe.ping
        probe.ask_others_at = inf
        # If this node slept, the others still get the time for an answer.
        probe.ends_at = max(probe.ends_at, now + self._config.probe_timeout_s)
        asked = self._members.pick(
            self._config.indirect_checks, lambda m: m.state is State.ALIVE and m.name != member.name
        )
        for other in asked:
            wants_nack = other.versions.protocol_max >= NACK_PROTOCOL
            probe.nacks_expected += wants_nack
            question = IndirectPing(
                ping.sequence, member.address, member.name, wants_nack, ping.source_address, ping.source_node
            )
            self._post.send(other.address, question)
        if member.versions.protocol_max >= STREAM_PING_PROTOCOL:
            probe.stream = self._post.ask(member.address, ping, probe.ends_at - now)

    def _end(self, probe: _Probe, now: float) -> None:
        """No ack came."""
        self._probe = None
        if probe.has_stream_answered:
            self._awareness.change(-1)
            self._post.note("member answers by streams only", member=probe.member.name)
            return
        if probe.nacks_expected:
            self._awareness.change(max(0, probe.nacks_expected - probe.nacks))
        else:
            self._awareness.change(1)
        self._claims.suspect(probe.member.name, probe.member.incarnation, now)
