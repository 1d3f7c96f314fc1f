"""The log of a cluster as one of its nodes has it: the operations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from logstore import MIB, Config, CorruptLog, LogClosed, OffsetOutOfRange, RawEntry, Record, RecordBatch
from logstore.reading import Frames
from raftlog.distributed.appends import Appends
from raftlog.distributed.frames import Batch, Value
from raftlog.distributed.housekeeping import Housekeeping
from raftlog.distributed.membership import Membership
from raftlog.distributed.mending import Mending, Peers
from raftlog.distributed.proposals import Proposals
from raftlog.distributed.replica import Replica
from raftlog.distributed.status import MemberStatus, NodeStatus, members_of, status_of
from raftlog.engine import NodeId
from raftlog.errors import InvalidRequest, NotLeader, OutcomeUnknown, Overloaded, RaftlogError
from raftlog.machines.cursors import GROUPS_MAX, NAME_CHARACTERS_MAX, Cursor
from raftlog.net.addresses import split_address
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

CLOSED: Final = "the log is closed"
SETTLE_S_MAX: Final = 1.0  # for what is on its way when the log is closed; then it ends as unknown


class DistributedLog:
    """Appends go through the leader, reads are of what is committed. Belongs to one event loop.

    Offsets count records from 0 without gaps, and are the same on all nodes. An append is acknowledged when a quorum of
    the voters has it on disk, this node among them.
    """

    def __init__(self, replica: Replica, peers: Peers) -> None:
        """Of a replica that was started; it is stopped by `close`. `peers` help to mend what is damaged."""
        self._replica = replica
        self._log = replica.log
        self._applier = replica.applier
        self.config: Config = replica.log.config
        self._proposals = Proposals(replica.driver, replica.applier)
        self._is_closing = False
        self._appends = Appends(
            replica.driver,
            replica.applier,
            self.config,
            offset_of=replica.log.offset_of,
            confirm=self._proposals.read_index,
        )
        self._appends.refusal = self._why_not_append
        self._appends.lack_of_room = lambda: replica.full_error() if replica.is_full else None
        replica.on_ready = self._appends.begin_term
        replica.on_end = self._appends.fail
        self._membership = Membership(
            replica.driver,
            replica.applier,
            self._proposals,
            require_leader=self.require_leader,
            answered_at=replica.answered_at,
        )
        self._housekeeping = Housekeeping(replica, self._proposals)
        self._mending = Mending(replica, peers)

    async def hand_over(self, timeout_s: float) -> None:
        """If this node leads others, have one of them lead, so that nobody has to find out; not for longer than this."""
        if self._replica.is_ready and not self._replica.is_alone:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._membership.transfer_leadership(None)
            except (RaftlogError, TimeoutError) as error:
                reason = str(error) or f"nobody took over within {timeout_s:.0f} s"
                log.info("leadership not handed over", reason=reason)

    async def close(self) -> None:
        """Take part in the cluster no more, and close the files. What was acknowledged is on disk. Twice is no error.

        Waits SETTLE_S_MAX at most for the outcome of appends on their way, and of those that come meanwhile.
        """
        if self._replica.is_stopped:
            return
        if not self._replica.driver.actor.is_closed:  # else nobody will tell any outcome
            await self._appends.settled(SETTLE_S_MAX)
        self._is_closing = True
        await self._mending.close()
        await self._housekeeping.close()
        await self._replica.stop()

    # ── who leads ───────────────────────────────────────────────────────────────────────────────────

    @property
    def is_leader(self) -> bool:
        """This node leads, and has applied all that was appended before: it can take appends."""
        return self._replica.is_ready

    def _why_not_append(self) -> Exception | None:
        replica = self._replica
        if replica.failure is not None:
            return replica.failure
        if self._is_closing:
            return LogClosed(CLOSED)
        if replica.is_ready and not replica.is_handing_over:
            return None
        return self._not_leader()

    def require_leader(self) -> None:
        """Raise NotLeader unless this node leads, as far as it knows, and has applied all that was appended before."""
        if not self._replica.is_ready:
            raise self._not_leader()

    def _not_leader(self) -> NotLeader:
        """Says who leads, as far as this node knows."""
        leader = self._replica.leader
        if leader is None or leader == self._replica.id:
            return NotLeader()
        known = self._applier.views.members.get(leader)
        return NotLeader(leader, known.address if known is not None else "")

    async def wait_for_leader(self, timeout_s: float) -> NodeId:
        """Who leads, once that is known and, if it is this node, it can take appends; TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self._replica.wait_for_leader()

    async def transfer_leadership(self, to: str = "") -> str:
        """Hand over to a voter, or to the one that has most of the log; returns who leads then."""
        return await self._membership.transfer_leadership(NodeId(to) if to else None)

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def begin_append(
        self, batch: Batch, *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]:
        """(how many records it has, the future of its first offset); see raftlog/distributed/appends.py."""
        return self._appends.begin(batch, expected_offset=expected_offset)

    async def room(self) -> None:
        """Return when a batch that was begun is settled; at once if there is none."""
        await self._appends.room()

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
        """Offset of the first record that exists."""
        return min(max(self._log.start, self._applier.views.log_start), self._applier.end)

    @property
    def end(self) -> int:
        """The high watermark: the offset behind the last record that can be read here."""
        return self._applier.end

    def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, or CorruptLog if its bytes are damaged here, until a peer has mended them."""
        if not self.start <= offset < self.end:
            raise OffsetOutOfRange(offset, self.start, self.end)
        try:
            return self._log.read(offset)
        except CorruptLog:
            self._mending.report(self._log.index_of(offset))
            raise

    def frames(self, start: int | None = None, end: int | None = None, *, bytes_max: int) -> Iterator[Frames]:
        """Frames with the records start..end-1, as `logstore.Log.frames`."""
        start, end = self._range(start, end)
        return self._readable(self._log.frames(start, end, bytes_max=bytes_max), start)

    def batches(
        self, start: int | None = None, end: int | None = None, *, bytes_max: int = MIB
    ) -> Iterator[RecordBatch]:
        """The records start..end-1, batch by batch as they were appended, as columns without a copy."""
        start, end = self._range(start, end)
        return self._log.batches(start, end, bytes_max=bytes_max)

    def _range(self, start: int | None, end: int | None) -> tuple[int, int]:
        start = self.start if start is None else start
        if not self.start <= start <= self.end:
            raise OffsetOutOfRange(start, self.start, self.end)
        return start, self.end if end is None else min(end, self.end)

    def _readable(self, found: Iterator[Frames], start: int) -> Iterator[Frames]:
        try:
            for frames in found:
                yield frames
                start = frames.end_offset
        except CorruptLog:
            self._mending.report(self._log.index_of(start))
            raise

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; `end` if there is none."""
        return min(max(self._log.offset_at(time), self.start), self.end)

    async def wait_async(self, seen_end: int) -> int:
        """The high watermark, once it differs from `seen_end`; LogClosed when the log is closed."""
        try:
            if not self._replica.is_stopped:
                await self._applier.wait_for_end(seen_end)
        except OutcomeUnknown:  # said to all that wait for anything when it stops
            pass
        if self._replica.is_stopped:
            raise LogClosed(CLOSED)
        return self.end

    async def read_index(self, timeout_s: float) -> int:
        """The high watermark once this node has all that was acknowledged to anybody before the call.

        A round to a quorum. Raises NotLeader while no leader is known, Overloaded or TimeoutError if it takes too long.
        """
        async with asyncio.timeout(timeout_s):
            await self._proposals.read_index()
        return self.end

    # ── members ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, id: str, addr: str, directory_id: str = "") -> None:
        """Make a server a member; a learner first, a voter once it has caught up. See raftlog/distributed/membership.py.

        One that was removed on purpose is let in again only without a `directory_id`, as people ask; else
        MembershipRefused.
        """
        try:
            split_address(addr)
        except ValueError as error:
            raise InvalidRequest(f"address of {id!r}: {error}") from error
        await self._membership.join(NodeId(id), addr, directory_id)

    async def leave(self, id: str, *, is_barred: bool = True) -> None:
        """Remove a server. Who leads hands over first and raises NotLeader with the new leader.

        If it `is_barred`, as on purpose, it does not come back before a person asks for it.
        """
        await self._membership.leave(NodeId(id), is_barred=is_barred)

    @property
    def autopilot_mode(self) -> str:
        """act, advise or off; "": nobody has said. As of what is applied here."""
        return self._applier.views.autopilot.mode

    async def set_autopilot_mode(self, mode: str) -> None:
        """From now on, whoever leads."""
        self.require_leader()
        await self._proposals.command(pb.Command(set_autopilot=pb.SetAutopilot(mode=mode)))

    async def promote(self, id: str) -> None:
        """Make a learner a voter now; MembershipRefused if it has not nearly caught up."""
        await self._membership.promote(NodeId(id))

    def get_servers(self) -> tuple[MemberStatus, ...]:
        """The members as this node knows them, by name."""
        return members_of(self._replica)

    def status(self) -> NodeStatus:
        """What this node is and believes."""
        return status_of(self._replica)

    @property
    def replica(self) -> Replica:
        """The node beneath, for those who watch it."""
        return self._replica

    def committed_entries(self, first: int, end: int, bytes_max: int) -> list[RawEntry]:
        """Entries from `first` on as they lie on the disk here; none if this node cannot give the first."""
        end = min(end, self._applier.applied + 1)
        if not self._log.first_index <= first < end:
            return []
        try:
            return self._log.raw_entries(first, end, bytes_max=bytes_max)
        except CorruptLog:
            self._mending.report(first)
            return []

    # ── retention, snapshots, cursors ───────────────────────────────────────────────────────────────

    async def truncate(self, lowest: int) -> int:
        """Forget the records below `lowest` on all nodes; returns where the log starts then.

        The bytes go when whole segments are below it and a snapshot covers them.
        """
        self.require_leader()  # first: what a follower lacks still is no reason to refuse
        if not 0 <= lowest <= self.end:
            raise OffsetOutOfRange(lowest, self.start, self.end)
        await self._proposals.command(pb.Command(set_log_start=pb.SetLogStart(offset=lowest)))
        return self.start

    async def take_snapshot(self) -> tuple[int, int]:
        """Write a snapshot of this node's views; (entry index, bytes)."""
        return await self._housekeeping.take_snapshot()

    async def commit_cursor(self, group: str, offset: int) -> None:
        """Keep that `group` goes on at `offset`. InvalidRequest; Overloaded if there are too many groups."""
        if not 0 < len(group) <= NAME_CHARACTERS_MAX or not group.isprintable():
            raise InvalidRequest(f"a group's name has 1 to {NAME_CHARACTERS_MAX} printable characters")
        self.require_leader()  # first, as in `truncate`
        if not 0 <= offset <= self.end:
            raise OffsetOutOfRange(offset, self.start, self.end)
        cursors = self._applier.views.cursors
        if group not in cursors and len(cursors) >= GROUPS_MAX:
            raise Overloaded(f"there are {GROUPS_MAX} groups already")
        cursor = pb.SetCursor(group=group, offset=offset, time_ns=self._replica.time_ns())
        await self._proposals.command(pb.Command(set_cursor=cursor))

    def cursors(self) -> list[Cursor]:
        """How far each group has come, by name; as of what is applied here."""
        return self._applier.views.cursors.all()
