"""The client for asyncio: the interface of `logstore.Log`, over the network, of whichever servers are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from os import PathLike, fspath
from typing import Any, Final, Self, TypeVar

import grpc

from logstore import OffsetOutOfRange, Record, RecordBatch, RecordCompacted
from logstore.config import MIB
from logstore.cursor import FOREVER
from logstore.run import Run
from logstore.transfer import read_frames
from logstore.walk import Item
from raftlog.client.answers import (
    Bounds,
    Cursor,
    Member,
    Server,
    Snapshot,
    Status,
    to_member,
    to_status,
)
from raftlog.client.batch import BatchHandle
from raftlog.client.calls import Caller, Where
from raftlog.client.connection import Connection
from raftlog.client.consuming import Consumer
from raftlog.client.failures import CallFailed
from raftlog.client.groups import COMMIT_INTERVAL_S, GroupPlace
from raftlog.client.membership import (
    Autopilot,
    KeysAnswer,
    KnownServers,
    to_autopilot,
    to_keys_answer,
    to_known_servers,
)
from raftlog.client.picker import FollowersInTurn, Picker
from raftlog.client.producer import Producer, ProducerConfig, ProducerFull, Value
from raftlog.client.seeds import Seeds
from raftlog.client.servers import Servers, Target, to_server
from raftlog.client.watermark import Watermark
from raftlog.config_keys import read_keys
from raftlog.net.tls import TlsFiles
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.pb.raftlog.v1 import cluster_pb2 as cluster_pb
from raftlog.wire.records import to_record

APPENDS_IN_FLIGHT: Final = 4  # batches of single appends; what comes meanwhile joins the next one

H = TypeVar("H")

Batch = Iterable[Value] | RecordBatch | bytes


class AsyncClient:
    """A client of a cluster; one server is a cluster too. Connections are opened when they are first used.

    Produces go to the leader, consumes to the followers in turn. Whatever fails is tried again for `timeout_s`, at other
    servers where there are any: while a quorum lives and finds its leader in that time, no error comes of it. A record is
    stored once, however often it was sent.

    What is wrong with a call raises the error of `logstore`: OffsetOutOfRange, RecordCompacted, and before anything is
    sent what the engine says of a record or batch, by its default limits. UnexpectedOffset and AlreadyStored are in
    `raftlog.errors`. All else, and what could not be done in time, raises CallFailed.

    No call shows less of the log than one before it did: a server that has not caught up with that is not asked.
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
        """`addresses` are host:port of one or some servers, which name the others; or names under which servers are found
        and found again: dns:host:port (A and AAAA), srv:name, gossip:host:port (of any member, by its gossip's port).

        Without `tls` connections are neither encrypted nor verified. `picker` chooses whom to consume from:
        FollowersInTurn(), the default, LowestLatency(), or one of your own. `gossip_key_file` is needed to ask a gossip that
        is encrypted. TlsError or ConfigError for files that cannot be used, ValueError for addresses that are none.
        """
        some = [addresses] if isinstance(addresses, str) else addresses
        keys = () if gossip_key_file is None else read_keys(fspath(gossip_key_file))
        self._servers = Servers(Seeds(some, gossip_keys=keys), tls, picker or FollowersInTurn())
        self._timeout_s = timeout_s
        self._seen = Watermark()
        self._caller = Caller(self._servers, timeout_s, self._require_open)
        self._consumer = Consumer(
            self._servers, self._caller, self._seen, timeout_s=timeout_s, require_open=self._require_open
        )
        self._appender: Producer | None = None  # of single appends and batches
        self._producers: list[Producer] = []
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Flush the producers and close the connections. Closing twice is no error."""
        self._is_closed = True
        await asyncio.gather(*(producer.close() for producer in self._producers))
        await self._servers.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the client is closed")

    # ── producing ───────────────────────────────────────────────────────────────────────────────────

    async def append(self, value: Value, *, expected_offset: int | None = None) -> int:
        """The offset of the record, once it is stored: on a quorum, or as a lone server's sync policy says.

        With `expected_offset` it is stored there or not at all: UnexpectedOffset. Calls that are made at the same time
        share batches, in the order of the calls. For many records from one task, see `producer`.
        """
        if expected_offset is None:
            handle = await self._taken(lambda appender: appender.send(value))
            try:
                return await handle
            except CallFailed as error:
                is_for_another = handle.has_company and error.code is grpc.StatusCode.INVALID_ARGUMENT
                if not is_for_another or error.is_unknown:
                    raise
        alone = await self._taken(
            lambda appender: appender.send_alone([value], expected_offset=expected_offset)
        )
        return (await alone)[0]

    async def append_batch(self, batch: Batch, *, expected_offset: int | None = None) -> tuple[int, int]:
        """(first offset, end) of the records: stored all or none. `expected_offset` as of `append`, of the first."""
        if isinstance(batch, (bytearray, memoryview)):
            batch = bytes(batch)
        ready = batch if isinstance(batch, (RecordBatch, bytes)) else list(batch)

        def take(appender: Producer) -> BatchHandle:
            if isinstance(ready, list):
                return appender.send_alone(ready, expected_offset=expected_offset)
            return appender.send_batch(ready, expected_offset=expected_offset)

        return await (await self._taken(take))

    async def append_frame(self, frame: bytes) -> tuple[int, int]:
        """(first offset, end) of a batch in which a producer's id, epoch and sequence number stand already.

        It is sent again as it is, so it is stored once. Raises SequenceGap and StaleEpoch besides.
        """
        request = pb.ProduceBatchRequest(batch=frame)
        response = await self._caller.call(lambda one: one.log.ProduceBatch, request, self._servers.leader)
        self._seen.saw(response.end_offset)
        return response.first_offset, response.end_offset

    async def _taken(self, take: Callable[[Producer], H]) -> H:
        """What the producer of all single appends gives, once it has room."""
        self._require_open()
        if self._appender is None:
            config = ProducerConfig(
                linger_ms=0, in_flight_max=APPENDS_IN_FLIGHT, answer_timeout_s=self._timeout_s
            )
            self._appender = Producer(self._servers, config, self._seen, deadline_s=self._timeout_s)
            self._producers.append(self._appender)
        self._appender.seal_old()
        while True:
            try:
                return take(self._appender)
            except ProducerFull:
                await self._appender.room()

    def producer(self, config: ProducerConfig | None = None) -> Producer:
        """A producer that merges records into batches. It is closed with the client, or before."""
        self._require_open()
        producer = Producer(self._servers, config or ProducerConfig(), self._seen)
        self._producers.append(producer)
        return producer

    # ── consuming ───────────────────────────────────────────────────────────────────────────────────

    async def read(self, offset: int, *, linearizable: bool = False) -> Record:
        """The record; OffsetOutOfRange, or RecordCompacted if compaction removed it.

        `linearizable`, here and below: as of all that was acknowledged to anybody before the call, at the price of a
        round to a quorum. Else as of what the asked server has, but never less than this client has seen.
        """
        await self._require_possible(offset)
        try:
            response = await self._consumer.read(offset, linearizable=linearizable)
        except CallFailed as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise RecordCompacted(offset, error.text.removeprefix(f"record {offset} is gone: ")) from error
        return to_record(response.record)

    async def bounds(self, *, linearizable: bool = False) -> Bounds:
        """Which offsets the log holds now."""
        response = await self._first(pb.ConsumeBatchesRequest(latest=True, linearizable=linearizable))
        return Bounds(response.log_start, response.high_watermark)

    async def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; the log's end if there is none."""
        response = await self._first(pb.ConsumeBatchesRequest(time_ns=time, bytes_max=1))
        return int(response.first_offset)

    async def _first(self, request: pb.ConsumeBatchesRequest) -> pb.ConsumeBatchesResponse:
        async with aclosing(self._consumer.consume(request)) as responses:
            async for response in responses:
                return response
        raise CallFailed(grpc.StatusCode.INTERNAL, "the server ended the stream without an answer")

    async def scan(
        self, start: int | None = None, end: int | None = None, *, linearizable: bool = False
    ) -> AsyncIterator[Record]:
        """The records start..end-1; by default all that are there when the call arrives."""
        async with aclosing(self.read_on(start, end, follow=False, linearizable=linearizable)) as parts:
            async for low, high, found in parts:
                for record in found.records(low, high):
                    yield record

    async def batches(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        follow: bool = False,
        bytes_max: int = MIB,
        linearizable: bool = False,
    ) -> AsyncIterator[RecordBatch]:
        """As `scan`, but batch by batch as they were appended, as columns without a copy."""
        frames = self.read_on(start, end, follow=follow, bytes_max=bytes_max, linearizable=linearizable)
        async with aclosing(frames) as parts:
            async for low, high, found in parts:
                for batch in found.batches(low, high):
                    yield batch

    async def follow(self, start: int | None = None, *, linearizable: bool = False) -> AsyncIterator[Record]:
        """The records from `start` on (by default only new ones), waiting at the end for more. Never ends."""
        if start is None:
            start = (await self.bounds(linearizable=linearizable)).end
        async with aclosing(self.read_on(start, None, follow=True, linearizable=linearizable)) as parts:
            async for low, high, found in parts:
                for record in found.records(low, high):
                    yield record

    async def read_on(
        self,
        start: int | None,
        end: int | None,
        *,
        follow: bool,
        bytes_max: int = MIB,
        linearizable: bool = False,
    ) -> AsyncGenerator[tuple[int, int, Run | Item]]:
        """(start, end, frames): frames that hold some of the records start..end-1, checked."""
        request = pb.ConsumeBatchesRequest(follow=follow, bytes_max=bytes_max, linearizable=linearizable)
        if start is not None:
            await self._require_possible(start)
            request.offset = start
        if end is not None:
            request.end_offset = max(end, 0)
        async with aclosing(self._consumer.consume(request)) as responses:
            async for response in responses:
                if start is None:
                    start = response.log_start  # which may lie within the first frame
                low = max(response.first_offset, start)
                for found in read_frames(response.frames):
                    yield low, FOREVER if end is None else end, found

    async def _require_possible(self, offset: int) -> None:
        """Raise OffsetOutOfRange for what the protocol has no number for."""
        if not 0 <= offset < 1 << 64:
            bounds = await self.bounds()
            raise OffsetOutOfRange(offset, bounds.start, bounds.end)

    # ── groups of consumers ─────────────────────────────────────────────────────────────────────────

    async def consume(
        self,
        group: str,
        *,
        start: int | None = None,
        follow: bool = False,
        commit_interval_s: float = COMMIT_INTERVAL_S,
    ) -> AsyncIterator[Record]:
        """The records that the group has not consumed; what has been consumed is committed at intervals and at the end.

        A record counts as consumed once the next is asked for. So after a crash some records may come again, and none is
        left out. A group that is new begins at `start`, by default the start of the log. One whose place was removed by
        retention goes on at the start of the log. Leave the loop early within `contextlib.aclosing`, so that the last
        commit is made before what comes behind the loop.
        """
        place = await self.open_group(group, start=start, commit_interval_s=commit_interval_s)
        try:
            async with aclosing(self.read_on(place.next, None, follow=follow)) as parts:
                async for low, high, found in parts:
                    for record in found.records(low, high):
                        yield record
                        place.next = record.offset + 1
                    place.require_kept()
        finally:
            await place.finish()

    async def open_group(self, group: str, *, start: int | None, commit_interval_s: float) -> GroupPlace:
        """Where a group goes on, and who commits how far it has come."""
        cursors = await self.cursors(group, linearizable=True)
        first = cursors[0].offset if cursors else start
        offset = max(first or 0, (await self.bounds()).start)

        async def commit(offset: int) -> None:
            await self.commit_cursor(group, offset)

        return GroupPlace(offset, commit, interval_s=commit_interval_s)

    async def commit_cursor(self, group: str, offset: int) -> None:
        """Keep in the log that the group consumes `offset` next."""
        request = cluster_pb.CommitCursorRequest(group=group, offset=offset)
        await self._caller.call(lambda one: one.cluster.CommitCursor, request, self._servers.leader)

    async def cursors(self, group: str = "", *, linearizable: bool = False) -> list[Cursor]:
        """Of all groups, by name; or of one, if it has one."""
        request = cluster_pb.ListCursorsRequest(group=group, linearizable=linearizable)
        seen_end = self._seen.offset
        response = await self._caller.call(
            lambda one: one.cluster.ListCursors,
            request,
            self._servers.follower,
            is_lagging=lambda answer: getattr(answer, "high_watermark", seen_end) < seen_end,
        )
        self._seen.saw(response.high_watermark)
        return [Cursor(one.group, one.offset, one.time_ns) for one in response.cursors]

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────────

    async def servers(self) -> list[Server]:
        """All servers, as one of them names them."""
        response = await self._caller.call(
            lambda one: one.log.GetServers, pb.GetServersRequest(), self._servers.follower
        )
        return [to_server(one) for one in response.servers]

    async def status(self, address: str | None = None) -> Status:
        """What the server at `address` is and believes; by default any."""
        response = await self._caller.call(
            lambda one: one.cluster.GetStatus, cluster_pb.GetStatusRequest(), self._at(address)
        )
        return to_status(response)

    async def join(self, name: str, address: str, *, directory_id: str = "") -> list[Member]:
        """Make a server a member, first as a learner; one that is known so already stays. The members then."""
        request = cluster_pb.JoinRequest(id=name, rpc_addr=address, directory_id=directory_id)
        response = await self._change(lambda one: one.cluster.Join, request)
        return [to_member(one) for one in response.members]

    async def leave(self, name: str) -> None:
        """Remove a server; a leader hands over first. One that is no member is no error."""
        await self._change(lambda one: one.cluster.Leave, cluster_pb.LeaveRequest(id=name))

    async def promote(self, name: str) -> None:
        """Make a learner a voter; CallFailed with FAILED_PRECONDITION until it has nearly caught up."""
        await self._change(lambda one: one.cluster.Promote, cluster_pb.PromoteRequest(id=name))

    async def transfer_leadership(self, to: str = "") -> str:
        """Hand over leadership, by default to the voter that has most of the log. The name of the new leader."""
        request = cluster_pb.TransferLeadershipRequest(to=to)
        response = await self._change(lambda one: one.cluster.TransferLeadership, request)
        return str(response.leader_id)

    async def truncate(self, lowest: int) -> int:
        """Forget the records below `lowest`, on all servers. The start of the log then."""
        request = cluster_pb.TruncateRequest(lowest_offset=lowest)
        response = await self._change(lambda one: one.cluster.Truncate, request)
        return int(response.log_start)

    async def take_snapshot(self, address: str | None = None) -> Snapshot:
        """Have the server at `address`, by default any, write a snapshot of its views."""
        request = cluster_pb.TakeSnapshotRequest()
        response = await self._caller.call(
            lambda one: one.cluster.TakeSnapshot, request, self._at(address), is_long=True
        )
        return Snapshot(response.index, response.size_bytes)

    async def known_servers(self, address: str | None = None) -> KnownServers:
        """Every server that the one at `address`, by default any, has found, beside what Raft knows."""
        request = cluster_pb.ListMembersRequest()
        response = await self._caller.call(lambda one: one.cluster.ListMembers, request, self._at(address))
        return to_known_servers(response)

    async def autopilot(self) -> Autopilot:
        """What the leader's autopilot thinks of the servers, what it did and would do, and why."""
        request = cluster_pb.GetAutopilotRequest()
        response = await self._caller.call(
            lambda one: one.cluster.GetAutopilot, request, self._servers.leader
        )
        return to_autopilot(response)

    async def set_autopilot(self, mode: str) -> None:
        """Have the autopilot "act", only "advise", or be "off"; kept in the log."""
        await self._change(lambda one: one.cluster.SetAutopilot, cluster_pb.SetAutopilotRequest(mode=mode))

    async def change_gossip_keys(self, action: str, *, key: bytes = b"", key_id: str = "") -> KeysAnswer:
        """Have all members "list" the keys of the gossip, or "install", "use" or "remove" the one with these bytes or this id.

        CallFailed with FAILED_PRECONDITION where some would not understand others afterwards; nothing changed then.
        """
        request = cluster_pb.ChangeGossipKeysRequest(action=action, key=key, key_id=key_id)
        response = await self._caller.call(
            lambda one: one.cluster.ChangeGossipKeys, request, self._servers.leader, is_long=True
        )
        return to_keys_answer(response)

    async def depart(self, name: str, address: str) -> None:
        """Have a server that was removed leave the gossip and serve no more. It goes on running until it is stopped."""
        request = cluster_pb.DepartRequest(id=name)
        await self._caller.call(lambda one: one.cluster.Depart, request, self._at(address), is_long=True)

    async def _change(self, method: Callable[[Connection], Any], request: Any) -> Any:
        """A call that only the leader carries out, and that may take its time."""
        return await self._caller.call(method, request, self._servers.leader, is_long=True)

    def _at(self, address: str | None) -> Where:
        """The server at this address and no other; any, if None."""
        if address is None:
            return self._servers.follower
        target = Target(self._servers.connection(address), is_leader=False)

        async def there() -> Target:
            return target

        return there
