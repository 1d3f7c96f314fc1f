"""The client for threads: AsyncClient on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from os import PathLike
from typing import Any, Self, TypeVar

from logstore import Record, RecordBatch
from logstore.config import MIB
from raftlog.client.answers import Bounds, Cursor, Member, Server, Snapshot, Status
from raftlog.client.async_client import AsyncClient, Batch
from raftlog.client.batch import BatchHandle, Handle
from raftlog.client.groups import COMMIT_INTERVAL_S
from raftlog.client.membership import Autopilot, KeysAnswer, KnownServers
from raftlog.client.picker import Picker
from raftlog.client.producer import Producer, ProducerConfig, ProducerFull, Value
from raftlog.net.tls import TlsFiles

T = TypeVar("T")


class Client:
    """A client of a cluster; the interface of `logstore.Log`. Any number of threads may use it.

    AsyncClient says what all calls have in common.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        tls: TlsFiles | None = None,
        timeout_s: float = 10.0,
        picker: Picker | None = None,
        gossip_key_file: str | PathLike[str] | None = None,
    ) -> None:
        """`addresses` are host:port of one or some servers, or names under which they are found, as of AsyncClient.

        Without `tls` connections are neither encrypted nor verified. `picker` chooses whom to consume from.
        `gossip_key_file` is needed to ask a gossip that is encrypted.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="raftlog client", daemon=True)
        self._closing: set[asyncio.Task[None]] = set()  # of iterators; kept until they are done
        self._thread.start()
        self._is_closed = False
        try:
            self._client = self._run(_made(addresses, tls, timeout_s, picker, gossip_key_file))
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

    # ── producing ───────────────────────────────────────────────────────────────────────────────────

    def append(self, value: Value, *, expected_offset: int | None = None) -> int:
        """The offset of the record, once it is stored: on a quorum, or as a lone server's sync policy says.

        With `expected_offset` it is stored there or not at all: UnexpectedOffset. For many, see `producer`.
        """
        return self._run(self._client.append(value, expected_offset=expected_offset))

    def append_batch(self, batch: Batch, *, expected_offset: int | None = None) -> tuple[int, int]:
        """(first offset, end) of the records: stored all or none. `expected_offset` as of `append`, of the first."""
        return self._run(self._client.append_batch(batch, expected_offset=expected_offset))

    def producer(self, config: ProducerConfig | None = None) -> BlockingProducer:
        """A producer that merges records into batches. It is closed with the client, or before."""
        return BlockingProducer(self, self._run(_producer(self._client, config)))

    # ── consuming ───────────────────────────────────────────────────────────────────────────────────

    def read(self, offset: int, *, linearizable: bool = False) -> Record:
        """The record; OffsetOutOfRange, or RecordCompacted if compaction removed it."""
        return self._run(self._client.read(offset, linearizable=linearizable))

    def bounds(self, *, linearizable: bool = False) -> Bounds:
        """Which offsets the log holds now."""
        return self._run(self._client.bounds(linearizable=linearizable))

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; the log's end if there is none."""
        return self._run(self._client.offset_at(time))

    def scan(
        self, start: int | None = None, end: int | None = None, *, linearizable: bool = False
    ) -> Iterator[Record]:
        """The records start..end-1; by default all that are there when the call arrives."""
        frames = self._client.read_on(start, end, follow=False, linearizable=linearizable)
        for low, high, found in self._iterate(frames):
            yield from found.records(low, high)

    def batches(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        follow: bool = False,
        bytes_max: int = MIB,
        linearizable: bool = False,
    ) -> Iterator[RecordBatch]:
        """As `scan`, but batch by batch as they were appended, as columns without a copy."""
        frames = self._client.read_on(
            start, end, follow=follow, bytes_max=bytes_max, linearizable=linearizable
        )
        for low, high, found in self._iterate(frames):
            yield from found.batches(low, high)

    def follow(self, start: int | None = None, *, linearizable: bool = False) -> Iterator[Record]:
        """The records from `start` on (by default only new ones), waiting at the end for more. Never ends."""
        start = self.bounds(linearizable=linearizable).end if start is None else start
        frames = self._client.read_on(start, None, follow=True, linearizable=linearizable)
        for low, high, found in self._iterate(frames):
            yield from found.records(low, high)

    # ── groups of consumers ─────────────────────────────────────────────────────────────────────────

    def consume(
        self,
        group: str,
        *,
        start: int | None = None,
        follow: bool = False,
        commit_interval_s: float = COMMIT_INTERVAL_S,
    ) -> Iterator[Record]:
        """The records that the group has not consumed; what has been consumed is committed at intervals and at the end.

        A record counts as consumed once the next is asked for. So after a crash some records may come again, and none is
        left out. A group that is new begins at `start`, by default the start of the log. One whose place was removed by
        retention goes on at the start of the log.
        """
        place = self._run(self._client.open_group(group, start=start, commit_interval_s=commit_interval_s))
        try:
            frames = self._client.read_on(place.next, None, follow=follow)
            for low, high, found in self._iterate(frames):
                for record in found.records(low, high):
                    yield record
                    place.next = record.offset + 1
                place.require_kept()
        finally:
            self._finish(place.finish())

    def commit_cursor(self, group: str, offset: int) -> None:
        """Keep in the log that the group consumes `offset` next."""
        self._run(self._client.commit_cursor(group, offset))

    def cursors(self, group: str = "", *, linearizable: bool = False) -> list[Cursor]:
        """Of all groups, by name; or of one, if it has one."""
        return self._run(self._client.cursors(group, linearizable=linearizable))

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────────

    def servers(self) -> list[Server]:
        """All servers, as one of them names them."""
        return self._run(self._client.servers())

    def status(self, address: str | None = None) -> Status:
        """What the server at `address` is and believes; by default any."""
        return self._run(self._client.status(address))

    def join(self, name: str, address: str, *, directory_id: str = "") -> list[Member]:
        """Make a server a member, first as a learner; one that is known so already stays. The members then."""
        return self._run(self._client.join(name, address, directory_id=directory_id))

    def leave(self, name: str) -> None:
        """Remove a server; a leader hands over first. One that is no member is no error."""
        self._run(self._client.leave(name))

    def promote(self, name: str) -> None:
        """Make a learner a voter; CallFailed with FAILED_PRECONDITION until it has nearly caught up."""
        self._run(self._client.promote(name))

    def transfer_leadership(self, to: str = "") -> str:
        """Hand over leadership, by default to the voter that has most of the log. The name of the new leader."""
        return self._run(self._client.transfer_leadership(to))

    def truncate(self, lowest: int) -> int:
        """Forget the records below `lowest`, on all servers. The start of the log then."""
        return self._run(self._client.truncate(lowest))

    def take_snapshot(self, address: str | None = None) -> Snapshot:
        """Have the server at `address`, by default any, write a snapshot of its views."""
        return self._run(self._client.take_snapshot(address))

    def known_servers(self, address: str | None = None) -> KnownServers:
        """Every server that the one at `address`, by default any, has found, beside what Raft knows."""
        return self._run(self._client.known_servers(address))

    def autopilot(self) -> Autopilot:
        """What the leader's autopilot thinks of the servers, what it did and would do, and why."""
        return self._run(self._client.autopilot())

    def set_autopilot(self, mode: str) -> None:
        """Have the autopilot "act", only "advise", or be "off"; kept in the log."""
        self._run(self._client.set_autopilot(mode))

    def change_gossip_keys(self, action: str, *, key: bytes = b"", key_id: str = "") -> KeysAnswer:
        """Have all members "list" the keys of the gossip, or "install", "use" or "remove" the one with these bytes or this id.

        CallFailed with FAILED_PRECONDITION where some would not understand others afterwards; nothing changed then.
        """
        return self._run(self._client.change_gossip_keys(action, key=key, key_id=key_id))

    def depart(self, name: str, address: str) -> None:
        """Have a server that was removed leave the gossip and serve no more. It goes on running until it is stopped."""
        self._run(self._client.depart(name, address))

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────

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
                self._finish(_close(items))
                raise

    def _finish(self, ending: Coroutine[Any, Any, None]) -> None:
        """Run what ends an iterator."""
        if self._is_closed:
            ending.close()
        elif threading.current_thread() is not self._thread:
            self._run(ending)
        else:  # it was abandoned, and the garbage collector found it here: the loop cannot wait for itself
            closing = self._loop.create_task(ending)
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

    def send_batch(self, batch: RecordBatch | bytes, *, expected_offset: int | None = None) -> BatchHandle:
        """Take records that are a batch already; `handle.result()` is (first offset, end). Waits as `send`."""
        while True:
            try:
                return self._producer.send_batch(batch, expected_offset=expected_offset)
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


async def _made(
    addresses: str | Iterable[str],
    tls: TlsFiles | None,
    timeout_s: float,
    picker: Picker | None,
    gossip_key_file: str | PathLike[str] | None,
) -> AsyncClient:
    return AsyncClient(
        addresses, tls=tls, timeout_s=timeout_s, picker=picker, gossip_key_file=gossip_key_file
    )


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
