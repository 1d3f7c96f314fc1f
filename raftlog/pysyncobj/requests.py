"""What a node was asked for and has no outcome yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from pysyncobj import FAIL_REASON

from logstore import QueueFull
from raftlog.errors import MembershipRefused, NotLeader, OutcomeUnknown
from raftlog.pysyncobj.replica import Outcome


class Requests:
    """Of one node, in the order of its log."""

    def __init__(self, offset_of: Callable[[int], int], not_leader: Callable[[], NotLeader]) -> None:
        """`offset_of` tells the first offset of an applied entry."""
        self.size = 0  # bytes
        self._offset_of = offset_of
        self._not_leader = not_leader
        self._pending: dict[asyncio.Future[int], tuple[int, int]] = {}  # bytes and records of each

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def records(self) -> int:
        return sum(records for _, records in self._pending.values())

    def begin(
        self, ask: Callable[[Outcome], None], *, size: int = 0, records: int = 0
    ) -> asyncio.Future[int]:
        """Ask; the future gets the first offset of the entry, or that of the next record, once it is applied."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[future] = size, records
        self.size += size
        ask(partial(self._outcome, future))
        return future

    def fail_all(self, error: Exception) -> None:
        for future in list(self._pending):
            self._settle(future, error)

    def _outcome(self, future: asyncio.Future[int], index: Any, reason: int) -> None:
        match reason:
            case FAIL_REASON.SUCCESS:
                self._settle(future, self._offset_of(index))
            case FAIL_REASON.REQUEST_DENIED:
                self._settle(
                    future, MembershipRefused("another change is not done yet, or nothing would change")
                )
            case FAIL_REASON.QUEUE_FULL:
                self._settle(future, QueueFull(self.size))
            case FAIL_REASON.NOT_LEADER | FAIL_REASON.MISSING_LEADER | FAIL_REASON.DISCARDED:
                self._settle(future, self._not_leader())
            case _:
                self._settle(future, OutcomeUnknown("leadership changed; whether it was stored is not known"))

    def _settle(self, future: asyncio.Future[int], outcome: int | Exception) -> None:
        size, _ = self._pending.pop(future, (0, 0))
        self.size -= size
        if future.done():  # its caller has gone, or was told before that it is not known
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
