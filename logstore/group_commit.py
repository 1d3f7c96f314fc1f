"""Work that is done for many callers at once: the first who comes does it for all who wait.

Groups form by themselves: whoever comes while one group's fdatasync runs is in the next. A waiting caller sleeps on a
lock of its own until it is woken with its outcome, or to lead the next group. The queue needs no lock: adding to a
deque is atomic, and only the leader takes from it.

Ctrl-C may strike at any instruction of the main thread. What it leaves undone `_clean_up` does; a wake-up that is lost
all the same costs its sleeper LOOK_AGAIN_S.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Final, Generic, TypeVar

from logstore.errors import LogError

LOOK_AGAIN_S: Final = 1.0
PATIENCE_S_MAX: Final = 0.0005  # a thread wakes up in some 20 microseconds; longer would be idling

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")


class _Waiter(Generic[Request, Outcome]):
    outcome: Outcome
    error: Exception | None = None
    is_served = False  # it has its outcome or error
    following: _Waiter[Request, Outcome] | None = None  # the one to wake once this one is awake

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sleep = threading.Lock()
        self.sleep.acquire()

    def wake(self) -> None:
        try:
            self.sleep.release()
        except RuntimeError:
            pass  # somebody else has woken it already

    def wake_following(self) -> None:
        if self.following is not None:
            self.following.wake()


class GroupCommit(Generic[Request, Outcome]):
    """Serves requests in the order in which they came, by one thread at a time."""

    def __init__(self, serve: Callable[[Sequence[Request]], Sequence[Outcome]]) -> None:
        """`serve` returns an outcome for each request; an error that it raises goes to all of them."""
        self._serve = serve
        self._leading = threading.RLock()  # reentrant because that knows its owner; nobody takes it twice
        self._queue: deque[_Waiter[Request, Outcome]] = deque()
        # The group being served, still in the queue; the leader's
        self._taken: list[_Waiter[Request, Outcome]] = []
        self._loners = 0  # callers that wait in `alone`
        # Callers that may come for the next group: those of the last one, and those behind
        self._expected = 0
        self._patience_s = 0.0  # how long to wait for them

    def submit(self, request: Request) -> Outcome:
        """What `serve` returned for this request, or raises what it raised.

        After an interrupt (Ctrl-C) the request may or may not have been served.
        """
        waiter: _Waiter[Request, Outcome] = _Waiter(request)
        try:
            self._queue.append(waiter)
            while not waiter.is_served:
                if not self._loners and self._leading.acquire(blocking=False):
                    self._lead()
                else:
                    waiter.sleep.acquire(timeout=LOOK_AGAIN_S)
            waiter.wake_following()
        except BaseException:
            self._clean_up(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        return waiter.outcome

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing is served while the context lasts."""
        self._loners += 1
        waits = True
        try:
            with self._leading:
                self._loners -= 1
                waits = False
                yield
        finally:
            self._loners -= waits
            self._wake_next()

    def _lead(self) -> None:
        """Serve all that wait, and release the lead."""
        self._let_others_come()
        self._taken = group = list(self._queue)
        start = time.perf_counter()
        try:
            outcomes = self._serve([waiter.request for waiter in group]) if group else ()
            for waiter, outcome in zip(group, outcomes, strict=True):
                waiter.outcome = outcome
                waiter.is_served = True
        except Exception as error:  # noqa: BLE001  # each of the callers gets it
            for waiter in group:
                waiter.error = error
        self._expected = len(self._queue)
        self._patience_s = min((time.perf_counter() - start) / 4, PATIENCE_S_MAX)
        self._let_go()

    def _let_go(self) -> None:
        """Wake those who were served, and whoever is to lead next. May be done again after an interrupt.

        Each wakes the next: woken together they would only wait for the interpreter.
        """
        group = self._taken
        for waiter, following in pairwise(group):
            waiter.following = following
        for waiter in group:
            waiter.is_served = True
        while self._queue and self._queue[0].is_served:
            self._queue.popleft()
        self._taken = []
        self._leading.release()
        self._wake_next()
        if group:
            group[0].wake()

    def _wake_next(self) -> None:
        """Let the first who waits try to lead; a loner goes first, and does this when it is done."""
        if not self._loners:
            with suppress(IndexError):
                self._queue[0].wake()

    def _let_others_come(self) -> None:
        """Give those who were just served the chance to be in this group, for a fraction of what a group takes: where
        syncs are slow a larger group is worth more than an early one."""
        deadline = time.perf_counter() + self._patience_s
        while len(self._queue) < self._expected and time.perf_counter() < deadline:
            time.sleep(0)  # other threads run

    def _clean_up(self, waiter: _Waiter[Request, Outcome]) -> None:
        """Do what this caller was interrupted in doing for the others."""
        if self._leading._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks its lock
            unknown = LogError("interrupted while appending; the record may or may not be in the log")
            for one in self._taken:
                if not one.is_served:
                    one.error = unknown
            self._let_go()
        with suppress(ValueError):
            self._queue.remove(waiter)  # not there if it was served
        waiter.wake_following()
        self._wake_next()
