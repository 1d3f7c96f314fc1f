"""The client for asyncio: the interface of `logstore.Log`, over the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple, Self

import grpc

from logstore import OffsetOutOfRange, Record, RecordBatch, RecordCompacted
from logstore.config import MIB
from logstore.cursor import FOREVER
from logstore.encode import DEFAULTS, check_payload, check_value_size, encode_batch
from logstore.frame import wire_frame
from logstore.run import Run
from logstore.transfer import read_frames
from logstore.walk import Item
from raftlog.client.connection import open_channel, stub_of
from raftlog.client.failures import CallFailed, failure
from raftlog.client.producer import Producer, ProducerConfig, size_of
from raftlog.net.tls import TlsFiles
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.wire.records import to_message, to_record

RETRY_FIRST_S: Final = 0.05  # doubled after each failure, up to RETRY_MAX_S
RETRY_MAX_S: Final = 2.0

Value = bytes | Record
Batch = Iterable[Value] | RecordBatch | bytes


class Server(NamedTuple):
    """A server of the cluster."""

    name: str
    address: str
    is_leader: bool


class Bounds(NamedTuple):
    """Offsets that exist: start to before end."""

    start: int
    end: int


class AsyncClient:
    """A connection to a server, opened when it is first used.

    What is wrong with a call raises the error of `logstore`: OffsetOutOfRange, RecordCompacted, and before anything is
    sent what the engine says of a record or batch, by its default limits. What the server alone can know, such as
    lower limits of its own, raises CallFailed. Reads are tried again for `timeout_s` if the server cannot be reached;
    produces are not, because a produce whose answer is lost may have been stored.
    """

    def __init__(self, address: str, *, tls: TlsFiles | None = None, timeout_s: float = 10.0) -> None:
        """`address` is host:port. Without `tls` the connection is neither encrypted nor verified."""
        self._address = address
        self._timeout_s = timeout_s
        self._channel = open_channel(address, tls)
        self._stub = stub_of(self._channel)
        self._producers: list[Producer] = []
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Flush the producers and close the connection. Closing twice is no error."""
        self._is_closed = True
        for producer in self._producers:
            await producer.close()
        await self._channel.close(None)

    def _require_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the client is closed")

    # ── producing ───────────────────────────────────────────────────────────────────────────────────

    async def append(self, value: Value) -> int:
        """The offset of the record, once it is stored as the server's sync policy says. For many, see `producer`."""
        record = value if isinstance(value, Record) else Record(value)
        check_value_size(size_of(record), DEFAULTS)
        request = pb.ProduceRequest(record=to_message(record))
        response = await self._call(self._stub.Produce, request, is_produce=True)
        return int(response.offset)

    async def append_batch(self, batch: Batch) -> tuple[int, int]:
        """(first offset, end) of the records: stored all or none."""
        request = pb.ProduceBatchRequest(batch=_frame_of(batch))
        response = await self._call(self._stub.ProduceBatch, request, is_produce=True)
        return int(response.first_offset), int(response.end_offset)

    def producer(self, config: ProducerConfig | None = None) -> Producer:
        """A producer that merges records into batches. It is closed with the client, or before."""
        self._require_open()
        producer = Producer(self._stub, config or ProducerConfig())
        self._producers.append(producer)
        return producer

    # ── consuming ───────────────────────────────────────────────────────────────────────────────────

    async def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, or RecordCompacted if compaction removed it."""
        await self._require_possible(offset)
        try:
            response = await self._call(self._stub.Consume, pb.ConsumeRequest(offset=offset))
        except CallFailed as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise RecordCompacted(offset, error.text.removeprefix(f"record {offset} is gone: ")) from error
        return to_record(response.record)

    async def bounds(self) -> Bounds:
        """Which offsets the log holds now."""
        request = pb.ConsumeBatchesRequest(latest=True)
        async for response in self._consume(request):
            return Bounds(response.log_start, response.high_watermark)
        raise CallFailed(grpc.StatusCode.INTERNAL, "the server ended the stream without an answer")

    async def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; the log's end if there is none."""
        request = pb.ConsumeBatchesRequest(time_ns=time, bytes_max=1)
        async for response in self._consume(request):
            return int(response.first_offset)
        raise CallFailed(grpc.StatusCode.INTERNAL, "the server ended the stream without an answer")

    async def scan(self, start: int | None = None, end: int | None = None) -> AsyncIterator[Record]:
        """The records start..end-1; by default all that are there when the call arrives."""
        async for low, high, found in self.read_on(start, end, follow=False):
            for record in found.records(low, high):
                yield record

    async def batches(
        self, start: int | None = None, end: int | None = None, *, follow: bool = False, bytes_max: int = MIB
    ) -> AsyncIterator[RecordBatch]:
        """As `scan`, but batch by batch as they were appended, as columns without a copy."""
        async for low, high, found in self.read_on(start, end, follow=follow, bytes_max=bytes_max):
            for batch in found.batches(low, high):
                yield batch

    async def follow(self, start: int | None = None) -> AsyncIterator[Record]:
        """The records from `start` on (by default only new ones), waiting at the end for more. Never ends."""
        if start is None:
            start = (await self.bounds()).end
        async for low, high, found in self.read_on(start, None, follow=True):
            for record in found.records(low, high):
                yield record

    async def read_on(
        self, start: int | None, end: int | None, *, follow: bool, bytes_max: int = MIB
    ) -> AsyncIterator[tuple[int, int, Run | Item]]:
        """(start, end, frames): frames that hold some of the records start..end-1, checked."""
        request = pb.ConsumeBatchesRequest(follow=follow, bytes_max=bytes_max)
        if start is not None:
            await self._require_possible(start)
            request.offset = start
        if end is not None:
            request.end_offset = max(end, 0)
        async for response in self._consume(request):
            low = max(response.first_offset, start or 0)
            for found in read_frames(response.frames):
                yield low, FOREVER if end is None else end, found

    async def _require_possible(self, offset: int) -> None:
        """Raise OffsetOutOfRange for what the protocol has no number for."""
        if not 0 <= offset < 1 << 64:
            bounds = await self.bounds()
            raise OffsetOutOfRange(offset, bounds.start, bounds.end)

    async def _consume(self, request: pb.ConsumeBatchesRequest) -> AsyncIterator[pb.ConsumeBatchesResponse]:
        """Responses in order. Goes on behind the last one if the connection is lost."""
        patience = Patience(self._timeout_s)
        while True:
            self._require_open()
            stream = self._stub.ConsumeBatches(request, wait_for_ready=False)
            try:
                async for response in stream:
                    patience.renew()
                    if response.frames:
                        request.offset = response.end_offset
                    yield response
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not await patience.wait():
                    raise failure(error) from error
            finally:
                stream.cancel()

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────────

    async def servers(self) -> list[Server]:
        response = await self._call(self._stub.GetServers, pb.GetServersRequest())
        return [Server(one.id, one.rpc_addr, one.is_leader) for one in response.servers]

    async def _call(self, method: Any, request: Any, *, is_produce: bool = False) -> Any:
        patience = Patience(self._timeout_s)
        while True:
            self._require_open()
            try:
                return await method(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                failed = failure(error, is_produce=is_produce)
                if is_produce or error.code() is not grpc.StatusCode.UNAVAILABLE or not await patience.wait():
                    raise failed from error


class Patience:
    """How long a read is tried again: with growing pauses, for `timeout_s` from the first failure after a success."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.renew()

    def renew(self) -> None:
        self._deadline: float | None = None  # set by the first failure: a tail may have been idle for long
        self._pause_s = RETRY_FIRST_S

    async def wait(self) -> bool:
        """Pause; False, at once, if the time is over."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._timeout_s
        if now + self._pause_s > self._deadline:
            return False
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, RETRY_MAX_S)
        return True


def _frame_of(batch: Batch) -> bytes:
    if isinstance(batch, (bytes, bytearray, memoryview)):
        batch = RecordBatch.from_bytes(bytes(batch))
    payload = batch.payload() if isinstance(batch, RecordBatch) else encode_batch(list(batch))
    check_payload(payload, DEFAULTS)
    return wire_frame(payload)
