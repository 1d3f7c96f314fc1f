"""Calls with one answer, tried again at other servers until they succeed or the time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from raftlog.client.connection import Connection
from raftlog.client.failures import CallFailed, NoServer, failure
from raftlog.client.patience import Patience
from raftlog.client.servers import Servers, Target
from raftlog.errors import NotLeader

ATTEMPT_S_MAX: Final = 2.0  # for one server, where there are others: it may hang, or have no way to the rest

Where = Callable[[], Awaitable[Target]]


def require_not_cancelled() -> None:
    """Raise CancelledError if somebody cancels this task.

    gRPC raises it also where it was the connection that was closed, or the call that was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Caller:
    def __init__(self, servers: Servers, timeout_s: float, require_open: Callable[[], None]) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._require_open = require_open

    async def call(
        self,
        method: Callable[[Connection], Any],
        request: Any,
        where: Where,
        *,
        is_lagging: Callable[[Any], bool] = lambda _: False,
        is_long: bool = False,
        is_timed: bool = False,
    ) -> Any:
        """The answer, or the error of the last attempt. `method` must do no harm when it is carried out twice.

        `is_lagging` tells of an answer or an error that the server knew less than this client does: then the leader is
        asked. With `is_long` no attempt is cut short to ask another server. With `is_timed` the time that the answer took
        counts for the choice of servers.
        """
        patience = Patience(self._timeout_s)
        while True:
            self._require_open()
            try:
                target = await where()
            except NoServer:
                if not await patience.wait():
                    raise
                continue
            attempt_s = max(patience.left_s, 0.001)
            if self._servers.has_choice and not is_long:
                attempt_s = min(attempt_s, ATTEMPT_S_MAX)
            began_at = time.monotonic()
            try:
                answer = await method(target.connection)(request, timeout=attempt_s)
                failed: Exception | None = None
            except grpc.aio.AioRpcError as error:
                failed = failure(error)
                failed.__cause__ = error
            except asyncio.CancelledError:
                require_not_cancelled()
                self._require_open()
                raise
            if failed is None:
                self._servers.answered(target.address)
                if not is_lagging(answer):
                    if is_timed:
                        self._servers.observe(target.address, time.monotonic() - began_at)
                    return answer
                self._servers.disappointed(target.address)
                failed = CallFailed(
                    grpc.StatusCode.UNAVAILABLE,
                    f"{target.address} has not caught up with what was seen before",
                )
                where = self._servers.leader
            elif is_lagging(failed):
                self._servers.disappointed(target.address)
                where = self._servers.leader
            elif not await self.is_worth_another(failed, target):
                raise failed
            elif isinstance(failed, NotLeader):
                where = self._servers.leader
            if not await patience.wait(getattr(failed, "retry_after_ms", None)):
                raise failed

    async def is_worth_another(self, failed: Exception, target: Target) -> bool:
        """Whether another attempt may succeed; learns from the failure whom to ask."""
        if isinstance(failed, NotLeader):
            self._servers.leads(failed.leader_addr)
            return True
        if not isinstance(failed, CallFailed) or not failed.is_transient:
            return False
        if failed.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._servers.failed(target.address)
            await self._servers.refresh()  # which takes it back if it answers
        return True
