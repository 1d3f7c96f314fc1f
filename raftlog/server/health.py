"""Whether this server serves, told to load balancers and people: `grpc.health.v1`, and the reason for logs and /readyz.

The server's main port answers health checks to clients with a certificate. Probes have none, so a port of its own,
on loopback unless told otherwise, answers the same without TLS and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from raftlog.errors import ListenError
from raftlog.net.addresses import host_and_port, why_not_listen
from raftlog.pb.log.v1 import log_pb2
from raftlog.pb.raftlog.v1 import cluster_pb2
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

LOG_SERVICE: Final = log_pb2.DESCRIPTOR.services_by_name["Log"].full_name
CLUSTER_SERVICE: Final = cluster_pb2.DESCRIPTOR.services_by_name["Cluster"].full_name
HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES: Final = ("", LOG_SERVICE, CLUSTER_SERVICE)  # "" is the server as a whole

PROBES_MAX: Final = 100  # calls at once on the health port, watches included; beyond it RESOURCE_EXHAUSTED

SERVING: Final[int] = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final[int] = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final[int] = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Serving:
    """Whether the server serves, and why not."""

    is_serving: bool
    reason: str  # "" while it serves


class Health:
    """The truth about this server, as whoever sets it last knows it. May be set and read from any thread."""

    def __init__(self) -> None:
        self.state = Serving(False, "starting")  # replaced whole
        self._watchers: list[Watcher] = []  # of calls that go on; touched by their event loop only

    @property
    def is_serving(self) -> bool:
        return self.state.is_serving

    def set_serving(self, is_serving: bool, reason: str = "", *, is_planned: bool = False) -> None:
        """From now on checks say so, and watches are told. A reason is needed for not serving.

        `is_planned`: a start or an end, which nobody has to look after, so the log does not warn of it.
        """
        assert is_serving or reason
        state = Serving(is_serving, "" if is_serving else reason)
        if state == self.state:
            return
        self.state = state
        if is_serving:
            log.info("serving")
        else:
            tell = log.info if is_planned else log.warning
            tell("not serving", reason=reason)
        for watcher in tuple(self._watchers):
            watcher.wake()

    # ── the service ─────────────────────────────────────────────────────────────────────────────────

    def status_of(self, service: str) -> int | None:
        """What a check of the service gets; None if there is no such service."""
        if service not in SERVICES:
            return None
        return SERVING if self.is_serving else NOT_SERVING

    async def check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = self.status_of(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def watch(
        self, request: health_pb2.HealthCheckRequest, _: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and after each change, until the client has enough."""
        watcher = Watcher()
        self._watchers.append(watcher)
        try:
            told: int | None = None
            while True:
                watcher.changed.clear()  # before looking, so that no change is missed
                status = self.status_of(request.service) or SERVICE_UNKNOWN
                if status != told:
                    yield health_pb2.HealthCheckResponse(status=status)
                    told = status
                await watcher.changed.wait()
        finally:
            self._watchers.remove(watcher)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer health checks on this server; before it starts."""
        check = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        watch = grpc.unary_stream_rpc_method_handler(
            self.watch,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check, "Watch": watch})
        server.add_generic_rpc_handlers((handlers,))


class Watcher:
    """One call that waits for a change, on its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()

    def wake(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.changed.set)


def add_reflection(server: grpc.aio.Server) -> None:
    """Let tools such as grpcurl ask this server what it offers; before it starts."""
    names = (LOG_SERVICE, CLUSTER_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


# ── the port for probes ─────────────────────────────────────────────────────────────────────────────


class HealthServer:
    """A server without TLS that answers health checks and nothing else."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self) -> None:
        """End its calls and close its port."""
        await self._server.stop(None)


async def start_health_server(health: Health, *, host: str, port: int) -> HealthServer:
    """A health server that listens; port 0 is any that is free. ListenError if the port cannot be had."""
    options = [("grpc.so_reuseport", 0)]  # else a second server on the port would be no error
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=PROBES_MAX)
    health.add_to(server)
    address = host_and_port(host, port)
    try:
        bound_port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError("health-port", address, why_not_listen(host, port) or str(error)) from error
    await server.start()
    return HealthServer(server, bound_port)
