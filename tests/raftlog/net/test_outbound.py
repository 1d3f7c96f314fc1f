from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest

from raftlog.net.backoff import BackOff
from raftlog.net.connection import Connection
from raftlog.net.outbound import Outbound
from raftlog.net.quiet_log import QuietLog
from raftlog.net.stream_layer import Unreachable
from raftlog.net.throttle import Throttle

from .conftest import Run
from .nodes import until

MAX = 100  # bytes that may be queued


class FakeConnection:
    """Takes what is written, and ends when it is told to."""

    peer_address = "n2:8400"

    def __init__(self) -> None:
        self.writes: list[bytes] = []  # one per call
        self.is_open = True
        self.is_writable = True
        self.unsent_bytes = 0
        self.on_writable: Callable[[], None] = lambda: None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def write(self, parts: list[bytes]) -> None:
        if parts:
            self.writes.append(b"".join(parts))

    def abort(self, reason: str) -> None:
        self.is_open = False
        if not self.ended.done():
            self.ended.set_result(reason)

    close = abort


class Peer:
    """The other side: how attempts to connect end, and how long was waited between them."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []
        self.attempts = 0
        self.waits: list[float] = []
        self.is_there = asyncio.Event()  # attempts wait for it
        self.refuses = False
        self.unreachable = 0
        self.rest = asyncio.Event()  # set: waits between attempts end at once
        self.is_there.set()
        self.rest.set()

    async def connect(self) -> Connection:
        self.attempts += 1
        await self.is_there.wait()
        if self.refuses:
            raise Unreachable("n2:8400: refused")
        self.connections.append(FakeConnection())
        return cast("Connection", self.connections[-1])

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.rest.wait()

    def note_unreachable(self) -> None:
        self.unreachable += 1

    def outbound(self, *, is_eager: bool = True, throttle: Throttle | None = None) -> Outbound:
        return Outbound(
            "n2 control", self.connect, self.note_unreachable, queue_bytes_max=MAX, is_eager=is_eager,
            back_off=BackOff(seconds_min=1.0, seconds_max=4.0, random=Random(1)),
            quiet=QuietLog(logging.getLogger("test"), asyncio.get_running_loop().time),
            throttle=throttle, sleep=self.sleep,
        )  # fmt: skip


def send(outbound: Outbound, *payloads: bytes, **more: Any) -> None:
    for payload in payloads:
        outbound.send([payload], len(payload), **more)


def test_frames_of_one_turn_of_the_loop_are_written_at_once_and_in_order(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)

        send(outbound, b"one ", b"two ", b"three")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        send(outbound, b"four")
        await until(lambda: len(peer.connections[0].writes) == 2)

        assert peer.connections[0].writes == [b"one two three", b"four"]
        await outbound.close()

    run(scenario())


def test_what_is_said_while_connecting_is_sent_then(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.is_there.clear()
        outbound = peer.outbound()
        await until(lambda: peer.attempts == 1)
        send(outbound, b"early")
        peer.is_there.set()

        await until(lambda: peer.connections and peer.connections[0].writes == [b"early"])

        assert peer.unreachable == 0
        await outbound.close()

    run(scenario())


def test_one_that_is_not_eager_connects_when_there_is_something_to_say(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound(is_eager=False)
        for _ in range(10):
            await asyncio.sleep(0)
        assert peer.attempts == 0

        send(outbound, b"word")

        await until(lambda: peer.connections and peer.connections[0].writes == [b"word"])
        await outbound.close()

    run(scenario())


def test_waits_between_attempts_grow(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.refuses = True
        outbound = peer.outbound()

        await until(lambda: len(peer.waits) >= 5)

        for wait, longest in zip(peer.waits, [1.0, 2.0, 4.0, 4.0, 4.0], strict=False):
            assert longest / 2 <= wait <= longest
        assert peer.unreachable >= 4
        await outbound.close()

    run(scenario())


def test_a_connection_that_is_lost_is_told_and_made_again(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)

        peer.connections[0].abort("cut")

        await until(lambda: len(peer.connections) == 2 and outbound.is_connected)
        assert (peer.unreachable, outbound.connects) == (1, 2)
        send(outbound, b"again")
        await until(lambda: peer.connections[1].writes == [b"again"])
        await outbound.close()

    run(scenario())


def test_what_is_said_between_attempts_is_dropped_and_told(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.rest.clear()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)
        peer.connections[0].abort("cut")
        await until(lambda: peer.waits)
        before = peer.unreachable

        send(outbound, b"lost", b"too")
        await until(lambda: peer.unreachable == before + 1)

        assert outbound.dropped == 2
        assert outbound.queued_bytes == 0
        await outbound.close()

    run(scenario())


def test_a_peer_that_is_heard_of_is_tried_at_once(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.rest.clear()
        peer.refuses = True
        outbound = peer.outbound()
        await until(lambda: peer.waits)
        peer.refuses = False

        outbound.try_now()

        await until(lambda: outbound.is_connected)
        await outbound.close()

    run(scenario())


def test_the_queue_takes_as_many_bytes_as_allowed_and_drops_the_rest(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)
        connection = peer.connections[0]
        connection.is_writable = False

        send(outbound, b"a" * MAX)  # exactly full
        send(outbound, b"b")  # one over
        await until(lambda: peer.unreachable == 1)
        assert (outbound.queued_bytes, outbound.dropped, connection.writes) == (MAX, 1, [])

        connection.is_writable = True
        connection.on_writable()
        assert connection.writes == [b"a" * MAX]
        assert outbound.queued_bytes == 0
        await outbound.close()

    run(scenario())


def test_a_frame_longer_than_the_queue_may_be_goes_alone(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)

        send(outbound, b"a" * (MAX + 1), b"b")
        await until(lambda: peer.connections[0].writes)

        assert peer.connections[0].writes == [b"a" * (MAX + 1)]
        assert outbound.dropped == 1
        await outbound.close()

    run(scenario())


def test_what_the_system_has_not_taken_counts_too(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)
        peer.connections[0].unsent_bytes = MAX

        send(outbound, b"a")

        assert (outbound.queued_bytes, outbound.dropped) == (MAX, 1)
        await outbound.close()

    run(scenario())


def test_the_throttle_holds_back_what_it_is_for_and_what_follows(run: Run) -> None:
    clock = 0.0

    async def scenario() -> None:
        nonlocal clock
        peer = Peer()
        outbound = peer.outbound(throttle=Throttle(10_000, lambda: clock))
        await until(lambda: outbound.is_connected)
        connection = peer.connections[0]

        send(outbound, b"a" * 50, is_throttled=True)
        send(outbound, b"b" * 10, is_throttled=True)
        send(outbound, b"c")  # not for the throttle, but behind it: frames keep their order
        await until(lambda: connection.writes)
        assert connection.writes == [b"a" * 50]

        clock = 1.0
        await until(lambda: len(connection.writes) == 2)
        assert connection.writes[1] == b"b" * 10 + b"c"
        await outbound.close()

    run(scenario())


def test_what_was_said_last_is_sent_before_the_end(run: Run) -> None:
    async def scenario() -> None:
        peer = Peer()
        outbound = peer.outbound()
        await until(lambda: outbound.is_connected)
        send(outbound, b"last")

        await outbound.close()

        assert peer.connections[0].writes == [b"last"]
        assert not peer.connections[0].is_open
        assert peer.unreachable == 0

    run(scenario())


@pytest.mark.parametrize("is_there", [True, False])
def test_it_can_be_closed_at_any_time(run: Run, is_there: bool) -> None:
    async def scenario() -> None:
        peer = Peer()
        if not is_there:
            peer.is_there.clear()
        outbound = peer.outbound()
        await asyncio.sleep(0)
        send(outbound, b"word")
        await outbound.close()

    run(scenario())
