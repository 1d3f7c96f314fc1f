"""Appends from asyncio: tasks queue batches, one thread writes and syncs them in groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from logstore.config import KIB
from logstore.errors import LogClosed, QueueFull
from logstore.frame import Payload
from logstore.waking import Alarm, Waker
from logstore.writer import Writer

HERE_BYTES_MAX: Final = 64 * KIB  # a few microseconds of copying; more would hold up the loop


class _Waiting(NamedTuple):
    payload: Payload
    future: asyncio.Future[int]
    loop: asyncio.AbstractEventLoop


class AppendQueue:
    """The thread is started by the first append and ends with `close`."""

    def __init__(self, writer: Writer, *, pending_bytes_max: int, name: str) -> None:
        self._writer = writer
        self._pending_bytes_max = pending_bytes_max
        self._name = name
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._pending_bytes = 0  # in the queue or being written
        self._room_waiters: list[Waker] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def begin(self, payload: Payload) -> asyncio.Future[int]:
        """Queue a batch behind those begun before, and return the future of its first offset: done once it is as
        durable as the log's policy says. Cancelling it does not take the batch back.

        Raises QueueFull while `pending_bytes_max` are pending.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        if self.is_short(payload.size):
            future.set_result(self._writer.append_one(payload))
            return future
        with self._lock:
            if self._is_closed:
                raise LogClosed(f"{self._name} is closed")
            if self._pending_bytes and self._pending_bytes + payload.size > self._pending_bytes_max:
                raise QueueFull(self._pending_bytes)
            self._pending_bytes += payload.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name} appends", daemon=True)
                self._thread.start()
            self._queue.put(_Waiting(payload, future, loop))
        return future

    def is_short(self, size: int) -> bool:
        """Whether the loop's own thread may append so many bytes: nothing is queued that this would overtake, and
        it takes less time than handing it over."""
        return not self._pending_bytes and size <= HERE_BYTES_MAX and self._writer.is_quick(size)

    async def room(self) -> None:
        """Return when something that was pending is done; at once if nothing is."""
        with self._lock:
            if not self._pending_bytes:
                return
            alarm = Alarm()
            self._room_waiters.append(alarm.ring)
        await alarm.wait()

    def _run(self) -> None:
        waiting = self._queue.get()
        while waiting is not None:
            group = [waiting]
            waiting = None
            with suppress(Empty):
                while (more := self._queue.get_nowait()) is not None:
                    group.append(more)
                self._queue.put(None)  # seen by the next get, once the group is done
            self._append(group)
            waiting = self._queue.get()

    def _append(self, group: list[_Waiting]) -> None:
        outcomes: Sequence[int | Exception]
        try:
            outcomes = self._writer.append([waiting.payload for waiting in group])
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
            outcomes = [error] * len(group)
        with self._lock:
            self._pending_bytes -= sum(waiting.payload.size for waiting in group)
            wakers, self._room_waiters = self._room_waiters, []
        for wake in wakers:
            wake()
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[int], int | Exception]]] = {}
        for waiting, outcome in zip(group, outcomes, strict=True):
            by_loop.setdefault(waiting.loop, []).append((waiting.future, outcome))
        for loop, results in by_loop.items():
            with suppress(RuntimeError):  # the loop was closed, so nobody waits any more
                loop.call_soon_threadsafe(_deliver, results)

    def close(self) -> None:
        """Write what is queued, refuse the rest, and end the thread."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
            wakers, self._room_waiters = self._room_waiters, []
        for wake in wakers:
            wake()
        if thread is not None:
            self._queue.put(None)
            thread.join()


def _deliver(results: list[tuple[asyncio.Future[int], int | Exception]]) -> None:
    for future, outcome in results:
        if future.done():  # cancelled
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
