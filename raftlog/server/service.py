"""The log service: what each method does, as functions of a request and a call.

Nothing here knows gRPC. Errors are raised as what they are; the binding turns them into status codes. Batches pass
through as bytes: lengths, checksum and columns are checked, values are never decoded. Reads, which may have to wait for
a disk, run in threads; appends are queued. What only the leader can do is sent on to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, Protocol, TypeVar

from logstore import Config, OffsetOutOfRange, Record, RecordBatch
from logstore.cursor import FOREVER
from logstore.frame import Codec, Section, parse_frame_header
from logstore.reading import Frames
from logstore.transfer import read_frames
from raftlog.errors import InvalidRecord, NotCaughtUp, NotLeader
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.budget import ResponseBudget
from raftlog.server.call import OBJECT, Access, Call, Leader
from raftlog.server.merging import ProduceMerger, Producer, Value
from raftlog.server.produce_streams import Begun, in_order
from raftlog.wire.records import to_message, to_record

PATH: Final = "/log.v1.Log/"  # before a method's name

FRAMES_BYTES_MAX: Final = 1024 * 1024  # of a ConsumeBatches response; a larger frame comes alone
RECORDS_BYTES: Final = 64 * 1024  # of frames read at a time for ConsumeStream

# Batches up to here are checked in the loop's own thread: 60 microseconds, where another thread costs 150. Those whose
# check takes longer, because values are compressed or records have headers, only up to the smaller number.
CHECK_HERE_BYTES_MAX: Final = 1024 * 1024
CHECK_SLOW_HERE_BYTES_MAX: Final = 64 * 1024

CATCH_UP_S_MAX: Final = 10.0  # for a linearizable read; then the client may ask another server

Request = TypeVar("Request")
Response = TypeVar("Response")


class Server(Protocol):
    """A member of the cluster, as clients are told of it."""

    @property
    def id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def is_voter(self) -> bool: ...


class CommitLog(Protocol):
    """What the service needs of a log. `start` and `end` are of what this server has and a quorum stores."""

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

    def require_leader(self) -> None:
        """Raise NotLeader unless this server leads, as far as it knows."""
        ...

    def begin_append(
        self, batch: bytes | RecordBatch | list[Value], *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]: ...
    async def room(self) -> None: ...

    async def read_index(self, timeout_s: float) -> int:
        """Return once all that was acknowledged before the call is below `end`; TimeoutError."""
        ...

    def get_servers(self) -> Sequence[Server]: ...


async def catch_up(log: CommitLog, call: Call) -> None:
    """Return once this server has all that was acknowledged to anybody before; NotCaughtUp if that takes too long."""
    timeout_s = CATCH_UP_S_MAX if call.timeout_s is None else min(call.timeout_s, CATCH_UP_S_MAX)
    try:
        await log.read_index(timeout_s)
    except TimeoutError:
        raise NotCaughtUp("no quorum told in time what was acknowledged before; ask another server") from None


class LogService:
    """The methods of `log.v1.Log`; proto/log/v1/log.proto says what each promises."""

    def __init__(
        self,
        log: CommitLog,
        access: Access,
        leader: Leader,
        *,
        queue_bytes_max: int,
        unsent_bytes_max: int,
    ) -> None:
        """`leader` is asked where this server does not lead. The limits are keys of the configuration."""
        self._log = log
        self._access = access
        self._leader = leader
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
        try:
            self._log.require_leader()
            return pb.ProduceResponse(offset=await self._submit(request))
        except NotLeader as refused:
            return await self._leader.ask(refused, f"{PATH}Produce", request, pb.ProduceResponse, call)

    async def produce_batch(self, request: pb.ProduceBatchRequest, call: Call) -> pb.ProduceBatchResponse:
        self._may_produce(call)
        try:
            self._log.require_leader()
            first, response = await self._begin_batch(request)
            return response(await first)
        except NotLeader as refused:
            kind = pb.ProduceBatchResponse
            return await self._leader.ask(refused, f"{PATH}ProduceBatch", request, kind, call)

    async def produce_stream(
        self, requests: AsyncIterator[pb.ProduceRequest], call: Call
    ) -> AsyncIterator[pb.ProduceResponse]:
        async def begin(request: pb.ProduceRequest) -> Begun[pb.ProduceResponse]:
            self._may_produce(call)
            return self._submit(request), lambda offset: pb.ProduceResponse(offset=offset)

        self._may_produce(call)
        async with aclosing(
            self._answered("ProduceStream", requests, begin, self._merger.room, pb.ProduceResponse, call)
        ) as answers:
            async for response in answers:
                yield response

    async def produce_batch_stream(
        self, requests: AsyncIterator[pb.ProduceBatchRequest], call: Call
    ) -> AsyncIterator[pb.ProduceBatchResponse]:
        async def begin(request: pb.ProduceBatchRequest) -> Begun[pb.ProduceBatchResponse]:
            self._may_produce(call)
            return await self._begin_batch(request)

        self._may_produce(call)
        async with aclosing(
            self._answered(
                "ProduceBatchStream", requests, begin, self._log.room, pb.ProduceBatchResponse, call
            )
        ) as answers:
            async for response in answers:
                yield response

    def _answered(
        self,
        method: str,
        requests: AsyncIterator[Request],
        begin: Callable[[Request], Awaitable[Begun[Response]]],
        room: Callable[[], Awaitable[None]],
        response: type[Response],
        call: Call,
    ) -> AsyncGenerator[Response]:
        """The answers of a stream, which belongs to the leader of the moment in which it begins."""
        try:
            self._log.require_leader()
        except NotLeader as refused:
            allowed = self._allowed(requests, call)
            return self._leader.relay(
                refused, f"{PATH}{method}", allowed, response, call, readers=self._readers
            )
        return in_order(requests, begin, room, self._readers)

    async def _allowed(self, requests: AsyncIterator[Request], call: Call) -> AsyncIterator[Request]:
        """The requests, for as long as the caller may send them."""
        async for request in requests:
            self._may_produce(call)
            yield request

    def _may_produce(self, call: Call) -> None:
        """Asked for each request of a stream: what was allowed at its start may not be any more."""
        self._access.check(call.subject, OBJECT, "produce")

    def _may_consume(self, call: Call) -> None:
        """As `_may_produce`, for each response."""
        self._access.check(call.subject, OBJECT, "consume")

    def _submit(self, request: pb.ProduceRequest) -> asyncio.Future[int]:
        """Of one record, which is merged with others."""
        value = value_of(request.record)
        producer = None
        if request.producer_id:
            producer = Producer(request.producer_id, request.producer_epoch)
        elif request.producer_epoch or request.sequence:
            raise InvalidRecord("an epoch or a sequence number without a producer id; give all three or none")
        return self._merger.submit(
            value, producer=producer, sequence=request.sequence, expected_offset=_expected_offset(request)
        )

    async def _begin_batch(self, request: pb.ProduceBatchRequest) -> Begun[pb.ProduceBatchResponse]:
        batch: bytes | RecordBatch = request.batch
        if not is_checked_here(request.batch):
            batch = await asyncio.to_thread(RecordBatch.from_bytes, request.batch, config=self._log.config)
        count, first = self._log.begin_append(batch, expected_offset=_expected_offset(request))
        return first, lambda first: pb.ProduceBatchResponse(first_offset=first, end_offset=first + count)

    # ── consuming ───────────────────────────────────────────────────────────────────────────────────

    async def consume(self, request: pb.ConsumeRequest, call: Call) -> pb.ConsumeResponse:
        self._may_consume(call)
        if request.linearizable:
            await catch_up(self._log, call)
        return self._consumed(await asyncio.to_thread(self._log.read, request.offset))

    async def consume_stream(
        self, request: pb.ConsumeRequest, call: Call
    ) -> AsyncIterator[pb.ConsumeResponse]:
        self._may_consume(call)
        if request.linearizable:
            await catch_up(self._log, call)
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
        if request.linearizable:
            await catch_up(self._log, call)
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
        servers = (
            pb.Server(id=one.id, rpc_addr=one.address, is_leader=one.is_leader, is_voter=one.is_voter)
            for one in self._log.get_servers()
        )
        return pb.GetServersResponse(servers=servers)


def value_of(message: pb.Record) -> Value:
    """What is to be stored; a lone value as bytes, which is quicker all the way down."""
    is_lone = not (message.key or message.timestamp_ns or message.headers)
    return message.value if is_lone else to_record(message)


def _expected_offset(request: pb.ProduceRequest | pb.ProduceBatchRequest) -> int | None:
    return request.expected_offset if request.HasField("expected_offset") else None


def is_checked_here(batch: bytes) -> bool:
    """Whether the check of these bytes, which claim to be a batch, is quicker than to hand it to a thread."""
    if len(batch) <= CHECK_SLOW_HERE_BYTES_MAX:
        return True
    if len(batch) > CHECK_HERE_BYTES_MAX:
        return False
    header = parse_frame_header(batch)
    return header.codec == Codec.NONE and not header.sections & Section.HEADERS
