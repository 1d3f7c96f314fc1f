"""The stand-in for TCP: messages arrive once and in order, or the connection ends."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("pysyncobj", reason="the optional extra pysyncobj is not installed")

from raftlog.engine import NodeId
from raftlog.sim.pysyncobj.streams import Data, Fields, Hello, Packet, Reset, Streams

A, B = NodeId("a"), NodeId("b")  # b has the greater address and connects


class Pair:
    """Two nodes; `wire` is what is under way."""

    def __init__(self) -> None:
        self.wire: list[tuple[NodeId, Packet]] = []  # (to, packet)
        self.told: list[str] = []
        self.got: dict[NodeId, list[Fields]] = {A: [], B: []}
        self.ends = {name: self._end(name) for name in (A, B)}

    def _end(self, name: NodeId) -> Streams:
        return Streams(
            name,
            rng=random.Random(name),
            read_timeout_s=3.5,
            retry_s=0.5,
            send=lambda peer, packet: self.wire.append((peer, packet)),
            connected=lambda peer: self.told.append(f"{name} connected to {peer}"),
            disconnected=lambda peer: self.told.append(f"{name} lost {peer}"),
        )

    def deliver(self, now: float) -> None:
        """Until nothing is under way."""
        while self.wire:
            target, packet = self.wire.pop(0)
            self.got[target] += self.ends[target].receive(A if target == B else B, packet, now)

    def connect(self) -> None:
        self.ends[A].add(B)
        self.ends[B].add(A)
        self.ends[B].tick(0.0)
        self.deliver(0.0)


def message(number: int) -> Fields:
    return (("number", number),)


def test_node_with_the_greater_address_connects() -> None:
    pair = Pair()
    pair.ends[A].add(B)
    pair.ends[B].add(A)

    pair.ends[A].tick(0.0)
    sent_by_a = list(pair.wire)
    pair.ends[B].tick(0.0)
    pair.deliver(0.0)

    assert sent_by_a == []
    assert pair.told == ["a connected to b", "b connected to a"]


def test_unknown_caller_is_refused_and_tries_again_later() -> None:
    pair = Pair()
    pair.ends[B].add(A)

    pair.ends[B].tick(0.0)
    pair.deliver(0.0)
    pair.ends[B].tick(0.4)
    early = list(pair.wire)
    pair.ends[B].tick(0.5)

    assert (pair.told, early) == ([], [])
    assert [type(packet) for _, packet in pair.wire] == [Hello]


def test_messages_that_overtake_others_wait_for_them() -> None:
    pair = Pair()
    pair.connect()
    for number in range(3):
        pair.ends[A].send(B, message(number), 0.1)

    pair.wire.reverse()
    pair.deliver(0.1)

    assert pair.got[B] == [message(0), message(1), message(2)]


def test_lost_message_is_repeated_and_handed_on_once() -> None:
    pair = Pair()
    pair.connect()
    pair.ends[A].send(B, message(0), 0.0)
    pair.wire.clear()

    pair.ends[A].tick(0.1)
    too_early = list(pair.wire)
    pair.ends[A].tick(0.2)
    pair.wire *= 2
    pair.deliver(0.2)
    pair.ends[A].tick(1.0)

    assert too_early == []
    assert pair.got[B] == [message(0)]
    assert pair.wire == []


def test_message_on_a_connection_that_was_idle_too_long_is_lost_and_ends_it() -> None:
    pair = Pair()
    pair.connect()

    is_sent = pair.ends[A].send(B, message(0), 3.6)
    pair.deliver(3.6)

    assert not is_sent
    assert pair.got[B] == []
    assert pair.told[2:] == ["a lost b", "b lost a"]


def test_packet_of_a_connection_that_ended_is_answered_by_a_reset() -> None:
    pair = Pair()
    pair.connect()
    pair.ends[A].send(B, message(0), 0.1)
    (_, packet), *_ = pair.wire
    assert isinstance(packet, Data)

    pair.ends[B].drop(A)
    pair.wire.clear()
    pair.deliver(0.1)
    pair.ends[B].add(A)
    messages = pair.ends[B].receive(A, packet, 0.1)

    assert messages == []
    assert pair.wire == [(A, Reset(packet.connection))]
