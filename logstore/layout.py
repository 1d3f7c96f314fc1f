"""Which segments a log has now, as readers see it."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from logstore.errors import IndexOutOfRange
from logstore.segment import Segment


class Layout(NamedTuple):
    """An immutable picture; a change makes a new one, so a reader needs no lock."""

    segments: tuple[Segment, ...]  # oldest first, never empty
    base_offsets: tuple[int, ...]
    base_indexes: tuple[int, ...]

    @classmethod
    def of(cls, segments: tuple[Segment, ...]) -> Layout:
        return cls(
            segments,
            tuple(segment.base_offset for segment in segments),
            tuple(segment.base_index for segment in segments),
        )

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    @property
    def start(self) -> int:
        return self.base_offsets[0]

    def at_offset(self, offset: int) -> int:
        """Place of the segment that holds the record, or would hold it next."""
        return max(bisect_right(self.base_offsets, offset) - 1, 0)

    def at_index(self, index: int) -> Segment:
        """The segment that holds the entry."""
        segment = self.segments[bisect_right(self.base_indexes, index) - 1]
        if not self.base_indexes[0] <= index < segment.end_index:
            raise IndexOutOfRange(index, self.base_indexes[0], self.active.end_index - 1)
        return segment
