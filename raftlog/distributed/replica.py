"""One node of a cluster that runs: its core, disk, links and views, put together, and what it knows of the leader."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from logstore import Config, DiskFull, Log
from raftlog.engine import NodeId, Note
from raftlog.errors import NodeFailed, OutcomeUnknown
from raftlog.machines.members import Member
from raftlog.machines.views import Views
from raftlog.raft.config import MIB, RaftConfig
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign, ForgetLeader
from raftlog.raft.leader import Leader
from raftlog.raft.log import LostEntries
from raftlog.raft.messages import (
    AppendRejected,
    AppendReply,
    Entry,
    EntryKind,
    HeartbeatReply,
    Message,
    SnapshotReply,
)
from raftlog.raft.node import RaftNode
from raftlog.runtime.applier import Applier
from raftlog.runtime.logging import get_logger
from raftlog.runtime.raft_driver import RaftDriver
from raftlog.storage.disk_thread import DiskThread
from raftlog.storage.raft_storage import RaftStorage

log = get_logger(__name__)

# That a follower gives its leader.
ANSWERS: Final = (AppendReply, AppendRejected, HeartbeatReply, SnapshotReply)

# How long after the connection with the leader is lost the others are asked: drawn, so that two do not ask at once.
SUSPICION_S_MIN: Final = 0.05
SUSPICION_S_MAX: Final = 0.25
FIRST_CAMPAIGN_INTERVAL_S: Final = 0.1

NOTES_SHOWN: Final = {  # others are for debugging
    "became_leader", "became_follower", "configuration_changed", "transferring_leadership", "installing_snapshot",
    "installed_snapshot", "truncated", "cannot_campaign", "ignored_change",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """Limits of one node beside those of its log and of the core."""

    raft: RaftConfig = field(default_factory=RaftConfig)
    retention: Config = field(default_factory=Config)  # its retention_*_max count, for the cluster's log
    retention_wait_s: float = 600.0  # how long retention waits for a follower that still needs what would go
    snapshot_entries: int = 50_000  # applied since the last snapshot of the views
    snapshot_bytes: int = 256 * MIB  # the same in bytes: what a restart reads at most, about
    disk_reserve_bytes: int = 64 * MIB  # with less room on the disk a leader refuses appends


class Links(Protocol):
    """What a node needs of the connections to its peers (raftlog/net/peer_links.py)."""

    def send(self, to: NodeId, message: Message, *, is_catch_up: bool = False) -> None: ...
    def set_members(self, members: Mapping[NodeId, Member], *, version: int) -> None: ...
    @property
    def format_version(self) -> int: ...


class Replica:
    """Made by `start`; all calls are made in the event loop's thread."""

    def __init__(
        self,
        node: NodeId,
        storage: RaftStorage,
        links: Links,
        config: ReplicaConfig,
        *,
        cluster_id: str,
        directory_id: str,
    ) -> None:
        """Starts at once. Raises LostEntries if the log lost what it had vouched for, BadViews for a bad snapshot."""
        self.id = node
        self.cluster_id = cluster_id
        self.directory_id = directory_id
        self.config = config
        self.storage = storage
        self.log: Log = storage.log
        self.failure: NodeFailed | None = None  # why it takes part no more
        self.has_lost_entries = False  # its log is not to be trusted: it must begin anew, as a learner
        self.is_full = False  # the disk has no room for appends
        self._has_stuck_write = False
        self.is_stopped = False
        self.leader: NodeId | None = None
        self.is_ready = False  # it leads, and has applied all that was appended before it did
        self.on_ready: Callable[[], None] = lambda: None
        self.on_end: Callable[[Exception], None] = lambda error: None  # nothing is applied any more
        self.applied_entries = self.applied_bytes = 0  # since the start
        self._suspicion: asyncio.TimerHandle | None = None  # that the leader is gone, until it is acted upon
        self._own_term_index = 0  # of the no-op with which it began to lead
        self._leader_waiters: set[asyncio.Future[None]] = set()
        self._answered_at: dict[NodeId, float] = {}  # monotonic: when a member last answered as a follower
        self._changed = asyncio.Event()  # the leader, the members, or whether it can go on
        self._links = links
        raft = RaftNode(node, config.raft, storage, random.Random(), time.monotonic())
        views = self._load_views()
        applied = storage.applied
        self.applier = Applier(views, applied=applied, end=storage.log.offset_of(applied + 1))
        self.applier.on_applied = self._count_applied
        self._disk = DiskThread(
            storage,
            asyncio.get_running_loop(),
            self._durable,
            self._disk_failed,
            on_full=self._write_waits_for_room,
        )
        self.driver = RaftDriver(
            raft,
            disk=self._disk,
            links=links,
            applier=self.applier,
            on_note=self._note,
            on_installed=self._installed,
            on_turn=self._look,
        )
        self._listener = asyncio.create_task(self._listen())
        self._tell_links()

    def _load_views(self) -> Views:
        latest = self.storage.latest_views()
        if latest is None:  # it is to join a cluster, and is told everything by its leader
            return Views(Configuration(), index=0)
        return Views.from_sections(*latest)

    async def stop(self) -> None:
        """Stop taking part: what was handed to the disk is written, what waits for a quorum ends as unknown."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self.is_ready, self.leader = False, None
        if self._suspicion is not None:
            self._suspicion.cancel()
        self.driver.close()
        self._end_waiting(
            OutcomeUnknown("the server stopped before a quorum had it; it may be stored later, or never")
        )
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        await asyncio.to_thread(self._disk.close)
        await asyncio.to_thread(self.storage.close)

    def _end_waiting(self, error: Exception) -> None:
        self.driver.end_requests(error)
        self.on_end(error)
        self.applier.fail(error)
        for waiter in self._leader_waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._leader_waiters.clear()

    # ── what the core does and says ─────────────────────────────────────────────────────────────────

    def received(self, sender: NodeId, message: Message) -> None:
        # Who asks for votes has lost touch.
        if isinstance(message, ANSWERS) and self.applier.views.members.get(sender) is not None:
            self._answered_at[sender] = time.monotonic()
        self.driver.received(sender, message)

    def unreachable(self, peer: NodeId) -> None:
        """A message to this peer was lost, or a connection with it."""
        self.driver.unreachable(peer)
        if peer == self.leader and self._suspicion is None and not self.is_stopped:
            wait = random.uniform(SUSPICION_S_MIN, SUSPICION_S_MAX)
            lost_at = time.monotonic()
            self._suspicion = asyncio.get_running_loop().call_later(wait, self._suspect, peer, lost_at)

    def _suspect(self, leader: NodeId, lost_at: float) -> None:
        """A process that ends closes its connections, which is noticed before any timeout: ask the others whether they
        miss the leader, too. As long as it leads a quorum, they say no (pre-vote)."""
        self._suspicion = None
        node = self.driver.node
        if self.leader == leader and node.election_start < lost_at and not self.driver.actor.is_closed:
            self.driver.actor.dispatch(ForgetLeader(), is_urgent=True)
            self.driver.actor.dispatch(Campaign(), is_urgent=True)

    def _durable(self, token: Any) -> None:
        if not self.is_stopped and self.failure is None:
            self.driver.durable(token)

    def _installed(self) -> None:
        """A snapshot and the beginning of a leader's log took the place of what was here."""
        base = self.log.base
        self.applier.start_at(self._load_views(), applied=base.index, end=base.offset)
        self._tell_links()
        self._changed.set()

    def _tell_links(self) -> None:
        members = self.applier.views.members
        for node in self._answered_at.keys() - members.known.keys():
            del self._answered_at[node]
        self._links.set_members(members.known, version=members.index)

    def _count_applied(self, entries: Sequence[Entry]) -> None:
        self.applied_entries += len(entries)
        is_changed = False
        for entry in entries:
            self.applied_bytes += len(entry.data)
            is_changed = is_changed or entry.kind in (EntryKind.COMMAND, EntryKind.CONFIGURATION)
        if is_changed:
            self._tell_links()
            self._changed.set()

    def _look(self) -> None:
        """After each turn: who leads, and whether this node can take appends."""
        role = self.driver.node.role
        leads = isinstance(role, Leader)
        is_ready = leads and self.applier.applied >= self._own_term_index
        if role.leader == self.leader and is_ready == self.is_ready:
            return
        if role.leader not in (None, self.leader, self.id):
            log.info("follows a leader", node=self.id, leader=role.leader, term=self.driver.node.term)
        self.leader = role.leader
        if is_ready and not self.is_ready:
            self.on_ready()
        self.is_ready = is_ready
        if self.leader is not None and (is_ready or not leads):
            waiters, self._leader_waiters = self._leader_waiters, set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self._changed.set()

    def _note(self, note: Note) -> None:
        if note.event == "became_leader":
            self._own_term_index = self.driver.node.log.last_index
        tell = log.info if note.event in NOTES_SHOWN else log.debug
        fields = {name: value for name, value in note.fields.items() if value is not None}
        tell(note.event.replace("_", " "), node=self.id, **fields)

    # ── failures ────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        try:
            await self.driver.actor.listen()
        except LostEntries as error:
            self.has_lost_entries = True
            self._fail(error)
        except Exception as error:  # whatever it is, this node must not go on
            log.error("core failed", node=self.id, exc_info=error)
            self._fail(error)

    def _disk_failed(self, error: Exception) -> None:
        self.driver.actor.fail(error)

    def _fail(self, error: Exception) -> None:
        """Take part no more: what is committed can still be read."""
        log.error("node takes part no more", node=self.id, reason=str(error))
        self.failure = NodeFailed(f"this server takes part in the cluster no more: {error}")
        self.is_ready, self.leader = False, None
        self._end_waiting(self.failure)
        self._changed.set()

    def _write_waits_for_room(self, waits: bool) -> None:
        self._has_stuck_write = waits
        self.set_room(not waits)

    def set_room(self, has_room: bool) -> None:
        """Told by whoever looks at the disk: with too little room, a leader refuses appends."""
        is_full = not has_room or self._has_stuck_write
        if is_full != self.is_full:
            self.is_full = is_full
            tell = log.error if is_full else log.info
            tell("disk is full: no appends" if is_full else "disk has room again", node=self.id)
            self._changed.set()

    def full_error(self) -> DiskFull:
        return DiskFull(
            f"{self.log.path}: the disk of the leader has no room; nothing was stored. Make room, and it goes on by itself"
        )

    # ── for those who ask ───────────────────────────────────────────────────────────────────────────

    def answered_at(self, node: NodeId) -> float | None:
        """When a member last answered this server as its leader, in monotonic seconds; None: never."""
        return self._answered_at.get(node)

    @property
    def is_handing_over(self) -> bool:
        role = self.driver.node.role
        return isinstance(role, Leader) and role.transferee is not None

    async def wait_for_change(self, timeout_s: float | None) -> None:
        """Return after the next change of the leader, the members, or this node's health; or after the timeout.

        For one that waits at a time per change: all that wait see it.
        """
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    @property
    def is_alone(self) -> bool:
        """The only voter: nobody else has to be asked."""
        return self.driver.node.configuration.all_voters == (self.id,)

    async def campaign_first(self) -> None:
        """Stand for election without waiting for a timeout, where nobody has led before or there is nobody else.

        Its peers may not be there yet, so it asks again until somebody leads.
        """
        node = self.driver.node
        while self.leader is None and self.failure is None and (node.term == 0 or self.is_alone):
            self.driver.actor.dispatch(Campaign(), is_urgent=True)
            await self.wait_for_change(FIRST_CAMPAIGN_INTERVAL_S)

    async def wait_for_leader(self) -> NodeId:
        """Who leads, once that is known and, if it is this node, it can take appends. NodeFailed."""
        while self.leader is None or (self.leader == self.id and not self.is_ready):
            if self.failure is not None:
                raise self.failure
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._leader_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._leader_waiters.discard(waiter)  # who gives up leaves nothing behind
        return self.leader

    @property
    def format_version(self) -> int:
        """That the cluster writes: the highest that all members which have introduced themselves know."""
        return self._links.format_version

    def time_ns(self) -> int:
        """Of the wall, never before the log's latest."""
        return max(time.time_ns(), self.applier.views.time)
