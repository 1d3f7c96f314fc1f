"""Merges records that arrive one by one into batches: the price of an append is paid per batch.

What arrives in one turn of the event loop is one batch, and while that is appended the next one gathers: no timer
is needed, and a lone record does not wait.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from logstore import Config, Record
from logstore.errors import LogError, QueueFull, RecordTooLarge
from raftlog.errors import InvalidRecord, Overloaded

BATCH_RECORDS_MAX: Final = 10_000  # in one batch: a bound on the time that its callers wait for each other
RECORD_OVERHEAD_BYTES: Final = 64  # of columns, per record; an estimate on the safe side

Value = bytes | Record


class AppendsBatches(Protocol):
    """The part of a log that merging needs."""

    config: Config

    def begin_append(self, batch: list[Value]) -> tuple[int, asyncio.Future[int]]: ...
    async def room(self) -> None: ...


class _Waiting(NamedTuple):
    value: Value
    size: int
    future: asyncio.Future[int]


class ProduceMerger:
    """Appends records in the order in which they were submitted. Belongs to one event loop."""

    def __init__(self, log: AppendsBatches, *, queue_bytes_max: int) -> None:
        self._log = log
        self._queue_bytes_max = queue_bytes_max
        self._queue_bytes = 0  # of records that wait or are being appended
        self._waiting: list[_Waiting] = []
        self._is_busy = False  # a batch is being appended, or will be in the next turn of the loop
        self._alone = 0  # so many that wait are appended one by one: the batch they were in was refused
        self._retry: asyncio.Task[None] | None = None  # waits until the log has room for the next batch
        self._room_waiters: list[asyncio.Future[None]] = []

    def submit(self, value: Value) -> asyncio.Future[int]:
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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.append(_Waiting(value, size, future))
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._append_waiting)
        return future

    async def room(self) -> None:
        """Return when some of the records that wait are settled; at once if there are none."""
        if self._queue_bytes:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room_waiters.append(settled)
            await settled

    def _append_waiting(self) -> None:
        """Begin to append what waits, as much as one batch takes at a time."""
        while self._waiting:
            count = self._count_fitting()
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._alone = max(self._alone - 1, 0)
            try:
                _, first = self._log.begin_append([waiting.value for waiting in batch])
            except QueueFull:  # of batches that did not come through here
                self._waiting[:0] = batch
                self._retry = asyncio.create_task(self._append_when_there_is_room())
                return
            except ValueError as error:
                if count > 1:  # one of them is at fault, and the others shall not suffer for it
                    self._waiting[:0] = batch
                    self._alone = count
                    continue
                self._settle(batch, error if isinstance(error, LogError) else InvalidRecord(str(error)))
                continue
            except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
                self._settle(batch, error)
                continue
            if not first.done():
                first.add_done_callback(partial(self._finish, batch))
                return
            self._settle(batch, first.result())
        self._is_busy = False

    async def _append_when_there_is_room(self) -> None:
        with suppress(LogError):  # closed: the next append says so
            await self._log.room()
        self._append_waiting()

    def _finish(self, batch: list[_Waiting], first: asyncio.Future[int]) -> None:
        self._settle(batch, first.exception() or first.result())
        self._append_waiting()

    def _settle(self, batch: list[_Waiting], outcome: int | BaseException) -> None:
        for number, waiting in enumerate(batch):
            self._queue_bytes -= waiting.size
            if waiting.future.done():  # its caller has gone
                continue
            if isinstance(outcome, BaseException):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome + number)
        waiters, self._room_waiters = self._room_waiters, []
        for settled in waiters:
            if not settled.done():
                settled.set_result(None)

    def _count_fitting(self) -> int:
        """How many of the waiting records go into the next batch."""
        if self._alone:
            return 1
        room = self._log.config.batch_bytes_max
        for count, waiting in enumerate(self._waiting[:BATCH_RECORDS_MAX]):
            room -= waiting.size
            if room < 0 and count:
                return count
        return min(len(self._waiting), BATCH_RECORDS_MAX)


def _size_of(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value)
    return len(value.value) + len(value.key) + sum(len(name) + len(data) for name, data in value.headers)
