"""Raft, as the engine of one server: its data directory, how it comes into a cluster, its links, and its log."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from logstore.filesystem import FileSystem, OsFileSystem
from logstore.reading import SegmentSummary
from raftlog.autopilot.reconciler import Reconciler
from raftlog.config import ServerConfig
from raftlog.discovery.source import Source
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.replica import Links, Replica, ReplicaConfig
from raftlog.engine import NodeId
from raftlog.errors import IdentityError, NodeFailed, RaftlogError
from raftlog.finding import make_source, tags_of
from raftlog.joining import Joining
from raftlog.net.handshake import Identity
from raftlog.net.peer_links import LinkLimits, PeerLinks
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.throttle import Throttle
from raftlog.peer_entries import PeerEntries
from raftlog.pysyncobj_home import FOLDER as OTHER_FOLDER
from raftlog.raft.log import LostEntries
from raftlog.raft.messages import Message
from raftlog.raft.storage import UnreadableEntries
from raftlog.runtime.logging import get_logger
from raftlog.storage.data_directory import DataDirectory
from raftlog.storage.hard_state import DamagedState
from raftlog.storage.raft_storage import RaftStorage

log = get_logger(__name__)

REMEMBER_INTERVAL_S: Final = 5.0  # at the latest, after a change of the members
FIRST_LEADER_S: Final = 2.0  # that a server which is alone waits at its start until it leads
LET_IN_S: Final = (
    40.0  # for the leader to find one again that it has removed because it failed; gossip needs up to 30 s
)
LOOK_INTERVAL_S: Final = 0.5
ENTRY_OVERHEAD_BYTES: Final = 4096  # of a frame between servers, around one entry


class RaftEngine:
    """Implements raftlog.agent.Engine."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        filesystem: FileSystem | None = None,
    ) -> None:
        """`filesystem` holds the data; None: that of the operating system."""
        self._config = config
        self._source: Source | None = None  # of others, while it runs; None: it does not look for any
        self._reconciler: Reconciler | None = None
        self._has_departed = False  # it is no member any more, and has told others so, or is about to
        self._going = asyncio.Lock()  # one departs or comes back after the other
        self._ending = asyncio.Event()  # `close` was called
        self.removed = ""  # why it is no member any more; "": it is one, or waits to become one
        self._filesystem = filesystem
        self._parts = AsyncExitStack()
        self._address = ""  # where others reach this server
        self._is_member = False  # of a cluster, as of the start
        self._directory: DataDirectory | None = None
        self._links: PeerLinks | None = None
        self._log: DistributedLog | None = None
        self._was_called = asyncio.Event()  # by a server of a cluster, which makes this one a member

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> DistributedLog:
        assert self._log is not None, "it is not a member of a cluster yet"
        return self._log

    @property
    def has_log(self) -> bool:
        """Before, it has to be let into a cluster."""
        return self._log is not None

    @property
    def cluster_id(self) -> str:
        return self._home.cluster_id

    @property
    def leader(self) -> NodeId | None:
        return self.log.replica.leader

    @property
    def failure(self) -> NodeFailed | None:
        return self.log.replica.failure

    @property
    def is_to_begin_anew(self) -> bool:
        return self._log is not None and self._log.replica.has_lost_entries

    def segments(self) -> Sequence[SegmentSummary]:
        return self.log.replica.log.segments()

    async def wait_for_change(self, timeout_s: float) -> None:
        await self.log.replica.wait_for_change(timeout_s)

    @property
    def _home(self) -> DataDirectory:
        assert self._directory is not None, "it is not prepared"
        return self._directory

    # ── starting ────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, address: str) -> None:
        config = self._config
        place = f"{config.data_dir}/{OTHER_FOLDER}"
        if (self._filesystem or OsFileSystem()).exists(place):
            raise IdentityError(
                f'{place} is data of the engine pysyncobj: start with engine = "pysyncobj", or use another data directory'
            )
        directory = self._directory = await asyncio.to_thread(
            DataDirectory.open, config.data_dir, node_name=NodeId(config.node_name), filesystem=self._filesystem
        )  # fmt: skip
        self._parts.push_async_callback(self._close_directory)
        self._address = address
        await self._look_for_others()
        self._is_member = await self._joining().begin_cluster(directory, config)
        await self._tell_place()

    async def _look_for_others(self) -> None:
        directory = self._home
        source = make_source(
            self._config, address=self._address, directory_id=directory.directory_id, cluster_id=directory.cluster_id
        )  # fmt: skip
        if source is not None:
            self._parts.push_async_callback(source.close)
            await source.start()
            self._source = source

    async def _tell_place(self) -> None:
        """Have others see which directory of which cluster this is."""
        if self._source is not None:
            directory = self._home
            await self._source.set_tags(
                **tags_of(self._address, directory.directory_id, directory.cluster_id)
            )

    async def start(self, stream_layer: StreamLayer) -> DistributedLog | None:
        self._links = self._make_links(stream_layer)
        self._parts.push_async_callback(self._links.close)
        return await self._open_log() if self._is_member else None

    async def join(self) -> DistributedLog:
        directory, links = self._home, self._links
        assert links is not None, "start comes first"
        asked = self._others()
        if self._config.looks_first and directory.is_new and await self._may_begin():
            cluster_id = str(uuid.uuid4())
            links.set_cluster(cluster_id)  # at once: a cluster that calls from now on is another one
            await self._joining().bootstrap(directory, cluster_id)
        elif asked:
            answer = await self._joining().ask(asked, directory.directory_id, directory.cluster_id)
            directory.join(answer.cluster_id)  # nothing is left to do if its leader has called meanwhile
            links.set_cluster(answer.cluster_id)
            addresses = {NodeId(member.id): member.rpc_addr for member in answer.members}
            await asyncio.to_thread(directory.remember_members, addresses)
        else:
            hint = f"raftlog join {directory.node_name} {self._address}"
            if self._source is None:
                log.info("waiting to be joined", hint=hint)
            else:
                log.info(
                    "waiting for a cluster to find this server",
                    discovery=self._config.discovery,
                    or_else=hint,
                )
            await self._was_called.wait()
        await self._tell_place()
        commit_log = await self._open_log()
        if commit_log is None:
            raise IdentityError(f"{directory.path}: what was just made there is damaged; look at the disk")
        return commit_log

    async def _may_begin(self) -> bool:
        """Whether nobody is of a cluster that this server could be of; False as well once a cluster has called it."""
        assert self._source is not None, "without one it does not look first"
        assert self._links is not None, "start comes first"
        looking = asyncio.create_task(self._joining().look_first(self._source, self._links.identify))
        called = asyncio.create_task(self._was_called.wait())
        await asyncio.wait((looking, called), return_when=asyncio.FIRST_COMPLETED)
        for task in (looking, called):
            task.cancel()
        await asyncio.wait((looking, called))
        return not self._was_called.is_set() and looking.result()

    def _others(self) -> list[str]:
        """Addresses of servers that may let this one in."""
        config = self._config
        peers = [peer.address for peer in config.peers if peer.name != config.node_name]
        return list(config.join_addrs) or list(self._home.members.values()) or peers

    def _joining(self) -> Joining:
        return Joining(
            self._config.peer_tls(), node=self._home.node_name, address=self._address, engine="raft"
        )

    def _introduction(self) -> Identity:
        directory = self._home
        return Identity(
            cluster_id=directory.cluster_id, directory_id=directory.directory_id, address=self._address
        )

    def _make_links(self, stream_layer: StreamLayer) -> PeerLinks:
        config = self._config
        rate = config.catch_up_bytes_per_s
        return PeerLinks(
            self._home.node_name,
            self._introduction(),
            stream_layer,
            {},
            self._received,
            self._unreachable,
            on_cluster=self._become_member,
            elsewhere=self._found_at,
            limits=LinkLimits(
                bulk_frame_bytes_max=max(
                    2 * config.raft_config().append_bytes_max, config.batch_bytes_max + ENTRY_OVERHEAD_BYTES
                ),
                dial_s_max=config.dial_timeout_ms / 1000,
            ),
            throttle=None if rate is None else Throttle(rate, asyncio.get_running_loop().time),
        )

    def _found_at(self, node: NodeId) -> str:
        """Where the source of members says that a member is, "" if it does not; the handshake shows whether it is."""
        if self._source is None:
            return ""
        found = (each for each in self._source.members() if each.name == node and each.is_there)
        return next((each.address for each in found if each.cluster_id == self.cluster_id), "")

    def _become_member(self, cluster_id: str) -> None:
        self._home.join(cluster_id)
        self._was_called.set()

    def _received(self, sender: NodeId, message: Message) -> None:
        if self._log is not None:
            self._log.replica.received(sender, message)

    def _unreachable(self, peer: NodeId) -> None:
        if self._log is not None:
            self._log.replica.unreachable(peer)

    async def _open_log(self) -> DistributedLog | None:
        """The log of this server; None if it was not to be trusted: then it was set aside, and this server is to be
        let in anew, as a learner."""
        assert self._links is not None
        storage: RaftStorage | None = None
        try:
            storage = await asyncio.to_thread(self._home.open_storage, self._config.log_config())
            self._log = self._make_log(storage, self._links)
        except (DamagedState, LostEntries, UnreadableEntries) as error:
            if storage is not None:
                await asyncio.to_thread(storage.close)
            await self._set_aside(str(error))
            self._links.set_identity(self._introduction())
            await self._tell_place()
            return None
        self._parts.push_async_callback(self._log.close)
        self._reconciler = Reconciler(self._log, self._source, self._links, self._config.autopilot_settings())
        return self._log

    def _make_log(self, storage: RaftStorage, links: Links) -> DistributedLog:
        config, directory = self._config, self._home
        replica = Replica(
            directory.node_name,
            storage,
            links,
            ReplicaConfig(
                raft=replace(
                    config.raft_config(),
                    # More than the queue lets through, so that the core never refuses one record among others.
                    uncommitted_bytes_max=2 * config.queue_bytes_max + config.batch_bytes_max,
                ),
                retention=config.log_config(),
                retention_wait_s=config.retention_wait_ms / 1000,
                snapshot_entries=config.snapshot_entries,
                snapshot_bytes=config.snapshot_bytes,
                disk_reserve_bytes=config.disk_reserve_bytes,
            ),
            cluster_id=directory.cluster_id,
            directory_id=directory.directory_id,
        )
        return DistributedLog(replica, PeerEntries(config.peer_tls()))

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────

    def work(self) -> list[Coroutine[Any, Any, None]]:
        replica = self.log.replica
        tasks = [
            self._joining().keep_announced(
                replica, self._others(), on_removed=self._was_removed, on_joined_again=self._was_joined_again
            ),
            self._remember_members(replica),
            self.autopilot.run(),
        ]
        if self._config.first_leader == replica.id and not replica.is_alone:
            tasks.append(replica.campaign_first())
        return tasks

    async def begin_to_lead(self) -> None:
        if self.log.replica.is_alone:
            await self.log.replica.campaign_first()
            with suppress(TimeoutError):
                await self.log.wait_for_leader(FIRST_LEADER_S)

    async def _remember_members(self, replica: Replica) -> None:
        """Keep the members' addresses where the next start finds them without a log."""
        while True:
            known = replica.applier.views.members.known
            addresses = {node: member.address for node, member in known.items() if node != replica.id}
            if addresses:
                try:
                    await asyncio.to_thread(self._home.remember_members, addresses)
                except OSError as error:
                    log.warning("members' addresses not kept", reason=str(error))
            await replica.wait_for_change(REMEMBER_INTERVAL_S)

    # ── leaving ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def source(self) -> Source | None:
        return self._source

    @property
    def autopilot(self) -> Reconciler:
        assert self._reconciler is not None, "it is not a member of a cluster yet"
        return self._reconciler

    def _was_removed(self, reason: str) -> None:
        self.removed = f"it is no member of the cluster any more: {reason}"
        self._begin_to(self._depart_unless_let_in())

    def _was_joined_again(self) -> None:
        self.removed = ""
        self._begin_to(self._come_back())

    def _begin_to(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._parts.push_async_callback(_finished, task)

    async def _depart_unless_let_in(self) -> None:
        """Depart, at once if it was removed on purpose. Else it failed, and was back too late: the leader lets it in again
        once it is seen, so it is to be seen for a while."""
        replica, ends = self.log.replica, time.monotonic() + LET_IN_S
        while self.removed and time.monotonic() < ends:
            if replica.applier.views.autopilot.is_barred(replica.id, replica.directory_id):
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_INTERVAL_S)
                return  # it can say so again after its next start
        if self.removed:
            await self.depart()

    async def depart(self) -> None:
        """Tell the others by the source of members that this server is gone for good. Twice is no error."""
        async with self._going:
            if self._source is not None and not self._has_departed:
                self._has_departed = True
                log.info("telling others that this server is gone", discovery=self._config.discovery)
                await self._source.leave()

    async def _come_back(self) -> None:
        async with self._going:
            if self._source is not None and self._has_departed:
                try:
                    await self._source.come_back()
                    await self._tell_place()
                except RaftlogError as error:
                    log.error(
                        "a member again, but others cannot see it: restart this server", reason=str(error)
                    )
                self._has_departed = False

    async def leave(self) -> None:
        """Be a member no more, and tell the others. What cannot be done is said in the log."""
        if self._log is not None and not self.removed:
            await self._joining().leave(self._log)
        await self.depart()

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        self._ending.set()
        await self._parts.aclose()

    async def _close_directory(self) -> None:
        if self.is_to_begin_anew:
            await self._set_aside(str(self.failure))
        await asyncio.to_thread(self._home.close)

    async def _set_aside(self, reason: str) -> None:
        folder = await asyncio.to_thread(self._home.set_aside, reason)
        log.error(
            "this server cannot vote with what it has; it begins anew as a learner",
            reason=reason,
            set_aside=folder,
        )


async def _finished(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))
