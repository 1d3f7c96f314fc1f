"""Damaged frames: which they are, and putting what a peer has in their place.

A replica knows where each of its frames lies, because the index says so, and what each has to be: frames of
replicas are equal byte for byte. So a damaged one is overwritten where it lies. That is safe at any moment: until
its last byte is there it is what it was before, damaged.

Which frames are damaged when a header is? A frame binds itself to the one before: its header CRC (its *link*) is
computed from its stamp and the link of the frame before. With n1, n2, n3 in a row:

1. n2's stamp is damaged: n2 does not continue n1, but n3 continues n2's link. That link is right, n2 is damaged.
2. n2's link is damaged: n2 does not continue n1 and n3 does not continue n2. n3 is whole all the same: what
   follows it continues its link, and the rest of it agrees with the index and with its body's checksum.

So a link is right if it continues the one before or if the frame behind continues it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from logstore.checksum import crc32c
from logstore.config import KIB
from logstore.cursor import View
from logstore.entry import Place, Unstamped, check_entries, stamp
from logstore.errors import CorruptLog
from logstore.filesystem import BytesLike, File
from logstore.frame import (
    BODY_CRC_START,
    COMPACTED_HEADER,
    COMPACTED_HEADER_BYTES,
    COMPACTED_MAGIC,
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    HOLE_MAGIC,
    MARK_BYTES,
    MARK_MAGIC,
    STAMP_START,
    FrameHeader,
    Kind,
    RawEntry,
    chain_before,
    pack_mark,
    parse_compacted,
    parse_frame_header,
    parse_mark,
)
from logstore.replication import refusals_as_damage
from logstore.segment import Segment
from logstore.walk import Item
from logstore.writer import Writer

# At once: where the disk refuses to read a part, little more is looked at piece by piece
READ_BYTES: Final = 128 * KIB


class _Head(NamedTuple):
    """What stands in front of a frame's records."""

    link: int
    continues: int  # the link that the frame before has to have
    body_at: int  # from the item's position
    body_crc: int
    length: int  # of the item
    fits: bool  # it agrees with the index


class _Rows:
    """The frames of one segment as its index knows them; a row is the place of an entry in the segment."""

    def __init__(self, segment: Segment) -> None:
        """Raises CorruptLog if the index is damaged as well: then it is not known where the frames are."""
        index, tail = (
            segment.index,
            segment.tail,
        )  # in this order: the index is what knows a sealed segment's end
        self.segment = segment
        self.index = index
        self._tail = tail
        self._count = tail.next_index - segment.base_index

    def _read(self, count: int, position: int) -> bytes:
        """Fewer bytes where the disk refuses to read them."""
        with suppress(CorruptLog), refusals_as_damage(self.segment):
            return self.segment.file.read(count, position)
        return b""

    def place(self, row: int) -> Place:
        """Where the frame has to be; without the link of the frame before."""
        header, index = self.segment.header, self.index
        term = index.term(row - 1) if row else header.previous_term
        time = index.time(row - 1) if row else header.previous_time
        return Place(header.base_index + row, index.offset(row), term, time, 0)

    def end(self, row: int) -> tuple[int, Place]:
        """(position, place) behind the frame and the marks behind it; without its link."""
        if row + 1 < self._count:
            return self.index.position(row + 1), self.place(row + 1)
        return self._tail.position, Place(*self._tail[1:])._replace(chain=0)

    def head(self, row: int) -> _Head | None:
        """None if it cannot be read, or is nothing that could be the frame."""
        position = self.index.position(row)
        data = self._read(COMPACTED_HEADER_BYTES, position)
        magic = int.from_bytes(data[:4], "little")
        compacted = parse_compacted(data, 0) if magic == COMPACTED_MAGIC else None
        at = 0 if compacted is None else COMPACTED_HEADER.size
        if (magic != FRAME_MAGIC and compacted is None) or len(data) < at + FRAME_HEADER_BYTES:
            return None
        frame = parse_frame_header(data, at)
        continues = chain_before(frame.header_crc, data[at + STAMP_START : at + BODY_CRC_START])
        if compacted is None:
            body_at, body_crc, length = BODY_CRC_START, frame.body_crc, frame.length
        else:
            body_at, body_crc, length = COMPACTED_HEADER_BYTES, compacted[0].body_crc, compacted[0].length
        return _Head(frame.header_crc, continues, body_at, body_crc, length, self._fits(row, frame, length))

    def _fits(self, row: int, frame: FrameHeader, length: int) -> bool:
        index, (end_position, behind) = self.index, self.end(row)
        room = end_position - index.position(row) - length
        return (
            (frame.entry_index, frame.first_offset) == self.place(row)[:2]
            and (frame.term, frame.append_time) == (index.term(row), index.time(row))
            and frame.end_offset == behind.offset
            and (frame.version, frame.stream) == (FORMAT_VERSION, 0)
            and (frame.kind == Kind.RECORDS) == (frame.span > 0)
            and room >= 0
            and room % MARK_BYTES == 0
        )

    def link(self, row: int) -> int | None:
        """The link of a frame if it is right, damaged though the rest of the frame may be."""
        if row < 0:
            return self.segment.header.previous_crc
        head = self.head(row)
        if head is None:
            return None
        if row + 1 == self._count:
            is_continued = head.link == self._tail.chain
        else:
            behind = self.head(row + 1)
            is_continued = behind is not None and behind.continues == head.link
        return head.link if is_continued or self._continues(row, head) else None

    def _continues(self, row: int, head: _Head) -> bool:
        """Whether the frame continues what stands in the place of the link before it."""
        if row == 0:
            return head.continues == self.segment.header.previous_crc
        before = self.head(row - 1)
        return before is not None and before.link == head.continues

    def link_behind(self, row: int) -> int | None:
        """What the link of a frame has to be, if anything tells."""
        if row + 1 == self._count:
            return self._tail.chain
        link = self.link(row)
        behind = self.head(row + 1)
        if link is not None or behind is None or not behind.fits or self.link(row + 1) is None:
            return link
        return behind.continues

    def is_whole(self, row: int) -> bool:
        head = self.head(row)
        if head is None or not head.fits:
            return False
        if not self._continues(row, head) and (self.link(row - 1) is not None or self.link(row) is None):
            return False
        body = self._read(head.length - head.body_at, self.index.position(row) + head.body_at)
        return len(body) == head.length - head.body_at and crc32c(0, body) == head.body_crc

    def first_in_doubt(self, row: int, end: int) -> int:
        """The first row from `row` on that a walk does not find whole; `end` if there is none below it."""
        whole = row
        with suppress(CorruptLog), refusals_as_damage(self.segment):
            walk = self.segment.walk(self.segment.base_index + row, read_bytes=READ_BYTES)
            while whole < end and (found := walk.run() or walk.next()) is not None:
                if isinstance(found, Item) and (found.damage or found.magic == HOLE_MAGIC):
                    break
                whole = walk.tail.next_index - self.segment.base_index
        return min(whole, end)

    def damaged(self, row: int, end: int) -> Iterator[int]:
        while row < end:
            row = self.first_in_doubt(row, end)
            if row < end and not self.is_whole(row):
                yield row
            row += 1


def damage(view: View, first: int, end: int) -> list[tuple[int, int]]:
    layout = view.layout
    end = min(end, layout.active.end_index)
    layout.at_index(first)  # IndexOutOfRange
    ranges: list[tuple[int, int]] = []
    while first < end:
        segment = layout.at_index(first)
        segment_end = min(end, segment.end_index)
        try:
            rows = _Rows(segment).damaged(first - segment.base_index, segment_end - segment.base_index)
            damaged = [(segment.base_index + row, segment.base_index + row + 1) for row in rows]
        except CorruptLog:  # nobody knows where its frames are
            damaged = [(first, segment_end)]
        for start, stop in damaged:
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
        first = segment_end
    return ranges


def replace_damaged(writer: Writer, entries: Sequence[RawEntry]) -> int:
    if not entries:
        return 0
    replaced = 0
    checked = check_entries(entries)
    with writer.maintenance():
        first, end = entries[0].index, entries[-1].index + 1
        while first < end:
            segment = writer.layout.at_index(first)
            stop = min(end, segment.end_index)
            start = first - entries[0].index
            replaced += _replace_in(segment, first, checked[start : start + stop - first])
            first = stop
    return replaced


def _replace_in(segment: Segment, first: int, entries: list[Unstamped]) -> int:
    try:
        rows = _Rows(segment)
    except CorruptLog:
        return 0
    first_row = first - segment.base_index
    damaged = list(rows.damaged(first_row, first_row + len(entries)))
    if not damaged:
        return 0
    file = segment.directory.fs.open(segment.store_path, writable=True)
    try:
        replaced = [row for row in damaged if _replace(rows, row, entries[row - first_row], file)]
        file.sync()
    finally:
        file.close()
    return len(replaced)


def _replace(rows: _Rows, row: int, entry: Unstamped, file: File) -> bool:
    """Write the entry in the place of a damaged frame if it is what was there: by the index, and by all links that are
    right, before and behind it."""
    before = rows.link(row - 1)
    if before is None:
        return False
    end_position, behind = rows.end(row)
    buffers: list[BytesLike] = []
    place = stamp(entry, rows.place(row)._replace(chain=before), buffers)
    room = end_position - rows.index.position(row) - entry.size
    if place._replace(chain=0) != behind or room < 0 or room % MARK_BYTES:
        return False
    if rows.link_behind(row) not in (place.chain, None):
        return False
    position = rows.index.position(row)
    file.write(b"".join(buffers), position)
    _renew_marks(rows.segment, file, position + entry.size, end_position, place.entry_index - 1)
    return True


def _renew_marks(segment: Segment, file: File, position: int, end_position: int, durable_index: int) -> None:
    """Write the marks between two frames again that are damaged."""
    for at in range(position, end_position, MARK_BYTES):
        mark = parse_mark(file.read(MARK_BYTES, at), 0)
        if mark is None or (mark.magic, mark.segment_id) != (MARK_MAGIC, segment.header.segment_id):
            file.write(pack_mark(segment.header.segment_id, durable_index), at)
