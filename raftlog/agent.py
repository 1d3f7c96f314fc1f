"""One server: sets up its parts in order, runs until it is asked to stop, and takes them down in reverse."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Self

from logstore.filesystem import FileSystem
from raftlog.config import ServerConfig
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.replica import Links, Replica, ReplicaConfig
from raftlog.engine import NodeId
from raftlog.errors import IdentityError, RaftlogError
from raftlog.front import Front
from raftlog.joining import Joining
from raftlog.net.addresses import host_and_port, is_wildcard
from raftlog.net.handshake import Identity
from raftlog.net.listener import Listener, ListenerLimits
from raftlog.net.peer_links import LinkLimits, PeerLinks
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.throttle import Throttle
from raftlog.peer_entries import PeerEntries
from raftlog.raft.log import LostEntries
from raftlog.raft.messages import Message
from raftlog.raft.storage import UnreadableEntries
from raftlog.runtime.logging import get_logger
from raftlog.runtime.metrics import LogFigures, Metrics
from raftlog.server.admin import AdminServer, make_app
from raftlog.server.forwarding import Forwarder
from raftlog.server.health import Health, start_health_server
from raftlog.server.readiness import Readiness
from raftlog.storage.data_directory import DataDirectory
from raftlog.storage.hard_state import DamagedState
from raftlog.storage.raft_storage import RaftStorage

log = get_logger(__name__)

LOOK_INTERVAL_S: Final = 0.5  # how soon the health check tells of a failure, or of a leader
REMEMBER_INTERVAL_S: Final = 5.0  # at the latest, after a change of the members
HAND_OVER_S_MAX: Final = 2.0  # for a leader that stops; then the others find out by themselves
FIRST_LEADER_S: Final = (
    2.0  # that a server waits for a leader at its start, before it says that it has started
)
ENTRY_OVERHEAD_BYTES: Final = 4096  # of a frame between servers, around one entry

EXIT_REPLACED: Final = 3  # what it had was set aside: started again, it comes back as a learner


class Agent:
    """A server that runs. `async with` starts and stops it.

    A new one that begins no cluster and knows none waits, listening, until it is joined to one; only then it serves.
    """

    def __init__(self, config: ServerConfig, *, filesystem: FileSystem | None = None) -> None:
        """`filesystem` holds the data; None: that of the operating system."""
        self._config = config
        self._filesystem = filesystem
        self._parts = AsyncExitStack()
        self._log: DistributedLog | None = None
        self._links: PeerLinks | None = None
        self._member_of: asyncio.Future[str] | None = None  # cluster id, once there is one
        self.health = Health()
        self.metrics = Metrics()
        self.rpc_port = 0  # those in use; 0: closed
        self.health_port = 0
        self.admin_port = 0
        self.failed: asyncio.Future[int] | None = None  # the exit code, when it cannot go on

    @property
    def rpc_address(self) -> str:
        return host_and_port(self._config.rpc_host, self.rpc_port)

    @property
    def advertised_address(self) -> str:
        """Where clients and other servers are told to find this server."""
        config = self._config
        if config.rpc_advertise_addr is not None:
            return config.rpc_advertise_addr
        host = config.rpc_host
        return host_and_port(socket.gethostname() if is_wildcard(host) else host, self.rpc_port)

    @property
    def log(self) -> DistributedLog:
        """Once it is a member of a cluster."""
        assert self._log is not None, "it is not a member of a cluster yet"
        return self._log

    @property
    def is_member(self) -> bool:
        """It has a log; before, it waits to be joined to a cluster."""
        return self._log is not None

    @property
    def links(self) -> PeerLinks:
        assert self._links is not None, "it is not started"
        return self._links

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._parts.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ── starting ────────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> None:
        config, parts = self._config, self._parts
        self.failed = asyncio.get_running_loop().create_future()
        self.metrics.name_server(version=_version(), node=config.node_name)
        self.metrics.serving.set_function(lambda: self.health.is_serving)
        await self._start_side_doors()

        listener = Listener(
            config.rpc_host,
            config.rpc_port,
            limits=ListenerLimits(
                connections_max=config.connections_max,
                connections_per_address_max=config.connections_per_address_max,
                raft_handshakes_max=config.peer_connections_max,
            ),
        )
        parts.push_async_callback(listener.close)
        self.rpc_port = listener.port
        listener.start()  # until there is more, who calls is refused at once instead of waiting for an answer
        directory = await asyncio.to_thread(
            DataDirectory.open,
            config.data_dir,
            node_name=NodeId(config.node_name),
            filesystem=self._filesystem,
        )
        parts.push_async_callback(self._close_directory, directory)
        is_member = await self._joining(directory).begin_cluster(directory, config)
        links = self._links = await self._make_links(listener, directory)
        commit_log = await self._open_log(directory, links) if is_member else None
        if commit_log is not None:
            await self._serve(listener, directory, commit_log)
        else:
            self.health.set_serving(False, "waiting to be joined to a cluster")
            self._note_started(directory, is_member=False)
            joining = asyncio.create_task(self._join(listener, directory, links))
            parts.push_async_callback(_cancel, joining)

    async def _start_side_doors(self) -> None:
        config, parts = self._config, self._parts
        if config.admin_port is not None:
            admin = AdminServer(
                make_app(self.health, self.metrics.registry), host=config.admin_host, port=config.admin_port
            )
            self.admin_port = admin.port
            parts.push_async_callback(asyncio.to_thread, admin.close)
        if config.health_port is not None:
            probes = await start_health_server(self.health, host=config.health_host, port=config.health_port)
            self.health_port = probes.port
            parts.push_async_callback(probes.stop)

    async def _make_links(self, listener: Listener, directory: DataDirectory) -> PeerLinks:
        config, parts = self._config, self._parts
        server_tls = config.server_tls()
        stream_layer = StreamLayer(
            listener, server_tls, config.peer_tls() or server_tls, peer_names=config.peer_names
        )
        parts.push_async_callback(stream_layer.close)
        loop = asyncio.get_running_loop()
        rate = config.catch_up_bytes_per_s
        self._member_of = loop.create_future()

        def become_member(cluster_id: str) -> None:
            directory.join(cluster_id)
            assert self._member_of is not None
            if not self._member_of.done():
                self._member_of.set_result(cluster_id)

        links = PeerLinks(
            directory.node_name,
            Identity(
                cluster_id=directory.cluster_id,
                directory_id=directory.directory_id,
                address=self.advertised_address,
            ),
            stream_layer,
            {},
            self._received,
            self._unreachable,
            on_cluster=become_member,
            limits=LinkLimits(
                bulk_frame_bytes_max=max(
                    2 * config.raft_config().append_bytes_max, config.batch_bytes_max + ENTRY_OVERHEAD_BYTES
                ),
                dial_s_max=config.dial_timeout_ms / 1000,
            ),
            throttle=None if rate is None else Throttle(rate, loop.time),
        )
        parts.push_async_callback(links.close)
        return links

    def _received(self, sender: NodeId, message: Message) -> None:
        if self._log is not None:
            self._log.replica.received(sender, message)

    def _unreachable(self, peer: NodeId) -> None:
        if self._log is not None:
            self._log.replica.unreachable(peer)

    async def _join(self, listener: Listener, directory: DataDirectory, links: PeerLinks) -> None:
        """Become a member of a cluster, by asking or by being called, and serve."""
        assert self._member_of is not None
        try:
            asked = self._others(directory)
            if asked:
                answer = await self._joining(directory).ask(
                    asked, directory.directory_id, directory.cluster_id
                )
                directory.join(answer.cluster_id)  # nothing is left to do if its leader has called meanwhile
                links.set_cluster(answer.cluster_id)
                addresses = {NodeId(member.id): member.rpc_addr for member in answer.members}
                await asyncio.to_thread(directory.remember_members, addresses)
            else:
                log.info(
                    "waiting to be joined",
                    hint=f"raftlog join {directory.node_name} {self.advertised_address}",
                )
                await self._member_of
            commit_log = await self._open_log(directory, links)
            if commit_log is None:
                raise IdentityError(
                    f"{directory.path}: what was just made there is damaged; look at the disk"
                )
            await self._serve(listener, directory, commit_log)
        except (RaftlogError, OSError) as error:
            log.error("cannot become a member", reason=str(error))
            self._end(1)

    def _others(self, directory: DataDirectory) -> list[str]:
        """Addresses of servers that may let this one in."""
        config = self._config
        peers = [peer.address for peer in config.peers if peer.name != config.node_name]
        return list(config.join_addrs) or list(directory.members.values()) or peers

    def _joining(self, directory: DataDirectory) -> Joining:
        tls = self._config.peer_tls()
        return Joining(tls, node=directory.node_name, address=self.advertised_address)

    async def _serve(self, listener: Listener, directory: DataDirectory, commit_log: DistributedLog) -> None:
        config, parts = self._config, self._parts
        self._log = commit_log
        parts.push_async_callback(commit_log.close)
        replica = commit_log.replica
        replica.on_failed = self._note_failed
        self._watch(commit_log)

        forwarder = self._make_forwarder()
        parts.push_async_callback(forwarder.close)
        front = Front(config, commit_log, forwarder, metrics=self.metrics, health=self.health)
        await front.start(listener.grpc_target)
        parts.push_async_callback(self._stop_serving, front, commit_log)
        listener.start()

        for work in (
            self._look_after(commit_log),
            self._joining(directory).keep_announced(replica, self._others(directory)),
            self._remember_members(directory, replica),
        ):
            parts.push_async_callback(_cancel, asyncio.create_task(work))
        if replica.is_alone:
            await replica.campaign_first()
            await commit_log.wait_for_leader(FIRST_LEADER_S)
        elif config.first_leader == replica.id:
            parts.push_async_callback(_cancel, asyncio.create_task(replica.campaign_first()))
        self._note_started(directory, is_member=True)

    async def _open_log(self, directory: DataDirectory, links: PeerLinks) -> DistributedLog | None:
        """The log of this server; None if it was not to be trusted: then it was set aside, and this server is to be
        let in anew, as a learner."""
        storage: RaftStorage | None = None
        try:
            storage = await asyncio.to_thread(directory.open_storage, self._config.log_config())
            return self._make_log(directory, storage, links)
        except (DamagedState, LostEntries, UnreadableEntries) as error:
            if storage is not None:
                await asyncio.to_thread(storage.close)
            await _set_aside(directory, str(error))
        identity = Identity(
            cluster_id=directory.cluster_id,
            directory_id=directory.directory_id,
            address=self.advertised_address,
        )
        links.set_identity(identity)
        return None

    def _make_forwarder(self) -> Forwarder:
        return Forwarder(self._config.peer_tls(), message_bytes_max=2 * self._config.message_bytes_max)

    def _make_log(self, directory: DataDirectory, storage: RaftStorage, links: Links) -> DistributedLog:
        config = self._config
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

    def _note_started(self, directory: DataDirectory, *, is_member: bool) -> None:
        config = self._config
        state = {"start": self.log.start, "end": self.log.end} if is_member else {}
        log.info(
            "server started", node=config.node_name, rpc=self.rpc_address, health_port=self.health_port,
            admin_port=self.admin_port, data_dir=str(config.data_dir), cluster=directory.cluster_id or None, **state,
        )  # fmt: skip

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────

    def _watch(self, commit_log: DistributedLog) -> None:
        segments = commit_log.replica.log.segments
        self.metrics.watch_log(
            LogFigures(
                start=lambda: commit_log.start,
                end=lambda: commit_log.end,
                size_bytes=lambda: sum(segment.bytes for segment in segments()),
                segments=lambda: len(segments()),
            )
        )

    async def _look_after(self, commit_log: DistributedLog) -> None:
        """Tell the health check whether there is a leader, and whether this server takes part."""
        readiness = Readiness(self.health)
        replica = commit_log.replica
        while True:
            failure = "" if replica.failure is None else str(replica.failure)
            readiness.look(failure=failure, leader_id=replica.leader or "", now=time.monotonic())
            await replica.wait_for_change(LOOK_INTERVAL_S)

    async def _remember_members(self, directory: DataDirectory, replica: Replica) -> None:
        """Keep the members' addresses where the next start finds them without a log."""
        while True:
            known = replica.applier.views.members.known
            addresses = {node: member.address for node, member in known.items() if node != replica.id}
            if addresses:
                try:
                    await asyncio.to_thread(directory.remember_members, addresses)
                except OSError as error:
                    log.warning("members' addresses not kept", reason=str(error))
            await replica.wait_for_change(REMEMBER_INTERVAL_S)

    def _note_failed(self) -> None:
        """The node takes part no more. It goes on serving what is committed, unless its log is not to be trusted."""
        if self.log.replica.has_lost_entries:
            self._end(EXIT_REPLACED)

    def _end(self, code: int) -> None:
        assert self.failed is not None
        if not self.failed.done():
            self.failed.set_result(code)

    async def _close_directory(self, directory: DataDirectory) -> None:
        if self._log is not None and self._log.replica.has_lost_entries:
            await _set_aside(directory, str(self._log.replica.failure))
        await asyncio.to_thread(directory.close)

    # ── stopping ────────────────────────────────────────────────────────────────────────────────────

    async def _stop_serving(self, front: Front, commit_log: DistributedLog) -> None:
        """Hand leadership over, take no more calls, let those that append finish, and end those that wait for records."""
        await commit_log.hand_over(HAND_OVER_S_MAX)
        stopping = asyncio.create_task(front.stop())
        await commit_log.close()  # calls that still need the log get UNAVAILABLE
        await stopping

    async def stop(self) -> None:
        """Stop serving and close everything. Returns when all that was acknowledged is on disk."""
        self.health.set_serving(False, "stopping")
        log.info("server stopping")
        await self._parts.aclose()
        log.info("server stopped")


async def _set_aside(directory: DataDirectory, reason: str) -> None:
    folder = await asyncio.to_thread(directory.set_aside, reason)
    log.error(
        "this server cannot vote with what it has; it begins anew as a learner",
        reason=reason,
        set_aside=folder,
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _version() -> str:
    try:
        return version("raftlog")
    except PackageNotFoundError:
        return "unknown"
