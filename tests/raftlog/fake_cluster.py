"""Some servers in this process that share one log, and fail when and as a test says. No TLS, no Raft.

They keep to what proto/ promises: batches of idempotent producers are stored once, by the rules of the real ones; who
does not lead says so or sends on. Which of them leads is up to the test.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from logstore import Config, Log, OffsetOutOfRange, RecordBatch, RecordCompacted
from logstore.config import MIB
from logstore.encode import DEFAULTS
from raftlog import AsyncClient
from raftlog.errors import AlreadyStored, NotLeader, ProduceRefused, SequenceGap, StaleEpoch, UnexpectedOffset
from raftlog.machines.producers import Sequence as BatchSequence
from raftlog.machines.producers import StoredBatch, check
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.pb.log.v1 import log_pb2_grpc
from raftlog.pb.raftlog.v1 import cluster_pb2 as cluster_pb
from raftlog.pb.raftlog.v1 import cluster_pb2_grpc
from raftlog.wire.records import to_message
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, pack_status

NAMES = ("n1", "n2", "n3")

REASONS: dict[type[ProduceRefused], Any] = {
    UnexpectedOffset: pb.ProduceRefused.EXPECTED_OFFSET,
    SequenceGap: pb.ProduceRefused.SEQUENCE_GAP,
    StaleEpoch: pb.ProduceRefused.STALE_EPOCH,
    AlreadyStored: pb.ProduceRefused.ALREADY_STORED,
}


class Producer:
    def __init__(self) -> None:
        self.epoch, self.next_sequence = 0, 0
        self.recent: deque[StoredBatch] = deque(maxlen=256)


class FakeCluster:
    def __init__(self, folder: Path, config: Config) -> None:
        self.log = Log(folder, config)
        self.producers: dict[int, Producer] = {}
        self.cursors: dict[str, int] = {}
        self.requests: list[tuple[str, Any]] = []  # (node, request) of what changes the cluster
        self.leader: FakeNode | None = None
        self.forgets_offsets = False  # of what is stored twice
        self.linearizable = 0  # reads that asked for it
        self.refused = 0  # batches, for a reason of theirs
        self.nodes = {name: FakeNode(self, name) for name in NAMES}  # type: ignore[abstract]  # has what clients use

    def store(self, batch: RecordBatch, expected_offset: int | None) -> int:
        """The offset of the first record; raises as a leader does."""
        end = self.log.end
        producer = self.producers.setdefault(batch.producer_id, Producer())
        sequence = BatchSequence(batch.producer_id, batch.producer_epoch, batch.first_sequence, len(batch))
        known = check(
            sequence, epoch=producer.epoch, next_sequence=producer.next_sequence, recent=producer.recent
        )
        if known is not None and self.forgets_offsets:
            raise AlreadyStored(sequence.first, producer.next_sequence)
        if known is not None:
            return known
        if expected_offset is not None and expected_offset != end:
            raise UnexpectedOffset(expected_offset, end)
        if sequence.epoch != producer.epoch:
            producer = self.producers[batch.producer_id] = Producer()
            producer.epoch = sequence.epoch
        first, _ = self.log.append_batch(batch)
        producer.next_sequence = sequence.first + sequence.span
        producer.recent.append(StoredBatch(sequence.first, sequence.span, first))
        return first

    def values(self) -> list[bytes]:
        return [record.value for record in self.log.scan()]


class FakeNode(log_pb2_grpc.LogServicer, cluster_pb2_grpc.ClusterServicer):
    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self._cluster = cluster
        self._server: grpc.aio.Server | None = None
        self.name = name
        self.port = 0
        self.calls: list[str] = []  # methods, in the order in which they came
        # What goes wrong:
        self.believed_leader: FakeNode | None = None  # if set: what it says, and acts upon
        self.lag = 0  # records at the end of the log that it does not know yet
        self.lost_answers = 0  # so many batches are stored, and the connection is lost before the answer
        self.refusals: list[tuple[grpc.StatusCode, str]] = []  # of the next batches
        self.refusals_after_loss: list[tuple[grpc.StatusCode, str]] = []  # of those behind a lost answer
        self.message_bytes_max = 64 * MIB  # from its next start on
        self.pushback_ms = 0  # told with refusals
        self.unhung = asyncio.Event()  # until it is set, nothing is answered
        self.unhung.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """On the port it had before, if any."""
        options = (("grpc.max_receive_message_length", self.message_bytes_max), ("grpc.so_reuseport", 0))
        self._server = grpc.aio.server(options=options)
        log_pb2_grpc.add_LogServicer_to_server(self, self._server)  # type: ignore[no-untyped-call,unused-ignore]
        cluster_pb2_grpc.add_ClusterServicer_to_server(self, self._server)  # type: ignore[no-untyped-call,unused-ignore]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    @property
    def _leader(self) -> FakeNode | None:
        return self.believed_leader or self._cluster.leader

    async def _begin(self, method: str, context: Any) -> None:
        self.calls.append(method)
        await self.unhung.wait()

    async def _require_leader(self, context: Any) -> None:
        """As one that leads, or that sends on to who does; else the call ends."""
        leader = self._leader
        if leader is None:
            context.set_trailing_metadata(((RETRY_PUSHBACK_KEY, "100"),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader is known at this time")
            raise AssertionError
        may_forward = ("raftlog-no-forward", "1") not in context.invocation_metadata()
        if leader is not self and not may_forward:
            detail = pb.NotLeader(leader_id=leader.name, leader_addr=leader.address)
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(NotLeader()), detail)

    # ── the log ─────────────────────────────────────────────────────────────────────────────────────

    async def GetServers(self, request: Any, context: Any) -> pb.GetServersResponse:
        await self._begin("GetServers", context)
        nodes = self._cluster.nodes.values()
        return pb.GetServersResponse(
            servers=[
                pb.Server(id=one.name, rpc_addr=one.address, is_leader=one is self._leader, is_voter=True)
                for one in nodes
                if one.port
            ]
        )

    async def ProduceBatchStream(
        self, requests: AsyncIterator[pb.ProduceBatchRequest], context: Any
    ) -> AsyncIterator[pb.ProduceBatchResponse]:
        await self._begin("ProduceBatchStream", context)
        async for request in requests:
            await self.unhung.wait()
            await self._require_leader(context)
            if self.refusals:
                code, text = self.refusals.pop(0)
                if self.pushback_ms:
                    context.set_trailing_metadata(((RETRY_PUSHBACK_KEY, str(self.pushback_ms)),))
                await abort(context, code, text)
            batch = RecordBatch.from_bytes(request.batch)
            expected = request.expected_offset if request.HasField("expected_offset") else None
            try:
                first = self._cluster.store(batch, expected)
            except ProduceRefused as error:
                self._cluster.refused += 1
                detail = pb.ProduceRefused(
                    reason=REASONS[type(error)], expected=error.expected, actual=error.actual
                )
                is_stored = isinstance(error, AlreadyStored)
                code = grpc.StatusCode.ALREADY_EXISTS if is_stored else grpc.StatusCode.FAILED_PRECONDITION
                await abort(context, code, str(error), detail)
                raise
            if self.lost_answers:
                self.lost_answers -= 1
                self.refusals += self.refusals_after_loss
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
            yield pb.ProduceBatchResponse(first_offset=first, end_offset=first + len(batch))

    async def Consume(self, request: pb.ConsumeRequest, context: Any) -> pb.ConsumeResponse:
        await self._begin("Consume", context)
        self._cluster.linearizable += request.linearizable
        log, end = self._cluster.log, self._cluster.log.end - self.lag
        try:
            if request.offset >= end:
                raise OffsetOutOfRange(request.offset, log.start, end)
            record = to_message(log.read(request.offset))
        except OffsetOutOfRange as error:
            await abort_out_of_range(context, error)
        except RecordCompacted as error:
            await abort(context, grpc.StatusCode.NOT_FOUND, str(error))
        return pb.ConsumeResponse(record=record, log_start=log.start, high_watermark=end)

    async def ConsumeBatches(
        self, request: pb.ConsumeBatchesRequest, context: Any
    ) -> AsyncIterator[pb.ConsumeBatchesResponse]:
        await self._begin("ConsumeBatches", context)
        self._cluster.linearizable += request.linearizable
        log = self._cluster.log
        log_end = log.end - self.lag
        start = {"offset": request.offset, "latest": log_end, None: log.start}.get(
            request.WhichOneof("start"), log.start
        )
        if not request.follow and not log.start <= start <= log_end:
            await abort_out_of_range(context, OffsetOutOfRange(start, log.start, log_end))
        wanted = request.end_offset if request.HasField("end_offset") else 1 << 62
        if not request.follow and start >= min(wanted, log_end):
            yield pb.ConsumeBatchesResponse(
                first_offset=start, end_offset=start, log_start=log.start, high_watermark=log_end
            )
        while start < wanted:
            end = max(log.end - self.lag, start)
            for frames in log.frames(start, min(wanted, end), bytes_max=request.bytes_max or MIB):
                await self.unhung.wait()
                yield pb.ConsumeBatchesResponse(
                    first_offset=frames.first_offset, end_offset=frames.end_offset, frames=frames.data,
                    log_start=log.start, high_watermark=end,
                )  # fmt: skip
                start = frames.end_offset
            if not request.follow:
                return
            await log.wait_async(log.end)

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────────

    async def _change(self, request: Any, context: Any) -> None:
        await self._begin(type(request).__name__.removesuffix("Request"), context)
        await self._require_leader(context)
        self._cluster.requests.append((self.name, request))

    async def Join(self, request: cluster_pb.JoinRequest, context: Any) -> cluster_pb.JoinResponse:
        await self._change(request, context)
        member = cluster_pb.Member(
            id=request.id, rpc_addr=request.rpc_addr, directory_id=request.directory_id, state="probe"
        )
        return cluster_pb.JoinResponse(cluster_id="c", members=[member])

    async def Leave(self, request: Any, context: Any) -> cluster_pb.LeaveResponse:
        await self._change(request, context)
        return cluster_pb.LeaveResponse()

    async def Promote(self, request: Any, context: Any) -> cluster_pb.PromoteResponse:
        await self._change(request, context)
        return cluster_pb.PromoteResponse()

    async def TransferLeadership(self, request: Any, context: Any) -> cluster_pb.TransferLeadershipResponse:
        await self._change(request, context)
        self._cluster.leader = self._cluster.nodes[request.to]
        return cluster_pb.TransferLeadershipResponse(leader_id=request.to)

    async def Truncate(self, request: Any, context: Any) -> cluster_pb.TruncateResponse:
        await self._change(request, context)
        return cluster_pb.TruncateResponse(log_start=request.lowest_offset)

    async def GetStatus(self, request: Any, context: Any) -> cluster_pb.GetStatusResponse:
        await self._begin("GetStatus", context)
        return cluster_pb.GetStatusResponse(
            node_id=self.name, role="leader", term=7, members=[cluster_pb.Member(id="n1", is_voter=True)]
        )

    async def TakeSnapshot(self, request: Any, context: Any) -> cluster_pb.TakeSnapshotResponse:
        await self._begin("TakeSnapshot", context)
        return cluster_pb.TakeSnapshotResponse(index=5, size_bytes=int(self.name[1:]))

    async def CommitCursor(self, request: Any, context: Any) -> cluster_pb.CommitCursorResponse:
        await self._change(request, context)
        self._cluster.cursors[request.group] = request.offset
        return cluster_pb.CommitCursorResponse()

    async def ListCursors(self, request: Any, context: Any) -> cluster_pb.ListCursorsResponse:
        await self._begin("ListCursors", context)
        cursors = [
            cluster_pb.Cursor(group=group, offset=offset, time_ns=1)
            for group, offset in sorted(self._cluster.cursors.items())
            if request.group in ("", group)
        ]
        return cluster_pb.ListCursorsResponse(
            cursors=cursors, high_watermark=self._cluster.log.end - self.lag
        )


async def abort(context: Any, code: grpc.StatusCode, text: str, *details: Any) -> None:
    if details:
        number: int = code.value[0]
        context.set_trailing_metadata(((STATUS_DETAILS_KEY, pack_status(number, text, *details)),))
    await context.abort(code, text)


async def abort_out_of_range(context: Any, error: OffsetOutOfRange) -> None:
    detail = pb.OffsetRange(offset=error.offset, start=error.start, end=error.end)
    await abort(context, grpc.StatusCode.OUT_OF_RANGE, str(error), detail)


@asynccontextmanager
async def fake_cluster(folder: Path, config: Config = DEFAULTS) -> AsyncIterator[FakeCluster]:
    """Three servers, of which n1 leads."""
    cluster = FakeCluster(folder / "shared", config)
    for node in cluster.nodes.values():
        await node.start()
    cluster.leader = cluster.nodes["n1"]
    try:
        yield cluster
    finally:
        for node in cluster.nodes.values():
            node.unhung.set()
            await node.kill()
        cluster.log.close()


def client_of(cluster: FakeCluster, *names: str, timeout_s: float = 10.0) -> AsyncClient:
    """A client that is told the addresses of these servers, by default of n2."""
    return AsyncClient([cluster.nodes[name].address for name in names or ("n2",)], timeout_s=timeout_s)


def count(cluster: FakeCluster, method: str) -> list[int]:
    """Calls of the method that came to n1, n2 and n3."""
    return [node.calls.count(method) for node in cluster.nodes.values()]
