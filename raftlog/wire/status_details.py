"""The details of a failed call, as they travel in its trailing metadata. proto/log/v1/log.proto explains them."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from raftlog.pb.log.v1.log_pb2 import ErrorStatus

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"

M = TypeVar("M", bound=Message)


def pack_status(code: int, message: str, *details: Message) -> bytes:
    """The value for STATUS_DETAILS_KEY. `code` and `message` must be those of the call: clients compare them."""
    status = ErrorStatus(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def find_detail(status: bytes, kind: type[M]) -> M | None:
    """The first detail of this kind, or None if there is none or the bytes, which a stranger sent, are none."""
    try:
        packed = ErrorStatus.FromString(status).details
        return next(
            (_unpack(each, kind) for each in packed if each.TypeName() == kind.DESCRIPTOR.full_name), None
        )
    except DecodeError:
        return None


def _unpack(packed: Any, kind: type[M]) -> M:
    detail = kind()
    packed.Unpack(detail)
    return detail
