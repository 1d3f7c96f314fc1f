"""What one server has to say to another, over one connection that is made anew whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from raftlog.errors import RaftlogError
from raftlog.net.backoff import BackOff
from raftlog.net.connection import Connection
from raftlog.net.quiet_log import QuietLog
from raftlog.net.throttle import Throttle

log = logging.getLogger(__name__)

WRITE_BYTES: Final = 256 * 1024  # written at once, then it is asked again whether more is taken
STABLE_S: Final = 1.0  # a connection that lasted so long was worth it: the next attempt comes soon


class _Waiting(NamedTuple):
    """A frame that waits to be written."""

    parts: list[bytes]
    size: int  # bytes
    is_throttled: bool


class Outbound:
    """Frames to one peer, in order, each once or not at all.

    Frames wait while a connection is being made, while the system takes no more, and for the throttle; `queue_bytes_max`
    bounds them. There is no queue between attempts: what was said then would be stale. Whatever is lost is told by
    `on_unreachable`, in a later turn of the loop, and once for all that is lost in one turn.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Connection]],
        on_unreachable: Callable[[], None],
        *,
        queue_bytes_max: int,
        is_eager: bool,
        back_off: BackOff,
        quiet: QuietLog,
        throttle: Throttle | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`is_eager`: connect even if there is nothing to say. `name` is for the log."""
        self._name = name
        self._connect = connect
        self._on_unreachable = on_unreachable
        self._queue_bytes_max = queue_bytes_max
        self._is_eager = is_eager
        self._back_off = back_off
        self._quiet = quiet
        self._throttle = throttle
        self._sleep = sleep
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0  # of the frames in the queue
        self._flushing: asyncio.Handle | None = None  # the flush that is planned
        self._telling: asyncio.Handle | None = None
        self._is_resting = False  # between attempts
        self._wanted = asyncio.Event()  # somebody has something to say, or the peer was heard of
        self._work = self._loop.create_task(self._run())
        self.dropped = 0  # frames that were not sent
        self.connects = 0  # connections made so far

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    @property
    def queued_bytes(self) -> int:
        """Of frames not yet taken by the system."""
        return self._queued_bytes + (self._connection.unsent_bytes if self._connection is not None else 0)

    def send(self, parts: list[bytes], size: int, *, is_throttled: bool = False) -> None:
        """Send these parts, `size` bytes together, as soon as it can be done.

        They are dropped if the queue would grow too long (one frame alone may be longer), or between attempts.
        """
        queued = self.queued_bytes
        if self._is_resting or (queued and queued + size > self._queue_bytes_max):
            self._drop(1)
            return
        self._queue.append(_Waiting(parts, size, is_throttled))
        self._queued_bytes += size
        if self._connection is None:
            self._wanted.set()
        elif self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)  # with whatever else this turn has to say

    def try_now(self) -> None:
        """The peer was heard of: do not wait for the next attempt."""
        self._back_off.reset()
        if self._is_resting:
            self._wanted.set()

    def stay_connected(self) -> None:
        """From now on connect even if there is nothing to say."""
        if not self._is_eager:
            self._is_eager = True
            self._wanted.set()

    def reconnect(self, reason: str) -> None:
        """End the connection, if there is one, and make another."""
        if self._connection is not None:
            self._connection.abort(reason)

    async def close(self) -> None:
        """Say what can be said at once, and end the connection."""
        self._flush()
        self._work.cancel()
        await asyncio.wait((self._work,))
        for planned in (self._flushing, self._telling):
            if planned is not None:
                planned.cancel()
        if self._connection is not None:
            self._connection.close("this server is stopping")

    async def _run(self) -> None:
        while True:
            if not self._is_eager and not self._queue:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                connection = await self._connect()
            except RaftlogError as error:
                self._lose_all()
                self._quiet.warning(self._name, "no connection to=%s reason=%s", self._name, error)
                await self._rest()
                continue
            began = self._loop.time()
            self.connects += 1
            self._connection = connection
            connection.on_writable = self._flush
            log.info("connected to=%s address=%s", self._name, connection.peer_address)
            self._flush()
            await asyncio.wait((connection.ended,))  # which our end must not cancel
            reason = connection.ended.result()
            self._connection = None
            self._lose_all()
            self._quiet.warning(self._name, "connection lost to=%s reason=%s", self._name, reason)
            if self._loop.time() - began >= STABLE_S:
                self._back_off.reset()
            await self._rest()

    async def _rest(self) -> None:
        """Wait for the next attempt, or until the peer is heard of."""
        self._is_resting = True
        self._wanted.clear()
        waits = [
            asyncio.ensure_future(self._sleep(self._back_off.next())),
            asyncio.ensure_future(self._wanted.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self._is_resting = False

    def _flush(self) -> None:
        """Write what the connection and the throttle take now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        connection = self._connection
        if connection is None:
            return
        parts: list[bytes] = []
        size = 0
        while self._queue and connection.is_writable:
            frame = self._queue[0]
            if frame.is_throttled and self._throttle is not None:
                delay = self._throttle.take(frame.size)
                if delay:
                    self._flushing = self._loop.call_later(delay, self._flush)
                    break
            self._queue.popleft()
            self._queued_bytes -= frame.size
            parts += frame.parts
            size += frame.size
            if size >= WRITE_BYTES:
                connection.write(parts)
                parts, size = [], 0
        connection.write(parts)

    def _lose_all(self) -> None:
        lost = len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        self._drop(lost)

    def _drop(self, frames: int) -> None:
        self.dropped += frames
        if self._telling is None:
            self._telling = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._on_unreachable()
