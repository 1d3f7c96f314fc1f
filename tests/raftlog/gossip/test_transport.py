from __future__ import annotations

import asyncio
import itertools
import logging
import socket

import pytest

from raftlog.engine import Answered, Ask, Asked, Receive, Send, Unanswered
from raftlog.errors import ConfigError, ListenError
from raftlog.net.gossip.binding import address_of, advertised, bind, name_of, resolve
from raftlog.net.gossip.limits import WINDOW_S, PacketRate, TransportLimits
from raftlog.net.gossip.transport import GossipTransport
from raftlog.serf.messages import Address
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.fakes import (
    DEADLINE_S,
    MESSAGE_BYTES_MAX,
    Engine,
    LengthFraming,
    Node,
    framed,
    until,
)

LONG_S = DEADLINE_S


def has_ipv6() -> bool:
    try:
        bind("[::1]:0").close()
    except ListenError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Cut:
    """A network that lets nothing through, or no streams."""

    def __init__(self, *, packets: bool) -> None:
        self._packets = packets

    def lets_packet(self, source: Address, target: Address) -> bool:
        return not self._packets

    def lets_stream(self, source: Address, target: Address) -> bool:
        return False


# ── packets ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_packet_arrives_with_the_address_of_its_sender(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.send(Send(other.address, b"hello"))

            assert await other.engine.wait_for(1) == [Receive(one.address, b"hello")]
            assert one.transport.counts["packet_bytes_sent"] == 5
            assert other.transport.counts["packet_bytes_received"] == 5

    run(scenario())


@needs_ipv6
def test_packets_and_streams_go_by_ipv6_too(run: Run) -> None:
    async def scenario() -> None:
        async with Node(host="[::1]") as one, Node(host="[::1]") as other:
            one.transport.send(Send(other.address, b"hello"))
            assert await other.engine.wait_for(1) == [Receive(one.address, b"hello")]

            one.transport.ask(Ask(7, other.address, framed(b"?"), LONG_S))
            asked = (await other.engine.wait_for(2))[1]
            other.transport.reply(asked.request, framed(b"!"))
            assert await one.engine.wait_for(1) == [Answered(7, framed(b"!"))]

    run(scenario())


@needs_ipv6
def test_a_socket_of_every_interface_speaks_to_both_families(run: Run) -> None:
    async def scenario() -> None:
        async with Node(host="[::]") as one, Node() as other:
            one.transport.send(Send(other.address, b"from all"))
            received = (await other.engine.wait_for(1))[0]
            assert received.message == b"from all"

            other.transport.send(Send(Address(f"127.0.0.1:{one.host_and_port[1]}"), b"back"))
            assert await one.engine.wait_for(1) == [Receive(other.address, b"back")]

    run(scenario())


def test_a_packet_that_cannot_be_sent_is_counted_and_ends_nothing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.send(Send(Address("[fd00::1]:7946"), b"another family"))
            one.transport.send(Send(Address("no address"), b"none"))
            one.transport.send(Send(other.address, bytes(70_000)))  # too large for the system
            await until(lambda: one.transport.counts["packets_failed"] >= 2)

            one.transport.send(Send(other.address, b"hello"))
            assert (await other.engine.wait_for(1))[-1] == Receive(one.address, b"hello")

    with caplog.at_level(logging.WARNING):
        run(scenario())

    assert any("packet not sent" in record.getMessage() for record in caplog.records)


def test_packets_beyond_the_inbox_are_dropped_and_counted(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node(room=2) as other:
            for _ in range(5):
                one.transport.send(Send(other.address, b"x"))
            await until(lambda: other.transport.counts["packets_received"] == 5)

            assert other.engine.events == [Receive(one.address, b"x")] * 2
            assert other.transport.counts["inbox_full"] == 3

    run(scenario())


def test_packets_of_one_host_are_limited(run: Run) -> None:
    async def scenario() -> None:
        limits = TransportLimits(packets_per_host_per_s_max=10)
        async with Node() as one, Node(limits=limits) as other:
            for _ in range(50):
                one.transport.send(Send(other.address, b"x"))
            await until(lambda: other.transport.counts["packets_received"] == 50)

            assert other.transport.counts["packets_of_one_host"] == 50 - len(other.engine.events) >= 25

    run(scenario())


def test_a_host_that_floods_takes_nothing_from_others() -> None:
    now = 0.0
    rate = PacketRate(20, lambda: now)
    assert [rate.admits("loud") for _ in range(4)] == [True, True, False, False]
    assert rate.admits("quiet")

    now = WINDOW_S
    assert rate.admits("loud")


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_gets_the_answer_of_the_other_engine(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            question, answer = framed(b"q" * 300_000), framed(b"a" * 700_000)
            one.transport.ask(Ask(41, other.address, question, LONG_S))
            asked = (await other.engine.wait_for(1))[0]
            assert asked == Asked(1, asked.sender, question)
            assert asked.sender.startswith("127.0.0.1:")
            other.transport.reply(asked.request, answer)

            assert await one.engine.wait_for(1) == [Answered(41, answer)]

    run(scenario())


def test_a_question_that_deserves_no_answer_ends_with_the_stream(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.ask(Ask(1, other.address, framed(b"?"), LONG_S))
            asked = (await other.engine.wait_for(1))[0]
            other.transport.reply(asked.request, b"")

            event = (await one.engine.wait_for(1))[0]
            assert isinstance(event, Unanswered)
            assert event.request == 1
            assert "ended the stream" in event.reason

    run(scenario())


def test_who_asks_and_goes_leaves_no_stream_behind(run: Run) -> None:
    async def scenario() -> None:
        async with Node(limits=TransportLimits(inbound_streams_max=1)) as node:
            for number in (1, 2):  # the second finds the place of the first free
                _, writer = await asyncio.open_connection(*node.host_and_port)
                writer.write(framed(b"told"))
                asked = (await node.engine.wait_for(number))[-1]
                writer.transport.abort()
                node.transport.reply(asked.request, framed(b"nobody hears it"))
                await until(lambda: not node.transport.streams_open)

    run(scenario())


def test_who_says_that_nothing_more_comes_gets_its_answer(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as node:
            reader, writer = await asyncio.open_connection(*node.host_and_port)
            writer.write(framed(b"?"))
            writer.write_eof()
            asked = (await node.engine.wait_for(1))[0]
            node.transport.reply(asked.request, framed(b"!"))
            assert await reader.read() == framed(b"!")
            writer.close()
            await writer.wait_closed()

    run(scenario())


def test_a_question_to_nobody_is_unanswered(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one:
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                one.transport.ask(
                    Ask(5, Address(f"127.0.0.1:{nobody.getsockname()[1]}"), framed(b"?"), LONG_S)
                )

                event = (await one.engine.wait_for(1))[0]
            assert isinstance(event, Unanswered)
            assert event.request == 5

    run(scenario())


def test_a_question_is_unanswered_when_its_time_is_over(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.ask(Ask(5, other.address, framed(b"?"), 0.05))

            event = (await one.engine.wait_for(1))[0]
            assert event == Unanswered(5, "no answer within 0.05 s")
            await until(lambda: not other.transport.streams_open)  # who gave up has hung up

    run(scenario())


def test_an_answer_that_is_none_is_unanswered(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.ask(Ask(5, other.address, framed(b"?"), LONG_S))
            asked = (await other.engine.wait_for(1))[0]
            other.transport.reply(asked.request, (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))

            event = (await one.engine.wait_for(1))[0]
            assert event == Unanswered(5, f"too large: {MESSAGE_BYTES_MAX + 1}")

    run(scenario())


def test_more_questions_than_the_limit_are_unanswered_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with Node(limits=TransportLimits(outbound_streams_max=1)) as one, Node() as other:
            one.transport.ask(Ask(1, other.address, framed(b"?"), LONG_S))
            one.transport.ask(Ask(2, other.address, framed(b"?"), LONG_S))
            assert [event.request for event in one.engine.events] == [2]

            asked = (await other.engine.wait_for(1))[0]
            other.transport.reply(asked.request, framed(b"!"))
            assert (await one.engine.wait_for(2))[1] == Answered(1, framed(b"!"))

            one.transport.ask(Ask(3, other.address, framed(b"?"), LONG_S))  # there is room again
            asked = (await other.engine.wait_for(2))[1]
            other.transport.reply(asked.request, framed(b"!"))
            assert (await one.engine.wait_for(3))[2] == Answered(3, framed(b"!"))

    run(scenario())


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection in time."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read() == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("limits", "held"),
    [
        (TransportLimits(inbound_streams_max=2), 2),
        (TransportLimits(inbound_streams_per_host_max=3), 3),
    ],
    ids=["all", "host"],
)
def test_more_streams_than_the_limit_are_refused(run: Run, limits: TransportLimits, held: int) -> None:
    async def scenario() -> None:
        async with Node(limits=limits) as node:
            writers = []
            for number in range(held):
                _, writer = await asyncio.open_connection(*node.host_and_port)
                writer.write(framed(b"?"))
                await node.engine.wait_for(number + 1)  # it is taken, and waits for its answer
                writers.append(writer)

            reader, writer = await asyncio.open_connection(*node.host_and_port)
            writers.append(writer)
            assert await is_closed(reader)
            assert node.transport.counts["streams_refused"] == 1
            assert len(node.engine.events) == held
            for writer in writers:
                writer.transport.abort()

    run(scenario())


def test_streams_that_hold_too_many_bytes_together_are_closed(run: Run) -> None:
    async def scenario() -> None:
        async with Node(limits=TransportLimits(inbound_bytes_max=100_000)) as node:
            reader, writer = await asyncio.open_connection(*node.host_and_port)
            writer.write((MESSAGE_BYTES_MAX).to_bytes(4, "big") + bytes(200_000))
            assert await is_closed(reader)
            writer.transport.abort()

            await until(lambda: not node.transport.streams_open)
            assert node.transport._inbound_bytes == 0
            assert node.transport.counts["streams_broken"] == 1
            assert node.engine.events == []

    run(scenario())


@pytest.mark.parametrize(
    "sent", [b"", b"\x00\x00", framed(b"a whole one")[:-1]], ids=["nothing", "header", "part"]
)
def test_a_stream_that_is_too_slow_is_closed(run: Run, sent: bytes) -> None:
    async def scenario() -> None:
        async with Node(limits=TransportLimits(stream_timeout_s=0.05)) as node:
            reader, writer = await asyncio.open_connection(*node.host_and_port)
            writer.write(sent)
            assert await is_closed(reader)
            writer.transport.abort()
            await until(lambda: not node.transport.streams_open)
            assert node.transport.counts["streams_slow"] == 1

    run(scenario())


def test_who_does_not_read_the_answer_is_hung_up_on(run: Run) -> None:
    async def scenario() -> None:
        async with Node(limits=TransportLimits(stream_timeout_s=0.3)) as node:
            reader, writer = await asyncio.open_connection(*node.host_and_port, limit=1024)
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(framed(b"?"))
            asked = (await node.engine.wait_for(1))[0]
            node.transport.reply(asked.request, bytes(32 * 1024 * 1024))

            await until(lambda: not node.transport.streams_open)
            assert node.transport.counts["streams_slow"] == 1
            writer.transport.abort()
            del reader

    run(scenario())


def test_a_stream_that_is_no_message_or_ends_early_is_closed(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as node:
            for sent in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x05abc"):
                reader, writer = await asyncio.open_connection(*node.host_and_port)
                writer.write(sent)
                writer.write_eof()
                assert await is_closed(reader)
                writer.transport.abort()
            await until(lambda: node.transport.counts["streams_broken"] == 2)
            assert node.engine.events == []

    run(scenario())


def test_a_reply_to_nobody_is_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as node:
            node.transport.reply(99, b"late")

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_a_start_that_is_cancelled_leaves_no_socket_behind(run: Run, turns: int) -> None:
    """After so many turns of the loop. A server that stops just when its gossip begins anew would never end."""

    async def scenario() -> None:
        sockets = bind("127.0.0.1:0")
        address = address_of(sockets.packets.getsockname())
        transport = GossipTransport(sockets, LengthFraming, limits=TransportLimits())
        starting = asyncio.create_task(transport.start(Engine().dispatch, itertools.count(1)))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await transport.close()
        await asyncio.sleep(0)

        bind(address).close()

    run(scenario())


def test_a_transport_closes_while_streams_are_open_in_both_directions(run: Run) -> None:
    async def scenario() -> None:
        async with Node() as one, Node() as other:
            one.transport.ask(Ask(1, other.address, framed(b"?"), LONG_S))
            await other.engine.wait_for(1)
            _, writer = await asyncio.open_connection(*one.host_and_port)
            writer.write(b"\x00")
            await until(lambda: one.transport.counts["streams_taken"] == 1)

            await one.transport.close()
            one.transport.send(Send(other.address, b"late"))
            assert one.engine.events == []
            writer.transport.abort()
            await until(lambda: not other.transport.streams_open)

    run(scenario())


# ── a network that is cut ───────────────────────────────────────────────────────────────────────────


def test_what_the_filter_holds_back_does_not_leave(run: Run) -> None:
    async def scenario() -> None:
        async with Node(filter=Cut(packets=True)) as one, Node() as other:
            one.transport.send(Send(other.address, b"x"))
            one.transport.ask(Ask(1, other.address, framed(b"?"), 0.05))

            assert await one.engine.wait_for(1) == [Unanswered(1, "no answer within 0.05 s")]
            assert one.transport.counts["packets_filtered"] == 1
            assert other.engine.events == []

    run(scenario())


def test_what_the_filter_holds_back_does_not_come_in(run: Run) -> None:
    async def scenario() -> None:
        async with Node(filter=Cut(packets=True)) as one, Node() as other:
            other.transport.send(Send(one.address, b"x"))
            reader, writer = await asyncio.open_connection(*one.host_and_port)
            assert await is_closed(reader)
            writer.transport.abort()
            await until(lambda: one.transport.counts["packets_filtered"] == 1)
            assert one.engine.events == []

        async with Node(filter=Cut(packets=False)) as one, Node() as other:
            other.transport.send(Send(one.address, b"x"))
            await one.engine.wait_for(1)

    run(scenario())


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────


def test_any_free_port_is_free_for_packets_and_streams() -> None:
    sockets = bind("127.0.0.1:0")
    try:
        assert sockets.packets.getsockname() == sockets.streams.getsockname()
        assert sockets.packets.getsockname()[1] != 0
    finally:
        sockets.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["streams", "packets"])
def test_a_port_that_is_taken_is_said(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(
            ListenError, match=f"bind-addr: cannot listen on {address}: Address already in use"
        ):
            bind(address)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:port", "192.0.2.1:0"])
def test_what_cannot_be_bound_is_said(address: str) -> None:
    with pytest.raises(ListenError):
        bind(address)


def test_what_others_are_told() -> None:
    async def scenario() -> None:
        one, every = bind("127.0.0.1:0"), bind("0.0.0.0:0")
        try:
            port, other_port = one.packets.getsockname()[1], every.packets.getsockname()[1]
            assert await advertised(one, None) == f"127.0.0.1:{port}"
            assert await advertised(one, "192.0.2.1:7946") == "192.0.2.1:7946"
            assert await advertised(every, "192.0.2.1:0") == f"192.0.2.1:{other_port}"
            for wanted in ("0.0.0.0:7946", "[::]:1", "no-port"):
                with pytest.raises(ConfigError, match="advertise-addr"):
                    await advertised(every, wanted)
        finally:
            one.close()
            every.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("own", "is_warned"), [("192.0.2.7", False), ("127.0.0.1", True)])
def test_with_every_interface_others_are_told_where_packets_leave_this_machine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, own: str, is_warned: bool
) -> None:
    monkeypatch.setattr("raftlog.net.gossip.binding.address_towards_others", lambda: own)

    async def scenario() -> None:
        every = bind("0.0.0.0:0")
        try:
            assert await advertised(every, None) == f"{own}:{every.packets.getsockname()[1]}"
        finally:
            every.close()

    asyncio.run(scenario())
    assert ("set advertise-addr" in caplog.text) == is_warned


def test_addresses_of_sockets_and_ours() -> None:
    assert address_of(("::ffff:10.0.0.1", 7946, 0, 0)) == "10.0.0.1:7946"
    assert address_of(("fd00::1", 7946, 0, 0)) == "[fd00::1]:7946"
    assert name_of(Address("10.0.0.1:7946"), socket.AF_INET6) == ("::ffff:10.0.0.1", 7946)
    assert name_of(Address("10.0.0.1:7946"), socket.AF_INET) == ("10.0.0.1", 7946)
    assert asyncio.run(resolve("127.0.0.1:1")) == ("127.0.0.1:1",)
