"""How a gRPC stream ended, also where a write met its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import grpc

LOST_WHILE_SENDING: Final = "Internal error from Core"  # gRPC's text where a write meets a call that ended
STATUS_S_MAX: Final = 1.0  # the server's own status is about to come; without it the connection is lost

T = TypeVar("T")


class StreamEnding:
    """The status with which a server ended a stream.

    Where a write meets a stream that has ended, gRPC puts LOST_WHILE_SENDING in the place of the server's status,
    before or after that has come. So it is read in the moment in which it comes.
    """

    def __init__(self, stream: Any) -> None:
        self._told: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        stream.add_done_callback(self._look)

    def _look(self, stream: Any) -> None:
        details, code = _now(stream.details()), _now(stream.code())
        if details == LOST_WHILE_SENDING or code is grpc.StatusCode.OK or self._told.done():
            return
        metadata = _now(stream.trailing_metadata())
        self._told.set_result(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details=details, debug_error_string="")
        )

    async def truth(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """What the server said, where gRPC raised `error`."""
        if error.details() == LOST_WHILE_SENDING:
            await asyncio.wait((self._told,), timeout=STATUS_S_MAX)
        return self._told.result() if self._told.done() else error


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for, as all that ask a call which has ended."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError(f"{coroutine} waits")
