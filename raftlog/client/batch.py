"""A batch on its way to the log, and the handles that tell its producer what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from struct import Struct
from typing import Any, Final, NamedTuple

from logstore import Record
from logstore.checksum import crc32c
from logstore.config import Config
from logstore.encode import encode_batch, encode_value
from logstore.frame import Payload, wire_frame

PLACE: Final = Struct("<QQI")  # how the body of a frame begins: producer id, first sequence number, epoch


class Place(NamedTuple):
    """What a batch is known by, however often it is sent."""

    producer_id: int
    epoch: int
    sequence: int  # of its first record


def frame_at(payload: Payload, place: Place) -> bytes:
    """The frame of a payload with another place; its checksum is computed anew."""
    first, *rest = payload.buffers
    head = PLACE.pack(place.producer_id, place.sequence, place.epoch)
    buffers = (head, bytes(memoryview(first)[PLACE.size :]), *map(bytes, rest))  # what is bytes is not copied
    crc = 0
    for buffer in buffers:
        crc = crc32c(crc, buffer)
    return wire_frame(Payload(buffers, payload.size, crc, payload.record_count))


class Batch:
    """Records that are sent together. `done` is the offset of the first."""

    __slots__ = (
        "bytes", "count", "deadline", "done", "expected_offset", "home", "is_settled", "may_be_stored", "payload", "place", "sent_at",
        "values", "waiter",
    )  # fmt: skip

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        """`home` is the loop in which it will be settled."""
        self.home = home
        self.values: list[bytes | Record] = []  # until it is encoded
        self.payload: Payload | None = None  # from then on, until it is settled
        self.count = 0  # of records, once it is encoded
        self.bytes = 0  # as the limits of a producer count them
        self.expected_offset: int | None = None
        self.deadline: float | None = None  # by the loop's clock; None: as its pipeline has it
        self.place: Place | None = None  # once it has been numbered
        self.sent_at = 0.0  # for the first time, by the loop's clock
        self.may_be_stored = False  # it was sent, and that server did not say what became of it
        self.done: Future[int] = Future()
        self.done.set_running_or_notify_cancel()  # whoever gives up waiting cannot cancel it for the others
        # As done.done(), without its lock: Ctrl-C in a thread that asks may leave that locked for ever.
        self.is_settled = False
        self.waiter: asyncio.Future[None] | None = None  # of all that await `done` in its home

    def encode(self, config: Config) -> None:
        """Make the payload; raises what is wrong with a record."""
        if self.payload is None:
            first = self.values[0]
            if len(self.values) == 1 and isinstance(first, bytes):
                self.payload = encode_value(first, config)
            else:
                self.payload = encode_batch(self.values, config)
            self.values = []
        self.count = self.payload.record_count

    def settle(self, outcome: int | Exception) -> None:
        """Tell whoever waits. The payload stays: it may have to be sent again for those behind it."""
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)
        self.is_settled = True
        if self.waiter is not None:
            self.waiter.set_result(None)


def _wait(batch: Batch) -> Generator[Any, None, int]:
    """The first offset, awaited; the task of one who waits may be cancelled alone."""
    if not batch.is_settled:
        if asyncio.get_running_loop() is not batch.home:
            yield from asyncio.shield(asyncio.wrap_future(batch.done)).__await__()
        else:
            if batch.waiter is None:
                batch.waiter = batch.home.create_future()
            yield from asyncio.shield(batch.waiter).__await__()
    return batch.done.result()


class Handle:
    """A record on its way: `await handle` or `handle.result()` is its offset, once it is stored."""

    __slots__ = ("_batch", "_number")

    def __init__(self, batch: Batch, number: int) -> None:
        self._batch = batch
        self._number = number

    def __await__(self) -> Generator[Any, None, int]:
        return (yield from _wait(self._batch)) + self._number

    def result(self, timeout_s: float | None = None) -> int:
        """For threads; TimeoutError if it takes longer."""
        return self._batch.done.result(timeout_s) + self._number

    def done(self) -> bool:
        return self._batch.is_settled

    @property
    def has_company(self) -> bool:
        """Whether other records were sent in the same batch."""
        return self._batch.count > 1


class BatchHandle:
    """As `Handle`, of a whole batch: (first offset, end)."""

    __slots__ = ("_batch", "_count")

    def __init__(self, batch: Batch, count: int) -> None:
        self._batch = batch
        self._count = count

    def __await__(self) -> Generator[Any, None, tuple[int, int]]:
        first = yield from _wait(self._batch)
        return first, first + self._count

    def result(self, timeout_s: float | None = None) -> tuple[int, int]:
        """For threads; TimeoutError if it takes longer."""
        first = self._batch.done.result(timeout_s)
        return first, first + self._count

    def done(self) -> bool:
        return self._batch.is_settled


def are_settled(batches: Sequence[Batch]) -> bool:
    return all(batch.is_settled for batch in batches)
