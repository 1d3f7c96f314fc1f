"""Sends calls on to the leader, over gRPC with this server's own certificate, in the name of who called.

The caller's subject travels in the metadata: the leader believes it because the certificate is a server's, and asks its
own policy again. A call is sent on once only; where leadership moves meanwhile, the server that the caller asked follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, TypeVar

import grpc

from raftlog.errors import NotLeader, OutcomeUnknown, ServerStopping
from raftlog.net.stream_ending import LOST_WHILE_SENDING, StreamEnding
from raftlog.net.tls import IdentityReloader, TlsFiles, TlsIdentity
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.runtime.logging import get_logger
from raftlog.server.call import Call
from raftlog.server.status import RefusedByLeader, Status
from raftlog.wire.call_metadata import FORWARDED_KEY, SUBJECT_KEY, pack_subject
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail

log = get_logger(__name__)

LEADERS_MAX: Final = 3  # asked for one call, each named by the one before; then the caller may try again
CHANNELS_MAX: Final = 8  # leaders' addresses; the one that was used longest ago is forgotten
ANSWER_S_MAX: Final = 30.0  # for a call without a deadline of its own
CLOSE_GRACE_S: Final = 30.0  # for what is under way on a channel that is not used any more
KEEPALIVE_MS: Final = 20_000  # a leader that has vanished is noticed after this and KEEPALIVE_TIMEOUT_MS
KEEPALIVE_TIMEOUT_MS: Final = 10_000
# Between attempts to connect. gRPC's own pause grows to two minutes, in which a leader that is back is not asked.
RECONNECT_MS_MIN: Final = 100
RECONNECT_MS_MAX: Final = 1_000

Response = TypeVar("Response")


class Forwarder:
    """The leaders that this server has sent calls to. Belongs to one event loop."""

    def __init__(self, tls: TlsFiles | None, *, message_bytes_max: int) -> None:
        """`tls` is what this server proves to others, None where nothing is encrypted. Raises TlsError."""
        self._identity = None if tls is None else IdentityReloader(tls)
        self._message_bytes_max = message_bytes_max
        self._channels: dict[str, grpc.aio.Channel] = {}  # by address; the last used is last
        self._closing: set[asyncio.Task[None]] = set()  # of channels that are not used any more

    async def close(self) -> None:
        """End what is under way, and every connection."""
        channels, self._channels = list(self._channels.values()), {}
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel in channels:
            await channel.close(None)

    # ── calls ───────────────────────────────────────────────────────────────────────────────────────

    async def ask(
        self, refused: NotLeader, method: str, request: Any, response: type[Response], call: Call
    ) -> Response:
        """The leader's answer; see `raftlog.server.call.Leader`."""
        _may_forward(refused, call)
        loop = asyncio.get_running_loop()
        end = loop.time() + (ANSWER_S_MAX if call.timeout_s is None else call.timeout_s)
        for _ in range(LEADERS_MAX):
            ask = self._channel(refused.leader_addr).unary_unary(
                method, request_serializer=_to_bytes, response_deserializer=_parser(response)
            )
            try:
                answer: Response = await ask(
                    request, timeout=max(end - loop.time(), 0.0), metadata=_metadata(call)
                )
                return answer
            except grpc.aio.AioRpcError as error:
                moved = _not_leader(error)
                if moved is None:
                    raise _failure(refused, error) from None
                refused = moved
                if not refused.leader_addr:
                    break
        raise refused

    async def relay(
        self,
        refused: NotLeader,
        method: str,
        requests: AsyncIterator[Any],
        response: type[Response],
        call: Call,
        *,
        readers: set[asyncio.Task[None]],
    ) -> AsyncGenerator[Response]:
        """The leader's answers, as they come; see `raftlog.server.call.Leader`."""
        _may_forward(refused, call)
        open_stream: Any = self._channel(refused.leader_addr).stream_stream(
            method, request_serializer=_to_bytes, response_deserializer=_parser(response)
        )
        stream = open_stream(timeout=call.timeout_s, metadata=_metadata(call))
        ending = StreamEnding(stream)
        reader = asyncio.create_task(_feed(requests, stream))
        readers.add(reader)
        reader.add_done_callback(readers.discard)
        try:
            async for answer in stream:
                yield answer
            await asyncio.wait((reader,))
            if reader.cancelled():
                raise ServerStopping
            reader.result()
        except grpc.aio.AioRpcError as error:
            raise _failure(refused, await ending.truth(error)) from None
        finally:
            reader.cancel()
            reader.add_done_callback(_look_at)
            stream.cancel()

    # ── channels ────────────────────────────────────────────────────────────────────────────────────

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._identity is not None and self._identity.reload_if_changed() is not None:
            for old in list(self._channels):  # their next connection would prove what has been replaced
                self._forget(old)
        channel = self._channels.pop(address, None) or self._open(address)
        self._channels[address] = channel
        if len(self._channels) > CHANNELS_MAX:
            self._forget(next(iter(self._channels)))
        return channel

    def _open(self, address: str) -> grpc.aio.Channel:
        options = (
            ("grpc.max_receive_message_length", self._message_bytes_max),
            ("grpc.max_send_message_length", self._message_bytes_max),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS_MIN),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
            ("grpc.use_local_subchannel_pool", 1),  # else a new channel would go on with the old certificate
        )
        if self._identity is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, _credentials(self._identity.identity), options=options)

    def _forget(self, address: str) -> None:
        closing = asyncio.create_task(self._channels.pop(address).close(CLOSE_GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _feed(requests: AsyncIterator[Any], stream: Any) -> None:
    try:
        async for request in requests:
            await stream.write(request)
    finally:
        if not stream.done():
            await stream.done_writing()


def _look_at(done: asyncio.Task[None]) -> None:
    """Of what nobody waits for, let no error be reported as overlooked."""
    if not done.cancelled():
        done.exception()


def _credentials(identity: TlsIdentity) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=identity.authorities,
        private_key=identity.private_key,
        certificate_chain=identity.certificate_chain,
    )


def _to_bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _parser(response: Any) -> Any:
    return response.FromString


# ── what is said to the leader, and what it says ────────────────────────────────────────────────────


def _may_forward(refused: NotLeader, call: Call) -> None:
    if not call.may_forward or not refused.leader_addr:
        raise refused


def _metadata(call: Call) -> tuple[tuple[str, str], ...]:
    forwarded = (FORWARDED_KEY, "1")
    return (forwarded,) if call.subject is None else (forwarded, (SUBJECT_KEY, pack_subject(call.subject)))


def _trailing(error: grpc.aio.AioRpcError) -> dict[str, str | bytes]:
    pairs: Any = error.trailing_metadata() or ()
    return dict(pairs)


def _not_leader(error: grpc.aio.AioRpcError) -> NotLeader | None:
    """Where leadership has gone, if that is why the call failed. Nothing was changed then."""
    details = _trailing(error).get(STATUS_DETAILS_KEY)
    found = find_detail(details, pb.NotLeader) if isinstance(details, bytes) else None
    return None if found is None else NotLeader(found.leader_id, found.leader_addr)


def _failure(leader: NotLeader, error: grpc.aio.AioRpcError) -> Exception:
    """What the caller is told: the leader's own words, unless it is this server's gRPC that speaks."""
    trailing, code, text = _trailing(error), error.code(), error.details() or "no reason given"
    is_ours = text == LOST_WHILE_SENDING or code in (
        grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN
    )  # fmt: skip
    if is_ours or (code is grpc.StatusCode.UNAVAILABLE and RETRY_PUSHBACK_KEY not in trailing):
        log.warning(
            "leader does not answer", leader=leader.leader_id, address=leader.leader_addr, reason=text
        )
        return OutcomeUnknown(
            f"the leader, {leader.leader_id} at {leader.leader_addr}, did not answer ({text}): whether it is done is"
            " not known"
        )
    kept = tuple((key, trailing[key]) for key in (STATUS_DETAILS_KEY, RETRY_PUSHBACK_KEY) if key in trailing)
    return RefusedByLeader(Status(code, text, kept))
