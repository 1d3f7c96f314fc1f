"""Reading at the tail: records as they come, for threads and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from logstore import reading
from logstore.batch import RecordBatch
from logstore.cursor import FOREVER, Cursor
from logstore.record import Record

if TYPE_CHECKING:
    from logstore.readable_log import ReadableLog


class Follower:
    """Iterates over records for ever; `batches` and `batches_async` do the same batch by batch.

    One iterator at a time: all of them move the same cursor.
    """

    def __init__(self, log: ReadableLog, cursor: Cursor) -> None:
        self._log = log
        self._cursor = cursor

    @property
    def offset(self) -> int:
        """Where it will go on reading. Records that an iterator still holds count as read."""
        return self._cursor.offset

    def __iter__(self) -> Iterator[Record]:
        while True:
            end = self._log.end
            yield from reading.records(self._cursor, FOREVER)
            self._log.wait(end, seen_epoch=self._cursor.epoch)

    async def __aiter__(self) -> AsyncIterator[Record]:
        while True:
            end = self._log.end
            for record in reading.records(self._cursor, FOREVER):
                yield record
            await self._log.wait_async(end, seen_epoch=self._cursor.epoch)

    def batches(self) -> Iterator[RecordBatch]:
        while True:
            end = self._log.end
            yield from reading.batches(self._cursor, FOREVER)
            self._log.wait(end, seen_epoch=self._cursor.epoch)

    async def batches_async(self) -> AsyncIterator[RecordBatch]:
        while True:
            end = self._log.end
            for batch in reading.batches(self._cursor, FOREVER):
                yield batch
            await self._log.wait_async(end, seen_epoch=self._cursor.epoch)
