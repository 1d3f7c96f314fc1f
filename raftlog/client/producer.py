"""Merges records into batches and keeps several batches on the way: the client's side of paying per batch.

A record joins the batch that is being filled. That batch is sent when it is full, or when its first record has waited
for `linger_ms` and fewer than `in_flight_max` batches are on the way; so batches grow by themselves when the server
is busy, and a lone record does not wait longer than asked.
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs have forgotten it

from logstore import Record
from logstore.column import encode_headers
from logstore.config import MIB, Compression, Config
from logstore.encode import encode_batch
from logstore.errors import RecordTooLarge
from logstore.frame import wire_frame
from logstore.waking import Alarm, Waker
from raftlog.client.failures import CallFailed, failure
from raftlog.errors import RaftlogError
from raftlog.net.stream_ending import StreamEnding
from raftlog.pb.log.v1 import log_pb2 as pb

RECORD_OVERHEAD_BYTES: Final = 64  # an estimate of a record's share of the columns


class ProducerFull(RaftlogError):
    """Too many bytes wait to be sent. The record was not taken; `await producer.room()`."""


class ProducerClosed(RaftlogError):
    """The producer was closed. The record was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    linger_ms: float = 1.0  # how long a record waits for company at most, while fewer batches are on the way
    batch_bytes_max: int = MIB
    batch_records_max: int = 10_000
    in_flight_max: int = 4  # batches sent and not answered
    pending_bytes_max: int = 32 * MIB  # taken and not answered; beyond it `send` refuses, or blocks a thread
    compression: Compression = "none"  # of values, where it makes a batch smaller
    answer_timeout_s: float = 30.0  # without any answer for so long, what is on the way fails

    def __post_init__(self) -> None:
        Config(compression=self.compression)  # raises ValueError for one that there is not
        if self.linger_ms < 0:
            raise ValueError(f"linger_ms is {self.linger_ms}; it cannot be negative")
        for name in (
            "batch_bytes_max", "batch_records_max", "in_flight_max", "pending_bytes_max", "answer_timeout_s",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")


class _Batch:
    """Records that are sent together. `done` is the offset of the first."""

    __slots__ = ("bytes", "done", "sent_at", "values", "waiter")

    def __init__(self) -> None:
        self.values: list[bytes | Record] = []
        self.bytes = 0
        self.sent_at = 0.0  # by the loop's clock
        self.done: Future[int] = Future()
        self.done.set_running_or_notify_cancel()  # whoever gives up waiting cannot cancel it for the others
        self.waiter: asyncio.Future[int] | None = None  # `done` for the loop that awaits it


class Handle:
    """A record on its way: `await handle` or `handle.result()` is its offset, once it is stored."""

    __slots__ = ("_batch", "_number")

    def __init__(self, batch: _Batch, number: int) -> None:
        self._batch = batch
        self._number = number

    def __await__(self) -> Generator[Any, None, int]:
        batch = self._batch
        if not batch.done.done():
            if batch.waiter is None:
                batch.waiter = asyncio.wrap_future(batch.done)
            yield from asyncio.shield(batch.waiter).__await__()  # one record's task may be cancelled alone
        return batch.done.result() + self._number

    def result(self, timeout_s: float | None = None) -> int:
        """For threads; TimeoutError if it takes longer."""
        return self._batch.done.result(timeout_s) + self._number

    def done(self) -> bool:
        return self._batch.done.done()


class Producer:
    """Made by a client. `send` may be called from any thread; everything else runs in the client's event loop."""

    def __init__(self, stub: Any, config: ProducerConfig) -> None:
        self._stub = stub
        self._config = config
        self._engine_config = Config(compression=config.compression)
        self._record_bytes_max = self._engine_config.record_bytes_max
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._wake = asyncio.Event()  # there may be something to send
        self._in_flight: deque[_Batch] = deque()  # sent and not answered, in order
        self._stream: Any = None
        self._sender = self._loop.create_task(self._send_batches())
        self._reader: asyncio.Task[None] | None = None  # of the open stream

        self._lock = threading.Lock()  # guards what follows
        self._filling = _Batch()
        self._is_due = False  # the filling batch has waited long enough
        self._full: deque[_Batch] = deque()  # waiting to be sent
        self._pending_bytes = 0  # of records taken and not answered
        self._room_wakers: list[Waker] = []
        self._is_closed = False

    def send(self, value: bytes | Record) -> Handle:
        """Take a record, to be stored behind those sent before it by the same thread.

        Raises ProducerFull while `pending_bytes_max` wait, ProducerClosed, RecordTooLarge over the engine's default,
        and what `size_of` does; then it was not taken.
        """
        if type(value) is not bytes:
            value = value if isinstance(value, Record) else bytes(memoryview(value))
        size = len(value) if isinstance(value, bytes) else size_of(value)
        if size > self._record_bytes_max:
            raise RecordTooLarge(size, self._record_bytes_max)
        size += RECORD_OVERHEAD_BYTES
        config = self._config
        with self._lock:
            if self._pending_bytes + size > config.pending_bytes_max and self._pending_bytes:
                raise ProducerFull(f"{self._pending_bytes} bytes wait to be stored")
            if self._is_closed:
                raise ProducerClosed("the producer is closed")
            batch = self._filling
            number = len(batch.values)
            if number and (number >= config.batch_records_max or batch.bytes + size > config.batch_bytes_max):
                self._full.append(batch)
                batch = self._filling = _Batch()
                self._is_due = False
                number = 0
            batch.values.append(value)
            batch.bytes += size
            self._pending_bytes += size
        if number == 0:
            self._call_in_loop(self._begin_linger, batch)
        return Handle(batch, number)

    async def room(self) -> None:
        """Return when `send` has room again, at once if it has."""
        while (alarm := self._room_alarm()) is not None:
            await alarm.wait()

    def wait_for_room(self) -> None:
        """As `room`, for threads other than the loop's."""
        event = threading.Event()
        with self._lock:
            if self._pending_bytes <= self._config.pending_bytes_max // 2:
                return
            self._room_wakers.append(event.set)
        event.wait()

    def _room_alarm(self) -> Alarm | None:
        with self._lock:
            if self._pending_bytes <= self._config.pending_bytes_max // 2:
                return None
            alarm = Alarm()
            self._room_wakers.append(alarm.ring)
            return alarm

    async def flush(self) -> None:
        """Send what waits, and return when all that was taken is answered; raises the first error among it."""
        for outcome in await self._outcomes():
            if isinstance(outcome, BaseException):
                raise outcome

    async def _outcomes(self) -> list[int | BaseException]:
        """Of the batches that were not answered; sends what waits."""
        with self._lock:
            self._is_due = True
            batches = [*self._in_flight, *self._full]
            if self._filling.values:
                batches.append(self._filling)
        self._wake.set()
        waiting = [asyncio.wrap_future(batch.done) for batch in batches]
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        """Flush, and take no more. The error of a record is raised by its handle, not here.

        Without any answer for `answer_timeout_s`, all that is left fails. Closing twice is no error.
        """
        with self._lock:
            self._is_closed = True
        await self._outcomes()
        self._sender.cancel()
        if (stream := self._stream) is not None:  # all is answered, and the server has only to say goodbye
            farewell = self._loop.create_task(stream.done_writing())
            reader = self._reader
            assert reader is not None
            await asyncio.wait((farewell, reader), timeout=self._config.answer_timeout_s)
            stream.cancel()
            await asyncio.gather(farewell, reader, return_exceptions=True)

    async def abandon(self) -> None:
        """Take no more, and fail at once what is not answered: as unknown what was sent."""
        with self._lock:
            self._is_closed = True
        self._sender.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        self._fail_sent(CallFailed(grpc.StatusCode.CANCELLED, "the producer was abandoned", is_unknown=True))
        self._fail_unsent(
            CallFailed(grpc.StatusCode.CANCELLED, "the producer was abandoned before it was sent")
        )
        await asyncio.gather(self._sender, *filter(None, (self._reader,)), return_exceptions=True)

    # ── in the loop ─────────────────────────────────────────────────────────────────────────────────

    def _call_in_loop(self, function: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._loop_thread:
            function(*args)
        else:
            self._loop.call_soon_threadsafe(function, *args)

    def _begin_linger(self, batch: _Batch) -> None:
        """A batch has its first record."""
        self._wake.set()  # the one before it may be full
        self._loop.call_later(self._config.linger_ms / 1000, self._end_linger, batch)

    def _end_linger(self, batch: _Batch) -> None:
        with self._lock:
            self._is_due = self._is_due or self._filling is batch
        self._wake.set()

    def _next_batch(self) -> _Batch | None:
        """The batch to send now, if there is one and the window has room."""
        if len(self._in_flight) >= self._config.in_flight_max:
            return None
        with self._lock:
            if self._full:
                return self._full.popleft()
            if self._is_due and self._filling.values:
                batch, self._filling = self._filling, _Batch()
                self._is_due = False
                return batch
        return None

    async def _send_batches(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (batch := self._next_batch()) is not None:
                await self._send(batch)

    async def _send(self, batch: _Batch) -> None:
        try:
            frame = wire_frame(encode_batch(batch.values, self._engine_config))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with a record, its handle tells
            self._settle(batch, error)
            return
        if self._stream is None:
            self._stream = self._stub.ProduceBatchStream()
            ending = StreamEnding(self._stream)
            self._reader = self._loop.create_task(self._read_answers(self._stream, ending))
        batch.sent_at = self._loop.time()
        self._in_flight.append(batch)
        stream = self._stream
        try:
            await stream.write(pb.ProduceBatchRequest(batch=frame))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            if self._sender.cancelling():
                raise
            # The reader learns why, and tells those who wait.

    async def _read_answers(self, stream: Any, ending: StreamEnding) -> None:
        """Settle batches in the order in which they were sent, until the stream ends."""
        error: Exception = CallFailed(
            grpc.StatusCode.UNAVAILABLE, "the server ended the stream", is_unknown=True
        )
        try:
            while True:
                answer = await self._answer(stream)
                if answer is EOF:
                    break
                self._settle(self._in_flight.popleft(), answer.first_offset)
                self._wake.set()
        except grpc.aio.AioRpcError as failed:
            error = failure(await ending.truth(failed), is_produce=True)
        except TimeoutError:
            stream.cancel()
            waited = self._config.answer_timeout_s
            error = CallFailed(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer for {waited} s", is_unknown=True
            )
            if self._is_closed:  # who closes is not to wait as long again for each window of batches
                text = f"not sent: {error}"
                self._fail_unsent(CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, text))
        if self._stream is stream:
            self._stream = None
            self._fail_sent(error)
        self._wake.set()

    def _fail_sent(self, error: Exception) -> None:
        """The first batch in flight fails with `error`. Those behind it may have been stored."""
        while self._in_flight:
            self._settle(self._in_flight.popleft(), error)
            if isinstance(error, CallFailed):
                error = error.of_what_was_sent_behind()

    def _fail_unsent(self, error: CallFailed) -> None:
        with self._lock:
            batches, self._full = [*self._full, self._filling], deque()
            self._filling = _Batch()
        for batch in batches:
            if batch.values:
                self._settle(batch, error)

    async def _answer(self, stream: Any) -> Any:
        """The next answer; TimeoutError if none comes for too long while something is on the way."""
        asked_at = self._loop.time()
        read = asyncio.ensure_future(stream.read())
        while True:
            sent_at = self._in_flight[0].sent_at if self._in_flight else self._loop.time()
            left = max(asked_at, sent_at) + self._config.answer_timeout_s - self._loop.time()
            if left <= 0:
                read.cancel()
                raise TimeoutError
            done, _ = await asyncio.wait((read,), timeout=left)
            if done:
                return read.result()

    def _settle(self, batch: _Batch, outcome: int | Exception) -> None:
        with self._lock:
            self._pending_bytes -= batch.bytes
            wakers: list[Waker] = []
            if self._pending_bytes <= self._config.pending_bytes_max // 2:
                wakers, self._room_wakers = self._room_wakers, []
        if isinstance(outcome, Exception):
            batch.done.set_exception(outcome)
        else:
            batch.done.set_result(outcome)
        for wake in wakers:
            wake()


def size_of(record: Record) -> int:
    """Bytes of a record as the engine counts them.

    Raises as the engine does: OverflowError for a time beyond 64 bits, TypeError for one that is no integer,
    ValueError for a header's name that is too long.
    """
    array("q", (record.timestamp,))
    return len(record.value) + len(record.key) + len(encode_headers(record.headers))
