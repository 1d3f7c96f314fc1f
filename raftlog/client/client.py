"""The client for threads: AsyncClient on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Self, TypeVar

from logstore import Record, RecordBatch
from logstore.config import MIB
from raftlog.client.async_client import AsyncClient, Batch, Bounds, Server, Value
from raftlog.client.producer import Handle, Producer, ProducerConfig, ProducerFull
from raftlog.net.tls import TlsFiles

T = TypeVar("T")


class Client:
    """A connection to a server; the interface of `logstore.Log`. Any number of threads may use it."""

    def __init__(self, address: str, *, tls: TlsFiles | None = None, timeout_s: float = 10.0) -> None:
        """`address` is host:port. Without `tls` the connection is neither encrypted nor verified."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=f"raftlog {address}", daemon=True)
        self._closing: set[asyncio.Task[None]] = set()  # of iterators; kept until they are done
        self._thread.start()
        self._is_closed = False
        try:
            self._client = self._run(_made(address, tls, timeout_s))
        except BaseException:
            self._end_loop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush the producers and close the connection. Closing twice is no error."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run_loop(self) -> None:
        loop = self._loop
        loop.run_forever()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def append(self, value: Value) -> int:
        """The offset of the record, once it is stored as the server's sync policy says. For many, see `producer`."""
        return self._run(self._client.append(value))

    def append_batch(self, batch: Batch) -> tuple[int, int]:
        """(first offset, end) of the records: stored all or none."""
        return self._run(self._client.append_batch(batch))

    def producer(self, config: ProducerConfig | None = None) -> BlockingProducer:
        """A producer that merges records into batches. It is closed with the client, or before."""
        return BlockingProducer(self, self._run(_producer(self._client, config)))

    def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, or RecordCompacted if compaction removed it."""
        return self._run(self._client.read(offset))

    def bounds(self) -> Bounds:
        """Which offsets the log holds now."""
        return self._run(self._client.bounds())

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; the log's end if there is none."""
        return self._run(self._client.offset_at(time))

    def scan(self, start: int | None = None, end: int | None = None) -> Iterator[Record]:
        """The records start..end-1; by default all that are there when the call arrives."""
        for low, high, found in self._iterate(self._client.read_on(start, end, follow=False)):
            yield from found.records(low, high)

    def batches(
        self, start: int | None = None, end: int | None = None, *, follow: bool = False, bytes_max: int = MIB
    ) -> Iterator[RecordBatch]:
        """As `scan`, but batch by batch as they were appended, as columns without a copy."""
        frames = self._client.read_on(start, end, follow=follow, bytes_max=bytes_max)
        for low, high, found in self._iterate(frames):
            yield from found.batches(low, high)

    def follow(self, start: int | None = None) -> Iterator[Record]:
        """The records from `start` on (by default only new ones), waiting at the end for more. Never ends."""
        start = self.bounds().end if start is None else start
        for low, high, found in self._iterate(self._client.read_on(start, None, follow=True)):
            yield from found.records(low, high)

    def servers(self) -> list[Server]:
        return self._run(self._client.servers())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            coroutine.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # by Ctrl-C nobody waits any more
            raise

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        while (item := self._run(_next(items))) is not None:  # interrupted here, it is cancelled and so ended
            try:
                yield item
            except GeneratorExit:
                self._close_iterator(items)
                raise

    def _close_iterator(self, items: AsyncIterator[Any]) -> None:
        if self._is_closed:
            return
        if threading.current_thread() is not self._thread:
            self._run(_close(items))
            return
        # It was abandoned, and the garbage collector found it here: the loop cannot wait for itself.
        closing = self._loop.create_task(_close(items))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


class BlockingProducer:
    """A producer for threads: where the one for asyncio refuses a record, this one waits."""

    def __init__(self, client: Client, producer: Producer) -> None:
        self._client = client
        self._producer = producer
        self._send = producer.send

    def send(self, value: Value) -> Handle:
        """Take a record; waits while `pending_bytes_max` are on the way. `handle.result()` is its offset."""
        while True:
            try:
                return self._send(value)
            except ProducerFull:
                self._producer.wait_for_room()

    def flush(self) -> None:
        """Send what waits, and return when all that was taken is answered; raises the first error among it."""
        self._client._run(self._producer.flush())

    def close(self) -> None:
        """Flush, and take no more. Interrupted by Ctrl-C, or without any answer for too long, fail what is left."""
        try:
            self._client._run(self._producer.close())
        except KeyboardInterrupt:
            self._abandon()
            raise

    def _abandon(self) -> None:
        if not self._client._is_closed:
            self._client._run(self._producer.abandon())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after an exception fail what is not answered instead, so that nobody waits for a server."""
        if kind is None:
            self.close()
        else:
            self._abandon()


async def _made(address: str, tls: TlsFiles | None, timeout_s: float) -> AsyncClient:
    return AsyncClient(address, tls=tls, timeout_s=timeout_s)


async def _producer(client: AsyncClient, config: ProducerConfig | None) -> Producer:
    return client.producer(config)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


async def _close(items: Any) -> None:
    await items.aclose()
