"""Looking entries up by index, for replication. `Log` documents the functions."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.cursor import View
from logstore.errors import CorruptLog, IndexOutOfRange, OffsetOutOfRange
from logstore.frame import HOLE_MAGIC, Base, Kind, RawEntry
from logstore.segment import Segment
from logstore.walk import Item


def base(view: View) -> Base:
    header = view.layout.segments[0].header
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
    end = min(end, layout.active.end_index)
    found: list[RawEntry] = []
    held = 0
    while first < end:
        segment = layout.at_index(first)
        try:
            for length, entry in _whole_entries(segment, first, bytes_max):
                if found and held + length > bytes_max or entry.index >= end:
                    return found
                held += length
                found.append(entry)
        except CorruptLog:
            if not found:
                raise
            return found
        first = segment.end_index
    if not found:
        raise IndexOutOfRange(first, layout.base_indexes[0], layout.active.end_index - 1)
    return found


def _whole_entries(segment: Segment, first: int, read_bytes: int) -> Iterator[tuple[int, RawEntry]]:
    """(bytes in the store, entry) from entry `first` on; CorruptLog at the first that is damaged."""
    end = segment.end_index
    walk = segment.walk(first, read_bytes=read_bytes)
    while walk.tail.next_index < end:
        run = walk.run()
        if run is not None:
            yield from run.raw_entries()
            continue
        item = walk.next()
        if item is None or item.damage:
            raise segment.damaged(walk, item)
        yield item.length, _raw_entry(segment, item)


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
