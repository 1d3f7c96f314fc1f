"""The log of a cluster on PySyncObj: the operations of `DistributedLog`, as far as they can be done honestly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Final, NoReturn

from logstore import Config, CorruptLog, OffsetOutOfRange, QueueFull, RawEntry, Record
from logstore.reading import Frames
from raftlog.distributed.frames import Batch, Value, make_frame
from raftlog.distributed.status import MemberStatus, NodeStatus
from raftlog.engine import NodeId
from raftlog.errors import (
    InvalidRequest,
    NotLeader,
    NotSupported,
    ProduceRefused,
    RaftlogError,
    UnexpectedOffset,
)
from raftlog.net.addresses import split_address
from raftlog.net.handshake import Identity
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj.codec import FIRST_INDEX
from raftlog.pysyncobj.journal import Journal, Member
from raftlog.pysyncobj.membership import Membership
from raftlog.pysyncobj.node import Node
from raftlog.pysyncobj.producers import KnownBatches
from raftlog.pysyncobj.replica import Replica
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

ENGINE: Final = "pysyncobj"
ROLES: Final = ("follower", "candidate", "leader")  # by PySyncObj's numbers


class SyncObjLog:
    """Belongs to one event loop, in which it also writes its disk.

    An append is acknowledged when PySyncObj says that a majority has it; each of those has it on disk. What that is worth:
    docs/decisions/0007-pysyncobj-engine.md.
    """

    def __init__(
        self,
        journal: Journal,
        stream_layer: StreamLayer,
        identity: Identity,
        *,
        joins: bool = False,
        election_timeout_s_min: float = 1.0,
        election_timeout_s_max: float = 2.0,
    ) -> None:
        """Start the node of this journal, which is closed with it.

        `joins`: the cluster exists, and its leader will be asked to `join` this node.
        """
        self.config: Config = journal.log.config
        self._log = journal.log
        self._identity = identity
        replica = Replica(
            journal,
            election_timeout_s_min=election_timeout_s_min,
            election_timeout_s_max=election_timeout_s_max,
            may_campaign=not joins,
        )
        self._node = Node(journal, replica, stream_layer, identity)
        self._membership = Membership(self._node)
        self._known = KnownBatches(journal.stored)
        self._refusing: set[asyncio.Task[int]] = set()
        log.warning(
            'this cluster runs on PySyncObj, which can lose acknowledged records; use engine = "raft" for data that matters',
            node=journal.node, engine=ENGINE,
        )  # fmt: skip

    async def close(self) -> None:
        """Take part no more, and close the files. Twice is no error."""
        await self._node.close()

    # ── who leads ───────────────────────────────────────────────────────────────────────────────────

    @property
    def node(self) -> Node:
        """The node beneath, for those who watch it."""
        return self._node

    @property
    def is_leader(self) -> bool:
        """This node leads, and has applied all that was appended before: it can take appends."""
        return self._node.is_leader

    def require_leader(self) -> None:
        """NotLeader unless this node leads, LogClosed, NodeFailed."""
        self._node.require_leader()

    async def wait_for_leader(self, timeout_s: float) -> NodeId:
        """Who leads, once that is known and, if it is this node, it can take appends; TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self._node.wait_for_leader()

    async def transfer_leadership(self, to: str = "") -> str:
        """Hand over to a server that has the whole log; returns who leads then. MembershipRefused."""
        return await self._membership.transfer_leadership(to)

    async def hand_over(self, timeout_s: float) -> None:
        """If this node leads others, have one of them lead, so that nobody has to find out; not for longer than this."""
        if self.is_leader and len(self._node.members) > 1:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._membership.transfer_leadership("")
            except (RaftlogError, TimeoutError) as error:
                reason = str(error) or f"nobody took over within {timeout_s:.0f} s"
                log.info("leadership not handed over", reason=reason)

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def begin_append(
        self, batch: Batch, *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]:
        """(how many records it has, the future of its first offset), as DistributedLog's."""
        self.require_leader()
        frame = make_frame(batch, self.config, time=time.time_ns())
        size, requests = len(frame.data), self._node.requests
        try:
            known = None if frame.sequence is None else self._known.find(frame.sequence)
            if known is not None:
                return frame.record_count, known
            if expected_offset is not None and expected_offset != self.end + requests.records:
                raise UnexpectedOffset(expected_offset, self.end + requests.records)
        except ProduceRefused as refused:
            return frame.record_count, self._refuse_if_leading(refused)
        if requests.size and requests.size + size > self.config.pending_bytes_max:
            raise QueueFull(requests.size)
        ask = partial(self._node.replica.append, frame.data)
        future = self._node.begin(ask, size=size, records=frame.record_count)
        if frame.sequence is not None:
            future = self._known.add(frame.sequence, future)
        return frame.record_count, future

    def _refuse_if_leading(self, refused: ProduceRefused) -> asyncio.Future[int]:
        """Ends with this, but only if this node's log is still the one that counts: one that was cut off, and does not know
        yet that another leads, would refuse what that one expects."""

        async def refuse() -> int:
            try:
                await self._node.begin(self._node.replica.append_nothing)
            except RaftlogError:
                raise NotLeader from None
            raise refused

        task = asyncio.get_running_loop().create_task(refuse())
        self._refusing.add(task)
        task.add_done_callback(self._refusing.discard)
        return task

    async def room(self) -> None:
        """Return when a batch that was begun is settled; at once if there is none."""
        requests, count = self._node.requests, len(self._node.requests)
        await self._node.until(lambda: not count or len(requests) < count)

    async def append(self, value: Value, *, expected_offset: int | None = None) -> int:
        """The offset of the record, once it is committed."""
        return (await self.append_batch([value], expected_offset=expected_offset))[0]

    async def append_batch(self, batch: Batch, *, expected_offset: int | None = None) -> tuple[int, int]:
        """(first offset, end) of the records: stored all or none."""
        span, future = self.begin_append(batch, expected_offset=expected_offset)
        first = await future
        return first, first + span

    # ── reading: what is committed and durable here ─────────────────────────────────────────────────

    @property
    def end(self) -> int:
        """The high watermark: the offset behind the last record that can be read here."""
        return self._node.end

    @property
    def start(self) -> int:
        return self._log.start

    def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, or CorruptLog if its bytes are damaged here."""
        if not self.start <= offset < self.end:
            raise OffsetOutOfRange(offset, self.start, self.end)
        return self._log.read(offset)

    def frames(self, start: int | None = None, end: int | None = None, *, bytes_max: int) -> Iterator[Frames]:
        """Frames with the records start..end-1, as `logstore.Log.frames`."""
        start = self.start if start is None else start
        end = self.end if end is None else min(end, self.end)
        if not self.start <= start <= self.end:
            raise OffsetOutOfRange(start, self.start, self.end)
        return self._log.frames(start, end, bytes_max=bytes_max)

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; `end` if there is none."""
        return min(self._log.offset_at(time), self.end)

    async def wait_async(self, seen_end: int) -> int:
        """The high watermark, once it differs from `seen_end`; LogClosed when the log is closed."""
        await self._node.until(lambda: self.end != seen_end)
        return self.end

    async def read_index(self, timeout_s: float) -> int:
        """The high watermark once this node has all that was acknowledged before the call; TimeoutError.

        PySyncObj has no cheaper way than an entry that holds nothing, and only at the leader: NotLeader elsewhere.
        """
        self.require_leader()
        async with asyncio.timeout(timeout_s):
            await self._node.begin(self._node.replica.append_nothing)
        return self.end

    def committed_entries(self, first: int, end: int, bytes_max: int) -> list[RawEntry]:
        """Entries from `first` on as they lie on the disk here; none if this node cannot give the first."""
        end = min(end, self._node.journal.applied + 1)
        if not FIRST_INDEX <= first < end:
            return []
        try:
            return self._log.raw_entries(first, end, bytes_max=bytes_max)
        except CorruptLog:
            return []

    # ── members ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, id: str, addr: str, directory_id: str = "") -> None:
        """Make a server a member, and voter at once: PySyncObj has no learners.

        Nothing is done for a known id and address. A known id with a new address or directory, or a known address with
        a new id, takes the place of the old one. MembershipRefused; OutcomeUnknown if it takes too long.
        """
        try:
            split_address(addr)
        except ValueError as error:
            raise InvalidRequest(f"address of {id!r}: {error}") from error
        await self._membership.join(NodeId(id), Member(addr, directory_id))

    async def leave(self, id: str, *, is_barred: bool = True) -> None:
        """Remove a server; it is not told, and `is_barred` or not it comes back only if somebody asks for it.

        Who leads hands over first, and raises NotLeader with the new leader.
        """
        await self._membership.leave(NodeId(id))

    def get_servers(self) -> tuple[MemberStatus, ...]:
        """The members as this node knows them, by name."""
        known = self._node.replica.getStatus()
        return tuple(
            MemberStatus(
                id=node,
                address=address,
                directory_id=directory_id,
                is_voter=True,
                is_leader=node == self._node.leader,
                match_index=known.get(f"match_idx_server_{node}", 0) if self.is_leader else 0,
                is_active=bool(known.get(f"partner_node_status_server_{node}", node == self._node.id)),
            )
            for node, (address, directory_id) in sorted(self._node.members.items())
        )

    def status(self) -> NodeStatus:
        replica, journal = self._node.replica, self._node.journal
        return NodeStatus(
            node_id=journal.node,
            cluster_id=journal.cluster_id,
            directory_id=self._identity.directory_id,
            role=ROLES[replica.getStatus()["state"]],
            term=replica.raftCurrentTerm,
            leader_id=self._node.leader or "",
            first_index=FIRST_INDEX,
            last_index=journal.last_index,
            commit_index=replica.raftCommitIndex,
            applied_index=replica.raftLastApplied,
            snapshot_index=0,
            members=self.get_servers(),
            configuration=f"voters=({' '.join(sorted(self._node.members))})",
            engine=ENGINE,
            trouble=str(self._node.failure or ("" if self._node.leader else "no leader is known")),
            format_version=1,
        )

    # ── what it cannot do ───────────────────────────────────────────────────────────────────────────

    async def promote(self, id: str) -> None:
        _refuse("has no learners: who joins votes at once")

    async def truncate(self, lowest: int) -> int:
        _refuse("needs the whole log to bring a newcomer up, so records cannot be removed")

    async def take_snapshot(self) -> tuple[int, int]:
        _refuse("takes no snapshots here: its own are pickles")

    async def commit_cursor(self, group: str, offset: int) -> None:
        _refuse("keeps no cursors: consumers keep their offsets themselves")

    def cursors(self) -> NoReturn:
        _refuse("keeps no cursors: consumers keep their offsets themselves")


def _refuse(why: str) -> NoReturn:
    raise NotSupported(f"the engine {ENGINE} {why}; the engine raft can do it")
