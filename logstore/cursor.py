"""Reading in order while the log changes underneath.

Readers take no lock. They see the log through a `View`: an immutable layout, the end, and an epoch that moves
*before* bytes that somebody may be reading are cut or reused. A reader notes the epoch, reads, and believes what
it read only if the epoch has not moved since; if it has, it looks everything up again. So a record that was
removed or replaced meanwhile is never returned under its old offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from logstore.errors import CorruptLog, LogClosed, LogError, OffsetOutOfRange
from logstore.layout import Layout
from logstore.run import Run
from logstore.segment import Segment
from logstore.walk import READ_BYTES, Item, Walk
from logstore.writer import CUTS_MAX, Cut

FOREVER: Final = (1 << 64) - 1  # an offset behind all that can be


T = TypeVar("T")


class View(Protocol):
    """What readers see of a log."""

    @property
    def layout(self) -> Layout: ...
    @property
    def end(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def cuts(self) -> tuple[Cut, ...]: ...
    @property
    def is_closed(self) -> bool: ...


class _EpochMoved(Exception):
    """Within this file only: what was just read may be stale."""


class Cursor:
    """Steps over the frames that hold records from `offset` on.

    It may rest at the end and go on when the log has grown. It is overtaken, and raises OffsetOutOfRange, when
    its next record is truncated away, even if the log has grown past that offset again.
    """

    def __init__(self, view: View, offset: int, *, read_bytes: int = READ_BYTES) -> None:
        self.offset = offset  # of the next record
        self._view = view
        self._read_bytes = read_bytes
        self._epoch = view.epoch
        self._segment: Segment | None = None
        self._walk: Walk | None = None
        self._require_in_range()

    @property
    def epoch(self) -> int:
        """Of the log when the cursor last looked up its place."""
        return self._epoch

    def next(self, end: int = FOREVER) -> Run | Item | None:
        """The next frames with records, verified, that start before `end`; None at the end of the log."""
        while self.offset < min(end, self._view.end) or self._view.epoch != self._epoch:
            require_open(self._view)
            try:
                if self._walk is None or self._view.epoch != self._epoch:
                    self._seek()
                else:
                    found = self._step(min(end, self._view.end))
                    if found is not None and found.end_offset > self.offset:
                        self.offset = found.end_offset
                        return found
            except _EpochMoved:
                pass
        return None

    def _step(self, end: int) -> Run | Item | None:
        """What comes next in the segment, None if that has to be looked for."""
        walk, segment = self._walk, self._segment
        assert walk is not None and segment is not None
        run = walk.run()
        if run is not None:
            segment.note_run_verified(run)
            if run.end_offset <= end:
                return run
            self._walk = None  # it went too far
            return run.before(end)
        item = walk.next()
        if item is not None and not item.damage:
            segment.note_verified(item)
            return item
        self._require_same_epoch()
        if item is not None:
            raise segment.damaged(walk, item)
        if walk.end_position < segment.end_position:
            walk.end_position = segment.end_position
        elif self.offset >= segment.end_offset:
            self._walk = None  # the next segment
        else:
            raise segment.damaged(walk, None)
        return None

    def _seek(self) -> None:
        """Look up the next record's place."""
        epoch = self._view.epoch
        for cut in self._view.cuts:
            if cut.epoch > self._epoch and cut.end < self.offset:
                raise OffsetOutOfRange(self.offset, self._view.layout.start, cut.end)
        if len(self._view.cuts) == CUTS_MAX and self._view.cuts[0].epoch > self._epoch:
            raise OffsetOutOfRange(self.offset, self._view.layout.start, self._view.cuts[0].end)
        self._epoch = epoch
        self._require_in_range()
        layout = self._view.layout
        self._segment = layout.segments[layout.at_offset(self.offset)]
        try:
            self._walk = self._segment.walk_from_offset(
                self.offset, read_bytes=self._read_bytes, after_read=self._require_same_epoch
            )
        except CorruptLog:
            self._require_same_epoch()
            raise

    def _require_in_range(self) -> None:
        start, end = self._view.layout.start, self._view.end
        if not start <= self.offset <= end:
            raise OffsetOutOfRange(self.offset, start, end)

    def _require_same_epoch(self) -> None:
        if self._view.epoch != self._epoch:
            raise _EpochMoved


def require_open(view: View) -> None:
    if view.is_closed:
        raise LogClosed(f"{view.layout.active.directory.path} is closed")


def at_one_epoch(view: View, look_up: Callable[[], T]) -> T:
    """What `look_up` returns, called again for as long as the log was cut or recycled meanwhile."""
    while True:
        epoch = view.epoch
        try:
            found = look_up()
        except (LogError, OSError):
            if view.epoch == epoch:
                raise
        else:
            if view.epoch == epoch:
                return found
