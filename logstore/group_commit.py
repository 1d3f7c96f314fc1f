"""Work that is done for many callers at once: the first who comes does it for all who wait.

Groups form by themselves: whoever comes while one group's fdatasync runs is in the next. A waiting caller sleeps on
a lock of its own and is woken once, with its outcome or to lead the next group.

`_leading` is held by whoever leads, and passed on without being released while others wait. The queue needs no
lock: appending to a deque is atomic, and only the leader takes from it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, Generic, TypeVar

from logstore.errors import LogError

PATIENCE_S_MAX: Final = 0.0005  # a thread wakes up in some 20 microseconds; longer would be idling

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")


class _Waiter(Generic[Request, Outcome]):
    outcome: Outcome
    error: Exception | None = None
    is_served = False  # it has its outcome or error
    leads = False  # the lead was passed to it
    following: _Waiter[Request, Outcome] | None = None  # the one to wake once this one is awake

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sleep = threading.Lock()
        self.sleep.acquire()

    def wait(self) -> BaseException | None:
        """Return when this one is served or leads; what interrupted it meanwhile, if anything did."""
        interrupt = None
        while not (self.is_served or self.leads):
            try:
                self.sleep.acquire()
            except BaseException as error:  # noqa: BLE001  # the caller raises it
                interrupt = error
        return interrupt

    def lead(self) -> None:
        """Wake it, to lead the next group."""
        self.leads = True
        self.sleep.release()


class GroupCommit(Generic[Request, Outcome]):
    """Serves requests in the order in which they came, by one thread at a time."""

    def __init__(self, serve: Callable[[Sequence[Request]], Sequence[Outcome]]) -> None:
        """`serve` returns an outcome for each request; an error that it raises goes to all of them."""
        self._serve = serve
        self._leading = threading.Lock()
        self._queue: deque[_Waiter[Request, Outcome]] = deque()
        self._loners = 0  # callers that wait in `alone`
        self._expected = (
            0  # callers that may come for the next group: those of the last one, and those in the queue
        )
        self._patience_s = 0.0  # how long to wait for them

    def submit(self, request: Request) -> Outcome:
        """What `serve` returned for this request, or raises what it raised.

        An interrupt (Ctrl-C) that comes while this caller waits is raised once its turn is over, since others may
        depend on it.
        """
        waiter: _Waiter[Request, Outcome] = _Waiter(request)
        self._queue.append(waiter)
        interrupt: BaseException | None = None
        leads = self._leading.acquire(
            blocking=False
        )  # though a leader may have served it since it was queued
        if not leads:
            interrupt = waiter.wait()
            leads = waiter.leads
        if waiter.following is not None:
            waiter.following.sleep.release()
        if leads:
            self._lead(waiter)
        if interrupt is not None:
            raise interrupt
        if waiter.error is not None:
            raise waiter.error
        return waiter.outcome

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing is served while the context lasts."""
        self._loners += 1
        try:
            self._leading.acquire()
        except BaseException:
            self._loners -= 1
            if self._leading.acquire(blocking=False):
                self._hand_over()  # to whoever was left waiting for this one
            raise
        self._loners -= 1
        try:
            yield
        finally:
            self._hand_over()

    def _lead(self, leader: _Waiter[Request, Outcome]) -> None:
        self._let_others_come()
        group = [self._queue.popleft() for _ in range(len(self._queue))]
        start = time.perf_counter()
        try:
            outcomes = self._serve([waiter.request for waiter in group]) if group else ()
            for waiter, outcome in zip(group, outcomes, strict=True):
                waiter.outcome = outcome
        except Exception as error:  # noqa: BLE001  # each of the callers gets it
            for waiter in group:
                waiter.error = error
        except BaseException:  # only the thread that it was meant for may see an interrupt
            for waiter in group:
                waiter.error = LogError(
                    "interrupted while appending; the record may or may not be in the log"
                )
            raise
        finally:
            self._expected = len(group) + len(self._queue)
            self._patience_s = min((time.perf_counter() - start) / 4, PATIENCE_S_MAX)
            # Each wakes the next: woken together they would only wait for the interpreter. Whoever leads from now on
            # may be one of them, so this is set before.
            served = [waiter for waiter in group if waiter is not leader]
            for waiter, following in pairwise(served):
                waiter.following = following
            for waiter in served:
                waiter.is_served = True
            self._hand_over()
            if served:
                served[0].sleep.release()

    def _let_others_come(self) -> None:
        """Give those who were just served the chance to be in this group, for a fraction of what a group takes: where
        syncs are slow a larger group is worth more than an early one."""
        deadline = time.perf_counter() + self._patience_s
        while len(self._queue) < self._expected and time.perf_counter() < deadline:
            time.sleep(0)  # other threads run

    def _hand_over(self) -> None:
        if self._queue and not self._loners:
            self._queue[0].lead()
            return
        self._leading.release()
        # Somebody may have queued up just before that and gone to sleep. A loner hands over to them itself.
        if self._queue and not self._loners and self._leading.acquire(blocking=False):
            self._queue[0].lead()
