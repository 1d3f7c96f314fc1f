"""Record batch: bytes of a frame -> columns and records. Pure: nothing here knows of files or the log.

The body of a frame holds its records as columns, each padded to a multiple of 8 bytes:

    value offsets    u32[n + 1]   from 0, ascending; value i is values[offsets[i]:offsets[i + 1]]
    key offsets      u32[n + 1]   the same for keys       (section KEYS)
    times            i64[n]       UTC ns, 0: not given    (section TIMES)
    header offsets   u32[n + 1]   the same for headers    (section HEADERS)
    values keys headers           the bytes, back to back; only values may be compressed

This is the layout of Arrow's binary array, so a batch becomes a numpy or Arrow array without a copy.
A compacted body has u32[n] in front: the offset of each remaining record relative to the frame's first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logstore.checksum import crc32c
from logstore.column import BytesColumn, UInt32s, ascending_from_zero, decode_headers
from logstore.config import Compression, Config
from logstore.encode import DEFAULTS, UNLIMITED, Values, check_record_sizes, encode_batch
from logstore.errors import BatchTooLarge, CorruptBatch, EmptyBatch
from logstore.frame import (
    BODY_CRC_START,
    COMPACTED_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    Codec,
    CompactedHeader,
    FrameHeader,
    Kind,
    Payload,
    Section,
    parse_frame_header,
    require_version,
    wire_frame,
)
from logstore.record import Headers, Record

if TYPE_CHECKING:
    import pyarrow

NO_HEADERS: Final[Headers] = ()
OFFSET_LIMIT: Final = 1 << 63  # offsets are below it, so that they fit i64 columns

_new_record: Final[Callable[[tuple[Any, ...]], Record]] = partial(tuple.__new__, Record)


@dataclass(slots=True, eq=False, repr=False)
class RecordBatch:
    """Some records that were appended together, as columns over the bytes they were read from.

    `entry_index`, `term`, `append_time` are those of the entry. `len()` is the number of records, which is less
    than `end_offset - first_offset` where compaction removed some.
    """

    entry_index: int
    term: int
    append_time: int
    first_offset: int
    end_offset: int
    values: BytesColumn
    keys: BytesColumn | None  # None: no record has one
    producer_id: int
    producer_epoch: int
    first_sequence: int
    _relative: UInt32s | None  # of each record from first_offset; None: 0, 1, 2...
    _times: NDArray[np.int64] | None
    _header_column: BytesColumn | None
    _wire: (
        tuple[bytes, int, int] | None
    )  # (buffer, start, end) of the whole frame; None for a part of one, or of what was compacted

    @classmethod
    def encode(
        cls, values: Values, *, compression: Compression = "none", config: Config = DEFAULTS
    ) -> RecordBatch:
        """A batch to be appended, encoded now. Its offsets count from 0 until it is read back."""
        if compression != config.compression:
            config = Config(
                compression=compression,
                record_bytes_max=config.record_bytes_max,
                batch_bytes_max=config.batch_bytes_max,
            )
        frame = wire_frame(encode_batch(values, config))
        return decode_frame(parse_frame_header(frame), frame, 0)

    @classmethod
    def from_bytes(cls, data: bytes, *, config: Config = DEFAULTS) -> RecordBatch:
        """The batch in these bytes, checked as bytes from a stranger; CorruptBatch says what is wrong."""
        header = check_wire_frame(data, config)
        return decode_frame(header, bytes(data), 0)

    def to_bytes(self) -> bytes:
        """The batch as one frame, as it travels between machines."""
        if self._wire is None:
            return wire_frame(self.payload())
        buffer, start, end = self._wire
        return buffer[start:end]

    def payload(self, config: Config = UNLIMITED) -> Payload:
        """What an append needs; RecordTooLarge or BatchTooLarge if it is over the limits.

        No byte is copied or summed again if the batch is whole; it then stays compressed, or not, as it is.
        """
        if self._wire is None:
            return encode_batch(list(self), config)
        buffer, start, end = self._wire
        header = parse_frame_header(buffer, start)
        raw_size = end - start - header.values_stored + header.values_raw
        if raw_size > config.batch_bytes_max:
            raise BatchTooLarge(raw_size, config.batch_bytes_max)
        if raw_size > config.record_bytes_max:
            columns = (self.values, self.keys, self._header_column)
            sizes = [np.diff(column.offsets).astype(np.int64) for column in columns if column is not None]
            check_record_sizes(np.sum(sizes, axis=0), config)
        piece = memoryview(buffer)[start + BODY_CRC_START : end]
        return Payload((piece,), len(piece), header.body_crc, header.record_count)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        keys = repeat(b"") if self.keys is None else self.keys.to_pylist()
        headers = (
            repeat(NO_HEADERS)
            if self._header_column is None
            else map(decode_headers, self._header_column.to_pylist())
        )
        times = repeat(self.append_time) if self._times is None else self.timestamps.tolist()
        offsets = (
            range(self.first_offset, self.end_offset) if self._relative is None else self.offsets.tolist()
        )
        return map(
            _new_record, zip(offsets, self.values.to_pylist(), keys, times, headers, repeat(self.term))
        )

    def __repr__(self) -> str:
        return f"<RecordBatch {len(self)} records, offsets {self.first_offset} to before {self.end_offset}>"

    @property
    def offsets(self) -> NDArray[np.uint64]:
        """The offset of each record, u64[n], ascending."""
        if self._relative is None:
            return np.arange(self.first_offset, self.end_offset, dtype=np.uint64)
        return self._relative.astype(np.uint64) + np.uint64(self.first_offset)

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """UTC nanoseconds, i64[n]: the producer's where given, else of the append."""
        if self._times is None:
            return np.full(len(self), self.append_time, np.int64)
        return np.where(self._times == 0, self.append_time, self._times)

    @property
    def headers(self) -> list[Headers]:
        if self._header_column is None:
            return [NO_HEADERS] * len(self)
        return [decode_headers(data) for data in self._header_column.to_pylist()]

    def to_pylist(self) -> list[bytes]:
        """The values."""
        return self.values.to_pylist()

    def to_arrow(self) -> pyarrow.BinaryArray:
        """The values as a pyarrow.BinaryArray over the same memory (needs the extra `arrow`)."""
        return self.values.to_arrow()

    def between(self, start: int, end: int) -> RecordBatch:
        """The part with offsets start..end-1, sharing memory; itself if that is all of it."""
        if start <= self.first_offset and self.end_offset <= end:
            return self
        start, end = max(start, self.first_offset), min(end, self.end_offset)
        first, last = np.searchsorted(self.offsets, np.array([start, end], np.uint64)).tolist()
        relative = None if self._relative is None else self._relative[first:last]
        return replace(
            self,
            first_offset=start,
            end_offset=end,
            values=self.values.slice(first, last),
            keys=None if self.keys is None else self.keys.slice(first, last),
            first_sequence=self.first_sequence + start - self.first_offset,
            _relative=None
            if relative is None
            else (relative - (start - self.first_offset)).astype(np.uint32),
            _times=None if self._times is None else self._times[first:last],
            _header_column=None if self._header_column is None else self._header_column.slice(first, last),
            _wire=None,
        )


# ── decoding ────────────────────────────────────────────────────────────────────────────────────────


class _Layout(NamedTuple):
    """Where the columns of a body lie. `end` counts the values, keys and headers but no padding."""

    relative: int
    offsets: int
    key_offsets: int
    times: int
    header_offsets: int
    values: int


def _layout(start: int, count: int, sections: int, *, compacted: bool) -> _Layout:
    """Positions of the columns of a body that starts at `start`."""
    narrow = (4 * count + 4 + 7) & ~7
    offsets = start + ((4 * count + 7) & ~7 if compacted else 0)
    key_offsets = offsets + narrow
    times = key_offsets + (narrow if sections & Section.KEYS else 0)
    header_offsets = times + (8 * count if sections & Section.TIMES else 0)
    values = header_offsets + (narrow if sections & Section.HEADERS else 0)
    return _Layout(start, offsets, key_offsets, times, header_offsets, values)


def decode_frame(
    header: FrameHeader, buffer: bytes, position: int, compacted: CompactedHeader | None = None
) -> RecordBatch:
    """The batch of the frame at `position` of `buffer`, whose checksums the caller has verified.

    With `compacted`, position is that of the compacted item and `header` the original one within it.
    """
    body = header if compacted is None else compacted
    at = position + (FRAME_HEADER_BYTES if compacted is None else COMPACTED_HEADER_BYTES)
    count, sections = body.record_count, body.sections
    place = _layout(at, count, sections, compacted=compacted is not None)

    keys_at = place.values + body.values_stored
    headers_at = keys_at
    values_at = place.values
    values_buffer = buffer
    if body.codec != Codec.NONE:
        values_at, values_buffer = 0, _decompress(buffer[place.values : keys_at], body.values_raw)
    keys = times = header_column = relative = None
    if compacted is not None:
        relative = np.frombuffer(buffer, "<u4", count, place.relative)
    if sections & Section.KEYS:
        keys = BytesColumn(np.frombuffer(buffer, "<u4", count + 1, place.key_offsets), buffer, keys_at)
        headers_at += int(keys.offsets[-1])
    if sections & Section.TIMES:
        times = np.frombuffer(buffer, "<i8", count, place.times)
    if sections & Section.HEADERS:
        header_offsets = np.frombuffer(buffer, "<u4", count + 1, place.header_offsets)
        header_column = BytesColumn(header_offsets, buffer, headers_at)
    return RecordBatch(
        header.entry_index,
        header.term,
        header.append_time,
        header.first_offset,
        header.end_offset,
        BytesColumn(np.frombuffer(buffer, "<u4", count + 1, place.offsets), values_buffer, values_at),
        keys,
        header.producer_id,
        header.producer_epoch,
        header.first_sequence,
        relative,
        times,
        header_column,
        (buffer, position, position + body.length) if compacted is None else None,
    )


def entry_data(header: FrameHeader, buffer: bytes, position: int) -> bytes:
    """What `encode_entry` was given, from the frame at `position`."""
    assert header.kind != Kind.RECORDS
    return buffer[position + FRAME_HEADER_BYTES : position + FRAME_HEADER_BYTES + header.values_stored]


def _decompress(stored: bytes, raw_size: int) -> bytes:
    import zstandard

    try:
        if zstandard.frame_content_size(stored) != raw_size:  # it could grow without bound
            raise CorruptBatch(f"compressed values do not hold the {raw_size} bytes that the batch declares")
        return zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise CorruptBatch(f"compressed values cannot be read: {error}") from error


def check_wire_frame(data: bytes, config: Config = DEFAULTS) -> FrameHeader:
    """The header of a batch from outside, once everything has been checked that a reader relies on.

    Lengths first, so that nothing outside of `data` is touched; then the CRC; then the columns, vectorised; then the
    records' headers, if there are any. Values and keys are never looked at.
    Raises EmptyBatch, RecordTooLarge, BatchTooLarge, UnsupportedFormat or CorruptBatch.
    """
    if len(data) < FRAME_HEADER_BYTES:
        raise CorruptBatch(f"a batch has at least {FRAME_HEADER_BYTES} bytes; {len(data)} came")
    header = parse_frame_header(data)
    if header.magic != FRAME_MAGIC:
        raise CorruptBatch(
            f"a batch starts with magic {FRAME_MAGIC:#010x}, this one with {header.magic:#010x}"
        )
    require_version(header.version, "a batch")
    if header.length != len(data) or header.length % 8:
        raise CorruptBatch(f"a batch says it has {header.length} bytes; {len(data)} came")
    computed = crc32c(0, np.frombuffer(data, np.uint8, offset=BODY_CRC_START))
    if computed != header.body_crc:
        raise CorruptBatch(
            f"a batch arrived damaged: checksum {header.body_crc:#010x}, computed {computed:#010x}"
        )
    if header.kind != Kind.RECORDS or header.codec not in (Codec.NONE, Codec.ZSTD) or header.sections > 7:
        raise CorruptBatch(
            f"a batch has kind {header.kind}, codec {header.codec}, sections {header.sections}; not known here"
        )
    if not header.record_count:
        raise EmptyBatch
    if header.span != header.record_count or header.end_offset > OFFSET_LIMIT:
        raise CorruptBatch(
            f"a batch of {header.record_count} records says it takes {header.span} offsets from {header.first_offset}"
        )
    _check_columns(header, data, config)
    return header


def _check_columns(header: FrameHeader, data: bytes, config: Config) -> None:
    count, sections = header.record_count, header.sections
    place = _layout(FRAME_HEADER_BYTES, count, sections, compacted=False)
    if place.values + header.values_stored > len(data):
        raise CorruptBatch(f"a batch of {len(data)} bytes says it has {count} records that do not fit")
    raw_size = len(data) - header.values_stored + header.values_raw
    if raw_size > config.batch_bytes_max:
        raise BatchTooLarge(raw_size, config.batch_bytes_max)
    if header.codec == Codec.NONE and header.values_raw != header.values_stored:
        raise CorruptBatch(
            f"a batch says {header.values_stored} bytes of values are {header.values_raw} bytes"
        )

    offsets = np.frombuffer(data, "<u4", count + 1, place.offsets)
    end = place.values + header.values_stored
    valid = ascending_from_zero(offsets, header.values_raw)
    sizes = np.diff(offsets).astype(np.int64)
    for section, at in ((Section.KEYS, place.key_offsets), (Section.HEADERS, place.header_offsets)):
        if sections & section:
            offsets = np.frombuffer(data, "<u4", count + 1, at)
            valid = valid and ascending_from_zero(offsets, int(offsets[-1]))
            sizes += np.diff(offsets)
            end += int(offsets[-1])
    if not valid or not end <= len(data) < end + 8:
        raise CorruptBatch("a batch has columns that do not ascend, or that end elsewhere than its bytes")
    check_record_sizes(sizes, config)
    if sections & Section.HEADERS:  # the last column; a reader could do nothing with one that is malformed
        starts = (offsets + (end - int(offsets[-1]))).tolist()
        for start, stop in pairwise(starts):
            decode_headers(data[start:stop])
