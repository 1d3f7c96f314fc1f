"""Merges records that arrive one by one into batches: the price of an append is paid per batch.

What arrives in one turn of the event loop is one batch, and while that is appended the next one gathers: no timer
is needed, and a lone record does not wait.

A batch belongs to one producer, or to none. So records wait in lanes, one for each idempotent producer and one for all
others; lanes do not wait for each other. A record that expects an offset is a batch of its own, in its place.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from logstore import Config, Record, RecordBatch
from logstore.batch import decode_frame
from logstore.encode import encode_batch
from logstore.errors import LogError, QueueFull, RecordTooLarge
from logstore.frame import parse_frame_header, wire_frame
from raftlog.errors import InvalidRecord, Overloaded, ProduceRefused, RaftlogError

BATCH_RECORDS_MAX: Final = 10_000  # in one batch: a bound on the time that its callers wait for each other
RECORD_OVERHEAD_BYTES: Final = 64  # of columns, per record; an estimate on the safe side

Value = bytes | Record


class AppendsBatches(Protocol):
    """The part of a log that merging needs."""

    config: Config

    def begin_append(
        self, batch: RecordBatch | list[Value], *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]: ...
    async def room(self) -> None: ...


class Producer(NamedTuple):
    """An instance of an idempotent producer."""

    id: int  # not 0
    epoch: int


class _Waiting(NamedTuple):
    value: Value
    size: int
    future: asyncio.Future[int]
    sequence: int  # of its producer; 0 if it has none
    expected_offset: int | None


class ProduceMerger:
    """Appends the records of each producer, and those without one, in the order in which they were submitted.

    Belongs to one event loop.
    """

    def __init__(self, log: AppendsBatches, *, queue_bytes_max: int) -> None:
        self._log = log
        self._queue_bytes_max = queue_bytes_max
        self._queue_bytes = 0  # of records that wait or are being appended, in all lanes
        self._lanes: dict[Producer | None, _Lane] = {}  # those in which something waits or is being appended
        self._room_waiters: list[asyncio.Future[None]] = []

    def submit(
        self,
        value: Value,
        *,
        producer: Producer | None = None,
        sequence: int = 0,
        expected_offset: int | None = None,
    ) -> asyncio.Future[int]:
        """The future of the record's offset.

        Raises RecordTooLarge, or Overloaded while `queue_bytes_max` are waiting; then nothing was queued.
        """
        size = _size_of(value)
        if size > self._log.config.record_bytes_max:
            raise RecordTooLarge(size, self._log.config.record_bytes_max)
        size += RECORD_OVERHEAD_BYTES
        if self._queue_bytes and self._queue_bytes + size > self._queue_bytes_max:
            raise Overloaded(f"{self._queue_bytes} bytes of records wait to be stored; try again")
        self._queue_bytes += size
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get(producer)
        if lane is None:
            lane = self._lanes[producer] = _Lane(self, self._log, producer)
        lane.put(_Waiting(value, size, future, sequence, expected_offset))
        return future

    async def room(self) -> None:
        """Return when some of the records that wait are settled; at once if there are none."""
        if self._queue_bytes:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room_waiters.append(settled)
            await settled

    def note_settled(self, size: int) -> None:
        """So many bytes do not wait any more."""
        self._queue_bytes -= size
        waiters, self._room_waiters = self._room_waiters, []
        for settled in waiters:
            if not settled.done():
                settled.set_result(None)

    def forget(self, producer: Producer | None) -> None:
        """Nothing is left in its lane."""
        del self._lanes[producer]


class _Lane:
    """Records that keep their order: those of one producer, or all that have none."""

    def __init__(self, merger: ProduceMerger, log: AppendsBatches, producer: Producer | None) -> None:
        self._merger = merger
        self._log = log
        self._producer = producer
        self._waiting: list[_Waiting] = []
        self._is_busy = False  # a batch is being appended, or will be in the next turn of the loop
        self._alone = 0  # so many that wait are appended one by one: the batch they were in was refused
        self._retry: asyncio.Task[None] | None = None  # waits until the log has room for the next batch

    def put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if not self._is_busy:
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self._append_waiting)

    def _append_waiting(self) -> None:
        """Begin to append what waits, as much as one batch takes at a time."""
        while self._waiting:
            count = self._count_fitting()
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            goes_alone = self._alone > 0 or batch[0].expected_offset is not None
            try:
                _, first = self._log.begin_append(
                    self._encode(batch), expected_offset=batch[0].expected_offset
                )
            except (QueueFull, Overloaded):  # of batches that did not come through here
                self._waiting[:0] = batch
                self._retry = asyncio.create_task(self._append_when_there_is_room())
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
                self._alone = max(self._alone - 1, 0)
                self._settle_refused(batch, error)
                continue
            self._alone = max(self._alone - 1, 0)
            if not goes_alone and not first.done():  # what comes meanwhile gathers
                first.add_done_callback(partial(self._finish, batch))
                return
            if first.done():
                self._settle_done(batch, first)
            else:
                first.add_done_callback(partial(self._settle_done, batch))
        self._is_busy = False
        self._merger.forget(self._producer)

    async def _append_when_there_is_room(self) -> None:
        with suppress(LogError, RaftlogError):  # closed: the next append says so
            await self._log.room()
        self._append_waiting()

    def _finish(self, batch: list[_Waiting], first: asyncio.Future[int]) -> None:
        self._settle_done(batch, first)
        self._append_waiting()

    def _settle_done(self, batch: list[_Waiting], first: asyncio.Future[int]) -> None:
        error = first.exception()
        if error is None:
            self._settle(batch, first.result())
        else:
            self._settle_refused(batch, error)

    def _settle_refused(self, batch: list[_Waiting], error: BaseException) -> None:
        """Tell the callers, or try the records one by one where only some of them may be at fault."""
        if len(batch) > 1 and isinstance(error, (ValueError, ProduceRefused)):
            self._waiting[:0] = batch
            self._alone = len(batch)
        elif isinstance(error, ValueError) and not isinstance(error, LogError):
            self._settle(batch, InvalidRecord(str(error)))
        else:
            self._settle(batch, error)

    def _settle(self, batch: list[_Waiting], outcome: int | BaseException) -> None:
        for number, waiting in enumerate(batch):
            if waiting.future.done():  # its caller has gone
                continue
            if isinstance(outcome, BaseException):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome + number)
        self._merger.note_settled(sum(waiting.size for waiting in batch))

    def _count_fitting(self) -> int:
        """How many of the waiting records go into the next batch."""
        first = self._waiting[0]
        if self._alone or first.expected_offset is not None:
            return 1
        room = self._log.config.batch_bytes_max
        for count, waiting in enumerate(self._waiting[:BATCH_RECORDS_MAX]):
            room -= waiting.size
            if not count:
                continue
            follows = self._producer is None or waiting.sequence == first.sequence + count
            if room < 0 or waiting.expected_offset is not None or not follows:
                return count
        return min(len(self._waiting), BATCH_RECORDS_MAX)

    def _encode(self, batch: list[_Waiting]) -> RecordBatch | list[Value]:
        values = [waiting.value for waiting in batch]
        if self._producer is None:
            return values
        payload = encode_batch(
            values, self._log.config, producer_id=self._producer.id, producer_epoch=self._producer.epoch,
            first_sequence=batch[0].sequence,
        )  # fmt: skip
        frame = wire_frame(payload)
        return decode_frame(parse_frame_header(frame), frame, 0)


def _size_of(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value)
    return len(value.value) + len(value.key) + sum(len(name) + len(data) for name, data in value.headers)
