"""Looking entries up by index, for replication. `Log` documents the functions."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from logstore.cursor import View
from logstore.errors import CorruptLog, IndexOutOfRange, OffsetOutOfRange
from logstore.frame import HOLE_MAGIC, Base, Kind, RawEntry
from logstore.segment import Segment
from logstore.walk import Item


def count_below(view: View, lowest: int, below_index: int | None) -> int:
    """How many of the oldest segments hold only records below `lowest` and entries below `below_index`."""
    return sum(
        segment.end_offset <= lowest and (below_index is None or segment.end_index <= below_index)
        for segment in view.layout.segments[:-1]
    )


def base(view: View, number: int = 0) -> Base:
    """The place in front of a segment, by default the first."""
    header = view.layout.segments[number].header
    return Base(
        header.base_index - 1,
        header.previous_term,
        header.base_offset,
        header.previous_time,
        header.previous_crc,
    )


def term(view: View, index: int) -> int:
    layout = view.layout
    if index == layout.base_indexes[0] - 1:
        return layout.segments[0].header.previous_term
    segment = layout.at_index(index)
    return segment.index.term(index - segment.base_index)


def offset_of(view: View, index: int) -> int:
    layout = view.layout
    tail = layout.active.tail  # one for both: it moves on meanwhile
    if index == tail.next_index:
        return tail.offset
    segment = layout.at_index(index)
    return segment.index.offset(index - segment.base_index)


def index_of(view: View, offset: int) -> int:
    layout = view.layout
    end = layout.active.end_offset
    if not layout.start <= offset < end:
        raise OffsetOutOfRange(offset, layout.start, end)
    segment = layout.segments[layout.at_offset(offset)]
    return segment.base_index + segment.index.find(offset, segment.end_offset)[0]


def raw_entries(view: View, first: int, end: int, bytes_max: int) -> list[RawEntry]:
    layout = view.layout
    found: list[RawEntry] = []
    while first < min(end, layout.active.end_index):
        segment = layout.at_index(first)
        stop, position, size = _part_within(segment, first, min(end, segment.end_index), bytes_max)
        if found and size > bytes_max:
            break
        try:
            with refusals_as_damage(segment):
                for entry in _whole_entries(segment, first, stop, position):
                    found.append(entry)
        except CorruptLog:
            if not found:
                raise
            break
        bytes_max -= size
        first = stop
    if not found:
        raise IndexOutOfRange(first, layout.base_indexes[0], layout.active.end_index - 1)
    return found


def _part_within(segment: Segment, first: int, end: int, bytes_max: int) -> tuple[int, int, int]:
    """(end of the entries from `first` on that take at most `bytes_max`, but one, end position, bytes)."""
    index, tail = segment.index, segment.tail  # in this order: the index is what knows a sealed segment's end
    count, row = tail.next_index - segment.base_index, first - segment.base_index
    positions = index.rows["position"][:count]
    start = int(positions[row])
    if tail.position <= start + bytes_max:
        stop = count
    else:
        stop = int(positions.searchsorted(start + bytes_max, "right")) - 1
    stop = max(min(stop, end - segment.base_index), row + 1)
    position = int(positions[stop]) if stop < count else tail.position
    if position == start:  # within a hole
        position = tail.position
    return segment.base_index + stop, position, position - start


@contextmanager
def refusals_as_damage(segment: Segment) -> Iterator[None]:
    """A disk that refuses to read a part of the store is CorruptLog: another replica has what was there."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise CorruptLog(segment.store_path, 0, f"the disk refused to read a part of it: {error}") from error


def _whole_entries(segment: Segment, first: int, end: int, end_position: int) -> Iterator[RawEntry]:
    """Entries first..end-1, which end at a position; CorruptLog at the first that is damaged."""
    walk = segment.walk(first)
    walk.end_position = end_position
    while walk.tail.next_index < end:
        run = walk.run()
        if run is not None:
            yield from run.raw_entries()
            continue
        item = walk.next()
        if item is None or item.damage:
            raise segment.damaged(walk, item)
        yield _raw_entry(segment, item)


def _raw_entry(segment: Segment, item: Item) -> RawEntry:
    if item.magic == HOLE_MAGIC:
        raise CorruptLog(
            segment.store_path, item.position, f"entries to before {item.end_index} were given up by repair",
            entry=item.entry_index, offset=item.offset,
        )  # fmt: skip
    kind = Kind(item.kind)
    return RawEntry(
        item.entry_index, item.term, kind, item.data() if kind == Kind.RECORDS else item.entry_data()
    )
