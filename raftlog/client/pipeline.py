"""Keeps batches on their way to the leader, in order, so that each is stored once whatever fails meanwhile.

All that is sent goes over one stream, several batches ahead of the answers. Each batch has a place: the producer's id,
its epoch, and the sequence number of the batch's first record. The log takes a place once, and only the next one.

What happens when a stream ends, or its server does not answer:

1. What was answered is stored. The first batch that was not answered is the one that the server's error is about.
2. Is the error none of the batch's (the connection was lost, the server does not lead), then all that is not answered
   is sent again, in order and with the same places, to whoever leads now. What had been stored is answered as it was.
3. Is the batch refused, then nothing behind it can have been stored, because its place is empty. It fails alone. Those
   behind are numbered anew in the next epoch: in the same epoch, a copy of the refused batch that a server still held
   could come to a place that now is another's, and that one would be taken for stored.
4. Is the time of a batch over, then its caller is told that the outcome is unknown, and nothing may be sent past it that
   could be stored before it. So it is sent again in front of those behind it, as long as one of them is waited for. Once
   nobody waits for any, all are dropped and the next epoch begins.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, Protocol

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs have forgotten it

from raftlog.client.batch import Batch, Place, are_settled, frame_at
from raftlog.client.failures import ACCESS_CODES, CallFailed, NoServer, failure
from raftlog.client.patience import Pause
from raftlog.client.servers import Servers, Target
from raftlog.errors import AlreadyStored, NotLeader, SequenceGap, StaleEpoch
from raftlog.net.stream_ending import StreamEnding
from raftlog.pb.log.v1 import log_pb2 as pb

LOOK_S: Final = 0.5  # without an answer for so long, others are asked who leads
SILENCE_S_MAX: Final = 3.0  # then a server that does not answer, or be connected to, is gone around
FAREWELL_S_MAX: Final = 1.0  # for a server to end a stream that all is said on


class Source(Protocol):
    """Who makes the batches."""

    def take(self) -> Batch | None:
        """The next batch to send, encoded; None if there is none yet."""
        ...

    def waiting(self) -> Iterable[Batch]:
        """Those that were not taken yet."""
        ...

    def settle(self, batch: Batch, outcome: int | Exception) -> None:
        """The batch, taken or waiting, is done: the offset of its first record, or why not."""
        ...

    def is_closing(self) -> bool: ...


class Pipeline:
    """Sends the batches of a source. Everything here runs in one event loop."""

    def __init__(self, servers: Servers, source: Source, *, in_flight_max: int, timeout_s: float) -> None:
        self._servers = servers
        self._source = source
        self._in_flight_max = in_flight_max
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()  # there may be something to send
        self._next = Place(secrets.randbits(63) + 1, 0, 0)  # of the next batch that is numbered
        self._in_flight: deque[Batch] = deque()  # numbered and not answered, by place
        self._stream: Any = None  # on which they are sent; None between two
        self._written = 0  # so many of the first in flight were sent on it
        self._answered_at = 0.0  # by the loop's clock
        self._trouble: CallFailed | None = None  # how the last stream ended; None since there was an answer
        self._suspects = 0  # so many of the first in flight are sent one at a time, to see which is too large
        self._pause = Pause()
        self._timer: asyncio.TimerHandle | None = None  # at the next deadline, or before
        self._task = self._loop.create_task(self._run())

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def arm(self, batch: Batch) -> None:
        """See to it that the batch fails at its deadline."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline_of(batch), self._expire)

    def in_flight(self) -> list[Batch]:
        """Numbered and not answered, in order."""
        return list(self._in_flight)

    async def close(self) -> None:
        """End the stream, on which all is answered, and stop."""
        stream = self._stream
        if stream is not None and not self._in_flight:
            farewell = self._loop.create_task(stream.done_writing())
            ended = self._loop.create_task(stream.code())
            await asyncio.wait((farewell, ended), timeout=FAREWELL_S_MAX)
            farewell.cancel()
            ended.cancel()
            await asyncio.gather(farewell, ended, return_exceptions=True)
        await self._stop()

    async def abandon(self, error: CallFailed) -> None:
        """Stop; what is in flight fails with `error`, as unknown what was sent."""
        sent = self._sent()
        self._stream = None  # what is answered from now on comes too late
        while self._in_flight:
            batch = self._in_flight.popleft()
            if not batch.is_settled:
                self._source.settle(batch, error.with_outcome(is_unknown=batch in sent))
        await self._stop()

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        while True:
            try:
                await self._carry()
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody shall wait for ever
                for batch in (*self._in_flight, *self._source.waiting()):
                    if not batch.is_settled:
                        self._source.settle(batch, error)
                self._drop_all()

    async def _carry(self) -> None:
        """One stream, from the first batch that is sent on it."""
        while not self._in_flight and not self._number_next():
            self._wake.clear()
            await self._wake.wait()
        try:
            target = await self._servers.leader()
        except NoServer as error:
            self._trouble = error
            await asyncio.sleep(self._pause.next_s())
            return
        failed = await self._converse(target)
        if failed is not None:
            await self._recover(failed, target)

    async def _converse(self, target: Target) -> Exception | None:
        """Send to the server until the stream ends, or there is a better one; how it ended, None if well."""
        stream = target.connection.log.ProduceBatchStream(metadata=target.metadata)
        ending = StreamEnding(stream)
        self._stream, self._written = stream, 0
        began_at = self._loop.time()
        reader = self._loop.create_task(self._read(stream))
        writer = self._loop.create_task(self._write(stream))
        try:
            while not (await asyncio.wait((reader,), timeout=LOOK_S))[0]:
                _require_sound(writer)
                if (reason := await self._reason_to_move(target, began_at)) is not None:
                    return CallFailed(grpc.StatusCode.UNAVAILABLE, reason)
            error = None if reader.cancelled() else reader.exception()
            if isinstance(error, grpc.aio.AioRpcError):
                return failure(await ending.truth(error), is_produce=True)
            if error is not None:
                raise error
            if not self._in_flight:
                return None
            return CallFailed(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        finally:
            self._stream = None
            stream.cancel()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _reason_to_move(self, target: Target, began_at: float) -> str | None:
        """Why what is in flight should be sent to another server, if it should."""
        if not target.is_leader and self._servers.is_leader_in_reach:
            return f"{target.address} does not lead"
        if not self._in_flight or not self._servers.has_choice:
            return None
        silent_s = self._loop.time() - max(began_at, self._answered_at, self._in_flight[0].sent_at)
        if silent_s < LOOK_S:
            return None
        if silent_s > SILENCE_S_MAX:
            return f"no answer from {target.address} for {silent_s:.0f} s"
        if await self._servers.leads_elsewhere(target.address):
            return f"{target.address} does not lead any more"
        return None

    async def _write(self, stream: Any) -> None:
        """Send what is in flight, and then what comes. Of a failure the reader learns more."""
        await stream.wait_for_connection()
        while True:
            while self._stream is stream and (batch := self._next_to_write()) is not None:
                assert batch.payload is not None and batch.place is not None
                frame = frame_at(batch.payload, batch.place)
                self._written += 1
                await stream.write(pb.ProduceBatchRequest(batch=frame, expected_offset=batch.expected_offset))
            self._wake.clear()
            await self._wake.wait()

    def _next_to_write(self) -> Batch | None:
        if self._written >= (1 if self._suspects else self._in_flight_max):
            return None
        if self._written < len(self._in_flight) or self._number_next():
            return self._in_flight[self._written]
        return None

    def _number_next(self) -> bool:
        """Take a batch from the source into flight; False if there is none."""
        batch = self._source.take()
        if batch is None:
            return False
        self._number(batch)
        batch.sent_at = self._loop.time()
        self._in_flight.append(batch)
        self.arm(batch)
        return True

    def _number(self, batch: Batch) -> None:
        batch.place = self._next
        self._next = self._next._replace(sequence=self._next.sequence + batch.count)

    def _begin_epoch(self) -> None:
        """Number what is in flight anew."""
        self._next = Place(self._next.producer_id, self._next.epoch + 1, 0)
        for batch in self._in_flight:
            self._number(batch)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, stream: Any) -> None:
        """Settle batches in the order in which they were sent, until the stream ends."""
        while (answer := await stream.read()) is not EOF:
            if self._stream is not stream or not self._written:
                return
            self._answered_at = self._loop.time()
            self._trouble = None
            self._pause.renew()
            self._written -= 1
            self._settle_first(answer.first_offset)
            self._wake.set()

    def _settle_first(self, outcome: int | Exception) -> None:
        batch = self._in_flight.popleft()
        self._suspects = max(self._suspects - 1, 0)
        if not batch.is_settled:
            self._source.settle(batch, outcome)

    async def _recover(self, failed: Exception, target: Target) -> None:
        """See to what was not answered on a stream that ended so, and wait if the next one could end as soon."""
        written, self._written = self._written, 0
        retry_after_ms = None
        if isinstance(failed, NotLeader):
            self._servers.leads(failed.leader_addr)
            self._trouble = CallFailed(grpc.StatusCode.UNAVAILABLE, str(failed))
            if failed.leader_addr not in ("", target.address):
                await asyncio.sleep(self._pause.short_s())
                return
            await self._servers.refresh()
        elif isinstance(failed, CallFailed) and failed.is_transient:
            self._trouble = failed
            retry_after_ms = failed.retry_after_ms
            if failed.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._mark_sent(written)
                self._servers.failed(target.address)
                await self._servers.refresh()  # which takes it back if it answers
        elif isinstance(failed, CallFailed) and failed.is_of_size and written > 1:
            # gRPC ends the stream at the message that it refuses, whether or not those ahead of it are answered.
            self._mark_sent(written)
            self._suspects = written
        elif isinstance(failed, SequenceGap) and self._in_flight and self._in_flight[0].may_be_stored:
            # A server that leads no more, and does not know it yet, lacks what came before. Ask again.
            self._trouble = CallFailed(grpc.StatusCode.UNAVAILABLE, str(failed))
            await self._servers.refresh()
        elif isinstance(failed, SequenceGap):
            self._begin_epoch()  # the log has forgotten this producer; what is in flight is not in it
        else:
            self._refuse(failed, written)
            return
        if self._in_flight:
            await asyncio.sleep(self._pause.next_s(retry_after_ms))

    def _mark_sent(self, written: int) -> None:
        for batch in islice(self._in_flight, written):
            batch.may_be_stored = True

    def _refuse(self, failed: Exception, written: int) -> None:
        """The first in flight fails. So do those behind it that may have been stored before it was refused."""
        if not self._in_flight:
            return
        if isinstance(failed, CallFailed) and failed.is_unknown:
            self._mark_sent(written)
        if not isinstance(failed, CallFailed):
            self._settle_first(failed)
        elif failed.is_of_size:
            self._settle_first(failed)
            for batch in self._in_flight:
                batch.may_be_stored = False  # for it never arrived
        elif failed.code in ACCESS_CODES:
            while self._in_flight:
                self._settle_first(failed.with_outcome(is_unknown=self._in_flight[0].may_be_stored))
        elif self._in_flight[0].may_be_stored:
            while self._in_flight and self._in_flight[0].may_be_stored:
                self._settle_first(failed.with_outcome(is_unknown=True))
        else:
            self._settle_first(failed)
        if isinstance(failed, StaleEpoch):
            self._next = self._next._replace(epoch=failed.actual)
        if not isinstance(failed, AlreadyStored):  # its place is taken, and those behind can follow
            self._begin_epoch()

    # ── deadlines ───────────────────────────────────────────────────────────────────────────────────

    def _deadline_of(self, batch: Batch) -> float:
        """Its own, or after so long without any answer."""
        if batch.deadline is not None:
            return batch.deadline
        return max(batch.sent_at, self._answered_at) + self._timeout_s

    def _expire(self) -> None:
        """Fail what is over its time. What was sent stays in front of those behind it."""
        self._timer = None
        now = self._loop.time()
        sent = self._sent()
        is_late = False
        for batch in self._in_flight:
            if not batch.is_settled and self._deadline_of(batch) <= now:
                self._source.settle(batch, self._lateness(is_unknown=batch in sent))
                is_late = True
        for batch in list(self._source.waiting()):
            if (is_late and self._source.is_closing()) or (batch.deadline or now + 1) <= now:
                self._source.settle(batch, self._lateness(is_unknown=False))
        if self._in_flight and are_settled(self._in_flight):
            self._drop_all()
        left = [one for one in self._in_flight if not one.is_settled]
        left += [one for one in self._source.waiting() if one.deadline is not None]
        if left:
            self._timer = self._loop.call_at(min(map(self._deadline_of, left)), self._expire)

    def _sent(self) -> set[Batch]:
        """What of that in flight may have been stored."""
        return {
            *islice(self._in_flight, self._written),
            *(one for one in self._in_flight if one.may_be_stored),
        }

    def _lateness(self, *, is_unknown: bool) -> CallFailed:
        if self._trouble is not None:
            return self._trouble.with_outcome(is_unknown=is_unknown)
        text = f"no answer for {self._timeout_s} s" if is_unknown else f"not sent for {self._timeout_s} s"
        return CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, text, is_unknown=is_unknown)

    def _drop_all(self) -> None:
        """Forget what is in flight, of which nobody waits for anything; nothing that comes can be taken for it."""
        self._in_flight.clear()
        self._written = self._suspects = 0
        self._begin_epoch()
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


def _require_sound(writer: asyncio.Task[None]) -> None:
    """Raise what a writer has ended with, unless it is the end of its stream, of which the reader learns."""
    if writer.done() and not writer.cancelled():
        error = writer.exception()
        if error is not None and not isinstance(error, (grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            raise error
