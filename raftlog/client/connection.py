"""A channel to a server, and the methods of the log service on it."""

from __future__ import annotations

from typing import Any, Final

import grpc

from raftlog.net.tls import TlsFiles, channel_credentials
from raftlog.pb.log.v1.log_pb2_grpc import LogStub

MESSAGE_BYTES_MAX: Final = 128 * 1024 * 1024  # a server's largest batch must fit
KEEPALIVE_MS: Final = 20_000  # a peer that has vanished is noticed after this and KEEPALIVE_TIMEOUT_MS
KEEPALIVE_TIMEOUT_MS: Final = 10_000

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, so that limits count what they should
)


def open_channel(address: str, tls: TlsFiles | None) -> grpc.aio.Channel:
    """A channel to host:port, connected when it is first used. Without `tls` nothing is encrypted or verified."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=OPTIONS)


def stub_of(channel: grpc.aio.Channel) -> Any:
    """The service's methods. grpc's types for them do not know asyncio."""
    return LogStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
