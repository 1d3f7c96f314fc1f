from __future__ import annotations

from google.protobuf.any_pb2 import Any

from raftlog.pb.log.v1.log_pb2 import ErrorStatus, OffsetRange
from raftlog.wire.status_details import find_detail, pack_status

RANGE = OffsetRange(offset=9, start=2, end=5)


def test_a_packed_detail_is_found() -> None:
    assert find_detail(pack_status(11, "offset 9 is outside", RANGE), OffsetRange) == RANGE


def test_the_first_of_several_details_of_a_kind_is_found() -> None:
    packed = pack_status(11, "text", ErrorStatus(code=1), RANGE, OffsetRange(offset=1))

    assert find_detail(packed, OffsetRange) == RANGE


def test_a_status_without_the_detail_gives_none() -> None:
    assert find_detail(pack_status(11, "text"), OffsetRange) is None
    assert find_detail(pack_status(11, "text", ErrorStatus()), OffsetRange) is None


def test_bytes_that_are_no_status_give_none() -> None:
    assert find_detail(b"\xff\xff\xff", OffsetRange) is None


def test_a_detail_with_damaged_bytes_gives_none() -> None:
    damaged = Any(type_url="type.googleapis.com/log.v1.OffsetRange", value=b"\xff\xff\xff")

    assert find_detail(ErrorStatus(details=[damaged]).SerializeToString(), OffsetRange) is None


def test_the_bytes_are_those_of_a_google_rpc_status() -> None:
    detail = b"\x0a\x26type.googleapis.com/log.v1.OffsetRange" + b"\x12\x06\x08\x09\x10\x02\x18\x05"

    assert pack_status(11, "no", RANGE) == b"\x08\x0b" + b"\x12\x02no" + b"\x1a\x30" + detail
