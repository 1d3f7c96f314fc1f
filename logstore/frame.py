"""What lies in a store file: layouts, checksums and the chain. Pure; docs/FORMATS.md is the same in tables.

A store is a segment header and then items, each starting at a multiple of 8 with a magic of 4 bytes:

    frame      one entry of the log: a header of 96 bytes and a body made by whoever produced it
    compacted  the same entry after compaction: its old header, and a smaller body
    hole       entries that were damaged and that repair gave up
    mark       local: everything up to here was on disk when this was written

The chain. A frame's header CRC covers its stamp (bytes 8 to 56), which holds the body's CRC, and is seeded
with the header CRC of the frame before. So a frame continues exactly one log: what a truncation or an
older life of a recycled file left behind can never follow a newer frame. Two more facts bind bytes to their
place: a frame names its entry index, a mark its segment's id.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from logstore.checksum import crc32c, seed_of
from logstore.errors import UnsupportedFormat
from logstore.filesystem import BytesLike

FORMAT_VERSION: Final = 1

FRAME_MAGIC: Final = int.from_bytes(b"LfrM", "little")
COMPACTED_MAGIC: Final = int.from_bytes(b"LcmP", "little")
HOLE_MAGIC: Final = int.from_bytes(b"LhoL", "little")
MARK_MAGIC: Final = int.from_bytes(b"LmrK", "little")
SEGMENT_MAGIC: Final = b"LOGSEG\r\n"  # the line end shows a transfer in text mode


class Kind(IntEnum):
    """What an entry is. Only records take offsets."""

    RECORDS = 1
    COMMAND = 2  # for a state machine
    NOOP = 3  # a leader's first entry
    CONFIGURATION = 4  # of the cluster


class RawEntry(NamedTuple):
    """An entry as it travels between the machines of a cluster."""

    index: int  # type: ignore[assignment]  # from 1; it hides tuple.index, which nobody needs here
    term: int
    kind: Kind
    data: bytes  # RECORDS: the whole frame, of whose stamp only time, kind, span, length and body CRC count


class Base(NamedTuple):
    """The place in front of the first entry of a log."""

    index: int  # type: ignore[assignment]  # of the entry before the first; it hides tuple.index
    term: int  # of that entry
    offset: int  # of the log's first record
    time: int  # append time of the entry before the first, UTC nanoseconds
    chain: int  # its header CRC


class Section(IntEnum):
    """Bits of the optional columns of a body."""

    KEYS = 1
    TIMES = 2
    HEADERS = 4


class Codec(IntEnum):
    """How the value bytes are stored."""

    NONE = 0
    ZSTD = 1


# ── frames ──────────────────────────────────────────────────────────────────────────────────────────

LINK: Final = Struct("<II")  # magic, header CRC
STAMP: Final = Struct(
    "<QQQqHBBIII"
)  # index, term, offset, time, stream, version, kind, span, length, body CRC
PRODUCER: Final = Struct("<QQIIIIBBHI")  # id, sequence, epoch, records, stored, raw, sections, codec, 0, 0
FRAME_HEADER: Final = Struct("<IIQQQqHBBIIIQQIIIIBBHI")
FRAME_HEADER_BYTES: Final = FRAME_HEADER.size
STAMP_START: Final = LINK.size
BODY_CRC_START: Final = LINK.size + STAMP.size  # the body's CRC covers all from here
BODY_CRC_AT: Final = BODY_CRC_START - 4
assert FRAME_HEADER_BYTES == 96 == BODY_CRC_START + PRODUCER.size


class FrameHeader(NamedTuple):
    magic: int
    header_crc: int
    entry_index: int  # Raft position, from 1
    term: int
    first_offset: int  # of its first record; the next record's where it has none
    append_time: int  # UTC nanoseconds, never less than the frame's before
    stream: int  # 0 for now
    version: int
    kind: int
    span: int  # offsets that the frame takes: its record count, or 0 where it has no records
    length: int  # bytes of the whole frame, a multiple of 8
    body_crc: int
    producer_id: int  # 0: not an idempotent producer
    first_sequence: int
    producer_epoch: int
    record_count: int  # the producer's word for span, under the body's CRC
    values_stored: int  # bytes of the values as they lie here
    values_raw: int  # bytes of the values once decompressed
    sections: int
    codec: int
    reserved_16: int
    reserved_32: int

    @property
    def end_offset(self) -> int:
        return self.first_offset + self.span


class Payload(NamedTuple):
    """The part of a frame that its producer makes: bytes 56 to the end, in pieces."""

    buffers: tuple[BytesLike, ...]
    size: int  # of all buffers; with the 56 bytes before it a multiple of 8
    crc: int  # CRC-32C of all buffers
    record_count: int


def parse_frame_header(buffer: bytes, position: int = 0) -> FrameHeader:
    return FrameHeader._make(FRAME_HEADER.unpack_from(buffer, position))


def link_is_whole(buffer: bytes, position: int, chain: int, header_crc: int) -> bool:
    """Whether the frame header at `position` is undamaged and follows the frame with header CRC `chain`."""
    return crc32c(chain, buffer[position + STAMP_START : position + BODY_CRC_START]) == header_crc


def require_version(version: int, where: str) -> None:
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{where}: format version {version}, this program reads {FORMAT_VERSION}; use a newer one"
        )


# ── compacted frames ────────────────────────────────────────────────────────────────────────────────

COMPACTED_HEADER: Final = Struct("<IIIIIIIBBH")
COMPACTED_HEADER_BYTES: Final = COMPACTED_HEADER.size + FRAME_HEADER_BYTES
assert COMPACTED_HEADER_BYTES == 128


class CompactedHeader(NamedTuple):
    magic: int
    crc: int  # of bytes 8 to 128
    length: int  # bytes of the whole item, a multiple of 8
    body_crc: int  # of bytes 128 to the end
    record_count: int  # records that remain
    values_stored: int
    values_raw: int
    sections: int
    codec: int
    reserved: int


def pack_compacted(
    header: bytes,
    body: bytes,
    *,
    record_count: int,
    values_stored: int,
    values_raw: int,
    sections: int,
    codec: int,
) -> bytes:
    """The item that replaces a frame: its own header of 96 bytes, and a body with what remains."""
    assert len(header) == FRAME_HEADER_BYTES and len(body) % 8 == 0
    length = COMPACTED_HEADER_BYTES + len(body)
    fields = (length, crc32c(0, body), record_count, values_stored, values_raw, sections, codec, 0)
    covered = COMPACTED_HEADER.pack(0, 0, *fields)[8:] + header
    return LINK.pack(COMPACTED_MAGIC, crc32c(0, covered)) + covered + body


def shortened_header(header: FrameHeader, span: int, chain: int) -> bytes:
    """The header of a frame that keeps only its first `span` offsets; follows the frame with header CRC `chain`."""
    whole = FRAME_HEADER.pack(*header._replace(span=span))
    stamp_bytes = whole[STAMP_START:BODY_CRC_START]
    return LINK.pack(FRAME_MAGIC, crc32c(chain, stamp_bytes)) + stamp_bytes + whole[BODY_CRC_START:]


def parse_compacted(buffer: bytes, position: int) -> tuple[CompactedHeader, FrameHeader] | None:
    """Both headers of the item at `position`, or None if either is damaged."""
    if position + COMPACTED_HEADER_BYTES > len(buffer):
        return None
    compacted = CompactedHeader._make(COMPACTED_HEADER.unpack_from(buffer, position))
    if crc32c(0, buffer[position + 8 : position + COMPACTED_HEADER_BYTES]) != compacted.crc:
        return None
    return compacted, parse_frame_header(buffer, position + COMPACTED_HEADER.size)


# ── holes ───────────────────────────────────────────────────────────────────────────────────────────

HOLE: Final = Struct("<IIQQQQQqII")
HOLE_BYTES: Final = HOLE.size
assert HOLE_BYTES == 64


class Hole(NamedTuple):
    magic: int
    crc: int  # of bytes 8 to 64
    first_index: int
    end_index: int
    first_offset: int
    end_offset: int
    term: int  # of the entry before: that of the lost ones is not known
    append_time: int  # likewise
    chain: int  # header CRC that the frame behind the hole continues
    reserved: int


def pack_hole(
    *,
    first_index: int,
    end_index: int,
    first_offset: int,
    end_offset: int,
    term: int,
    append_time: int,
    chain: int,
) -> bytes:
    body = HOLE.pack(0, 0, first_index, end_index, first_offset, end_offset, term, append_time, chain, 0)[8:]
    return LINK.pack(HOLE_MAGIC, crc32c(0, body)) + body


def parse_hole(buffer: bytes, position: int) -> Hole | None:
    if position + HOLE_BYTES > len(buffer):
        return None
    hole = Hole._make(HOLE.unpack_from(buffer, position))
    whole = crc32c(0, buffer[position + 8 : position + HOLE_BYTES]) == hole.crc
    return hole if whole else None


def chain_before(header_crc: int, stamp_bytes: bytes) -> int:
    """The chain value that a frame with this header CRC continues."""
    return seed_of(header_crc, stamp_bytes)


# ── marks ───────────────────────────────────────────────────────────────────────────────────────────

MARK: Final = Struct("<IIQQ")
MARK_BYTES: Final = MARK.size
assert MARK_BYTES == 24


class Mark(NamedTuple):
    magic: int
    crc: int  # of bytes 8 to 24
    segment_id: int
    durable_index: int  # highest entry such that it and all before it are durable


def pack_mark(segment_id: int, durable_index: int) -> bytes:
    body = MARK.pack(0, 0, segment_id, durable_index)[8:]
    return LINK.pack(MARK_MAGIC, crc32c(0, body)) + body


def parse_mark(buffer: bytes, position: int) -> Mark | None:
    if position + MARK_BYTES > len(buffer):
        return None
    mark = Mark._make(MARK.unpack_from(buffer, position))
    whole = crc32c(0, buffer[position + 8 : position + MARK_BYTES]) == mark.crc
    return mark if whole else None


# ── segment headers ─────────────────────────────────────────────────────────────────────────────────

SEGMENT: Final = Struct("<8sIIIIQQQQqIIQQQ")
SEGMENT_HEADER_BYTES: Final = SEGMENT.size
assert SEGMENT_HEADER_BYTES == 96
SEGMENT_CRC_START: Final = 12
CONFIGURATION_BYTES_MAX: Final = 1024 * 1024  # some thousand servers; a larger one is a bug of the caller


class SegmentHeader(NamedTuple):
    """What the log is at the start of this segment, so that no other file is needed to read it."""

    segment_id: int  # random; tells this life of a recycled file from the ones before
    base_index: int  # entry index of the first frame; the file's name
    base_offset: int  # offset of the first record
    previous_term: int  # of entry base_index - 1
    previous_time: int  # its append time
    previous_crc: int  # its header CRC, which the first frame continues
    durable_index: int  # entries that were durable when this segment was made
    stale_end: int  # bytes before this position may be an older life's
    configuration_index: int  # entry of the configuration in force at base_index - 1; 0 if none
    configuration: bytes

    @property
    def size(self) -> int:
        return SEGMENT_HEADER_BYTES + -(-len(self.configuration) // 8) * 8


def pack_segment_header(header: SegmentHeader) -> bytes:
    assert len(header.configuration) <= CONFIGURATION_BYTES_MAX
    fields = SEGMENT.pack(
        SEGMENT_MAGIC, 0, header.size, FORMAT_VERSION, len(header.configuration), header.segment_id,
        header.base_index, header.base_offset, header.previous_term, header.previous_time,
        header.previous_crc, 0, header.durable_index, header.stale_end, header.configuration_index,
    )  # fmt: skip
    covered = (fields[SEGMENT_CRC_START:] + header.configuration).ljust(
        header.size - SEGMENT_CRC_START, b"\0"
    )
    crc = crc32c(0, covered)
    return SEGMENT_MAGIC + crc.to_bytes(4, "little") + covered


def parse_segment_header(data: bytes, where: str) -> SegmentHeader | None:
    """The header at the start of a store, or None if it is damaged; `data` may be longer or shorter."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    (
        magic, crc, length, version, configuration_bytes, segment_id, base_index, base_offset, previous_term,
        previous_time, previous_crc, _, durable_index, stale_end, configuration_index,
    ) = SEGMENT.unpack_from(data)  # fmt: skip
    if magic != SEGMENT_MAGIC or length > len(data) or configuration_bytes > length - SEGMENT_HEADER_BYTES:
        return None
    if crc32c(0, data[SEGMENT_CRC_START:length]) != crc:
        return None
    require_version(version, where)
    configuration = data[SEGMENT_HEADER_BYTES : SEGMENT_HEADER_BYTES + configuration_bytes]
    return SegmentHeader(
        segment_id, base_index, base_offset, previous_term, previous_time, previous_crc, durable_index,
        stale_end, configuration_index, configuration,
    )  # fmt: skip


# ── batches on the wire ─────────────────────────────────────────────────────────────────────────────


def wire_frame(payload: Payload) -> bytes:
    """A batch as a producer sends it: a frame whose stamp is empty but for length and body CRC."""
    middle = STAMP.pack(
        0,
        0,
        0,
        0,
        0,
        FORMAT_VERSION,
        Kind.RECORDS,
        payload.record_count,
        BODY_CRC_START + payload.size,
        payload.crc,
    )
    return b"".join((LINK.pack(FRAME_MAGIC, 0), middle, *payload.buffers))
