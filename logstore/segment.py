"""One segment: a store file, its index, and where it ends.

A segment is *active* (the newest; it grows), *full* (another follows; it may not be durable yet) or *sealed*
(durable, and its index saved). Only the writer changes a segment. When a frame is complete it adds the row of the
index and then moves `tail`, in one step; so a reader takes what it needs of `tail` before it looks at the index.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from struct import Struct
from struct import error as StructError
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from logstore.config import KIB
from logstore.directory import Directory
from logstore.errors import CorruptLog, LogError, OffsetOutOfRange, RecordCompacted
from logstore.filesystem import File
from logstore.frame import (
    COMPACTED_HEADER,
    COMPACTED_MAGIC,
    FRAME_HEADER_BYTES,
    HOLE,
    HOLE_BYTES,
    HOLE_MAGIC,
    LINK,
    SegmentHeader,
    pack_segment_header,
)
from logstore.index import ROW, Index, SavedIndex, load_index, pack_index, read_saved_header
from logstore.record import Record
from logstore.run import Run
from logstore.walk import READ_BYTES, Item, Tail, Walk

_unpack_pair: Final = Struct("<II").unpack_from
_new_record: Final[Callable[[tuple[Any, ...]], Record]] = partial(tuple.__new__, Record)

SMALL_FRAME_BYTES_MAX: Final = 4 * KIB  # such frames are read whole, because two reads would cost more

# Of a plain frame: first offset, value offsets u32[n + 1], position of the values, append time, term.
_View = tuple[int, memoryview, int, int, int]

# Index.verified: what was seen of a frame since the log was opened.
UNKNOWN: Final = 0
PLAIN: Final = 1  # whole; each value lies where two offsets say
OTHER: Final = 2  # whole; compressed, compacted, or with more than values


def new_segment_id() -> int:
    return secrets.randbits(64)


class Segment:
    __slots__ = ("__weakref__", "_index", "_views", "directory", "file", "header", "is_sealed", "tail")

    tail: Tail  # behind its last frame; of a sealed one the position is known once the index is loaded
    is_sealed: bool

    def __init__(
        self, directory: Directory, header: SegmentHeader, file: File, tail: Tail | None = None
    ) -> None:
        self._index: Index | None = None
        self._views: dict[int, _View] = {}  # by row, of large plain frames that were read from lately
        self.directory = directory
        self.header = header
        self.file = file
        self.tail = Tail.at_start(header) if tail is None else tail
        self.is_sealed = False

    @property
    def end_position(self) -> int:
        """Bytes of the store up to the end of its last frame."""
        return self.tail.position

    @property
    def end_index(self) -> int:
        """Entry index of its last frame + 1."""
        return self.tail.next_index

    @property
    def end_offset(self) -> int:
        """Offset of its last record + 1."""
        return self.tail.offset

    @property
    def last_time(self) -> int:
        """Append time of its last frame."""
        return self.tail.time

    @property
    def base_index(self) -> int:
        return self.header.base_index

    @property
    def base_offset(self) -> int:
        return self.header.base_offset

    @property
    def store_path(self) -> str:
        return self.directory.store_path(self.header.base_index)

    @property
    def index_path(self) -> str:
        return self.directory.index_path(self.header.base_index)

    @property
    def store_bytes(self) -> int:
        return self.file.size()

    def __repr__(self) -> str:
        entries, offsets = f"{self.base_index}..{self.end_index}", f"{self.base_offset}..{self.end_offset}"
        return f"<Segment entries {entries} offsets {offsets}{' sealed' if self.is_sealed else ''}>"

    # ── the index ───────────────────────────────────────────────────────────────────────────────────

    @property
    def index(self) -> Index:
        """Loaded, or rebuilt from the store, at its first use. Raises CorruptLog if the store is damaged."""
        index = self._index
        if index is None:
            self._index = index = self._load_index() or self._rebuild_index()
            self.directory.note_loaded(self)
        return index  # not the field: another thread that loads indexes may have forgotten this one since

    @index.setter
    def index(self, index: Index) -> None:
        self._index = index

    @property
    def last_position(self) -> int | None:
        """Where in the store its last item begins; None if it is empty, or while the index is not loaded."""
        index = self._index
        return None if index is None or index.count == 0 else index.position(index.count - 1)

    @property
    def index_bytes(self) -> int:
        """Memory that the index of a sealed segment holds now."""
        return 0 if self._index is None else self._index.rows.nbytes

    def forget_index(self) -> None:
        """Free the memory of a sealed segment's index; its next use loads it again."""
        if self.is_sealed:
            self._index = None
            self._views = {}

    def saved_index(self) -> SavedIndex | None:
        """What the saved index says of this store; None unless it belongs to it."""
        saved = read_saved_header(self.directory.fs, self.index_path)
        belongs = (
            saved is not None
            and (saved.segment_id, saved.base_index) == (self.header.segment_id, self.base_index)
            and saved.base_index + saved.count == self.end_index
            and saved.end_offset == self.end_offset
        )
        return saved if belongs else None

    def _load_index(self) -> Index | None:
        saved = self.saved_index()
        if saved is None:
            return None
        self.tail = self.tail._replace(position=saved.end_position)
        return load_index(self.directory.fs, self.index_path, saved)

    def _rebuild_index(self) -> Index:
        walk = Walk(
            self.file, Tail.at_start(self.header), segment_id=self.header.segment_id, bodies=False,
        )  # fmt: skip
        rows = all_rows(walk)
        tail = walk.tail
        if tail.link != self.tail.link:
            raise CorruptLog(
                self.store_path, tail.position, walk.stopped or "entries are missing",
                entry=tail.next_index, offset=tail.offset,
            )  # fmt: skip
        self.tail = self.tail._replace(position=tail.position)
        return Index.in_memory(rows)

    def seal(self) -> None:
        """Save the index. The caller has made the store durable; nothing is appended any more."""
        data = pack_index(
            self.index, segment_id=self.header.segment_id, base_index=self.base_index,
            end_position=self.end_position, end_offset=self.end_offset,
        )  # fmt: skip
        file = self.directory.create_temporary(self.index_path)
        file.write(data, 0)
        file.sync()
        file.close()
        self.directory.put_in_place(self.index_path)
        self.is_sealed = True
        self._index = None  # the next use reads what was saved: the mapped file has no name any more

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def walk(
        self, index: int, *, read_bytes: int = READ_BYTES, after_read: Callable[[], None] | None = None
    ) -> Walk:
        """A walk that starts with entry `index`, or with the hole that it lies in."""
        return Walk(
            self.file, self.tail_before(index - self.base_index), segment_id=self.header.segment_id,
            end_position=self.end_position, read_bytes=read_bytes, after_read=after_read,
        )  # fmt: skip

    def walk_from_offset(
        self, offset: int, *, read_bytes: int = READ_BYTES, after_read: Callable[[], None] | None = None
    ) -> Walk:
        end = self.end_offset  # taken before the index's count: the writer moves it after
        index = self.index
        if offset < end:
            row = index.find(offset, end)[0]
        else:
            row = max(
                index.count - 1, 0
            )  # the last frame is read again, so that its end is found in one way only
        return self.walk(self.base_index + row, read_bytes=read_bytes, after_read=after_read)

    def tail_before(self, row: int) -> Tail:
        """The place of a row's frame; of the hole that it lies in."""
        index = self.index
        if row == 0:
            return Tail.at_start(self.header)
        position = index.position(row)
        while row and index.position(row - 1) == position:  # entries of one hole
            row -= 1
        if row == 0:
            return Tail.at_start(self.header)
        return Tail(
            position, self.base_index + row, index.offset(row), index.term(row - 1), index.time(row - 1),
            self._chain_after(index.position(row - 1)),
        )  # fmt: skip

    def _chain_after(self, position: int) -> int:
        """The header CRC that the frame behind the item at `position` continues."""
        data = self.file.read(HOLE_BYTES, position)
        if len(data) < HOLE_BYTES:
            raise CorruptLog(self.store_path, position, "the file ends before this item")
        magic, crc = LINK.unpack_from(data)
        if magic == COMPACTED_MAGIC:
            crc = LINK.unpack_from(data, COMPACTED_HEADER.size)[1]
        elif magic == HOLE_MAGIC:
            crc = HOLE.unpack_from(data)[8]
        return int(crc)

    def item(self, row: int) -> Item:
        """The frame of a row, verified; CorruptLog if it is damaged."""
        walk = self.walk(self.base_index + row, read_bytes=1)
        item = walk.next()
        if item is None or item.damage:
            raise self.damaged(walk, item)
        self.note_verified(item)
        return item

    def damaged(self, walk: Walk, item: Item | None) -> CorruptLog:
        """The error for a walk of this store that met a damaged body (`item`), or stopped before the end."""
        if item is not None:
            return CorruptLog(
                self.store_path, item.position, item.damage, entry=item.entry_index, offset=item.offset
            )
        tail = walk.tail
        return CorruptLog(
            self.store_path, tail.position, walk.stopped, entry=tail.next_index, offset=tail.offset
        )

    def note_verified(self, item: Item) -> int:
        """Remember that a frame is whole, and return how its records can be read."""
        how = PLAIN if item.is_plain else OTHER
        self._note(item.entry_index, bytes((how,)))
        return how

    def note_run_verified(self, run: Run) -> None:
        self._note(run.entry_index, np.where(run.is_plain, np.uint8(PLAIN), np.uint8(OTHER)).tobytes())

    def _note(self, entry_index: int, how: bytes) -> None:
        index = self._index
        if index is None:  # forgotten meanwhile; loading it only for this could meet a segment that is gone
            return
        verified, row = index.verified, entry_index - self.base_index
        if row + len(how) <= len(verified):
            verified[row : row + len(how)] = how

    def read(self, offset: int) -> Record:
        """The record at `offset`, which the caller has seen below the log's end."""
        index = self._index
        if index is not None and self._views:
            first = self.header.base_offset
            view = self._views.get(
                (offset - first) * index.count // (self.tail[2] - first)
            )  # as in Index.find
            if view is not None:
                frame_first, ends, values_at, time, term = view
                number = offset - frame_first
                if 0 <= number < len(ends) - 1:
                    start = ends[number]
                    size = ends[number + 1] - start
                    value = self.file.read(size, values_at + start)
                    if len(value) == size:
                        return _new_record((offset, value, b"", time, (), term))
        return self._look_up(offset)

    def _look_up(self, offset: int) -> Record:
        """`read` for a frame that was not read from lately."""
        frames_end = self.end_offset  # taken before the index's count: the writer moves it after
        self.require_below(offset, frames_end)
        index = self.index
        row, first, frame_end = index.find(offset, frames_end)
        how = index.verified[row] or self.note_verified(self.item(row))
        if how == OTHER:
            return self._read_decoded(row, offset)
        position, count = index.position(row), frame_end - first
        columns = position + FRAME_HEADER_BYTES
        values_at = columns + ((4 * count + 11) & ~7)
        frame_stop = index.position(row + 1) if row + 1 < index.count else self.end_position
        try:
            if frame_stop - position <= SMALL_FRAME_BYTES_MAX:
                data = self.file.read(frame_stop - columns, columns)
                start, stop = _unpack_pair(data, 4 * (offset - first))
                value = data[values_at - columns + start : values_at - columns + stop]
            else:
                ends = memoryview(self.file.read(4 * (count + 1), columns)).cast("I")
                start, stop = ends[offset - first], ends[offset - first + 1]
                value = self.file.read(stop - start, values_at + start)
                self._views[row] = (first, ends, values_at, index.time(row), index.term(row))
                self.directory.note_view(self, ends.nbytes)
            if len(value) == stop - start:
                return _new_record((offset, value, b"", index.time(row), (), index.term(row)))
        except (StructError, ValueError, IndexError):  # too few bytes; an end before its start
            pass
        raise CorruptLog(self.store_path, position, "it changed since it was verified", offset=offset)

    def require_below(self, offset: int, end: int) -> None:
        """OffsetOutOfRange for a reader that has seen an older end of the log than the segments of it."""
        if offset >= end:
            raise OffsetOutOfRange(offset, self.base_offset, end)

    def forget_views(self) -> None:
        self._views = {}

    def _read_decoded(self, row: int, offset: int) -> Record:
        item = self.item(row)
        if item.magic == HOLE_MAGIC:
            raise RecordCompacted(offset, "it was damaged, and repair gave it up")
        for record in item.batch().between(offset, offset + 1):
            return record
        raise RecordCompacted(offset)


def index_rows(item: Item) -> NDArray[np.void]:
    """The rows of the index for an item: one, or as many as a hole has entries."""
    row = (item.offset, item.position, item.term, item.time)
    return np.array([row] * (item.end_index - item.entry_index), ROW)


def all_rows(walk: Walk) -> NDArray[np.void]:
    """The rows of the index for all items that a walk finds, damaged bodies included."""
    rows = [np.empty(0, ROW)]
    while (found := walk.run() or walk.next()) is not None:
        rows.append(found.rows() if isinstance(found, Run) else index_rows(found))
    return np.concatenate(rows)


def write_store(directory: Directory, header: SegmentHeader, items: Iterable[bytes], end: Tail) -> Segment:
    """The segment with these items, in a temporary file; durable, and read again, on return.

    LogError unless the log goes on behind them as it does behind `end`. The id and `stale_end` of `header` are
    filled in here.
    """
    header = header._replace(segment_id=new_segment_id(), stale_end=0)
    path = directory.store_path(header.base_index)
    file = directory.create_temporary(path)
    file.write(pack_segment_header(header), 0)
    position = header.size
    for item in items:
        file.write(item, position)
        position += len(item)
    file.sync()

    walk = Walk(file, Tail.at_start(header), segment_id=header.segment_id)
    rows = all_rows(walk)
    if (walk.tail.link, walk.tail.position) != (end.link, position):
        raise LogError(f"{path}: rewriting it went wrong at {walk.tail}: {walk.stopped}; it stays as it was")
    new = Segment(directory, header, file, end._replace(position=position))
    new.index = Index.in_memory(rows)
    return new
