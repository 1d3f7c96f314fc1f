"""The gRPC side of a server: its services, who may use them, and the socket behind the one port."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import grpc

from raftlog.config import ServerConfig
from raftlog.errors import ListenError
from raftlog.net.addresses import is_loopback
from raftlog.net.tls import TlsIdentity, server_credentials
from raftlog.runtime.logging import get_logger
from raftlog.runtime.metrics import Metrics
from raftlog.server import acl
from raftlog.server.authorizer import AllowAll, Authorizer
from raftlog.server.cluster_service import ClusterLog, ClusterService
from raftlog.server.forwarding import Forwarder
from raftlog.server.gossip_keys import GossipKeys, GossipKeysService
from raftlog.server.grpc_binding import GrpcBinding
from raftlog.server.health import Health, add_reflection
from raftlog.server.membership_service import Autopilot, Depart, MembershipLog, MembershipService, Source
from raftlog.server.service import LogService

log = get_logger(__name__)

PING_INTERVAL_MS_MIN: Final = 10_000  # of clients that want to know whether the server is there
KEEPALIVE_MS: Final = 60_000  # a client that has vanished is noticed after this
HANDSHAKE_MS_MAX: Final = 10_000  # for TLS; a connection that says nothing takes the place of another so long


class ServedLog(ClusterLog, MembershipLog, Protocol):
    """What all services together need of a log."""


class Surroundings(NamedTuple):
    """What a server knows of others beside its log, for who asks it. None: it has no such thing."""

    source: Source | None
    autopilot: Autopilot | None
    gossip_keys: GossipKeys | None
    depart: Depart


class Front:
    """Serves a log until it is stopped."""

    def __init__(
        self,
        config: ServerConfig,
        commit_log: ServedLog,
        forwarder: Forwarder,
        *,
        surroundings: Surroundings,
        metrics: Metrics,
        health: Health,
    ) -> None:
        """Raises PolicyError if the access policy cannot be used."""
        self._config = config
        self._metrics = metrics
        access = _access(config)
        self._service = LogService(
            commit_log,
            access,
            forwarder,
            queue_bytes_max=config.queue_bytes_max,
            unsent_bytes_max=config.unsent_bytes_max,
        )
        binding = GrpcBinding(metrics, peer_names=frozenset(config.peer_names))
        self._server = grpc.aio.server(options=_options(config), maximum_concurrent_rpcs=config.calls_max)
        self._server.add_generic_rpc_handlers(
            (
                binding.log_service(self._service),
                binding.cluster_service(ClusterService(commit_log, access, forwarder)),
                binding.membership_service(
                    MembershipService(
                        commit_log,
                        access,
                        forwarder,
                        source=surroundings.source,
                        autopilot=surroundings.autopilot,
                        depart=surroundings.depart,
                    ),
                    GossipKeysService(access, gossip=surroundings.gossip_keys),
                ),
            )
        )
        health.add_to(self._server)
        add_reflection(self._server)

    async def start(self, target: str) -> None:
        """Listen on `target`, a Unix socket that the one port passes connections on to. TlsError, ListenError."""
        files = self._config.server_tls()
        try:
            if files is None:
                self._server.add_insecure_port(target)
            else:
                self._server.add_secure_port(
                    target, server_credentials(files, on_loaded=self._note_certificate)
                )
        except RuntimeError as error:
            raise ListenError("rpc-port", target, str(error)) from error
        await self._server.start()

    async def stop(self) -> None:
        """Take no more calls; those that go on have `stop_grace_ms`, produce streams end once what they took is stored."""
        stopping = self._server.stop(self._config.stop_grace_ms / 1000)
        self._service.stop()
        await stopping

    def _note_certificate(self, identity: TlsIdentity) -> None:
        self._metrics.certificate_ends.set(identity.ends.timestamp())


def _access(config: ServerConfig) -> AllowAll | Authorizer:
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


def _options(config: ServerConfig) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", config.message_bytes_max),
        ("grpc.max_send_message_length", 2 * config.message_bytes_max),  # frames and what is around them
        ("grpc.max_concurrent_streams", config.calls_per_connection_max),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
    ]
