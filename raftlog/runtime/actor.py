"""Runs an engine in an event loop: one owner, one thread, a bounded inbox.

Events are handled in the order in which they were dispatched, many in one turn of the loop; then the effects are carried
out together, so that what arrives together is appended, sent and synced together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from raftlog.engine import Effect, Engine, Wake

EVENTS_PER_TURN_MAX: Final = 256  # then sockets and timers get their turn
LATE_S: Final = 0.02  # a timer that fires so late: the process was held up, and messages may lie unread
READ_FIRST_S: Final = 0.01  # so they are read first, before time is told to the engine


class InboxFull(Exception):
    """Too much waits to be handled. The event was not taken; a message may be dropped, a request is to be refused."""


class Actor:
    """Of one engine. All calls are made in the event loop's thread; `dispatch` and `close` never wait."""

    def __init__(
        self,
        engine: Engine,
        perform: Callable[[Sequence[Effect]], None],
        *,
        inbox_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`perform` carries out the effects of a turn, perhaps none; it may dispatch events. `inbox_max` bounds the
        events that wait.
        """
        self._engine = engine
        self._perform = perform
        self._inbox_max = inbox_max
        self._clock = clock
        self._inbox: deque[Any] = deque()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_turn_due = False
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0  # by the clock
        self._schedule_turn()  # it may have something to do, or to wait for, from the start

    def __len__(self) -> int:
        """Events that wait."""
        return len(self._inbox)

    def dispatch(self, event: Any, *, is_urgent: bool = False) -> None:
        """Have the engine take in `event` soon; InboxFull, unless it is urgent: what was asked for must be reported.

        An actor that has ended drops it.
        """
        if self._ended.done():
            return
        if len(self._inbox) >= self._inbox_max and not is_urgent:
            raise InboxFull
        self._inbox.append(event)
        self._schedule_turn()

    def handle(self, event: Any) -> None:
        """Have the engine take in `event` now. Whatever it raises ends the actor, and is raised by `listen`."""
        try:
            self._engine.step(event, self._clock())
        except Exception as error:  # noqa: BLE001  # the engine's state is in doubt: it must not go on
            self.fail(error)

    async def listen(self) -> None:
        """Return once the actor is closed; raises what ended it otherwise."""
        await asyncio.shield(self._ended)

    @property
    def is_closed(self) -> bool:
        return self._ended.done()

    def fail(self, error: BaseException) -> None:
        """End it because of `error`: nothing is handled any more."""
        if not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # whether or not somebody listens
        self._stop()

    def close(self) -> None:
        """End it: what waits in the inbox is dropped."""
        if not self._ended.done():
            self._ended.set_result(None)
        self._stop()

    def _stop(self) -> None:
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────

    def _schedule_turn(self) -> None:
        if not self._is_turn_due and not self._ended.done():
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        if self._ended.done():
            return
        for _ in range(min(len(self._inbox), EVENTS_PER_TURN_MAX)):
            self.handle(self._inbox.popleft())
            if self._ended.done():
                return
        try:
            self._perform(self._engine.drain())
        except Exception as error:  # noqa: BLE001  # as in `handle`
            self.fail(error)
        if self._ended.done():
            return
        self._set_timer()
        if self._inbox:
            self._schedule_turn()

    def _set_timer(self) -> None:
        deadline = self._engine.deadline()
        if deadline is None or (self._timer is not None and self._timer_due <= deadline):
            return  # one that fires too early looks again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = deadline
        self._timer = self._loop.call_later(max(deadline - self._clock(), 0.0), self._time_is_up, deadline)

    def _time_is_up(self, due: float) -> None:
        self._timer = None
        now = self._clock()
        if now - due > LATE_S:
            self._timer = self._loop.call_later(READ_FIRST_S, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        self._timer = None
        if self._ended.done():
            return
        deadline = self._engine.deadline()
        if deadline is not None and self._clock() >= deadline:
            self.handle(Wake())
            if self._ended.done():
                return
        self._schedule_turn()  # which sets the timer, too
