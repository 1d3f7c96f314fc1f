"""Taking entries out of a log: its oldest segments, its end, or all of it; and segments that take another's place.

Files go one by one, each durably, and in an order in which a crash leaves a log without a gap: the oldest first at
the front, the newest first at the end.
"""

from __future__ import annotations

from logstore.errors import OffsetOutOfRange
from logstore.frame import Base
from logstore.opening import NO_CONFIGURATION, begin_log
from logstore.segment import Segment
from logstore.truncation import cut_segment, find_configuration
from logstore.writer import Writer


def remove_oldest(writer: Writer, count: int) -> int:
    """Remove the first `count` segments, never the active one, and return the bytes freed or recycled."""
    with writer.maintenance():
        segments = writer.layout.segments
        assert 0 <= count < len(segments)
        if not count:
            return 0
        writer.make_durable(segments[count - 1].end_index - 1)
        with writer.poisoning("a removal of segments"):  # going on to later ones would leave a gap
            segments[count].file.sync()  # its header says where the log starts; that must outlive the others
            writer.forget_oldest(count)
            freed = 0
            for segment in segments[:count]:
                freed += segment.file.size()
                _retire(writer, segment)
            return freed


def _retire(writer: Writer, segment: Segment) -> None:
    """Remove the files of a segment that nobody reads any more, or keep its store to be overwritten."""
    directory, spares = writer.directory, writer.spares
    is_worth_keeping = segment.file.size() >= writer.config.segment_bytes_max // 2
    if is_worth_keeping and len(spares) < writer.config.spare_segments_max:
        spare = directory.spare_path(segment.base_index)
        directory.fs.rename(segment.store_path, spare)
    else:
        spare = None
        directory.fs.remove(segment.store_path)
    directory.remove_if_exists(segment.index_path)
    directory.sync()
    if spare is not None:
        spares.append(spare)


def replace(writer: Writer, old: Segment, new: Segment) -> None:
    """Use `new`, which holds the same entries in a complete temporary file, from now on. Durable on return."""
    with writer.poisoning("a replacement of a segment"):
        writer.directory.put_in_place(old.store_path)
        new.file.path = old.store_path
        writer.put_in_place_of(old, new)


def truncate_suffix(writer: Writer, end: int) -> int:
    """Forget every record at or above offset `end`; returns the bytes freed. Durable on return."""
    with writer.maintenance(), writer.exclusive():
        layout = writer.layout
        log_end = layout.active.end_offset
        if not layout.start <= end <= log_end:
            raise OffsetOutOfRange(end, layout.start, log_end)
        if end == log_end:
            return 0
        segment = layout.segments[layout.at_offset(end)]
        row = segment.index.find(end, segment.end_offset)[0]
        return _cut(writer, segment, row, end)


def truncate_entries(writer: Writer, index: int) -> int:
    """Forget entry `index` and all after it; returns the bytes freed. Durable on return."""
    with writer.maintenance(), writer.exclusive():
        if index == writer.last_index + 1:
            return 0
        segment = writer.layout.at_index(index)
        row = index - segment.base_index
        return _cut(writer, segment, row, segment.index.offset(row))


def _cut(writer: Writer, segment: Segment, row: int, end: int) -> int:
    """Forget the entries from `row` of `segment` on; of that one keep its records below `end`."""
    if writer.failure is not None:
        raise writer.failure
    if end > segment.index.offset(row):
        segment.item(row)  # CorruptLog while nothing has changed yet
    segment.tail_before(row)
    layout = writer.layout
    kept = layout.segments[: layout.segments.index(segment)]
    freed = sum(one.file.size() for one in layout.segments[len(kept) :])
    with writer.poisoning("a truncation", is_locked=True):
        writer.announce_cut(end)
        _remove_newest(writer, layout.segments[len(kept) + 1 :])
        active = cut_segment(segment, row, end)
        last = active.end_index - 1
        configuration = writer.configuration
        writer.go_on_in(
            active, kept, durable_index=min(writer.durable_index, last),
            configuration=configuration if configuration.entry_index <= last else find_configuration(active),
        )  # fmt: skip
    return freed - active.file.size()


def _remove_newest(writer: Writer, segments: tuple[Segment, ...]) -> None:
    for segment in reversed(segments):
        writer.directory.fs.remove(segment.store_path)
        writer.directory.remove_if_exists(segment.index_path)
        writer.directory.sync()


def begin_at(writer: Writer, base: Base) -> None:
    """Forget everything: an empty log whose next entry follows `base`. Durable on return."""
    with writer.maintenance(), writer.exclusive(), writer.poisoning("a new beginning", is_locked=True):
        writer.announce_cut(0)
        while writer.spares:  # they hold entries with the numbers that come again now
            writer.directory.fs.remove(writer.spares.pop())
        _remove_newest(writer, writer.layout.segments)
        active = begin_log(writer.directory, base)
        writer.go_on_in(active, (), durable_index=base.index, configuration=NO_CONFIGURATION)
