"""One server: sets up its parts in order, runs until it is asked to stop, and takes them down in reverse."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple, Self

import grpc

from logstore import Config, Log, LogError
from raftlog.config import ServerConfig
from raftlog.errors import ListenError, UnexpectedOffset
from raftlog.net.addresses import host_and_port, is_loopback, is_wildcard, why_not_listen
from raftlog.net.tls import TlsIdentity, server_credentials
from raftlog.runtime.logging import configure_logging, get_logger
from raftlog.runtime.metrics import LogFigures, Metrics
from raftlog.server import acl
from raftlog.server.admin import AdminServer, make_app
from raftlog.server.authorizer import AllowAll, Authorizer
from raftlog.server.forwarding import Forwarder
from raftlog.server.grpc_binding import GrpcBinding
from raftlog.server.health import Health, add_reflection, start_health_server
from raftlog.server.service import LogService

log = get_logger(__name__)

CHECK_INTERVAL_S: Final = 1.0  # how soon a log that refuses writes is told by the health check
RETENTION_INTERVAL_S: Final = (
    60.0  # for logs to which nothing is appended; others are looked at at every new segment
)
PING_INTERVAL_MS_MIN: Final = 10_000  # of clients that want to know whether the server is there
KEEPALIVE_MS: Final = 60_000  # a client that has vanished is noticed after this
HANDSHAKE_MS_MAX: Final = 10_000  # for TLS; a connection that says nothing takes the place of another so long


class LocalLog(Log):
    """The log of a server that is alone: it leads itself."""

    def __init__(self, path: str, config: Config, node_name: str) -> None:
        super().__init__(path, config)
        self._node_name = node_name
        self.address = ""  # where clients find this server

    def require_leader(self) -> None:
        """It does."""

    def begin_append(
        self, batch: Any, *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]:
        if expected_offset not in (None, self.end):
            raise UnexpectedOffset(expected_offset, self.end)
        return super().begin_append(batch)

    async def read_index(self, timeout_s: float) -> int:
        """It has what it acknowledged."""
        return self.end

    def get_servers(self) -> list[Server]:
        return [Server(self._node_name, self.address)]


class Server(NamedTuple):
    """A server, as clients are told of it."""

    id: str
    address: str
    is_leader: bool = True
    is_voter: bool = True


class Agent:
    """A server that runs. `async with` starts and stops it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._parts = AsyncExitStack()
        self.health = Health()
        self.metrics = Metrics()
        self.rpc_port = 0  # those in use; 0: closed
        self.health_port = 0
        self.admin_port = 0

    @property
    def rpc_address(self) -> str:
        return host_and_port(self._config.rpc_host, self.rpc_port)

    @property
    def advertised_address(self) -> str:
        """Where clients are told to find this server."""
        config = self._config
        if config.rpc_advertise_addr is not None:
            return config.rpc_advertise_addr
        host = config.rpc_host
        return host_and_port(socket.gethostname() if is_wildcard(host) else host, self.rpc_port)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._parts.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        config, parts = self._config, self._parts
        self.metrics.name_server(version=_version(), node=config.node_name)
        self.metrics.serving.set_function(lambda: self.health.is_serving)
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

        commit_log = await asyncio.to_thread(
            LocalLog, f"{config.data_dir}/log", config.log_config(), config.node_name
        )
        parts.push_async_callback(asyncio.to_thread, commit_log.close)
        self._watch(commit_log)
        forwarder = Forwarder(config.peer_tls(), message_bytes_max=config.message_bytes_max)
        parts.push_async_callback(forwarder.close)
        service = LogService(
            commit_log,
            self._access(),
            forwarder,
            queue_bytes_max=config.queue_bytes_max,
            unsent_bytes_max=config.unsent_bytes_max,
        )
        server = self._make_server(service)
        commit_log.address = self.advertised_address
        await server.start()
        parts.push_async_callback(self._stop_server, server, service, commit_log)

        looking = asyncio.create_task(self._look_after(commit_log))
        parts.push_async_callback(_cancel, looking)
        self.health.set_serving(True)
        log.info(
            "server started", node=config.node_name, rpc=self.rpc_address, health_port=self.health_port,
            admin_port=self.admin_port, data_dir=str(config.data_dir), sync=config.sync, start=commit_log.start,
            end=commit_log.end,
        )  # fmt: skip

    def _access(self) -> AllowAll | Authorizer:
        config = self._config
        if not config.insecure:
            model, policy = config.acl_model_file or acl.MODEL_FILE, config.acl_policy_file or acl.POLICY_FILE
            return Authorizer(str(model), str(policy))
        if is_loopback(config.rpc_host):
            log.warning("insecure: no TLS, everybody on this machine may do everything", host=config.rpc_host)
        else:
            log.warning(
                "insecure: no TLS, and everybody who can reach this machine may read and write the log",
                host=config.rpc_host,
            )
        return AllowAll()

    def _make_server(self, service: LogService) -> grpc.aio.Server:
        config = self._config
        server = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=config.calls_max)
        binding = GrpcBinding(self.metrics, peer_names=frozenset())
        server.add_generic_rpc_handlers((binding.log_service(service),))
        self.health.add_to(server)
        add_reflection(server)
        address = host_and_port(config.rpc_host, config.rpc_port)
        files = config.server_tls()
        try:
            if files is None:
                self.rpc_port = server.add_insecure_port(address)
            else:
                credentials = server_credentials(files, on_loaded=self._note_certificate)
                self.rpc_port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            reason = why_not_listen(config.rpc_host, config.rpc_port) or str(error)
            raise ListenError("rpc-port", address, reason) from error
        return server

    def _options(self) -> list[tuple[str, Any]]:
        config = self._config
        return [
            ("grpc.so_reuseport", 0),  # else a second server on the port would be no error
            ("grpc.max_receive_message_length", config.message_bytes_max),
            ("grpc.max_send_message_length", 2 * config.message_bytes_max),  # frames and what is around them
            ("grpc.max_concurrent_streams", config.calls_per_connection_max),
            ("grpc.max_allowed_incoming_connections", config.connections_max),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        ]

    def _note_certificate(self, identity: TlsIdentity) -> None:
        self.metrics.certificate_ends.set(identity.ends.timestamp())

    def _watch(self, commit_log: Log) -> None:
        self.metrics.watch_log(
            LogFigures(
                start=lambda: commit_log.start,
                end=lambda: commit_log.end,
                size_bytes=lambda: sum(segment.bytes for segment in commit_log.segments()),
                segments=lambda: len(commit_log.segments()),
            )
        )

    async def _look_after(self, commit_log: Log) -> None:
        """Tell the health check when the log refuses writes, and let an idle log forget what is too old."""
        seconds = 0.0
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            if commit_log.failure is not None:
                self.health.set_serving(False, str(commit_log.failure))
                return
            seconds += CHECK_INTERVAL_S
            if seconds >= RETENTION_INTERVAL_S:
                seconds = 0.0
                try:
                    await asyncio.to_thread(commit_log.apply_retention)
                except (LogError, OSError) as error:
                    log.warning("retention failed", error=str(error))

    async def _stop_server(self, server: grpc.aio.Server, service: LogService, commit_log: Log) -> None:
        """Take no more calls, let those that append finish, and end those that wait for records."""
        stopping = asyncio.create_task(server.stop(self._config.stop_grace_ms / 1000))
        service.stop()
        await asyncio.to_thread(
            commit_log.close
        )  # stores what is queued; calls that still need the log get UNAVAILABLE
        await stopping

    async def stop(self) -> None:
        """Stop serving and close everything. Returns when all records taken are on disk."""
        self.health.set_serving(False, "stopping")
        log.info("server stopping")
        await self._parts.aclose()
        log.info("server stopped")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _version() -> str:
    try:
        return version("raftlog")
    except PackageNotFoundError:
        return "unknown"


def run(config: ServerConfig) -> int:
    """Run a server until SIGTERM or SIGINT, and return the exit code. A second signal ends it at once."""
    if not __debug__:
        raise RuntimeError("python -O takes the assertions out that guard the log; run without it")
    configure_logging(level=config.log_level, format=config.log_format)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(config))
    else:
        uvloop.run(_serve(config))
    return 0


async def _serve(config: ServerConfig) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, loop, asked)
    async with Agent(config):
        gc.collect()
        gc.freeze()  # what is here now stays; collections need not look at it again
        await asked.wait()


def _ask_to_stop(loop: asyncio.AbstractEventLoop, asked: asyncio.Event) -> None:
    asked.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
