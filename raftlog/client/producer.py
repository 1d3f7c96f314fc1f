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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from logstore import Record, RecordBatch
from logstore.column import encode_headers
from logstore.config import MIB, Compression, Config
from logstore.encode import check_payload, encode_batch
from logstore.errors import RecordTooLarge
from logstore.waking import Alarm, Waker
from raftlog.client.batch import Batch, BatchHandle, Handle
from raftlog.client.failures import CallFailed
from raftlog.client.pipeline import Pipeline
from raftlog.client.servers import Servers
from raftlog.client.watermark import Watermark
from raftlog.errors import RaftlogError

RECORD_OVERHEAD_BYTES: Final = 64  # an estimate of a record's share of the columns
JOINED_TIME_LEFT_MIN: Final = 0.9  # share of its time that a batch must have left to be joined
IN_FLIGHT_LIMIT: Final = 128  # a server remembers twice as many batches of a producer, to know them again

Value = bytes | Record


class ProducerFull(RaftlogError):
    """Too many bytes wait to be sent. The record was not taken; `await producer.room()`."""


class ProducerClosed(RaftlogError):
    """The producer was closed. The record was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    linger_ms: float = 1.0  # how long a record waits for company at most, while fewer batches are on the way
    batch_bytes_max: int = MIB
    batch_records_max: int = 10_000
    in_flight_max: int = 4  # batches sent and not answered, at most IN_FLIGHT_LIMIT
    pending_bytes_max: int = 32 * MIB  # taken and not answered; beyond it `send` refuses, or blocks a thread
    compression: Compression = "none"  # of values, where it makes a batch smaller
    answer_timeout_s: float = 30.0  # sent again until there was no answer for so long; then it fails

    def __post_init__(self) -> None:
        Config(compression=self.compression)  # raises ValueError for one that there is not
        if self.linger_ms < 0:
            raise ValueError(f"linger_ms is {self.linger_ms}; it cannot be negative")
        for name in (
            "batch_bytes_max", "batch_records_max", "in_flight_max", "pending_bytes_max", "answer_timeout_s",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.in_flight_max > IN_FLIGHT_LIMIT:
            raise ValueError(f"in_flight_max is {self.in_flight_max}; it must be at most {IN_FLIGHT_LIMIT}")


class Producer:
    """Made by a client. `send` may be called from any thread; everything else runs in the client's event loop."""

    def __init__(
        self, servers: Servers, config: ProducerConfig, seen: Watermark, *, deadline_s: float | None = None
    ) -> None:
        """With `deadline_s` each batch fails that long after its first record was taken, whatever is answered."""
        self._config = config
        self._seen = seen
        self._deadline_s = deadline_s
        self._engine_config = Config(compression=config.compression)
        self._record_bytes_max = self._engine_config.record_bytes_max
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()

        self._lock = threading.Lock()  # guards what follows
        self._filling = Batch(self._loop)
        self._is_due = False  # the filling batch has waited long enough
        self._full: deque[Batch] = deque()  # waiting to be sent
        self._pending_bytes = 0  # of records taken and not answered
        self._room_wakers: list[Waker] = []
        self._is_closed = False
        self._pipeline = Pipeline(
            servers, self, in_flight_max=config.in_flight_max, timeout_s=config.answer_timeout_s
        )

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
            if self._is_closed or self._pending_bytes + size > config.pending_bytes_max:
                self._require_room(size)
            batch = self._filling
            number = len(batch.values)
            if number and (number >= config.batch_records_max or batch.bytes + size > config.batch_bytes_max):
                self._full.append(batch)
                batch = self._filling = Batch(self._loop)
                self._is_due = False
                number = 0
            batch.values.append(value)
            batch.bytes += size
            self._pending_bytes += size
        if number == 0:
            self._call_in_loop(self._begin_linger, batch)
        return Handle(batch, number)

    def send_batch(self, batch: RecordBatch | bytes, *, expected_offset: int | None = None) -> BatchHandle:
        """Take records that are a batch already, to be stored as it is, all or none.

        `bytes` are a frame, as RecordBatch.to_bytes() makes. Nothing is stored, and UnexpectedOffset told, if the first
        record would not get `expected_offset`. Raises as `send`, BatchTooLarge and CorruptBatch.
        """
        if not isinstance(batch, RecordBatch):
            batch = RecordBatch.from_bytes(bytes(batch))
        taken = Batch(self._loop)
        taken.payload = batch.payload(self._engine_config)
        check_payload(taken.payload, self._engine_config)
        return BatchHandle(self._take(taken, expected_offset), len(batch))

    def send_alone(self, values: Sequence[Value], *, expected_offset: int | None = None) -> BatchHandle:
        """Take values as a batch of their own; else as `send_batch`."""
        taken = Batch(self._loop)
        taken.payload = encode_batch(values, self._engine_config)
        return BatchHandle(self._take(taken, expected_offset), len(values))

    def _take(self, batch: Batch, expected_offset: int | None) -> Batch:
        assert batch.payload is not None
        batch.bytes = batch.payload.size + RECORD_OVERHEAD_BYTES
        batch.expected_offset = expected_offset
        with self._lock:
            self._require_room(batch.bytes)
            self._seal()
            self._full.append(batch)
            self._pending_bytes += batch.bytes
        self._call_in_loop(self._begin, batch)
        return batch

    def _require_room(self, size: int) -> None:
        if self._pending_bytes + size > self._config.pending_bytes_max and self._pending_bytes:
            raise ProducerFull(f"{self._pending_bytes} bytes wait to be stored")
        if self._is_closed:
            raise ProducerClosed("the producer is closed")

    def _seal(self) -> None:
        """Let no more records join those that are waiting."""
        if self._filling.values:
            self._full.append(self._filling)
            self._filling = Batch(self._loop)
            self._is_due = False

    def seal_old(self) -> None:
        """Let no more records join a batch that has little time left. For batches with a deadline."""
        with self._lock:
            deadline, whole_s = self._filling.deadline, self._deadline_s
            if deadline is None or whole_s is None:
                return
            if deadline - self._loop.time() < JOINED_TIME_LEFT_MIN * whole_s:
                self._seal()

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
            batches = [*self._pipeline.in_flight(), *self._full]
            if self._filling.values:
                batches.append(self._filling)
        self._pipeline.wake()
        waiting = [asyncio.wrap_future(batch.done) for batch in batches]
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        """Flush, and take no more. The error of a record is raised by its handle, not here.

        Without any answer for `answer_timeout_s`, all that is left fails. Closing twice is no error.
        """
        with self._lock:
            self._is_closed = True
        await self._outcomes()
        await self._pipeline.close()

    async def abandon(self) -> None:
        """Take no more, and fail at once what is not answered: as unknown what was sent."""
        with self._lock:
            self._is_closed = True
        await self._pipeline.abandon(CallFailed(grpc.StatusCode.CANCELLED, "the producer was abandoned"))
        error = CallFailed(grpc.StatusCode.CANCELLED, "the producer was abandoned before it was sent")
        for batch in self.waiting():
            self.settle(batch, error)

    # ── in the loop ─────────────────────────────────────────────────────────────────────────────────

    def _call_in_loop(self, function: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._loop_thread:
            function(*args)
        else:
            self._loop.call_soon_threadsafe(function, *args)

    def _begin_linger(self, batch: Batch) -> None:
        """A batch has its first record."""
        self._begin(batch)  # and the one before it may be full
        if self._config.linger_ms:
            self._loop.call_later(self._config.linger_ms / 1000, self._end_linger, batch)
        else:
            self._end_linger(batch)

    def _begin(self, batch: Batch) -> None:
        if self._deadline_s is not None:
            batch.deadline = self._loop.time() + self._deadline_s
            self._pipeline.arm(batch)
        self._pipeline.wake()

    def _end_linger(self, batch: Batch) -> None:
        with self._lock:
            self._is_due = self._is_due or self._filling is batch
        self._pipeline.wake()

    def take(self) -> Batch | None:
        """The batch to send now, encoded, if there is one."""
        while (batch := self._next_batch()) is not None:
            try:
                batch.encode(self._engine_config)
            except Exception as error:  # noqa: BLE001  # whatever is wrong with a record, its handle tells
                self.settle(batch, error)
            else:
                return batch
        return None

    def _next_batch(self) -> Batch | None:
        with self._lock:
            if self._full:
                return self._full.popleft()
            if self._is_due and self._filling.values:
                batch, self._filling = self._filling, Batch(self._loop)
                self._is_due = False
                return batch
        return None

    def waiting(self) -> list[Batch]:
        """Batches that were not taken yet, in order."""
        with self._lock:
            return [*self._full, *((self._filling,) if self._filling.values else ())]

    def is_closing(self) -> bool:
        return self._is_closed

    def settle(self, batch: Batch, outcome: int | Exception) -> None:
        """A batch is done, taken or not: the offset of its first record, or why there is none."""
        with self._lock:
            if batch.place is None:  # else it was taken, as nearly all are
                self._forget(batch)
            self._pending_bytes -= batch.bytes
            wakers: list[Waker] = []
            if self._pending_bytes <= self._config.pending_bytes_max // 2:
                wakers, self._room_wakers = self._room_wakers, []
        if isinstance(outcome, int):
            self._seen.saw(outcome + batch.count)
        batch.settle(outcome)
        for wake in wakers:
            wake()

    def _forget(self, batch: Batch) -> None:
        """Of one that waits."""
        if batch is self._filling:
            self._filling = Batch(self._loop)
        elif batch in self._full:
            self._full.remove(batch)


def size_of(record: Record) -> int:
    """Bytes of a record as the engine counts them.

    Raises as the engine does: OverflowError for a time beyond 64 bits, TypeError for one that is no integer,
    ValueError for a header's name that is too long.
    """
    array("q", (record.timestamp,))
    return len(record.value) + len(record.key) + len(encode_headers(record.headers))
