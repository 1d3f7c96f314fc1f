"""What a failed call means, as exceptions: the engine's or raftlog's where they have one, else CallFailed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc

from logstore.errors import OffsetOutOfRange
from raftlog.errors import (
    AlreadyStored,
    NotLeader,
    ProduceRefused,
    RaftlogError,
    SequenceGap,
    StaleEpoch,
    UnexpectedOffset,
)
from raftlog.net.stream_ending import LOST_WHILE_SENDING
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail

ACCESS_CODES: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
TOO_LARGE: Final = "message larger than max"  # in gRPC's texts, where a limit refuses what was sent
NOT_CONNECTED: Final = ("failed to connect to all addresses", "errors resolving")  # how gRPC's texts begin
OBEYED_PUSHBACK_MS_MAX: Final = 1_000  # a server that asks for more (its disk is full) is left to a person

# Another attempt may do better, here or at another server.
TRANSIENT_CODES: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
# A produce that is answered so was not stored by that server.
REFUSAL_CODES: Final = (
    *ACCESS_CODES,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
)
REFUSALS: Final[dict[int, Callable[[int, int], ProduceRefused]]] = {
    pb.ProduceRefused.EXPECTED_OFFSET: UnexpectedOffset,
    pb.ProduceRefused.SEQUENCE_GAP: SequenceGap,
    pb.ProduceRefused.STALE_EPOCH: StaleEpoch,
    pb.ProduceRefused.ALREADY_STORED: AlreadyStored,
}


class CallFailed(RaftlogError):
    """A call ended with an error. `code` is gRPC's; `is_unknown` that a produce may have been stored all the same."""

    def __init__(
        self, code: grpc.StatusCode, text: str, *, retry_after_ms: int | None = None, is_unknown: bool = False
    ) -> None:
        unknown = "; whether it was stored is not known" if is_unknown else ""
        super().__init__(f"{code.name}: {text}{unknown}")
        self.code = code
        self.text = text
        self.retry_after_ms = retry_after_ms
        self.is_unknown = is_unknown

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may do better before somebody has acted."""
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return (self.retry_after_ms or 0) <= OBEYED_PUSHBACK_MS_MAX
        return self.code in TRANSIENT_CODES

    @property
    def is_of_size(self) -> bool:
        """Whether gRPC refused a message for its size, before any code of the server saw it."""
        return self.code is grpc.StatusCode.INVALID_ARGUMENT and TOO_LARGE in self.text

    def with_outcome(self, *, is_unknown: bool) -> CallFailed:
        """The same of another produce."""
        return CallFailed(self.code, self.text, retry_after_ms=self.retry_after_ms, is_unknown=is_unknown)


class NoServer(CallFailed):
    """Nobody is known who could be asked: names were not found. Another attempt may do better."""

    def __init__(self, text: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, f"no server was found: {text}")


def failure(error: grpc.aio.AioRpcError, *, is_produce: bool = False) -> RaftlogError | OffsetOutOfRange:
    """The exception to raise for a failed call."""
    pairs: Any = error.trailing_metadata() or ()
    metadata: dict[str, str | bytes] = dict(pairs)
    code = error.code()
    details = metadata.get(STATUS_DETAILS_KEY, b"")
    if isinstance(details, bytes) and (told := _told_by(code, details)) is not None:
        return told
    text = error.details() or "no reason given"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in text:
        code = grpc.StatusCode.INVALID_ARGUMENT  # no overload: a retry fails again
    if text == LOST_WHILE_SENDING:
        code, text = grpc.StatusCode.UNAVAILABLE, "the connection was lost while sending"
    if text.startswith(NOT_CONNECTED):
        return CallFailed(code, text)  # nothing was sent
    pushback = str(metadata.get(RETRY_PUSHBACK_KEY, ""))
    return CallFailed(
        code, text, retry_after_ms=int(pushback) if pushback.isdigit() else None,
        is_unknown=is_produce and code not in REFUSAL_CODES,
    )  # fmt: skip


def _told_by(code: grpc.StatusCode, details: bytes) -> RaftlogError | OffsetOutOfRange | None:
    """The error that a status's details describe, if they do."""
    if code is grpc.StatusCode.OUT_OF_RANGE and (found := find_detail(details, pb.OffsetRange)) is not None:
        return OffsetOutOfRange(found.offset, found.start, found.end)
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS):
        if (leader := find_detail(details, pb.NotLeader)) is not None:
            return NotLeader(leader.leader_id, leader.leader_addr)
        refused = find_detail(details, pb.ProduceRefused)
        if refused is not None and (kind := REFUSALS.get(refused.reason)) is not None:
            return kind(refused.expected, refused.actual)
    return None
