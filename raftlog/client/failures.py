"""What a failed call means, as exceptions: the engine's where it has one, so that code runs against both."""

from __future__ import annotations

from typing import Any, Final

import grpc

from logstore.errors import OffsetOutOfRange
from raftlog.errors import RaftlogError
from raftlog.net.stream_ending import LOST_WHILE_SENDING
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail

ACCESS_CODES: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
TOO_LARGE: Final = (
    "message larger than max"  # in gRPC's texts, where a limit refuses what was sent or received
)
NOT_CONNECTED: Final = ("failed to connect to all addresses", "errors resolving")  # how gRPC's texts begin


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

    def of_what_was_sent_behind(self) -> CallFailed:
        """The failure of a produce sent behind the one that failed with this: it may have been stored."""
        is_known = self.code in ACCESS_CODES or self.text.startswith(NOT_CONNECTED)
        if is_known or self.is_unknown:
            return self
        return CallFailed(
            self.code, f"sent behind what failed with: {self.text}", retry_after_ms=self.retry_after_ms,
            is_unknown=True,
        )  # fmt: skip


def failure(error: grpc.aio.AioRpcError, *, is_produce: bool = False) -> Exception:
    """The exception to raise for a failed call."""
    pairs: Any = error.trailing_metadata() or ()
    metadata: dict[str, str | bytes] = dict(pairs)
    code = error.code()
    if code is grpc.StatusCode.OUT_OF_RANGE:
        details = metadata.get(STATUS_DETAILS_KEY, b"")
        found = find_detail(details, pb.OffsetRange) if isinstance(details, bytes) else None
        if found is not None:
            return OffsetOutOfRange(found.offset, found.start, found.end)
    text = error.details() or "no reason given"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in text:
        code = grpc.StatusCode.INVALID_ARGUMENT  # no overload: a retry fails again
    if text == LOST_WHILE_SENDING:
        code, text = grpc.StatusCode.UNAVAILABLE, "the connection was lost while sending"
    if text.startswith(NOT_CONNECTED):
        return CallFailed(code, text)  # nothing was sent
    pushback = str(metadata.get(RETRY_PUSHBACK_KEY, ""))
    is_refused = code in (
        *ACCESS_CODES, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    )  # fmt: skip
    return CallFailed(
        code, text, retry_after_ms=int(pushback) if pushback.isdigit() else None,
        is_unknown=is_produce and not is_refused,
    )  # fmt: skip
