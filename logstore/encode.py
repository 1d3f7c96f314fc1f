"""Values and records -> the payload of a frame. `batch` is the way back and describes the layout. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from logstore.checksum import crc32c
from logstore.column import PackedStrings, encode_headers, pack_strings
from logstore.config import BATCH_BYTES_LIMIT, Compression, Config
from logstore.errors import BatchTooLarge, EmptyBatch, RecordTooLarge
from logstore.frame import (
    BODY_CRC_START,
    FRAME_HEADER_BYTES,
    PRODUCER,
    Codec,
    FrameHeader,
    Payload,
    Section,
    pack_compacted,
)
from logstore.record import Record

Values = Sequence[Any]  # of bytes-like objects and Records

DEFAULTS: Final = Config()
# What is in the log stays in it, whatever the limits are now.
UNLIMITED: Final = Config(record_bytes_max=BATCH_BYTES_LIMIT, batch_bytes_max=BATCH_BYTES_LIMIT)
PADDING: Final = tuple(b"\0" * (-size % 8) for size in range(8))  # by size modulo 8
ZSTD_LEVEL: Final = 3  # zstd's own default

_ONE_VALUE: Final = Struct(PRODUCER.format + "II")


def encode_value(value: bytes, config: Config = DEFAULTS) -> Payload:
    """A batch of one record that is only a value: the shortest way, for single appends."""
    size = len(value)
    check_value_size(size, config)
    if config.compression != "none":
        return encode_batch([value], config)
    data = b"".join((_ONE_VALUE.pack(0, 0, 0, 1, size, size, 0, 0, 0, 0, 0, size), value, PADDING[size & 7]))
    return Payload((data,), len(data), crc32c(0, data), 1)


def check_value_size(size: int, config: Config) -> None:
    """Raise RecordTooLarge or BatchTooLarge for a single value of `size` bytes."""
    if size > config.record_bytes_max:
        raise RecordTooLarge(size, config.record_bytes_max)
    if FRAME_HEADER_BYTES + 8 + size > config.batch_bytes_max:
        raise BatchTooLarge(FRAME_HEADER_BYTES + 8 + size, config.batch_bytes_max)


def encode_batch(
    values: Values,
    config: Config = DEFAULTS,
    *,
    producer_id: int = 0,
    producer_epoch: int = 0,
    first_sequence: int = 0,
) -> Payload:
    """A batch of values (any bytes-like objects) or of Records, in their order.

    Raises EmptyBatch, RecordTooLarge, BatchTooLarge; TypeError for anything that is not bytes-like, and for a time
    that is no integer; OverflowError for a time beyond 64 bits; ValueError for a header's name that is too long.
    """
    count = len(values)
    if not count:
        raise EmptyBatch
    try:
        packed = pack_strings(values)
        sections, columns, others = 0, _padded(packed.offsets), b""
        if len(packed.data) > config.record_bytes_max:
            check_record_sizes(packed.sizes, config)
    except TypeError:  # some are Records; what is neither fails again there
        packed, sections, columns, others = _pack_records(values, config)
    raw_size = FRAME_HEADER_BYTES + len(columns) + len(packed.data) + len(others)
    if raw_size > config.batch_bytes_max:
        raise BatchTooLarge(raw_size, config.batch_bytes_max)

    data, codec = _compress(packed.data, config.compression)
    fixed = PRODUCER.pack(
        producer_id, first_sequence, producer_epoch, count, len(data), len(packed.data), sections, codec, 0, 0
    )
    head = fixed + columns
    tail = others + PADDING[(len(data) + len(others)) & 7]
    crc = crc32c(crc32c(crc32c(0, head), data), tail)
    return Payload((head, data, tail), len(head) + len(data) + len(tail), crc, count)


def _pack_records(values: Values, config: Config) -> tuple[PackedStrings, int, bytes, bytes]:
    """(values, sections, the columns of fixed width with their padding, the bytes of keys and headers)."""
    records = [value if isinstance(value, Record) else Record(_bytes_of(value)) for value in values]
    packed = pack_strings([record.value for record in records])
    sizes = packed.sizes
    columns, sections, others = [_padded(packed.offsets)], 0, b""
    if any(record.key for record in records):
        keys = pack_strings([record.key for record in records])
        sizes += keys.sizes
        columns.append(_padded(keys.offsets))
        sections |= Section.KEYS
        others += keys.data
    if any(record.timestamp for record in records):
        times = array("q", [record.timestamp for record in records])  # numpy would cut floats off
        columns.append(_padded(np.frombuffer(times, np.int64).astype("<i8")))
        sections |= Section.TIMES
    if any(record.headers for record in records):
        headers = pack_strings([encode_headers(record.headers) for record in records])
        sizes += headers.sizes
        columns.append(_padded(headers.offsets))
        sections |= Section.HEADERS
        others += headers.data
    check_record_sizes(sizes, config)
    return packed, sections, b"".join(columns), others


def check_record_sizes(sizes: NDArray[np.int64], config: Config) -> None:
    """Raise RecordTooLarge for the largest if it is."""
    largest = int(sizes.max())
    if largest > config.record_bytes_max:
        raise RecordTooLarge(largest, config.record_bytes_max)


def _padded(column: NDArray[Any]) -> bytes:
    return column.tobytes() + PADDING[column.nbytes & 7]


def check_payload(payload: Payload, config: Config) -> None:
    """Raise BatchTooLarge for a payload that was made under other limits."""
    if BODY_CRC_START + payload.size > config.batch_bytes_max:
        raise BatchTooLarge(BODY_CRC_START + payload.size, config.batch_bytes_max)


def encode_entry(data: bytes) -> Payload:
    """The payload of an entry that holds no records: a command, a no-op or a configuration."""
    fixed = PRODUCER.pack(0, 0, 0, 0, len(data), len(data), 0, 0, 0, 0)
    whole = b"".join((fixed, data, PADDING[len(data) & 7]))
    return Payload((whole,), len(whole), crc32c(0, whole), 0)


def encode_remaining(
    original: FrameHeader, header: bytes, records: list[Record], compression: Compression
) -> bytes:
    """The compacted item for a frame of which only `records` remain; `header` is its own, of 96 bytes."""
    relative = np.array([record.offset - original.first_offset for record in records], "<u4")
    if records:
        payload = encode_batch(records, replace(UNLIMITED, compression=compression))
        whole = b"".join(payload.buffers)
    else:
        whole = PRODUCER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0) + _padded(np.zeros(1, "<u4"))
    _, _, _, count, stored, raw, sections, codec, _, _ = PRODUCER.unpack_from(whole)
    body = _padded(relative) + whole[PRODUCER.size :]
    return pack_compacted(
        header, body, record_count=count, values_stored=stored, values_raw=raw, sections=sections, codec=codec
    )


def _bytes_of(value: object) -> bytes:
    try:
        return bytes(memoryview(value))  # type: ignore[arg-type]  # refuses str and int, which bytes() takes
    except TypeError as error:
        raise TypeError(f"a value must be bytes-like or a Record, not {type(value).__name__}") from error


def _compress(data: bytes, compression: Compression) -> tuple[bytes, Codec]:
    if compression == "none":
        return data, Codec.NONE
    import zstandard

    smaller = zstandard.compress(data, ZSTD_LEVEL)
    return (smaller, Codec.ZSTD) if len(smaller) < len(data) else (data, Codec.NONE)
