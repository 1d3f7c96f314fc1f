"""Reads a store item by item, checking each: the one way in which frames are read in sequence.

Scans, recovery, compaction, `verify` and `repair` all walk. A walk starts at a known place (a `Tail`) and moves
on: behind an item is where the next one must be, with the header CRC that it must continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from logstore.batch import RecordBatch, decode_frame, entry_data
from logstore.checksum import crc32c
from logstore.config import MIB
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
from logstore.record import Record
from logstore.run import Run

READ_BYTES: Final = MIB  # read at once: large enough that the system call is free, small enough for the cache
SMALL: Final = 4096  # below it, copying bytes is cheaper than a numpy view of them

# The part of a frame header under the header CRC; unpacking all of it costs twice as much.
_unpack_brief: Final = Struct(LINK.format + STAMP.format.removeprefix("<")).unpack_from


_unpack_lengths: Final = Struct("<II40xII").unpack_from  # magic, header CRC, length, body CRC


class Source(Protocol):
    """What a walk needs of a file."""

    def read(self, count: int, position: int, /) -> bytes: ...
    def size(self) -> int: ...


class Tail(NamedTuple):
    """A place behind an item, and what the log is there. Immutable, so that it changes in one step."""

    position: int  # byte in the store, a multiple of 8
    next_index: int  # entry index of the next frame
    offset: int  # offset of the next record
    term: int  # of entry next_index - 1
    time: int  # its append time
    chain: int  # its header CRC

    @classmethod
    def at_start(cls, header: SegmentHeader) -> Tail:
        return cls(
            header.size, header.base_index, header.base_offset, header.previous_term, header.previous_time,
            header.previous_crc,
        )  # fmt: skip

    @property
    def link(self) -> tuple[int, int, int]:
        """What a segment that begins here must agree on. Term and time it may know better: see `Hole`."""
        return self.next_index, self.offset, self.chain


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

    @property
    def has_records(self) -> bool:
        """False for entries of other kinds, and for holes."""
        return self.kind == Kind.RECORDS and self.magic != HOLE_MAGIC

    @property
    def is_plain(self) -> bool:
        """Whether a value lies where two offsets say: not compacted, not compressed, and nothing but values."""
        at = self.start + FRAME_HEADER_BYTES - 8  # sections and codec
        return self.magic == FRAME_MAGIC and self.kind == Kind.RECORDS and self.buffer[at : at + 2] == b"\0\0"

    def data(self) -> bytes:
        return self.buffer[self.start : self.start + self.length]

    def entry_data(self) -> bytes:
        """What a command, no-op or configuration holds."""
        return entry_data(parse_frame_header(self.buffer, self.start), self.buffer, self.start)

    def batch(self) -> RecordBatch:
        """The records of an undamaged item that has them."""
        assert self.has_records and not self.damage
        if self.magic == FRAME_MAGIC:
            return decode_frame(parse_frame_header(self.buffer, self.start), self.buffer, self.start)
        headers = parse_compacted(self.buffer, self.start)
        assert headers is not None
        return decode_frame(headers[1], self.buffer, self.start, headers[0])

    # What readers take; `Run` offers the same for many frames.

    def batches(self, start: int, end: int) -> Iterator[RecordBatch]:
        """The batch, cut to records at offsets start..end-1, if it has any."""
        if self.has_records and len(batch := self.batch().between(start, end)):
            yield batch

    def frames(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """(first offset, end offset, bytes) of the frame, if it has records at offsets start..end-1."""
        if self.has_records and self.offset < end and start < self.end_offset:
            yield self.offset, self.end_offset, self.data()

    def records(self, start: int, end: int) -> Iterator[Record]:
        """The records at offsets start..end-1."""
        return chain.from_iterable(self.batches(start, end))


_new_item: Final[Callable[[tuple[Any, ...]], Item]] = partial(tuple.__new__, Item)


class Walk:
    """Reads the items of one store from a tail on.

    It ends at `end_position`, or where no whole item follows; then `stopped` says why. A frame whose body is
    damaged is returned with `damage`, because its whole header says where the next one is.

    With `bodies` False only headers are checked, and an item's buffer may lack the body. `after_read` is called
    after each read of the file and may raise.
    """

    def __init__(
        self,
        file: Source,
        tail: Tail,
        *,
        segment_id: int,
        end_position: int | None = None,
        bodies: bool = True,
        read_bytes: int = READ_BYTES,
        after_read: Callable[[], None] | None = None,
    ) -> None:
        self._file = file
        self._segment_id = segment_id
        self._bodies = bodies
        self._read_bytes = read_bytes
        self._after_read = after_read
        self._buffer = b""
        self._buffer_at = tail.position
        self._view = np.frombuffer(b"", np.uint8)
        self._position, self._next_index, self._offset, self._term, self._time, self._chain = tail
        self.end_position = file.size() if end_position is None else end_position  # may be moved up
        self.durable_index = 0  # the highest that a mark named
        self.damaged_marks: list[int] = []  # positions
        self.stopped = ""

    @property
    def tail(self) -> Tail:
        """Behind the last item."""
        return Tail(self._position, self._next_index, self._offset, self._term, self._time, self._chain)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.next, None)

    def next(self) -> Item | None:
        """The next item; None at the end."""
        while True:
            start = self._position - self._buffer_at
            if start + FRAME_HEADER_BYTES > len(self._buffer):
                start = self._load(MARK_BYTES)
                if start < 0:
                    return self._stopped(
                        "the file ends within an item" if self._position < self.end_position else ""
                    )
            magic = int.from_bytes(self._buffer[start : start + 4], "little")
            if magic == FRAME_MAGIC:
                return self._frame()
            if magic == COMPACTED_MAGIC:
                return self._compacted()
            if magic == HOLE_MAGIC:
                return self._hole()
            mark = parse_mark(self._buffer, start) if magic == MARK_MAGIC else None
            if mark is not None and mark.segment_id == self._segment_id:
                self.durable_index = max(self.durable_index, mark.durable_index)
            elif self._frame_follows_mark():  # a damaged mark costs nothing
                self.damaged_marks.append(self._position)
            else:
                return self._stopped(f"no item of this segment starts with {magic:#010x}")
            self._position += MARK_BYTES

    def run(self) -> Run | None:
        """The frames ahead, as many as are in memory whole and are undamaged; None if `next` has to be asked.

        The same checks as in `next`, in a loop without anything else.
        """
        start = self._load(FRAME_HEADER_BYTES)
        if start < 0:
            return None
        buffer, view, chain, bodies = self._buffer, self._view, self._chain, self._bodies
        starts: list[int] = []
        durable_index = self.durable_index
        last = len(buffer) - FRAME_HEADER_BYTES
        while start <= last:
            magic, header_crc, length, body_crc = _unpack_lengths(buffer, start)
            if magic != FRAME_MAGIC:
                mark = parse_mark(buffer, start) if magic == MARK_MAGIC else None
                if mark is None or mark.segment_id != self._segment_id:
                    break
                durable_index = max(durable_index, mark.durable_index)
                start += MARK_BYTES
                continue
            body, stop = start + BODY_CRC_START, start + length
            if stop > len(buffer) or length < FRAME_HEADER_BYTES or length % 8:
                break
            if crc32c(chain, buffer[start + STAMP_START : body]) != header_crc:
                break
            if bodies and crc32c(0, buffer[body:stop] if length < SMALL else view[body:stop]) != body_crc:
                break
            starts.append(start)
            chain = header_crc
            start = stop
        if not starts:
            return None
        run = Run(buffer, self._buffer_at, np.array(starts))
        if not run.follows(self._next_index, self._offset):
            return None  # `next` says what is wrong
        self.durable_index = durable_index
        self._position = self._buffer_at + start
        self._next_index, self._offset = self._next_index + len(run), run.end_offset
        self._term, self._time, self._chain = int(run.terms[-1]), int(run.times[-1]), chain
        return run

    def _stopped(self, reason: str) -> Item | None:
        self.stopped = reason
        return None

    def _frame_follows_mark(self) -> bool:
        """Whether the next frame lies behind a mark that begins at the position."""
        start = self._load(MARK_BYTES + FRAME_HEADER_BYTES)
        if start < 0:
            return False
        at = start + MARK_BYTES
        magic, header_crc = LINK.unpack_from(self._buffer, at)
        return magic == FRAME_MAGIC and link_is_whole(self._buffer, at, self._chain, header_crc)

    def _load(self, count: int) -> int:
        """Where in the buffer the `count` bytes at the position are; -1 if the store has fewer."""
        position = self._position
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

    def _checksum(self, start: int, end: int) -> int:
        return crc32c(0, self._buffer[start:end] if end - start < SMALL else self._view[start:end])

    def _frame(self) -> Item | None:
        start = self._load(FRAME_HEADER_BYTES)
        if start < 0:
            return self._stopped("the file ends within a frame's header")
        buffer = self._buffer
        magic, header_crc, index, term, offset, time, _, _, kind, span, length, body_crc = _unpack_brief(
            buffer, start
        )
        if crc32c(self._chain, buffer[start + STAMP_START : start + BODY_CRC_START]) != header_crc:
            return self._stopped("a frame's header is damaged, or does not continue the frame before")
        if index != self._next_index or offset != self._offset or length < FRAME_HEADER_BYTES or length % 8:
            return self._stopped(
                f"a frame says entry {index}, offset {offset}; entry {self._next_index}, offset {self._offset} is next"
            )
        damage = ""
        if start + length > len(buffer):
            start = self._load(length) if self._bodies else start
            if start < 0 or self._position + length > self.end_position:
                return self._stopped("the file ends within a frame")
        if self._bodies and self._checksum(start + BODY_CRC_START, start + length) != body_crc:
            damage = "a frame's body does not match its checksum"
        item = _new_item(
            (magic, self._position, length, index, index + 1, offset, offset + span, term, time, kind, header_crc,
             damage, self._buffer, start)
        )  # fmt: skip
        self._position += length
        self._next_index = index + 1
        self._offset = offset + span
        self._term, self._time, self._chain = term, time, header_crc
        return item

    def _compacted(self) -> Item | None:
        start = self._load(COMPACTED_HEADER_BYTES)
        headers = parse_compacted(self._buffer, start) if start >= 0 else None
        if headers is None:
            return self._stopped("a compacted frame's header is damaged")
        compacted, frame = headers
        original = start + COMPACTED_HEADER_BYTES - FRAME_HEADER_BYTES
        follows = link_is_whole(self._buffer, original, self._chain, frame.header_crc)
        if not follows or (frame.entry_index, frame.first_offset) != (self._next_index, self._offset):
            return self._stopped("a compacted frame does not continue the frame before")
        length = compacted.length
        start = self._load(length if self._bodies else COMPACTED_HEADER_BYTES)
        if start < 0 or self._position + length > self.end_position:
            return self._stopped("the file ends within a compacted frame")
        damage = ""
        if (
            self._bodies
            and self._checksum(start + COMPACTED_HEADER_BYTES, start + length) != compacted.body_crc
        ):
            damage = "a compacted frame's body does not match its checksum"
        return self._behind(
            Item(
                COMPACTED_MAGIC, self._position, length, frame.entry_index, frame.entry_index + 1,
                frame.first_offset, frame.end_offset, frame.term, frame.append_time, frame.kind, frame.header_crc,
                damage, self._buffer, start,
            )
        )  # fmt: skip

    def _hole(self) -> Item | None:
        start = self._load(HOLE_BYTES)
        hole = parse_hole(self._buffer, start) if start >= 0 else None
        if hole is None or (hole.first_index, hole.first_offset) != (self._next_index, self._offset):
            return self._stopped("a hole's header is damaged, or it stands in the wrong place")
        return self._behind(
            Item(
                HOLE_MAGIC, self._position, HOLE_BYTES, hole.first_index, hole.end_index, hole.first_offset,
                hole.end_offset, hole.term, hole.append_time, Kind.RECORDS, hole.chain, "", self._buffer, start,
            )
        )  # fmt: skip

    def _behind(self, item: Item) -> Item:
        """Move behind an item."""
        self._position += item.length
        self._next_index, self._offset = item.end_index, item.end_offset
        self._term, self._time, self._chain = item.term, item.time, item.header_crc
        return item
