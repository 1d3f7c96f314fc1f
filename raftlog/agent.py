"""One server: sets up its parts in order, runs until it is asked to stop, and takes them down in reverse."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol, Self

from logstore.reading import SegmentSummary
from raftlog.config import ServerConfig
from raftlog.discovery.source import Source
from raftlog.engine import NodeId
from raftlog.errors import RaftlogError
from raftlog.finding import gossip_counts, gossip_keys, program_version
from raftlog.front import Front, ServedLog, Surroundings
from raftlog.net.addresses import host_and_port, is_wildcard
from raftlog.net.listener import Listener, ListenerLimits
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj_engine import PySyncObjEngine
from raftlog.raft_engine import RaftEngine
from raftlog.runtime.logging import get_logger
from raftlog.runtime.metrics import LogFigures, Metrics
from raftlog.server.admin import AdminServer, make_app
from raftlog.server.cluster_service import ClusterStatus
from raftlog.server.forwarding import Forwarder
from raftlog.server.health import Health, start_health_server
from raftlog.server.membership_service import Autopilot
from raftlog.server.readiness import Readiness

log = get_logger(__name__)

LOOK_INTERVAL_S: Final = 0.5  # how soon the health check tells of a failure, or of a leader
HAND_OVER_S_MAX: Final = 2.0  # for a leader that stops; then the others find out by themselves

EXIT_REPLACED: Final = 3  # what it had was set aside: started again, it comes back as a learner


class EngineLog(ServedLog, Protocol):
    """What the services need of a log, and its end."""

    async def hand_over(self, timeout_s: float) -> None:
        """If this server leads others, have one of them lead; not for longer than this."""
        ...

    async def close(self) -> None:
        """Take part no more, and close the files. Twice is no error."""
        ...


class Engine(Protocol):
    """What replicates the log of this server. Used once: `prepare`, `start`, if that gives no log `join`, then `work`.

    What follows the methods that start it may be asked once there is a log.
    """

    @property
    def cluster_id(self) -> str:
        """Empty while this server is of no cluster; known once it is prepared."""
        ...

    async def prepare(self, address: str) -> None:
        """Open the data, which are none yet, or begin a cluster if the settings say so. Others reach us at `address`.

        IdentityError if they are another server's, ConfigError if the settings ask for what cannot be.
        """
        ...

    async def start(self, stream_layer: StreamLayer) -> EngineLog | None:
        """The log, if this server is a member of a cluster; None if it has to be let into one first."""
        ...

    async def join(self) -> EngineLog:
        """Ask, or wait, until this server is let into a cluster, and return the log; for as long as that takes."""
        ...

    def work(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to go on beside, from when the log is served until that ends."""
        ...

    async def begin_to_lead(self) -> None:
        """If nobody else has to be asked, return when this server leads, or soon."""
        ...

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when one of the next three may have changed, at the latest after the timeout."""
        ...

    @property
    def leader(self) -> NodeId | None: ...
    @property
    def failure(self) -> Exception | None:
        """Why this server takes part no more; what is committed can still be read."""
        ...

    @property
    def is_to_begin_anew(self) -> bool:
        """Its data are not to be trusted: `close` sets them aside, and the next start is that of a learner."""
        ...

    @property
    def removed(self) -> str:
        """Why this server is no member any more, though it was; "" as long as that is not so."""
        ...

    @property
    def source(self) -> Source | None:
        """Where it looks for others; None: it does not."""
        ...

    @property
    def autopilot(self) -> Autopilot | None:
        """What looks after the members; None: nobody does."""
        ...

    async def depart(self) -> None:
        """Tell the others that this server is gone for good, because it is removed."""
        ...

    async def leave(self) -> None:
        """Be a member no more, and tell the others. What cannot be done is said in the log."""
        ...

    def segments(self) -> Sequence[SegmentSummary]: ...

    async def close(self) -> None:
        """End whatever was started, and close the data."""
        ...


def make_engine(config: ServerConfig) -> Engine:
    return PySyncObjEngine(config) if config.engine == "pysyncobj" else RaftEngine(config)


class Agent:
    """A server that runs. `async with` starts and stops it.

    A new one that begins no cluster and knows none waits, listening, until it is joined to one; only then it serves.
    """

    def __init__(self, config: ServerConfig, engine: Engine | None = None) -> None:
        """`engine` replicates the log; None: the one that the settings name."""
        self._config = config
        self._engine = engine or make_engine(config)
        self._parts = AsyncExitStack()
        self._listener: Listener | None = None
        self._log: EngineLog | None = None
        self._is_leaving = False  # for good: it does not say that it serves any more
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
    def log(self) -> EngineLog:
        """Once it is a member of a cluster."""
        assert self._log is not None, "it is not a member of a cluster yet"
        return self._log

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
        self.metrics.name_server(version=program_version(), node=config.node_name)
        self.metrics.serving.set_function(lambda: self.health.is_serving)
        await self._start_side_doors()

        listener = self._listener = Listener(
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
        engine = self._engine
        parts.push_async_callback(engine.close)
        await engine.prepare(self.advertised_address)
        server_tls = config.server_tls()
        stream_layer = StreamLayer(
            listener, server_tls, config.peer_tls() or server_tls, peer_names=config.peer_names
        )
        parts.push_async_callback(stream_layer.close)
        commit_log = await engine.start(stream_layer)
        if commit_log is not None:
            await self._serve(listener, commit_log)
        else:
            self.health.set_serving(False, "waiting to be joined to a cluster", is_planned=True)
            self._note_started()
            self._joining = asyncio.create_task(self._join(listener))
            parts.push_async_callback(_cancel, self._joining)

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

    def _make_forwarder(self) -> Forwarder:
        return Forwarder(self._config.peer_tls(), message_bytes_max=2 * self._config.message_bytes_max)

    async def _join(self, listener: Listener) -> None:
        """Become a member of a cluster, by asking or by being called, and serve."""
        try:
            await self._serve(listener, await self._engine.join())
        except (RaftlogError, OSError) as error:
            log.error("cannot become a member", reason=str(error))
            self._end(1)

    async def _serve(self, listener: Listener, commit_log: EngineLog) -> None:
        config, parts, engine = self._config, self._parts, self._engine
        self._log = commit_log
        self._watch(commit_log)

        forwarder = self._make_forwarder()
        parts.push_async_callback(forwarder.close)
        surroundings = Surroundings(
            engine.source, engine.autopilot, gossip_keys(engine.source), engine.depart
        )
        front = Front(
            config, commit_log, forwarder, surroundings=surroundings, metrics=self.metrics, health=self.health
        )
        await front.start(listener.grpc_target)
        parts.push_async_callback(self._stop_serving, front, commit_log)

        for work in (self._look_after(), *engine.work()):
            parts.push_async_callback(_cancel, asyncio.create_task(work))
        await engine.begin_to_lead()
        self._note_started()

    def _note_started(self) -> None:
        config, commit_log = self._config, self._log
        state = {} if commit_log is None else {"start": commit_log.start, "end": commit_log.end}
        log.info(
            "server started", node=config.node_name, rpc=self.rpc_address, health_port=self.health_port,
            admin_port=self.admin_port, data_dir=str(config.data_dir), cluster=self._engine.cluster_id or None, **state,
        )  # fmt: skip

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────

    def _watch(self, commit_log: EngineLog) -> None:
        segments = self._engine.segments
        self.metrics.watch_log(
            LogFigures(
                start=lambda: commit_log.start,
                end=lambda: commit_log.end,
                size_bytes=lambda: sum(segment.bytes for segment in segments()),
                segments=lambda: len(segments()),
            )
        )

    async def _look_after(self) -> None:
        """Tell the health check whether there is a leader, and whether this server takes part.

        One that does not goes on serving what is committed, unless its log is not to be trusted.
        """
        engine, readiness = self._engine, Readiness(self.health)
        while True:
            failure = engine.removed if engine.failure is None else str(engine.failure)
            if not self._is_leaving:
                readiness.look(failure=failure, leader_id=engine.leader or "", now=time.monotonic())
            self._count(self.log.status())
            if engine.is_to_begin_anew:
                self._end(EXIT_REPLACED)
            await engine.wait_for_change(LOOK_INTERVAL_S)

    def _count(self, status: ClusterStatus) -> None:
        metrics = self.metrics
        metrics.raft_term.set(status.term)
        metrics.raft_leads.set(status.role == "leader")
        metrics.raft_has_leader.set(bool(status.leader_id))
        metrics.raft_last_index.set(status.last_index)
        metrics.raft_commit_index.set(status.commit_index)
        metrics.raft_applied_index.set(status.applied_index)
        for figure, count in gossip_counts(self._engine.source).items():
            metrics.gossip.labels(figure).set(count)

    def _end(self, code: int) -> None:
        assert self.failed is not None
        if not self.failed.done():
            self.failed.set_result(code)

    # ── stopping ────────────────────────────────────────────────────────────────────────────────────

    async def _stop_serving(self, front: Front, commit_log: EngineLog) -> None:
        """Hand leadership over, take no more calls, let those that append finish, and end those that wait for records."""
        await commit_log.hand_over(HAND_OVER_S_MAX)
        stopping = asyncio.create_task(front.stop())
        await commit_log.close()  # calls that still need the log get UNAVAILABLE
        await stopping

    async def leave(self) -> None:
        """Leave the cluster for good; `stop` comes next. What cannot be done is said in the log."""
        self._is_leaving = True
        self.health.set_serving(False, "leaving the cluster", is_planned=True)
        if self._joining is not None and self._log is None:
            await _cancel(self._joining)  # it might begin a cluster, or become a member, meanwhile
        await self._engine.leave()

    async def stop(self) -> None:
        """Stop serving and close everything. Returns when all that was acknowledged is on disk."""
        self.health.set_serving(False, "stopping", is_planned=True)
        log.info("server stopping")
        await self._parts.aclose()
        log.info("server stopped")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
