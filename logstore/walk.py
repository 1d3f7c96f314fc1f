"""Reads a store item by item, checking each: the one way in which frames are read in sequence.

Scans, recovery, compaction, `verify` and `repair` all walk. A walk starts at a known place (a `Tail`) and
moves it along: the place behind the last item read is always where the next one must be, with the header
CRC that it must continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from logstore.batch import RecordBatch, decode_frame, entry_data
from logstore.checksum import crc32c
from logstore.config import MIB
from logstore.filesystem import File
from logstore.frame import (
    BODY_CRC_START,
    COMPACTED_HEADER_BYTES,
    COMPACTED_MAGIC,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    HOLE_BYTES,
    HOLE_MAGIC,
    LINK,
    MARK_BYTES,
    MARK_MAGIC,
    STAMP,
    STAMP_START,
    Kind,
    SegmentHeader,
    link_is_whole,
    parse_compacted,
    parse_frame_header,
    parse_hole,
    parse_mark,
)

READ_BYTES: Final = MIB  # read at once: large enough that the system call is free, small enough for the cache
SMALL: Final = 4096  # below it, copying bytes is cheaper than a numpy view of them

# The part of a frame header under the header CRC; unpacking all of it costs twice as much.
_BRIEF: Final = Struct(LINK.format + STAMP.format.removeprefix("<"))


@dataclass(slots=True)
class Tail:
    """A place between two items, and what the log is there. The writer's is where the next frame goes."""

    position: int  # byte in the store, a multiple of 8
    index: int  # entry index of the next frame
    offset: int  # offset of the next record
    term: int  # of entry index - 1
    time: int  # its append time
    chain: int  # its header CRC

    @classmethod
    def at_start(cls, header: SegmentHeader) -> Tail:
        return cls(
            header.size, header.base_index, header.base_offset, header.previous_term, header.previous_time,
            header.previous_crc,
        )  # fmt: skip

    def copy(self) -> Tail:
        return replace(self)


class Item(NamedTuple):
    """A frame, compacted frame or hole that was read. Marks are taken in by the walk itself."""

    magic: int
    position: int  # in the store
    length: int
    entry_index: int
    end_index: int  # entry_index + 1, but for a hole
    offset: int
    end_offset: int
    term: int
    time: int
    kind: int
    header_crc: int  # what the next frame continues
    damage: str  # "" or what is wrong with the body; the header is whole
    buffer: bytes
    start: int  # of the item in buffer

    def data(self) -> bytes:
        return self.buffer[self.start : self.start + self.length]

    def entry_data(self) -> bytes:
        """What a command, no-op or configuration holds."""
        return entry_data(parse_frame_header(self.buffer, self.start), self.buffer, self.start)

    def batch(self) -> RecordBatch:
        """The records, of an undamaged item of kind RECORDS."""
        assert self.kind == Kind.RECORDS and not self.damage and self.magic != HOLE_MAGIC
        if self.magic == FRAME_MAGIC:
            return decode_frame(parse_frame_header(self.buffer, self.start), self.buffer, self.start)
        headers = parse_compacted(self.buffer, self.start)
        assert headers is not None
        return decode_frame(headers[1], self.buffer, self.start, headers[0])


class Walk:
    """Iterates over the items of one store from `tail` on, which it moves (the caller's is not touched).

    Ends at `end_position`, or where no whole item follows; then `stopped` says why, "" for an end that is
    merely the end. A frame whose body is damaged is returned with `damage`, because its header still says
    where the next one is.

    With `bodies` False only headers are checked, and `buffer` may lack the body.
    `after_read` is called after each read of the file, and may raise.
    """

    def __init__(
        self,
        file: File,
        tail: Tail,
        *,
        segment_id: int,
        end_position: int | None = None,
        bodies: bool = True,
        read_bytes: int = READ_BYTES,
        after_read: Callable[[], None] | None = None,
    ) -> None:
        self._file = file
        self.tail = tail.copy()
        self._segment_id = segment_id
        self.end_position = file.size() if end_position is None else end_position  # may be moved up
        self._bodies = bodies
        self._read_bytes = read_bytes
        self._after_read = after_read
        self._buffer = b""
        self._buffer_at = self.tail.position
        self._view = np.frombuffer(b"", np.uint8)
        self.durable_index = 0  # the highest that a mark named
        self.stopped = ""

    def __iter__(self) -> Iterator[Item]:
        while (item := self._next()) is not None:
            yield item

    def _next(self) -> Item | None:
        tail = self.tail
        while True:
            start = self._load(MARK_BYTES)
            if start < 0:
                if tail.position < self.end_position:
                    self.stopped = "the file ends within an item"
                return None
            magic = int.from_bytes(self._buffer[start : start + 4], "little")
            if magic == FRAME_MAGIC:
                return self._frame()
            if magic == MARK_MAGIC:
                if not self._mark(start):
                    return None
            elif magic == COMPACTED_MAGIC:
                return self._compacted()
            elif magic == HOLE_MAGIC:
                return self._hole()
            else:
                self.stopped = f"no item starts with {magic:#010x}"
                return None

    def _load(self, count: int) -> int:
        """Where in the buffer the `count` bytes at the tail are; -1 if the store has fewer."""
        position = self.tail.position
        start = position - self._buffer_at
        if start + count <= len(self._buffer):
            return start
        available = self.end_position - position
        if count > available:
            return -1
        self._buffer = self._file.read(min(max(count, self._read_bytes), available), position)
        self._buffer_at = position
        self._view = np.frombuffer(self._buffer, np.uint8)
        if self._after_read is not None:
            self._after_read()
        return 0 if count <= len(self._buffer) else -1

    def _checksum(self, seed: int, start: int, end: int) -> int:
        return crc32c(seed, self._buffer[start:end] if end - start < SMALL else self._view[start:end])

    def _frame(self) -> Item | None:
        tail = self.tail
        start = self._load(FRAME_HEADER_BYTES)
        if start < 0:
            self.stopped = "the file ends within a frame's header"
            return None
        magic, header_crc, index, term, offset, time, _, _, kind, span, length, body_crc = _BRIEF.unpack_from(
            self._buffer, start
        )
        if crc32c(tail.chain, self._buffer[start + STAMP_START : start + BODY_CRC_START]) != header_crc:
            self.stopped = "a frame's header is damaged, or does not continue the frame before"
            return None
        if index != tail.index or offset != tail.offset or length < FRAME_HEADER_BYTES or length % 8:
            self.stopped = f"a frame says entry {index}, offset {offset}; entry {tail.index}, offset {tail.offset} is next"
            return None
        position = tail.position
        damage = ""
        if self._bodies:
            start = self._load(length)
            if start < 0:
                self.stopped = "the file ends within a frame"
                return None
            if self._checksum(0, start + BODY_CRC_START, start + length) != body_crc:
                damage = "a frame's body does not match its checksum"
        elif position + length > self.end_position:
            self.stopped = "the file ends within a frame"
            return None
        end_offset = offset + span
        item = Item(
            magic, position, length, index, index + 1, offset, end_offset, term, time, kind, header_crc, damage,
            self._buffer, start,
        )  # fmt: skip
        self._advance(item)
        return item

    def _compacted(self) -> Item | None:
        tail = self.tail
        start = self._load(COMPACTED_HEADER_BYTES)
        headers = parse_compacted(self._buffer, start) if start >= 0 else None
        if headers is None:
            self.stopped = "a compacted frame's header is damaged"
            return None
        compacted, frame = headers
        original = start + COMPACTED_HEADER_BYTES - FRAME_HEADER_BYTES
        if (
            not link_is_whole(self._buffer, original, tail.chain, frame.header_crc)
            or frame.entry_index != tail.index
        ):
            self.stopped = "a compacted frame does not continue the frame before"
            return None
        length = compacted.length
        start = self._load(length if self._bodies else COMPACTED_HEADER_BYTES)
        if start < 0 or tail.position + length > self.end_position:
            self.stopped = "the file ends within a compacted frame"
            return None
        damage = ""
        if (
            self._bodies
            and self._checksum(0, start + COMPACTED_HEADER_BYTES, start + length) != compacted.body_crc
        ):
            damage = "a compacted frame's body does not match its checksum"
        item = Item(
            COMPACTED_MAGIC, tail.position, length, frame.entry_index, frame.entry_index + 1, frame.first_offset,
            frame.end_offset, frame.term, frame.append_time, frame.kind, frame.header_crc, damage,
            self._buffer, start,
        )  # fmt: skip
        self._advance(item)
        return item

    def _hole(self) -> Item | None:
        start = self._load(HOLE_BYTES)
        hole = parse_hole(self._buffer, start) if start >= 0 else None
        if hole is None or (hole.first_index, hole.first_offset) != (self.tail.index, self.tail.offset):
            self.stopped = "a hole's header is damaged, or it stands in the wrong place"
            return None
        item = Item(
            HOLE_MAGIC, self.tail.position, HOLE_BYTES, hole.first_index, hole.end_index, hole.first_offset,
            hole.end_offset, hole.term, hole.append_time, Kind.RECORDS, hole.chain, "", self._buffer, start,
        )  # fmt: skip
        self._advance(item)
        return item

    def _mark(self, start: int) -> bool:
        mark = parse_mark(self._buffer, start)
        if mark is None or mark.segment_id != self._segment_id:
            self.stopped = "a mark is damaged, or of an older life of the file"
            return False
        self.durable_index = max(self.durable_index, mark.durable_index)
        self.tail.position += MARK_BYTES
        return True

    def _advance(self, item: Item) -> None:
        tail = self.tail
        tail.position += item.length
        tail.index, tail.offset, tail.term, tail.time = item.end_index, item.end_offset, item.term, item.time
        tail.chain = item.header_crc
