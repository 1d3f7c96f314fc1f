"""Channels to servers, and the methods of their services on them."""

from __future__ import annotations

from typing import Any, Final

import grpc

from raftlog.net.tls import TlsFiles, channel_credentials
from raftlog.pb.log.v1.log_pb2_grpc import LogStub
from raftlog.pb.raftlog.v1.cluster_pb2_grpc import ClusterStub

MESSAGE_BYTES_MAX: Final = 128 * 1024 * 1024  # a server's largest batch must fit
KEEPALIVE_MS: Final = 20_000  # a peer that has vanished is noticed after this and KEEPALIVE_TIMEOUT_MS
KEEPALIVE_TIMEOUT_MS: Final = 10_000
RECONNECT_MS_MIN: Final = 100  # between attempts to connect; gRPC's own 1 s and 120 s outlast a restart
RECONNECT_MS_MAX: Final = 1_000

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS_MIN),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, so that limits count what they should
)


def open_channel(address: str, tls: TlsFiles | None) -> grpc.aio.Channel:
    """A channel to host:port, connected when it is first used. Without `tls` nothing is encrypted or verified."""
    return channel_with(address, None if tls is None else channel_credentials(tls))


def channel_with(
    address: str, credentials: grpc.ChannelCredentials | None, *, tls_name: str = ""
) -> grpc.aio.Channel:
    """`tls_name`: what the server's certificate must be for; "": the host of the address."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    named = (("grpc.ssl_target_name_override", tls_name),) if tls_name else ()
    return grpc.aio.secure_channel(address, credentials, options=(*OPTIONS, *named))


def stub_of(channel: grpc.aio.Channel) -> Any:
    """The log service's methods. grpc's types for them do not know asyncio."""
    return LogStub(channel)  # type: ignore[no-untyped-call,unused-ignore]


class Connection:
    """A server's services at one address."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, *, tls_name: str = ""
    ) -> None:
        self.address = address
        self.is_closed = False
        self._channel = channel_with(address, credentials, tls_name=tls_name)
        self.log = stub_of(self._channel)
        self.cluster: Any = ClusterStub(self._channel)  # type: ignore[no-untyped-call,unused-ignore]

    async def close(self) -> None:
        """End its calls, and disconnect."""
        self.is_closed = True
        await self._channel.close(None)
