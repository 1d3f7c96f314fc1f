"""The log of a cluster on PySyncObj: the operations of `DistributedLog`, as far as they can be done honestly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

from pysyncobj import FAIL_REASON

from logstore import Config, LogClosed, OffsetOutOfRange, QueueFull, Record
from logstore.reading import Frames
from raftlog.distributed.frames import Batch, Value, make_frame
from raftlog.distributed.status import MemberStatus, NodeStatus
from raftlog.engine import NodeId
from raftlog.errors import (
    InvalidRequest,
    MembershipRefused,
    NotLeader,
    NotSupported,
    OutcomeUnknown,
    UnexpectedOffset,
)
from raftlog.net.addresses import split_address
from raftlog.net.handshake import Identity
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj.codec import Change
from raftlog.pysyncobj.driver import Driver
from raftlog.pysyncobj.journal import Journal, Member, Members
from raftlog.pysyncobj.replica import Outcome, Replica
from raftlog.pysyncobj.requests import Requests
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

ENGINE: Final = "pysyncobj"
OUTCOME_S_MAX: Final = 10.0  # for a change or a read
MEMBERS_MAX: Final = 64
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
        self._journal = journal
        self._identity = identity
        self._replica = replica = Replica(
            journal,
            election_timeout_s_min=election_timeout_s_min,
            election_timeout_s_max=election_timeout_s_max,
            may_campaign=not joins,
        )
        self._requests = Requests(journal.log.offset_of, self._not_leader)
        self._one_change = asyncio.Lock()  # PySyncObj's own guard against two changes at once never guards
        self._seen: tuple[Any, ...] = (
            False,
        )  # what callers may wait for, as of the last turn; first: the term it leads
        self._changed = asyncio.Event()  # a new one after each change
        self._is_closed = False
        self.end = journal.log.offset_of(journal.applied + 1)  # the high watermark: moved after each turn
        self._driver = Driver(replica, identity, stream_layer, on_turn=self._look)
        log.warning(
            'this cluster runs on PySyncObj, which can lose acknowledged records; use engine = "raft" for data that matters',
            node=journal.node, engine=ENGINE,
        )  # fmt: skip

    async def close(self) -> None:
        """Take part no more, and close the files. Twice is no error."""
        if self._is_closed:
            return
        self._is_closed = True
        self._requests.fail_all(
            OutcomeUnknown("the server stopped before a quorum had it; it may be stored later, or never")
        )
        self._wake()
        await self._driver.close()

    # ── after each turn ─────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        replica = self._replica
        applied: int = replica.raftLastApplied
        if self._driver.failure is None:
            self.end = self._journal.log.offset_of(applied + 1)
        else:
            self._requests.fail_all(self._driver.failure)
        leads = bool(replica._isLeader())
        term = replica.raftCurrentTerm
        seen = (
            leads and term,
            replica.is_ready,
            replica.leader,
            applied,
            len(self._requests),
            self._driver.failure,
        )
        if self._seen[0] and self._seen[0] != seen[0]:
            self._requests.fail_all(
                OutcomeUnknown(
                    "leadership was lost before a quorum had it; whether it was stored is not known"
                )
            )
        if seen != self._seen:
            self._seen = seen
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds; it is looked at after each turn that changed something. NodeFailed, LogClosed."""
        while not condition():
            self._require_open()
            await self._changed.wait()

    def _require_open(self) -> None:
        if self._is_closed:
            raise LogClosed("the log is closed")
        if self._driver.failure is not None:
            raise self._driver.failure

    # ── who leads ───────────────────────────────────────────────────────────────────────────────────

    @property
    def is_leader(self) -> bool:
        """This node leads, and has applied all that was appended before: it can take appends."""
        return not self._is_closed and self._driver.failure is None and self._replica.is_ready

    def require_leader(self) -> None:
        self._require_open()
        if not self.is_leader:
            raise self._not_leader()

    def _not_leader(self) -> NotLeader:
        """Says who leads, as far as this node knows."""
        leader = self._replica.leader
        if leader is None or leader == self._journal.node or leader not in self._members:
            return NotLeader()
        return NotLeader(leader, self._members[leader].address)

    async def wait_for_leader(self, timeout_s: float) -> NodeId:
        """Who leads, once that is known and, if it is this node, it can take appends; TimeoutError."""

        def is_known() -> bool:
            return self._replica.leader not in (None, self._journal.node) or self.is_leader

        async with asyncio.timeout(timeout_s):
            await self._until(is_known)
        leader = self._replica.leader
        assert leader is not None
        return leader

    async def transfer_leadership(self, to: str = "") -> str:
        """Hand over to a server that has the whole log; returns who leads then. MembershipRefused."""
        async with self._one_change:
            self.require_leader()
            if to == self._journal.node:
                return to
            return await self._hand_over(to)

    async def _hand_over(self, to: str) -> NodeId:
        refusals: list[int] = []
        target = None if not to else self._replica.nodeClass(to)
        self._replica.transferLeadership(target, lambda _, reason: refusals.append(reason))
        if refusals != [FAIL_REASON.SUCCESS]:
            raise MembershipRefused(
                f"{to or 'no other server'} cannot take over: it is no member, or not caught up"
            )
        self._driver.soon()
        try:
            async with asyncio.timeout(OUTCOME_S_MAX):
                await self._until(lambda: self._replica.leader not in (None, self._journal.node))
        except TimeoutError:
            raise OutcomeUnknown(f"nobody has taken over within {OUTCOME_S_MAX:.0f} s") from None
        leader = self._replica.leader
        assert leader is not None
        return leader

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def begin_append(
        self, batch: Batch, *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]:
        """(how many records it has, the future of its first offset), as DistributedLog's. NotSupported of a producer's id."""
        self.require_leader()
        frame = make_frame(batch, self.config, time=time.time_ns())
        if frame.sequence is not None:
            _refuse("does not recognise batches that are sent again: leave the producer's id out")
        size = len(frame.data)
        if self._requests.size and self._requests.size + size > self.config.pending_bytes_max:
            raise QueueFull(self._requests.size)
        if expected_offset is not None:
            self._require_end(expected_offset)
        ask = partial(self._replica.append, frame.data)
        future = self._requests.begin(ask, size=size, records=frame.record_count)
        self._driver.soon()
        return frame.record_count, future

    def _require_end(self, expected_offset: int) -> None:
        end = self.end + self._requests.records
        if end != expected_offset:
            raise UnexpectedOffset(expected_offset, end)

    async def room(self) -> None:
        """Return when a batch that was begun is settled; at once if there is none."""
        count = len(self._requests)
        await self._until(lambda: not count or len(self._requests) < count)

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
    def start(self) -> int:
        return self._journal.log.start

    def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, or CorruptLog if its bytes are damaged here."""
        if not self.start <= offset < self.end:
            raise OffsetOutOfRange(offset, self.start, self.end)
        return self._journal.log.read(offset)

    def frames(self, start: int | None = None, end: int | None = None, *, bytes_max: int) -> Iterator[Frames]:
        """Frames with the records start..end-1, as `logstore.Log.frames`."""
        start = self.start if start is None else start
        end = self.end if end is None else min(end, self.end)
        if not self.start <= start <= self.end:
            raise OffsetOutOfRange(start, self.start, self.end)
        return self._journal.log.frames(start, end, bytes_max=bytes_max)

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; `end` if there is none."""
        return min(self._journal.log.offset_at(time), self.end)

    async def wait_async(self, seen_end: int) -> int:
        """The high watermark, once it differs from `seen_end`; LogClosed when the log is closed."""
        await self._until(lambda: self.end != seen_end)
        return self.end

    async def read_index(self, timeout_s: float) -> int:
        """The high watermark once this node has all that was acknowledged before the call; TimeoutError.

        PySyncObj has no cheaper way than an entry that holds nothing, and only at the leader: NotLeader elsewhere.
        """
        self.require_leader()
        async with asyncio.timeout(timeout_s):
            await self._done(self._replica.append_nothing)
        return self.end

    async def _done(self, ask: Callable[[Outcome], None]) -> None:
        """Return once what is asked for is applied here."""
        future = self._requests.begin(ask)
        self._driver.soon()
        await future

    # ── members ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _members(self) -> Members:
        return self._journal.members

    async def join(self, id: str, addr: str, directory_id: str = "") -> None:
        """Make a server a member, and voter at once: PySyncObj has no learners.

        Nothing is done for a known id and address. A known id with a new address or directory, or a known address with
        a new id, takes the place of the old one. MembershipRefused; OutcomeUnknown if it takes too long.
        """
        try:
            split_address(addr)
        except ValueError as error:
            raise InvalidRequest(f"address of {id!r}: {error}") from error
        async with self._one_change:
            self.require_leader()
            node, wanted = NodeId(id), Member(addr, directory_id)
            known = self._members.get(node)
            if known is not None and known.address == addr and directory_id in ("", known.directory_id):
                return
            if node == self._journal.node:
                raise MembershipRefused(f"{node} leads: PySyncObj cannot change the address of who leads")
            if known is None and len(self._members) >= MEMBERS_MAX:
                raise MembershipRefused(f"there are {MEMBERS_MAX} members already; remove one first")
            for other, member in list(self._members.items()):
                if other == node or member.address == addr:
                    await self._change(Change(False, other, *member))
            await self._change(Change(True, node, *wanted))
            log.info("member joined", member=node, address=addr)

    async def leave(self, id: str) -> None:
        """Remove a server; it is not told. Who leads hands over first, and raises NotLeader with the new leader."""
        async with self._one_change:
            self.require_leader()
            node = NodeId(id)
            member = self._members.get(node)
            if member is None:
                return
            if len(self._members) == 1:
                raise MembershipRefused(f"{node} is the only server; a cluster cannot be without one")
            if node == self._journal.node:
                await self._hand_over("")
                raise self._not_leader()
            await self._change(Change(False, node, *member))
            log.info("member removed", member=node)

    async def _change(self, change: Change) -> None:
        try:
            async with asyncio.timeout(OUTCOME_S_MAX):
                await self._done(partial(self._replica.change, change))
        except TimeoutError:
            raise OutcomeUnknown(
                f"no outcome within {OUTCOME_S_MAX:.0f} s; it may be done later, or never"
            ) from None

    def get_servers(self) -> tuple[MemberStatus, ...]:
        """The members as this node knows them, by name."""
        known = self._replica.getStatus()
        leader = self._replica.leader
        return tuple(
            MemberStatus(
                id=node,
                address=address,
                directory_id=directory_id,
                is_voter=True,
                is_leader=node == leader,
                match_index=known.get(f"match_idx_server_{node}", 0) if self.is_leader else 0,
                is_active=bool(known.get(f"partner_node_status_server_{node}", node == self._journal.node)),
            )
            for node, (address, directory_id) in sorted(self._members.items())
        )

    def status(self) -> NodeStatus:
        replica, journal = self._replica, self._journal
        return NodeStatus(
            node_id=journal.node,
            cluster_id=journal.cluster_id,
            directory_id=self._identity.directory_id,
            role=ROLES[replica.getStatus()["state"]],
            term=replica.raftCurrentTerm,
            leader_id=replica.leader or "",
            first_index=1,
            last_index=journal.last_index,
            commit_index=replica.raftCommitIndex,
            applied_index=replica.raftLastApplied,
            snapshot_index=0,
            members=self.get_servers(),
            configuration=f"voters=({' '.join(sorted(self._members))})",
            engine=ENGINE,
            trouble=str(self._driver.failure or ("" if replica.leader else "no leader is known")),
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
