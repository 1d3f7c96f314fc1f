"""The ways to read a log, on top of a cursor. `Log` documents them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logstore.batch import RecordBatch
from logstore.cursor import Cursor, View, at_one_epoch, require_open
from logstore.errors import LogError, OffsetOutOfRange
from logstore.gather import gather
from logstore.record import Record
from logstore.walk import Item

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def read_many(view: View, wanted: ArrayLike) -> list[bytes]:
    """The values at the offsets, in that order; an array of several dimensions is read row by row."""
    array = np.asarray(wanted).ravel()
    if not len(array):
        return []
    if array.dtype.kind not in "iu":  # a mask of booleans above all: it would pass as zeros and ones
        raise TypeError(f"offsets are integers, not {array.dtype}")
    offsets = array.astype(np.int64)
    is_sorted = bool((offsets[1:] >= offsets[:-1]).all())
    order = None if is_sorted else offsets.argsort()
    ascending = offsets if order is None else offsets[order]
    found = at_one_epoch(view, lambda: _gather_all(view, ascending))
    if order is None:
        return found
    values = np.empty(len(found), object)
    values[order] = found
    return values.tolist()


def _gather_all(view: View, offsets: NDArray[np.int64]) -> list[bytes]:
    end, layout = view.end, view.layout
    for offset in (int(offsets[0]), int(offsets[-1])):
        if not layout.start <= offset < end:
            raise OffsetOutOfRange(offset, layout.start, end)
    places = np.array(layout.base_offsets, np.int64).searchsorted(offsets, "right") - 1
    bounds = np.flatnonzero(np.diff(places)) + 1
    values: list[bytes] = []
    for part, place in zip(np.split(offsets, bounds), places[np.append(0, bounds)].tolist(), strict=True):
        values += gather(layout.segments[place], part)
    return values


def batches(cursor: Cursor, end: int) -> Iterator[RecordBatch]:
    start = cursor.offset
    while (found := cursor.next(end)) is not None:
        yield from found.batches(start, end)
        start = cursor.offset  # the next may begin with frames that were read already


def records(cursor: Cursor, end: int) -> Iterator[Record]:
    start = cursor.offset
    while (found := cursor.next(end)) is not None:
        yield from found.records(start, end)
        start = cursor.offset


def batches_backwards(view: View, start: int, end: int, read_bytes: int) -> Iterator[RecordBatch]:
    """The batches of start..end-1, the last first; read in blocks of about `read_bytes`."""
    while end > start:
        require_open(view)
        before, items = at_one_epoch(view, partial(_block_before, view, end, read_bytes))
        for item in reversed(items):
            batch = item.batch().between(start, end)
            if len(batch):
                yield batch
        end = before


def _block_before(view: View, end: int, read_bytes: int) -> tuple[int, list[Item]]:
    """(offset at which the block begins, its frames with records, in order)."""
    layout = view.layout
    if not layout.start < end <= view.end:
        raise OffsetOutOfRange(end - 1, layout.start, view.end)
    segment = layout.segments[layout.at_offset(end - 1)]
    frames_end = segment.end_offset
    segment.require_below(end - 1, frames_end)
    index = segment.index
    last = index.find(end - 1, frames_end)[0]
    positions = index.rows["position"][: last + 1]
    first = int(positions.searchsorted(max(index.position(last) - read_bytes, 0), "left"))
    walk = segment.walk(segment.base_index + first, read_bytes=read_bytes)
    before = walk.tail.offset
    items = []
    for item in walk:
        if item.damage:
            raise segment.damaged(walk, item)
        if item.has_records:
            items.append(item)
        if item.end_offset >= end:
            return before, items
    raise segment.damaged(walk, None)


class Frames(NamedTuple):
    """Frames with the records first..end-1, back to back."""

    first_offset: int
    end_offset: int
    data: bytes


def frames(cursor: Cursor, end: int, bytes_max: int) -> Iterator[Frames]:
    """Whole frames as bytes, as many at a time as fit `bytes_max`, at least one."""
    start = cursor.offset
    held: list[bytes] = []
    held_bytes = first = last = 0
    while (found := cursor.next(end)) is not None:
        for offset, offset_end, data in found.frames(start, end):
            if held and held_bytes + len(data) > bytes_max:
                yield Frames(first, last, b"".join(held))
                held, held_bytes = [], 0
            first = first if held else offset
            last = offset_end
            held.append(data)
            held_bytes += len(data)
        start = cursor.offset
    if held:
        yield Frames(first, last, b"".join(held))


def offset_at(view: View, time: int) -> int:
    end = view.end
    for segment in view.layout.segments:
        if segment.last_time >= time and segment.end_index > segment.base_index:
            index = segment.index
            row = index.find_time(time)
            if row < index.count:
                return min(index.offset(row), end)
    return end


class SegmentSummary(NamedTuple):
    """One segment for people to look at; ranges are half-open."""

    base_index: int
    end_index: int
    base_offset: int
    end_offset: int
    bytes: int  # of its store file
    last_time: int  # append time of its last entry, UTC ns
    state: str  # active, full or sealed


def segments(view: View) -> list[SegmentSummary]:
    layout = view.layout
    return [
        SegmentSummary(
            one.base_index,
            one.end_index,
            one.base_offset,
            one.end_offset,
            one.store_bytes,
            one.last_time,
            "active" if one is layout.active else "sealed" if one.is_sealed else "full",
        )
        for one in layout.segments
    ]


class RawReader(io.RawIOBase):
    """All stores as one stream of bytes, as they were when it was made: each a segment header and its items."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._parts = [(segment, segment.end_position) for segment in view.layout.segments if segment.index]
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._parts:
            segment, end = self._parts[0]
            data = segment.file.read(min(len(buffer), end - self._position), self._position)
            if data and segment not in self._view.layout.segments:
                raise LogError(f"{segment.store_path} was removed while it was read; start the backup again")
            if data:
                self._position += len(data)
                buffer[: len(data)] = data
                return len(data)
            self._parts.pop(0)
            self._position = 0
        return 0
