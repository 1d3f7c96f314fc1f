"""What a client is told of each error."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

import logstore
from raftlog import errors
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.status import STATUS_CODES, RefusedByLeader, Status, status_of
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail

Code = grpc.StatusCode

CASES: list[tuple[Exception, grpc.StatusCode, str | None, Message | None]] = [
    (
        errors.NotLeader("two", "two:8400"),
        Code.FAILED_PRECONDITION,
        None,
        pb.NotLeader(leader_id="two", leader_addr="two:8400"),
    ),
    (errors.NotLeader(), Code.UNAVAILABLE, "100", pb.NotLeader()),
    (errors.NotLeader("two", ""), Code.UNAVAILABLE, "100", pb.NotLeader(leader_id="two")),
    (errors.NotSupported("not here"), Code.UNIMPLEMENTED, None, None),
    (
        errors.UnexpectedOffset(5, 7),
        Code.FAILED_PRECONDITION,
        None,
        pb.ProduceRefused(reason=pb.ProduceRefused.EXPECTED_OFFSET, expected=5, actual=7),
    ),
    (
        errors.SequenceGap(5, 3),
        Code.FAILED_PRECONDITION,
        None,
        pb.ProduceRefused(reason=pb.ProduceRefused.SEQUENCE_GAP, expected=5, actual=3),
    ),
    (
        errors.StaleEpoch(1, 2),
        Code.FAILED_PRECONDITION,
        None,
        pb.ProduceRefused(reason=pb.ProduceRefused.STALE_EPOCH, expected=1, actual=2),
    ),
    (
        errors.AlreadyStored(1, 9),
        Code.ALREADY_EXISTS,
        None,
        pb.ProduceRefused(reason=pb.ProduceRefused.ALREADY_STORED, expected=1, actual=9),
    ),
    (logstore.OffsetOutOfRange(7, 1, 3), Code.OUT_OF_RANGE, None, pb.OffsetRange(offset=7, start=1, end=3)),
    (errors.MembershipRefused("a change is pending"), Code.FAILED_PRECONDITION, None, None),
    (errors.OutcomeUnknown("deposed"), Code.UNAVAILABLE, "100", None),
    (errors.NotCaughtUp("behind"), Code.UNAVAILABLE, "100", None),
    (errors.NodeFailed("the disk failed"), Code.UNAVAILABLE, "5000", None),
    (errors.ServerStopping(), Code.UNAVAILABLE, "1000", None),
    (errors.Overloaded("full"), Code.RESOURCE_EXHAUSTED, "100", None),
    (logstore.QueueFull(5), Code.RESOURCE_EXHAUSTED, "100", None),
    (logstore.DiskFull("full"), Code.RESOURCE_EXHAUSTED, "5000", None),
    (errors.InvalidRequest("id: missing"), Code.INVALID_ARGUMENT, None, None),
    (errors.Unauthenticated(), Code.UNAUTHENTICATED, None, None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case[0]).__name__)
def test_an_error_has_a_status_its_text_its_details_and_when_to_try_again(
    case: tuple[Exception, grpc.StatusCode, str | None, Message | None],
) -> None:
    error, code, pushback, detail = case

    status = status_of(error)

    assert status is not None
    metadata = dict(status.metadata)
    assert (status.code, status.text, metadata.get(RETRY_PUSHBACK_KEY)) == (code, str(error), pushback)
    packed = metadata.get(STATUS_DETAILS_KEY)
    if detail is None:
        assert packed is None
    else:
        assert isinstance(packed, bytes)
        assert find_detail(packed, type(detail)) == detail
        whole = pb.ErrorStatus.FromString(packed)
        assert (whole.code, whole.message) == (code.value[0], str(error))


def test_who_is_told_to_come_back_is_told_when() -> None:
    later = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)

    assert [kind for kind, code, pushback in STATUS_CODES if (pushback is not None) != (code in later)] == []


def test_what_the_leader_said_is_passed_on() -> None:
    status = Status(Code.ABORTED, "its words", (("grpc-retry-pushback-ms", "7"),))

    assert status_of(RefusedByLeader(status)) is status


def test_an_error_that_nobody_listed_is_a_bug() -> None:
    assert status_of(KeyError("x")) is None
