"""Reading a log: what its users see of it, whether they may write it or not."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from logstore import mending, reading, replication
from logstore.batch import RecordBatch
from logstore.config import MIB
from logstore.cursor import Cursor, View, at_one_epoch
from logstore.errors import LogClosed, LogError, LogReadOnly, OffsetOutOfRange
from logstore.follower import Follower
from logstore.frame import Base, RawEntry
from logstore.read_only import ReadOnlyView
from logstore.reading import SegmentSummary
from logstore.record import Record
from logstore.waking import Alarm
from logstore.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOOK_AGAIN_S: Final = 0.1  # how often a read-only log looks for new records while somebody waits for them


class ReadableLog:
    """The half of `Log` that reads; `Log` opens and closes it."""

    path: str
    _view: View
    _look: ReadOnlyView | None  # the view of a read-only log
    _open_writer: Writer | None  # that of another one

    @property
    def _writer(self) -> Writer:
        if self._open_writer is None:
            raise LogReadOnly(f"{self.path} was opened with read_only=True")
        return self._open_writer

    def _require_open(self) -> None:
        if self._view.is_closed:
            failure = None if self._open_writer is None else self._open_writer.failure
            raise failure or LogClosed(f"{self.path} is closed")

    # ── records ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def start(self) -> int:
        """Offset of the first record that exists."""
        return self._view.layout.start

    @property
    def end(self) -> int:
        """Offset behind the last record that readers see."""
        return self._view.end

    @property
    def lowest_offset(self) -> int | None:
        """Offset of the first record, None if there is none."""
        start, end = self.start, self.end
        return start if start < end else None

    @property
    def highest_offset(self) -> int | None:
        """Offset of the last record, None if there is none."""
        start, end = self.start, self.end
        return end - 1 if start < end else None

    def __len__(self) -> int:
        """Offsets between start and end; compacted ones count."""
        return max(self.end - self.start, 0)

    def read(self, offset: int) -> Record:
        """The record; OffsetOutOfRange, RecordCompacted, or CorruptLog if its bytes are damaged."""
        view = self._view
        while True:
            epoch, end, layout = view.epoch, view.end, view.layout
            base_offsets = layout.base_offsets
            if not base_offsets[0] <= offset < end or view.is_closed:
                self._require_open()
                raise OffsetOutOfRange(offset, layout.start, end)
            segment = layout.segments[bisect_right(base_offsets, offset) - 1]
            try:
                record = segment.read(offset)
            except (LogError, OSError):
                if view.epoch == epoch:
                    raise
            else:
                if view.epoch == epoch:  # see `cursor`
                    return record

    def read_many(self, offsets: ArrayLike) -> list[bytes]:
        """The values at these offsets, integers of any width, in their order. Errors as `read`."""
        self._require_open()
        return reading.read_many(self._view, offsets)

    def scan(
        self, start: int | None = None, end: int | None = None, *, reverse: bool = False, bytes_max: int = MIB
    ) -> Iterator[Record]:
        """The records with offsets start..end-1, by default all that are there now; the last first if `reverse`.

        Memory stays at about `bytes_max` and one batch. Raises OffsetOutOfRange at once if `start` is not in the
        log, and later if the next record is truncated away.
        """
        start, end = self._range(start, end)
        cursor = Cursor(self._view, start, read_bytes=bytes_max)  # refuses a start outside of the log
        if not reverse:
            return reading.records(cursor, end)
        backwards = reading.batches_backwards(self._view, start, end, bytes_max)
        return chain.from_iterable(reversed(list(batch)) for batch in backwards)

    def batches(
        self, start: int | None = None, end: int | None = None, *, bytes_max: int = MIB
    ) -> Iterator[RecordBatch]:
        """As `scan`, but batch by batch as they were appended, as columns without a copy.

        `bytes_max` is read at a time; a larger batch is read whole.
        """
        start, end = self._range(start, end)
        return reading.batches(Cursor(self._view, start, read_bytes=bytes_max), end)

    def frames(
        self, start: int | None = None, end: int | None = None, *, bytes_max: int = MIB
    ) -> Iterator[reading.Frames]:
        """As `batches`, but as the bytes on disk, for a peer or a client to decode: docs/FORMATS.md.

        The first frame may begin before `start`.
        """
        start, end = self._range(start, end)
        return reading.frames(Cursor(self._view, start, read_bytes=bytes_max), end, bytes_max)

    def follow(self, start: int | None = None, *, bytes_max: int = MIB) -> Follower:
        """The records from `start` on (by default only new ones), waiting at the end for more. Never ends.

        For `for` in a thread, or `async for`. Raises OffsetOutOfRange if retention or a truncation takes the next
        record away, LogClosed when the log is closed.
        """
        self._require_open()
        cursor = Cursor(self._view, self.end if start is None else start, read_bytes=bytes_max)
        return Follower(self, cursor)

    def wait(self, seen_end: int, timeout_s: float | None = None, *, seen_epoch: int | None = None) -> int:
        """The log's end, once it differs from `seen_end`, or unchanged after the timeout or a truncation."""
        if self._look is not None:
            return self._look_until(seen_end, timeout_s)
        moved = threading.Event()
        self._writer.notify(moved.set, seen_end, seen_epoch)
        try:
            moved.wait(timeout_s)
        finally:
            self._writer.forget(moved.set)
        self._require_open()
        return self.end

    async def wait_async(self, seen_end: int, *, seen_epoch: int | None = None) -> int:
        """The log's end, once it differs from `seen_end`, or unchanged after a truncation."""
        if self._look is not None:
            while self._look_until(seen_end, 0) == seen_end:
                await asyncio.sleep(LOOK_AGAIN_S)
            return self.end
        alarm = Alarm()
        self._writer.notify(alarm.ring, seen_end, seen_epoch)
        try:
            await alarm.wait()
        finally:
            self._writer.forget(alarm.ring)
        self._require_open()
        return self.end

    def _look_until(self, seen_end: int, timeout_s: float | None) -> int:
        assert self._look is not None
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._require_open()
            self._look.refresh()
            if self.end != seen_end or (deadline is not None and time.monotonic() >= deadline):
                return self.end
            time.sleep(LOOK_AGAIN_S)

    def offset_at(self, time: int) -> int:
        """The first offset appended at or after `time`, UTC nanoseconds; `end` if there is none."""
        self._require_open()
        return at_one_epoch(self._view, partial(reading.offset_at, self._view, time))

    def reader(self) -> io.BufferedReader:
        """The raw bytes of all stores, one after the other, as they are now: for a backup."""
        self._require_open()
        return io.BufferedReader(reading.RawReader(self._view))

    def segments(self) -> list[SegmentSummary]:
        """What each segment holds, oldest first."""
        self._require_open()
        return reading.segments(self._view)

    def _range(self, start: int | None, end: int | None) -> tuple[int, int]:
        self._require_open()
        now = self.end
        return self.start if start is None else start, now if end is None else min(end, now)

    # ── entries, for replication ────────────────────────────────────────────────────────────────────

    @property
    def first_index(self) -> int:
        """Index of the first entry that exists; last_index + 1 in a log without entries."""
        return self._view.layout.base_indexes[0]

    @property
    def last_index(self) -> int:
        """Index of the last entry that was written, durable or not."""
        return self._view.layout.active.end_index - 1

    @property
    def base(self) -> Base:
        """The place in front of the first entry that exists."""
        return replication.base(self._view)

    def base_after(self, lowest: int, *, below_index: int | None = None) -> Base:
        """What `base` would be after `truncate` with these arguments."""
        self._require_open()
        return replication.base(self._view, replication.count_below(self._view, lowest, below_index))

    def raw_entries(self, first: int, end: int, *, bytes_max: int = MIB) -> list[RawEntry]:
        """Entries first..end-1 as far as they were written, verified: as many as fit `bytes_max`, at least one.

        Raises IndexOutOfRange if there is none, CorruptLog if the first is damaged; before a later one it ends.
        """
        self._require_open()
        return at_one_epoch(self._view, partial(replication.raw_entries, self._view, first, end, bytes_max))

    def term(self, index: int) -> int:
        """The term of an entry, or of the one before the first; IndexOutOfRange for others."""
        self._require_open()
        return at_one_epoch(self._view, partial(replication.term, self._view, index))

    def offset_of(self, index: int) -> int:
        """The first offset of an entry; behind the last entry, that of the next record. Else IndexOutOfRange."""
        self._require_open()
        return at_one_epoch(self._view, partial(replication.offset_of, self._view, index))

    def index_of(self, offset: int) -> int:
        """The entry that holds the record, written though perhaps not durable; else OffsetOutOfRange."""
        self._require_open()
        return at_one_epoch(self._view, partial(replication.index_of, self._view, offset))

    def damage(self, first: int, end: int) -> list[tuple[int, int]]:
        """The ranges first..end-1 of entries whose frames do not match their checksums, found by reading them all.

        Holes that repair left count as damaged. Raises IndexOutOfRange if entry `first` does not exist.
        """
        self._require_open()
        return at_one_epoch(self._view, partial(mending.damage, self._view, first, end))
