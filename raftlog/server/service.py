"""The log service: what each method does, as functions of a request and a call.

Nothing here knows gRPC. Errors are raised as what they are; the binding turns them into status codes. Batches pass
through as bytes: lengths, checksum and columns are checked, values are never decoded. Reads, which may have to wait for
a disk, run in threads; appends are queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

from logstore import Config, OffsetOutOfRange, QueueFull, Record, RecordBatch
from logstore.cursor import FOREVER
from logstore.reading import Frames
from logstore.transfer import read_frames
from raftlog.errors import Overloaded, ServerStopping
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.budget import ResponseBudget
from raftlog.server.call import Call
from raftlog.server.merging import ProduceMerger, Value
from raftlog.wire.records import to_message, to_record

OBJECT: Final = "*"  # of the policy, until there are topics
FRAMES_BYTES_MAX: Final = 1024 * 1024  # of a ConsumeBatches response; a larger frame comes alone
RECORDS_BYTES: Final = 64 * 1024  # of frames read at a time for ConsumeStream
AHEAD_MAX: Final = 256  # requests of a produce stream that are begun and not answered; then reading waits

CHECK_HERE_BYTES_MAX: Final = 64 * 1024  # larger batches are checked in a thread: it may take a second

Request = TypeVar("Request")
Response = TypeVar("Response")
Begun = tuple[asyncio.Future[int], Callable[[int], Response]]  # what is on its way, and the answer made of it


class CommitLog(Protocol):
    """What the service needs of a log. `logstore.Log` has it."""

    config: Config

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    def read(self, offset: int) -> Record: ...
    def offset_at(self, time: int) -> int: ...
    def frames(
        self, start: int | None = None, end: int | None = None, *, bytes_max: int
    ) -> Iterator[Frames]: ...
    async def wait_async(self, seen_end: int) -> int: ...
    def begin_append(self, batch: bytes | RecordBatch | list[Value]) -> tuple[int, asyncio.Future[int]]: ...
    async def room(self) -> None: ...


class Access(Protocol):
    """Decides who may do what."""

    def require_subject(self, subject: str | None) -> None:
        """Raise Unauthenticated if callers must prove who they are and this one did not."""
        ...

    def check(self, subject: str | None, object: str, action: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the subject may do that."""
        ...


class LogService:
    """The methods of `log.v1.Log`; proto/log/v1/log.proto says what each promises."""

    def __init__(
        self,
        log: CommitLog,
        access: Access,
        servers: Callable[[], list[pb.Server]],
        *,
        queue_bytes_max: int,
        unsent_bytes_max: int,
    ) -> None:
        """`servers` tells the servers of the cluster. The limits are keys of the configuration."""
        self._log = log
        self._access = access
        self._servers = servers
        self._merger = ProduceMerger(log, queue_bytes_max=queue_bytes_max)
        self._budget = ResponseBudget(unsent_bytes_max)
        self._readers: set[asyncio.Task[None]] = set()  # of produce streams that go on

    def stop(self) -> None:
        """Take no more from produce streams; each ends with ServerStopping once what it took is answered."""
        for reader in self._readers:
            reader.cancel()

    # ── producing ───────────────────────────────────────────────────────────────────────────────────

    async def produce(self, request: pb.ProduceRequest, call: Call) -> pb.ProduceResponse:
        self._may_produce(call)
        return pb.ProduceResponse(offset=await self._merger.submit(value_of(request.record)))

    async def produce_stream(
        self, requests: AsyncIterator[pb.ProduceRequest], call: Call
    ) -> AsyncIterator[pb.ProduceResponse]:
        self._may_produce(call)

        async def begin(request: pb.ProduceRequest) -> Begun[pb.ProduceResponse]:
            self._may_produce(call)
            future = self._merger.submit(value_of(request.record))
            return future, lambda offset: pb.ProduceResponse(offset=offset)

        async for response in in_order(requests, begin, self._merger.room, self._readers):
            yield response

    async def produce_batch(self, request: pb.ProduceBatchRequest, call: Call) -> pb.ProduceBatchResponse:
        self._may_produce(call)
        first, response = await self._begin_batch(request)
        return response(await first)

    async def produce_batch_stream(
        self, requests: AsyncIterator[pb.ProduceBatchRequest], call: Call
    ) -> AsyncIterator[pb.ProduceBatchResponse]:
        self._may_produce(call)

        async def begin(request: pb.ProduceBatchRequest) -> Begun[pb.ProduceBatchResponse]:
            self._may_produce(call)
            return await self._begin_batch(request)

        async for response in in_order(requests, begin, self._log.room, self._readers):
            yield response

    def _may_produce(self, call: Call) -> None:
        """Asked for each request of a stream: what was allowed at its start may not be any more."""
        self._access.check(call.subject, OBJECT, "produce")

    def _may_consume(self, call: Call) -> None:
        """As `_may_produce`, for each response."""
        self._access.check(call.subject, OBJECT, "consume")

    async def _begin_batch(self, request: pb.ProduceBatchRequest) -> Begun[pb.ProduceBatchResponse]:
        batch: bytes | RecordBatch = request.batch
        if len(request.batch) > CHECK_HERE_BYTES_MAX:
            batch = await asyncio.to_thread(RecordBatch.from_bytes, request.batch, config=self._log.config)
        count, first = self._log.begin_append(batch)
        return first, lambda first: pb.ProduceBatchResponse(first_offset=first, end_offset=first + count)

    # ── consuming ───────────────────────────────────────────────────────────────────────────────────

    async def consume(self, request: pb.ConsumeRequest, call: Call) -> pb.ConsumeResponse:
        self._may_consume(call)
        return self._consumed(await asyncio.to_thread(self._log.read, request.offset))

    async def consume_stream(
        self, request: pb.ConsumeRequest, call: Call
    ) -> AsyncIterator[pb.ConsumeResponse]:
        self._may_consume(call)
        start = request.offset
        async with aclosing(self._frames(start, FOREVER, follow=True, bytes_max=RECORDS_BYTES)) as some:
            async for frames in some:
                for found in read_frames(frames.data):
                    for record in found.records(start, FOREVER):
                        self._may_consume(call)
                        yield self._consumed(record)

    async def consume_batches(
        self, request: pb.ConsumeBatchesRequest, call: Call
    ) -> AsyncIterator[pb.ConsumeBatchesResponse]:
        self._may_consume(call)
        start = await self._start_of(request)
        log_end = self._log.end
        end = request.end_offset if request.HasField("end_offset") else FOREVER
        if not request.follow:
            end = min(end, log_end)
            if not self._log.start <= start <= log_end:
                raise OffsetOutOfRange(start, self._log.start, log_end)
            if start >= end:  # nothing to read, but what the log holds is news
                yield self._batches(Frames(start, start, b""))
        bytes_max = min(request.bytes_max or FRAMES_BYTES_MAX, FRAMES_BYTES_MAX)
        async with aclosing(self._frames(start, end, follow=request.follow, bytes_max=bytes_max)) as some:
            async for frames in some:
                self._may_consume(call)
                yield self._batches(frames)

    async def _frames(self, start: int, end: int, *, follow: bool, bytes_max: int) -> AsyncGenerator[Frames]:
        """Frames with the records start..end-1; with `follow` also those that come later, without polling."""
        while start < end:
            log_end = self._log.end
            if start > log_end and follow:  # not there yet
                await self._log.wait_async(log_end)
                continue
            frames = self._log.frames(start, min(end, log_end), bytes_max=bytes_max)
            await self._budget.room()
            while (some := await asyncio.to_thread(next, frames, None)) is not None:
                async with self._budget.holding(len(some.data)):
                    yield some
                start = some.end_offset
                await self._budget.room()
            if not follow:
                return
            start = max(start, min(end, log_end))  # frames of removed records may be missing before it
            if start < end:
                await self._log.wait_async(log_end)

    async def _start_of(self, request: pb.ConsumeBatchesRequest) -> int:
        match request.WhichOneof("start"):
            case "offset":
                return request.offset
            case "latest":
                return self._log.end
            case "time_ns":
                return await asyncio.to_thread(self._log.offset_at, request.time_ns)
            case _:
                return self._log.start

    def _consumed(self, record: Record) -> pb.ConsumeResponse:
        return pb.ConsumeResponse(
            record=to_message(record), log_start=self._log.start, high_watermark=self._log.end
        )

    def _batches(self, frames: Frames) -> pb.ConsumeBatchesResponse:
        return pb.ConsumeBatchesResponse(
            first_offset=frames.first_offset,
            end_offset=frames.end_offset,
            frames=frames.data,
            log_start=self._log.start,
            high_watermark=self._log.end,
        )

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────────

    async def get_servers(self, request: pb.GetServersRequest, call: Call) -> pb.GetServersResponse:
        self._access.require_subject(call.subject)
        return pb.GetServersResponse(servers=self._servers())


def value_of(message: pb.Record) -> Value:
    """What is to be stored; a lone value as bytes, which is quicker all the way down."""
    is_lone = not (message.key or message.timestamp_ns or message.headers)
    return message.value if is_lone else to_record(message)


async def in_order(
    requests: AsyncIterator[Request],
    begin: Callable[[Request], Awaitable[Begun[Response]]],
    room: Callable[[], Awaitable[None]],
    readers: set[asyncio.Task[None]],
) -> AsyncIterator[Response]:
    """The answers to `requests`, in their order. Up to AHEAD_MAX are begun before the first is answered.

    Where `begin` is refused because too much is on its way, waits for room and so makes the sender wait. Ends when
    all are answered and no more come. After the first error no more are begun; those that were may be carried out.
    Its task that takes requests is in `readers` meanwhile; if that is cancelled, ServerStopping is the first error.
    """
    begun: asyncio.Queue[Begun[Response] | None] = asyncio.Queue(AHEAD_MAX)

    async def begin_one(request: Request) -> Begun[Response]:
        while True:
            try:
                return await begin(request)
            except (Overloaded, QueueFull):
                await room()

    async def begin_all() -> None:
        try:
            async for request in requests:
                await begun.put(await begin_one(request))
        finally:
            await begun.put(None)

    reader = asyncio.create_task(begin_all())
    readers.add(reader)
    reader.add_done_callback(readers.discard)
    try:
        while (one := await begun.get()) is not None:
            future, response = one
            yield response(await future)
        await asyncio.wait((reader,))
        if reader.cancelled():
            raise ServerStopping
        reader.result()
    finally:
        reader.cancel()
        while not begun.empty():
            if (left := begun.get_nowait()) is not None:
                left[0].cancel()
                left[0].add_done_callback(_look_at)
        reader.add_done_callback(_look_at)


def _look_at(done: asyncio.Future[Any]) -> None:
    """Of what nobody waits for, let no error be reported as overlooked."""
    if not done.cancelled():
        done.exception()
