"""Carries out what a gossip engine wants sent, and gives it what comes: packets by UDP, questions by TCP.

A question is one connection: one message each way, then it is closed. How long a message is, is known to whoever made
it only, so a `Framing` reads along and says when it is whole.

Nothing here waits without an end or grows without a bound, and nothing that a stranger sends ends it: what cannot be
taken is counted in `counts` and noted in the log, not too often.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from raftlog.engine import Answered, Ask, Asked, Receive, Send, Unanswered
from raftlog.net.addresses import split_address
from raftlog.net.gossip.binding import Sockets, address_of, name_of
from raftlog.net.gossip.limits import PacketRate, TransportLimits
from raftlog.net.quiet_log import QuietLog
from raftlog.runtime.actor import InboxFull
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.messages import Address

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024  # that are read of a stream at a time


T = TypeVar("T")


class Framing(Protocol):
    """Of one message of a stream."""

    def feed(self, data: bytes) -> bool:
        """Take in what came next; True: the message is whole. BadPacket: it is none, or too large."""

    @property
    def message_bytes(self) -> bytes: ...


class Filter(Protocol):
    """Decides what the network lets through; for tests, which break it."""

    def lets_packet(self, source: Address, target: Address) -> bool: ...

    def lets_stream(self, source: Address, target: Address) -> bool:
        """Of a stream that comes in, the port of `source` is none that can be reached."""


class Dispatch(Protocol):
    """raftlog.runtime.actor.Actor.dispatch."""

    def __call__(self, event: Any, *, is_urgent: bool = False) -> None: ...


class GossipTransport:
    """Of two sockets, which it closes at its end. All calls are made in the event loop's thread."""

    def __init__(
        self,
        sockets: Sockets,
        framing: Callable[[], Framing],
        *,
        limits: TransportLimits | None = None,
        filter: Filter | None = None,
    ) -> None:
        self._sockets = sockets
        self._family = sockets.packets.family
        self._address = address_of(sockets.packets.getsockname())
        self._framing = framing
        self._limits = limits or TransportLimits()
        self._filter = filter
        self._loop = asyncio.get_running_loop()
        self._quiet = QuietLog(log, self._loop.time)
        self._rate = PacketRate(self._limits.packets_per_host_per_s_max, self._loop.time)
        self._packets: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._dispatch: Dispatch | None = None
        self._numbers: Iterator[int] = iter(())
        self._tasks: set[asyncio.Task[Any]] = set()  # one per stream
        # Of inbound streams whose question was given away
        self._replies: dict[int, asyncio.Future[bytes]] = {}
        self._inbound: Counter[str] = Counter()  # streams by host; those of no stream are removed
        self._inbound_bytes = 0  # that inbound streams hold
        self._outbound = 0  # streams
        self._is_closed = False
        self.counts: Counter[str] = Counter()  # what was sent, taken in and dropped, since the start

    @property
    def bound_address(self) -> Address:
        """Where it listens, which may be every interface."""
        return self._address

    @property
    def streams_open(self) -> int:
        """That others have opened."""
        return self._inbound.total()

    async def start(self, dispatch: Dispatch, numbers: Iterator[int]) -> None:
        """Give what comes to `dispatch` from now on; the numbers of questions are drawn from `numbers`."""
        self._dispatch, self._numbers = dispatch, numbers
        # Not to be cancelled half-way: a socket that belongs to nobody keeps uvloop from ever being closed.
        self._opening = self._loop.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        self._packets, _ = await self._loop.create_datagram_endpoint(
            lambda: _Packets(self._packet_came, self._packets_failed), sock=self._sockets.packets
        )
        self._server = await asyncio.start_server(
            self._stream_came, sock=self._sockets.streams, limit=CHUNK_BYTES
        )

    def fall_silent(self) -> None:
        """Nothing is sent or given away any more. Questions that are under way come to nothing, and nobody is told."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        if self._packets is not None:
            self._packets.close()
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """Fall silent, and close the sockets."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        self.fall_silent()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # the sockets are closed in the next turn
        self._sockets.close()

    # ── packets ─────────────────────────────────────────────────────────────────────────────────────

    def send(self, effect: Send[bytes]) -> None:
        """Or drop it, as the network may."""
        if self._packets is None or self._is_closed:
            return
        if self._filter is not None and not self._filter.lets_packet(self._address, effect.to):
            self.counts["packets_filtered"] += 1
            return
        unsent_bytes = self._packets.get_write_buffer_size()  # type: ignore[attr-defined]  # it has one in both loops
        if unsent_bytes > self._limits.unsent_bytes_max:
            self.counts["packets_unsent"] += 1
            return
        try:
            self._packets.sendto(effect.message, name_of(effect.to, self._family))
        except (OSError, ValueError) as error:  # an address of another family, or none
            self._packets_failed(error)
            return
        self.counts["packets_sent"] += 1
        self.counts["packet_bytes_sent"] += len(effect.message)

    def _packet_came(self, data: bytes, name: tuple[str | int, ...]) -> None:
        source = address_of(name)
        if self._filter is not None and not self._filter.lets_packet(source, self._address):
            self.counts["packets_filtered"] += 1
            return
        self.counts["packets_received"] += 1
        self.counts["packet_bytes_received"] += len(data)
        host = str(name[0])
        if not self._rate.admits(host):
            self._dropped("packets_of_one_host", "packets dropped: too many of one host host=%s", host)
            return
        self._give(Receive(source, data))

    def _packets_failed(self, error: Exception) -> None:
        self.counts["packets_failed"] += 1
        reason = _reason(error)
        self._quiet.warning(f"send {reason}", "packet not sent reason=%s", reason)

    def _give(self, event: Receive[bytes] | Asked[bytes]) -> bool:
        """To the engine; False if too much waits there."""
        assert self._dispatch is not None, "it was not started"
        if self._is_closed:
            return False
        try:
            self._dispatch(event)
        except InboxFull:
            self._dropped(
                "inbox_full", "gossip dropped: more comes than can be handled host=%s", event.sender
            )
            return False
        return True

    def _dropped(self, kind: str, text: str, *values: Any) -> None:
        self.counts[kind] += 1
        self._quiet.warning(kind, text, *values)

    # ── questions asked ─────────────────────────────────────────────────────────────────────────────

    def ask(self, effect: Ask[bytes]) -> None:
        """Report Answered or Unanswered, once, unless this is closed before."""
        if self._outbound >= self._limits.outbound_streams_max:
            self.counts["streams_refused"] += 1
            self._report(
                Unanswered(effect.request, f"{self._outbound} streams are open, as many as are allowed")
            )
            return
        self._outbound += 1
        self._spawn(self._ask(effect)).add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[Answered[bytes] | Unanswered]) -> None:
        self._outbound -= 1  # before it is told: the engine may ask the next then
        if not task.cancelled():
            self._report(task.result())

    async def _ask(self, effect: Ask[bytes]) -> Answered[bytes] | Unanswered:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(effect.timeout_s):
                if self._filter is not None and not self._filter.lets_stream(self._address, effect.to):
                    await self._loop.create_future()  # as packets that nobody answers
                host, port = split_address(effect.to)
                reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
                self.counts["streams_opened"] += 1
                writer.write(effect.message)
                await writer.drain()
                return Answered(effect.request, await self._read(reader, lambda size: True))
        except TimeoutError:
            return Unanswered(effect.request, f"no answer within {effect.timeout_s:g} s")
        except (OSError, ValueError, EOFError, BadPacket) as error:
            return Unanswered(effect.request, _reason(error))
        finally:
            if writer is not None:
                writer.transport.abort()

    def _report(self, event: Answered[bytes] | Unanswered) -> None:
        if isinstance(event, Unanswered):
            self.counts["questions_unanswered"] += 1
        if self._dispatch is not None and not self._is_closed:
            self._dispatch(event, is_urgent=True)

    async def _read(self, reader: asyncio.StreamReader, admits: Callable[[int], bool]) -> bytes:
        """One whole message. EOFError if the other side ended it before; BadPacket if it is none, or too large."""
        framing = self._framing()
        while chunk := await reader.read(CHUNK_BYTES):
            if not admits(len(chunk)):
                raise BadPacket("streams hold as many bytes as are allowed")
            if framing.feed(chunk):
                return framing.message_bytes
        raise EOFError("the other side ended the stream before its message was whole")

    # ── questions answered ──────────────────────────────────────────────────────────────────────────

    def reply(self, request: int, answer: bytes) -> None:
        """To a question that came, unless it was given up; b"": no answer, the stream is closed."""
        reply = self._replies.get(request)
        if reply is not None and not reply.done():
            reply.set_result(answer)

    def _stream_came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        if name is None or self._is_closed:  # it is gone already
            writer.transport.abort()
            return
        source, host, limits = address_of(name), str(name[0]), self._limits
        if self._filter is not None and not self._filter.lets_stream(source, self._address):
            self.counts["streams_filtered"] += 1
            writer.transport.abort()
            return
        if (
            self._inbound.total() >= limits.inbound_streams_max
            or self._inbound[host] >= limits.inbound_streams_per_host_max
        ):
            self._dropped("streams_refused", "stream refused: as many as are allowed host=%s", host)
            writer.transport.abort()
            return
        self._inbound[host] += 1
        self.counts["streams_taken"] += 1
        task = self._spawn(self._serve(reader, writer, source))
        task.add_done_callback(partial(self._served, host, writer))

    def _served(self, host: str, writer: asyncio.StreamWriter, _: asyncio.Task[None]) -> None:
        """Also where the task was cancelled before it began."""
        writer.transport.abort()
        self._inbound[host] -= 1
        if not self._inbound[host]:
            del self._inbound[host]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Address
    ) -> None:
        held = 0
        request = next(self._numbers)

        def admits(size: int) -> bool:
            nonlocal held
            held += size
            self._inbound_bytes += size
            return self._inbound_bytes <= self._limits.inbound_bytes_max

        try:
            async with asyncio.timeout(self._limits.stream_timeout_s):
                question = await self._read(reader, admits)
                answer = await self._answer(request, source, question)
                if answer:
                    writer.write(answer)
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except TimeoutError:
            self._dropped("streams_slow", "stream closed: it took too long host=%s", source)
        except (OSError, EOFError, BadPacket) as error:
            self._dropped("streams_broken", "stream closed host=%s reason=%s", source, _reason(error))
        finally:
            self._inbound_bytes -= held

    async def _answer(self, request: int, source: Address, question: bytes) -> bytes:
        """What the engine says; b"" if that is nothing, or it does not take the question."""
        reply = self._replies[request] = self._loop.create_future()
        try:
            return await reply if self._give(Asked(request, source, question)) else b""
        finally:
            del self._replies[request]

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Packets(asyncio.DatagramProtocol):
    def __init__(
        self,
        on_packet: Callable[[bytes, tuple[str | int, ...]], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._on_packet = on_packet
        self._on_error = on_error

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self._on_packet(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Of a packet that was sent."""
        self._on_error(exc)
