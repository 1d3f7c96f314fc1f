"""Frames that left a log as bytes (`Log.frames`), read again elsewhere: what a consumer does with them."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.errors import CorruptBatch
from logstore.frame import (
    BODY_CRC_START,
    COMPACTED_HEADER,
    COMPACTED_MAGIC,
    FRAME_HEADER_BYTES,
    STAMP_START,
    Kind,
    chain_before,
    parse_frame_header,
    require_version,
)
from logstore.run import Run
from logstore.walk import Item, Tail, Walk


class _Bytes:
    """Bytes in memory, to walk over."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int, position: int, /) -> bytes:
        return self._data[position : position + count]

    def size(self) -> int:
        return len(self._data)


def read_frames(data: bytes) -> Iterator[Run | Item]:
    """The frames in `data`, checked: each body against its producer's checksum, each header against the one before.

    Both kinds offer `batches(start, end)` and `records(start, end)`. Raises CorruptBatch where bytes are damaged or
    a frame is not whole, and UnsupportedFormat for a newer version. Entries without records may be left out between
    frames; there, and at the start, the chain of header CRCs begins anew and the frame's place is believed.
    """
    position = 0
    before: Tail | None = None
    stopped = ""
    while position < len(data):
        tail = _tail_at(data, position)
        if before is not None and not (tail.next_index > before.next_index and tail.offset >= before.offset):
            raise CorruptBatch(f"frames arrived damaged at byte {position} of {len(data)}: {stopped}")
        walk = Walk(_Bytes(data), tail, segment_id=0, read_bytes=len(data))
        while (found := walk.run() or walk.next()) is not None:
            if isinstance(found, Item) and found.damage:
                raise CorruptBatch(f"frame of offset {found.offset} arrived damaged: {found.damage}")
            yield found
        if walk.tail.position == position:
            raise CorruptBatch(f"frames arrived damaged at byte {position} of {len(data)}: {walk.stopped}")
        before, stopped = walk.tail, walk.stopped
        position = before.position


def _tail_at(data: bytes, position: int) -> Tail:
    """The place of the frame at `position`, taken at its word for what it continues."""
    at = position
    if data[at : at + 4] == COMPACTED_MAGIC.to_bytes(4, "little"):
        at += COMPACTED_HEADER.size
    if at + FRAME_HEADER_BYTES > len(data):
        raise CorruptBatch(f"frames end within a header, at byte {position} of {len(data)}")
    header = parse_frame_header(data, at)
    require_version(header.version, "a frame")
    if header.kind != Kind.RECORDS or (at == position and header.span != header.record_count):
        raise CorruptBatch(f"a frame of {header.record_count} records says it takes {header.span} offsets")
    chain = chain_before(header.header_crc, data[at + STAMP_START : at + BODY_CRC_START])
    return Tail(position, header.entry_index, header.first_offset, header.term, header.append_time, chain)
