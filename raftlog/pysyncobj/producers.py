"""Batches of idempotent producers: what a node has stored of them, and what it has on its way while it leads.

The table and its rules are those of raftlog/machines/producers.py. It is kept as entries are applied, and at a start made
anew from the log, because there are no snapshots that it could be in.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from logstore.frame import parse_frame_header
from raftlog.machines.producers import SILENCE_NS_MAX, Producers, Sequence, check
from raftlog.pysyncobj.codec import RECORDS

if TYPE_CHECKING:
    from raftlog.pysyncobj.journal import Journal

_TYPE_BYTES: Final = 1  # of a command, in front of its frame


class StoredBatches:
    """Of a journal: as of what is applied."""

    def __init__(self, journal: Journal) -> None:
        """Reads what producers that are not forgotten may have stored: the log of the last seven days."""
        self._log = journal.log
        self.table = Producers()
        first = self._log.offset_at(time.time_ns() - SILENCE_NS_MAX)
        if first == self._log.end:
            return
        index = self._log.index_of(first)
        while index <= journal.applied:
            page = journal.page(index, journal.applied + 1)
            for command, place, _ in page:
                self.applied(command, place)
            index += len(page)

    def applied(self, command: bytes, index: int) -> None:
        """An entry is committed and durable."""
        if command[0] != RECORDS:
            return
        header = parse_frame_header(command, _TYPE_BYTES)
        if header.producer_id:
            batch = Sequence(
                header.producer_id, header.producer_epoch, header.first_sequence, header.record_count
            )
            self.table.stored(batch, first_offset=self._log.offset_of(index), time=header.append_time)


class KnownBatches:
    """Of a leader: what is stored, and what it has begun to append since."""

    def __init__(self, stored: StoredBatches) -> None:
        self._stored = stored
        self._on_the_way: dict[int, deque[tuple[Sequence, asyncio.Future[int]]]] = {}  # by producer, in order

    def find(self, batch: Sequence) -> asyncio.Future[int] | None:
        """The outcome of the batch if it is stored or on its way; None if it is to be appended.

        SequenceGap, StaleEpoch, AlreadyStored.
        """
        on_the_way = self._on_the_way.get(batch.producer, ())
        for original, outcome in on_the_way:
            behind = batch.first - original.first
            if batch.epoch == original.epoch and behind >= 0 and behind + batch.span <= original.span:
                return _follow(outcome, behind)
        state = self._stored.table.get(batch.producer)
        epoch, next_sequence = (0, 0) if state is None else (state.epoch, state.next_sequence)
        recent = None if state is None else state.recent
        if on_the_way:
            last, _ = on_the_way[-1]
            if last.epoch > epoch:
                recent = None
            epoch, next_sequence = last.epoch, last.first + last.span
        offset = check(batch, epoch=epoch, next_sequence=next_sequence, recent=recent)
        if offset is None:
            return None
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        found.set_result(offset)
        return found

    def add(self, batch: Sequence, outcome: asyncio.Future[int]) -> asyncio.Future[int]:
        """The batch was begun; the future for its caller, who may cancel it."""
        if not outcome.done():
            self._on_the_way.setdefault(batch.producer, deque()).append((batch, outcome))
            outcome.add_done_callback(partial(self._remove, batch))
        return _follow(outcome, 0)

    def _remove(self, batch: Sequence, outcome: asyncio.Future[int]) -> None:
        on_the_way = self._on_the_way[batch.producer]
        on_the_way.remove((batch, outcome))
        if not on_the_way:
            del self._on_the_way[batch.producer]


def _follow(outcome: asyncio.Future[int], behind: int) -> asyncio.Future[int]:
    """The offset so many records behind that of the outcome, or its error."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def settle(outcome: asyncio.Future[int]) -> None:
        error = outcome.exception()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outcome.result() + behind)

    outcome.add_done_callback(settle)
    return future
