"""What a client is told of an error: status code, text, details and when to try again."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import grpc

import logstore
from raftlog import errors
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, pack_status

Code = grpc.StatusCode


class Status(NamedTuple):
    """How a call ends."""

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str | bytes], ...] = ()  # trailing


class RefusedByLeader(errors.RaftlogError):
    """The leader, to which a call was sent on, ended it with an error, which is the caller's."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = status


# The first class that an error is an instance of decides. What is not listed is a bug. The number: what a client is
# told to wait, in milliseconds, before it tries again.
STATUS_CODES: Final[tuple[tuple[type[Exception], grpc.StatusCode, int | None], ...]] = (
    (errors.Unauthenticated, Code.UNAUTHENTICATED, None),
    (errors.PermissionDenied, Code.PERMISSION_DENIED, None),
    (errors.Overloaded, Code.RESOURCE_EXHAUSTED, 100),
    (errors.NotLeader, Code.FAILED_PRECONDITION, None),
    (errors.AlreadyStored, Code.ALREADY_EXISTS, None),
    (errors.ProduceRefused, Code.FAILED_PRECONDITION, None),
    (errors.MembershipRefused, Code.FAILED_PRECONDITION, None),
    (errors.OutcomeUnknown, Code.UNAVAILABLE, 100),
    (errors.NotCaughtUp, Code.UNAVAILABLE, 100),
    (errors.NodeFailed, Code.UNAVAILABLE, 5_000),  # somebody has to restart the server
    (errors.ServerStopping, Code.UNAVAILABLE, 1_000),
    (errors.NotSupported, Code.UNIMPLEMENTED, None),
    (errors.InvalidRecord, Code.INVALID_ARGUMENT, None),
    (errors.InvalidRequest, Code.INVALID_ARGUMENT, None),
    (logstore.OffsetOutOfRange, Code.OUT_OF_RANGE, None),
    (logstore.RecordCompacted, Code.NOT_FOUND, None),
    (logstore.RecordTooLarge, Code.INVALID_ARGUMENT, None),
    (logstore.BatchTooLarge, Code.INVALID_ARGUMENT, None),
    (logstore.EmptyBatch, Code.INVALID_ARGUMENT, None),
    (logstore.CorruptBatch, Code.INVALID_ARGUMENT, None),
    (logstore.UnsupportedFormat, Code.INVALID_ARGUMENT, None),
    (logstore.QueueFull, Code.RESOURCE_EXHAUSTED, 100),
    (logstore.DiskFull, Code.RESOURCE_EXHAUSTED, 5_000),  # somebody has to make room
    (logstore.CorruptLog, Code.DATA_LOSS, None),
    (logstore.LogPoisoned, Code.UNAVAILABLE, 5_000),  # somebody has to restart the server
    (logstore.LogClosed, Code.UNAVAILABLE, 1_000),  # it is about to restart
)
NO_LEADER_PUSHBACK_MS: Final = 100  # where nobody can be named who leads: an election takes some of these

REASONS: Final[dict[type[errors.ProduceRefused], pb.ProduceRefused.Reason.ValueType]] = {
    errors.UnexpectedOffset: pb.ProduceRefused.EXPECTED_OFFSET,
    errors.SequenceGap: pb.ProduceRefused.SEQUENCE_GAP,
    errors.StaleEpoch: pb.ProduceRefused.STALE_EPOCH,
    errors.AlreadyStored: pb.ProduceRefused.ALREADY_STORED,
}


def status_of(error: Exception) -> Status | None:
    """How a call ends that failed with `error`; None if that is a bug, of which clients learn nothing."""
    if isinstance(error, RefusedByLeader):
        return error.status
    known = next((one for one in STATUS_CODES if isinstance(error, one[0])), None)
    if known is None:
        return None
    _, code, pushback_ms = known
    if isinstance(error, errors.NotLeader) and not error.leader_addr:
        code, pushback_ms = Code.UNAVAILABLE, NO_LEADER_PUSHBACK_MS
    metadata: list[tuple[str, str | bytes]] = []
    detail = _detail_of(error)
    if detail is not None:
        number: int = code.value[0]
        metadata.append((STATUS_DETAILS_KEY, pack_status(number, str(error), detail)))
    if pushback_ms is not None:
        metadata.append((RETRY_PUSHBACK_KEY, str(pushback_ms)))
    return Status(code, str(error), tuple(metadata))


def _detail_of(error: Exception) -> Any:
    """The message that clients can read without parsing text, or None."""
    match error:
        case logstore.OffsetOutOfRange():
            return pb.OffsetRange(offset=error.offset, start=error.start, end=error.end)
        case errors.NotLeader():
            return pb.NotLeader(leader_id=error.leader_id, leader_addr=error.leader_addr)
        case errors.ProduceRefused():
            reason = REASONS.get(type(error), pb.ProduceRefused.UNKNOWN)
            return pb.ProduceRefused(reason=reason, expected=error.expected, actual=error.actual)
        case _:
            return None
