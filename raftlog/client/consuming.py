"""Streams of frames that go on at another server when one fails, hangs, or lags behind what was seen already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from logstore import OffsetOutOfRange
from raftlog.client.calls import Caller, require_not_cancelled
from raftlog.client.failures import CallFailed, NoServer, failure
from raftlog.client.patience import Patience
from raftlog.client.servers import Servers, Target
from raftlog.client.watermark import Watermark
from raftlog.errors import NotLeader
from raftlog.pb.log.v1 import log_pb2 as pb

SILENCE_S_MAX: Final = 5.0  # of a stream, before others are asked whether there is something to be told


class Consumer:
    def __init__(
        self,
        servers: Servers,
        caller: Caller,
        seen: Watermark,
        *,
        timeout_s: float,
        require_open: Callable[[], None],
    ) -> None:
        self._servers = servers
        self._caller = caller
        self._seen = seen
        self._timeout_s = timeout_s
        self._require_open = require_open

    async def read(self, offset: int, *, linearizable: bool) -> pb.ConsumeResponse:
        """The record and what the log holds; fails as the call does."""
        request = pb.ConsumeRequest(offset=offset, linearizable=linearizable)
        seen_end = self._seen.offset

        def is_lagging(answer: Any) -> bool:
            return isinstance(answer, OffsetOutOfRange) and answer.end <= offset < seen_end

        response: pb.ConsumeResponse = await self._caller.call(
            lambda connection: connection.log.Consume,
            request,
            self._servers.follower,
            is_lagging=is_lagging,
            is_timed=not linearizable,
        )
        self._seen.saw(response.high_watermark)
        return response

    async def consume(self, request: pb.ConsumeBatchesRequest) -> AsyncGenerator[pb.ConsumeBatchesResponse]:
        """Responses in order, each going on behind the one before, up to the end of the log as far as it was seen."""
        goal = 0 if request.follow else self._seen.offset
        if request.HasField("end_offset"):
            goal = min(goal, request.end_offset)
        patience = Patience(self._timeout_s, is_stream=True)
        where = self._servers.follower
        while True:
            self._require_open()
            try:
                target = await where()
            except NoServer:
                if not await patience.wait():
                    raise
                continue
            failed: Exception | None = None
            end = goal  # of the log, as this server has it
            try:
                async with aclosing(self._responses(target, request)) as responses:
                    async for response in responses:
                        end = response.high_watermark
                        if end < goal and not response.frames:
                            continue  # it says how far the log reaches, and knows less than was seen
                        patience.renew()
                        self._seen.saw(end)
                        if response.frames:
                            request.offset = response.end_offset
                        yield response
            except grpc.aio.AioRpcError as error:
                failed = failure(error)
                failed.__cause__ = error
            if failed is None and end >= goal:
                return
            where = self._servers.follower
            if failed is None or (isinstance(failed, OffsetOutOfRange) and failed.end < goal):
                where = self._servers.leader  # this one lags
                self._servers.disappointed(target.address)
                failed = failed or CallFailed(
                    grpc.StatusCode.UNAVAILABLE,
                    f"{target.address} has not caught up with what was seen before",
                )
            elif not await self._caller.is_worth_another(failed, target):
                raise failed
            elif isinstance(failed, NotLeader):
                where = self._servers.leader  # this one cannot find out how far the log reaches
            if not await patience.wait(getattr(failed, "retry_after_ms", None)):
                raise failed

    async def _responses(
        self, target: Target, request: pb.ConsumeBatchesRequest
    ) -> AsyncGenerator[pb.ConsumeBatchesResponse]:
        """Of one stream. Fails as unavailable if the server says nothing although there is something to say."""
        # An answer is due at once unless the stream is to wait for records, or a quorum is asked first.
        is_timed = not request.linearizable and (not request.follow or request.offset < self._seen.offset)
        began_at = time.monotonic()
        stream = target.connection.log.ConsumeBatches(request, wait_for_ready=False)
        watch = Watch(stream, lambda: self._is_better_elsewhere(target, request))
        try:
            async for response in stream:
                watch.rest()
                if is_timed:
                    is_timed = False
                    self._servers.observe(target.address, time.monotonic() - began_at)
                yield response
                watch.begin()
        except asyncio.CancelledError:
            require_not_cancelled()
            self._require_open()
            if not (watch.has_bitten or target.connection.is_closed):
                raise
            text = (
                f"nothing from {target.address} for {SILENCE_S_MAX:.0f} s"
                if watch.has_bitten
                else f"{target.address} is no server of the cluster any more"
            )
            unavailable = grpc.StatusCode.UNAVAILABLE
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(unavailable, nothing, nothing, text, "") from None
        finally:
            watch.end()
            stream.cancel()

    async def _is_better_elsewhere(self, target: Target, request: pb.ConsumeBatchesRequest) -> bool:
        """Whether another server has what this one, which is silent, does not send."""
        other = self._servers.other_than(target.address)
        if other is None:
            return False
        if not request.follow:
            return True
        ask = pb.ConsumeBatchesRequest(latest=True)
        try:
            async for response in other.log.ConsumeBatches(ask, timeout=SILENCE_S_MAX):
                return bool(response.high_watermark > request.offset)
        except grpc.aio.AioRpcError:
            pass  # it is no better
        return False


class Watch:
    """Cancels a stream that is silent for long, if that is found to be wrong. Costs next to nothing per response."""

    def __init__(self, stream: Any, is_wrong: Callable[[], Awaitable[bool]]) -> None:
        self._stream = stream
        self._is_wrong = is_wrong
        self._loop = asyncio.get_running_loop()
        self.has_bitten = False
        self.begin()
        self._task = self._loop.create_task(self._look())

    def begin(self) -> None:
        """It is the server's turn."""
        self._since: float | None = self._loop.time()

    def rest(self) -> None:
        """It is the consumer's turn, which may take as long as it wants."""
        self._since = None

    def end(self) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            since = self._since
            is_silent = since is not None and self._loop.time() >= since + SILENCE_S_MAX
            if is_silent and await self._is_wrong() and self._since == since:
                self.has_bitten = True
                self._stream.cancel()
                return
            await asyncio.sleep(SILENCE_S_MAX / 2)
