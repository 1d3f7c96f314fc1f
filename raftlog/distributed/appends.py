"""Appends at a leader: what is on its way into the log, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from logstore import Config, DiskFull, QueueFull
from raftlog.distributed.frames import Batch, Frame, make_frame
from raftlog.errors import (
    NodeFailed,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProduceRefused,
    RaftlogError,
    UnexpectedOffset,
)
from raftlog.machines.producers import Sequence, check
from raftlog.raft.events import Committed, Dropped, Propose, Refused, Unknown, Why
from raftlog.raft.messages import EntryKind
from raftlog.runtime.actor import InboxFull
from raftlog.runtime.applier import Applier
from raftlog.runtime.raft_driver import RaftDriver

ENTRY_OVERHEAD_BYTES: Final = 128  # counted for a batch beside its bytes, so that small ones have a bound


class _Pending:
    """A batch that was proposed and has no outcome yet."""

    __slots__ = ("sequence", "size", "span", "waiters")

    def __init__(self, frame: Frame, future: asyncio.Future[int]) -> None:
        self.sequence = frame.sequence
        self.span = frame.record_count
        self.size = len(frame.data) + ENTRY_OVERHEAD_BYTES
        # Who wants to know the first offset, and how many records behind it; more than one where it was sent again.
        self.waiters = [(future, 0)]

    def settle(self, outcome: int | BaseException) -> None:
        for future, behind in self.waiters:
            if future.done():  # its caller has gone; the batch has not
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome + behind)


class Appends:
    """Of one node. Batches are stored in the order in which they were begun."""

    def __init__(
        self,
        driver: RaftDriver,
        applier: Applier,
        config: Config,
        *,
        offset_of: Callable[[int], int],
        confirm: Callable[[], Awaitable[None]],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`offset_of` tells the first offset of an applied entry, `confirm` returns once a quorum says that this node
        leads, or raises NotLeader. `config.pending_bytes_max` bounds what is pending.
        """
        self._driver = driver
        self._applier = applier
        self._config = config
        self._offset_of = offset_of
        self._clock = clock
        self._pending: dict[int, _Pending] = {}  # in the order of the log, by number
        self._pending_bytes = 0
        self._last_number = 0
        self._by_producer: dict[int, deque[_Pending]] = {}
        self._room_waiters: list[asyncio.Future[None]] = []
        self._confirm = confirm
        self._confirming: set[asyncio.Task[None]] = set()
        self.refusal: Callable[[], Exception | None] = lambda: None  # why this node takes no appends now
        self.lack_of_room: Callable[[], Exception | None] = lambda: None  # why the disk takes none

    def begin_term(self) -> None:
        """This node leads, and has applied all that was appended before: nothing older is pending any more."""
        self._by_producer.clear()

    def begin(self, batch: Batch, *, expected_offset: int | None = None) -> tuple[int, asyncio.Future[int]]:
        """(how many records it has, the future of its first offset).

        Raises what `refusal` or `lack_of_room` say, QueueFull, or what is wrong with the batch. The future may end in
        UnexpectedOffset, SequenceGap, StaleEpoch, AlreadyStored, NotLeader or Overloaded; so far nothing was appended; or
        in OutcomeUnknown. Cancelling it does not take the batch back.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        frame = make_frame(batch, self._config, time=self._clock())
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            # First of all: what is stored must never be said to have been refused.
            if frame.sequence is not None and self._is_repeated(frame.sequence, future):
                return frame.record_count, future
            if expected_offset is not None:
                self._require_end(expected_offset)
        except ProduceRefused as refused:
            self._refuse(future, refused)
            return frame.record_count, future
        lack = self.lack_of_room()
        if lack is not None:
            raise lack
        pending = _Pending(frame, future)
        if self._pending_bytes and self._pending_bytes + pending.size > self._config.pending_bytes_max:
            raise QueueFull(self._pending_bytes)
        number = self._last_number + 1
        try:
            self._driver.request(partial(_proposal, frame.data), partial(self._outcome, number))
        except InboxFull:
            raise QueueFull(self._pending_bytes) from None
        self._last_number = number
        self._pending[number] = pending
        self._pending_bytes += pending.size
        if frame.sequence is not None:
            self._by_producer.setdefault(frame.sequence.producer, deque()).append(pending)
        return frame.record_count, future

    def fail(self, error: Exception) -> None:
        """Nothing is applied here any more: what is pending ends with this."""
        for number in list(self._pending):
            self._settle(number, error)

    async def room(self) -> None:
        """Return when a pending batch is settled; at once if there is none."""
        if self._pending:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room_waiters.append(settled)
            await settled

    async def settled(self, timeout_s: float) -> None:
        """Return when all that was begun has its outcome, or after this long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._pending:
                    await self.room()

    def _require_end(self, expected_offset: int) -> None:
        end = self._applier.end + sum(pending.span for pending in self._pending.values())
        if end != expected_offset:
            raise UnexpectedOffset(expected_offset, end)

    # ── refusals ──

    def _refuse(self, future: asyncio.Future[int], refused: ProduceRefused) -> None:
        """End `future` with this, but only if this node's log is still the one that counts: one that was cut off and does
        not know yet that another leads would refuse what that one expects."""
        task = asyncio.get_running_loop().create_task(self._refuse_if_leading(future, refused))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _refuse_if_leading(self, future: asyncio.Future[int], refused: ProduceRefused) -> None:
        error: Exception | None
        try:
            await self._confirm()  # also by who leads now, if that is another
            error = self.refusal()
        except RaftlogError:
            error = NotLeader()
        if not future.done():
            future.set_exception(error or refused)

    # ── retries ─────────────────────────────────────────────────────────────────────────────────────

    def _is_repeated(self, batch: Sequence, future: asyncio.Future[int]) -> bool:
        """Whether the batch is stored already, or on its way: then `future` gets the outcome of the original."""
        on_the_way = self._by_producer.get(batch.producer, ())
        for pending in on_the_way:
            original = pending.sequence
            assert original is not None
            behind = batch.first - original.first
            if batch.epoch == original.epoch and behind >= 0 and behind + batch.span <= original.span:
                pending.waiters.append((future, behind))
                return True
        state = self._applier.views.producers.get(batch.producer)
        epoch, next_sequence = (0, 0) if state is None else (state.epoch, state.next_sequence)
        recent = None if state is None else state.recent
        if on_the_way:
            last = on_the_way[-1].sequence
            assert last is not None
            if last.epoch > epoch:
                recent = None
            epoch, next_sequence = last.epoch, last.first + last.span
        offset = check(batch, epoch=epoch, next_sequence=next_sequence, recent=recent)
        if offset is None:
            return False
        future.set_result(offset)
        return True

    # ── outcomes ────────────────────────────────────────────────────────────────────────────────────

    def _outcome(self, number: int, outcome: Any) -> None:
        match outcome:
            case Committed():
                index = outcome.first
                if index > self._applier.applied:
                    self._applier.tell_offset(index, partial(self._settle, number))
                else:
                    self._settle(number, self._offset_of(index))
            case _:
                self._settle(number, error_of(outcome))

    def _settle(self, number: int, outcome: int | BaseException) -> None:
        pending = self._pending.pop(number)
        self._pending_bytes -= pending.size
        if pending.sequence is not None:
            of_producer = self._by_producer.get(pending.sequence.producer)
            if of_producer is not None and pending in of_producer:
                of_producer.remove(pending)
                if not of_producer:
                    del self._by_producer[pending.sequence.producer]
        pending.settle(outcome)
        waiters, self._room_waiters = self._room_waiters, []
        for settled in waiters:
            if not settled.done():
                settled.set_result(None)


def _proposal(data: bytes, number: int) -> Propose:
    return Propose(number, (data,), EntryKind.RECORDS)


def error_of(outcome: Any) -> Exception:
    """The error that a request ends with that was not carried out."""
    match outcome:
        case Refused(Why.OVERLOADED):
            return Overloaded("too much waits to be replicated; try again")
        case Refused() | Dropped():
            return NotLeader()
        case Unknown():
            return OutcomeUnknown(
                "leadership was lost before a quorum had it; whether it was stored is not known"
            )
        case RaftlogError() | DiskFull():
            return outcome
        case _:
            return NodeFailed(f"this server stopped taking part: {outcome}")
