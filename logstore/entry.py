"""Entries whose place in the log was decided by a cluster: from what travels to what is stamped. Pure.

What travels of an entry is the same on all machines; each stamps it with its place. Index, term, kind, body and,
of records, the leader's append time decide the stamp, so the frames of two replicas are equal byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np

from logstore.checksum import crc32c
from logstore.config import BATCH_BYTES_LIMIT, KIB
from logstore.encode import encode_entry
from logstore.errors import BatchTooLarge, CorruptBatch, RecordTooLarge
from logstore.filesystem import BytesLike
from logstore.frame import (
    BODY_CRC_START,
    COMPACTED_HEADER,
    COMPACTED_HEADER_BYTES,
    COMPACTED_MAGIC,
    CONFIGURATION_BYTES_MAX,
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    LINK,
    PRODUCER,
    STAMP,
    Kind,
    Payload,
    RawEntry,
    parse_compacted,
    require_version,
)

TERM_LIMIT: Final = 1 << 63  # terms are below it, so that they fit i64 columns
SMALL_BYTES_MAX: Final = 4 * KIB  # copying so few bytes costs less than another buffer in the write

_unpack_frame: Final = Struct(
    "<I28xq2xBBIII20xI"
).unpack_from  # magic, time, version ... body CRC; record count
_pack_link: Final = LINK.pack
_pack_stamp: Final = STAMP.pack


class Unstamped(NamedTuple):
    """A checked entry, ready to be stamped with its place and written."""

    size: int  # bytes that it will take in a store
    term: int  # 0: that of the entry before
    time: int  # UTC nanoseconds; that of the entry before if it is later
    kind: int
    span: int
    length: int  # of the frame, or of what it was before compaction
    body_crc: int  # likewise
    buffers: tuple[BytesLike, ...]  # what goes behind the stamp; behind both headers if it was compacted
    compacted: bytes  # both headers of a compacted item; empty if it was not


class Place(NamedTuple):
    """Where a frame goes and what it continues."""

    entry_index: int
    offset: int
    term: int  # of the entry before
    time: int  # its append time
    chain: int  # its header CRC


_new_unstamped: Final[Callable[[tuple[Any, ...]], Unstamped]] = partial(tuple.__new__, Unstamped)
_new_place: Final[Callable[[tuple[int, ...]], Place]] = partial(tuple.__new__, Place)


def unstamped_records(payload: Payload, time: int) -> Unstamped:
    """A batch that takes the next place in the log, whatever that is."""
    length = BODY_CRC_START + payload.size
    return _new_unstamped(
        (length, 0, time, Kind.RECORDS, payload.record_count, length, payload.crc, payload.buffers, b"")
    )


def check_entries(entries: Sequence[RawEntry]) -> list[Unstamped]:
    """What has to be stamped, in order.

    Raises CorruptBatch for a frame of records that is damaged or badly made, RecordTooLarge or BatchTooLarge for
    other data over what the format can hold, ValueError unless indexes ascend by one and terms do not descend.
    """
    checked = []
    next_index, last_term = entries[0].index, 0
    for index, term, kind, data in entries:
        if index != next_index or not last_term <= term < TERM_LIMIT:
            raise ValueError(
                f"entry {index} of term {term} cannot be next: index {next_index}, term {last_term} or more"
            )
        checked.append(
            _check_records(index, term, data) if kind == Kind.RECORDS else _check_other(term, kind, data)
        )
        next_index, last_term = index + 1, term
    return checked


def _check_records(index: int, term: int, data: bytes) -> Unstamped:
    if len(data) < FRAME_HEADER_BYTES:
        raise CorruptBatch(
            f"entry {index}: a frame has at least {FRAME_HEADER_BYTES} bytes; {len(data)} came"
        )
    magic, time, version, kind, span, length, body_crc, count = _unpack_frame(data)
    if magic == COMPACTED_MAGIC:
        return _check_compacted(index, term, data)
    if magic != FRAME_MAGIC:
        raise CorruptBatch(
            f"entry {index}: a frame starts with {FRAME_MAGIC:#010x}, this one with {magic:#010x}"
        )
    require_version(version, f"the frame of entry {index}")
    if length != len(data) or length % 8 or kind != Kind.RECORDS or not 0 < span == count:
        raise CorruptBatch(
            f"entry {index}: a frame of {len(data)} bytes says it has {length}, kind {kind}, {count} records "
            f"and {span} offsets"
        )
    body: BytesLike
    if length <= SMALL_BYTES_MAX:
        body = data[BODY_CRC_START:]
        computed = crc32c(0, body)
    else:
        body = memoryview(data)[BODY_CRC_START:]
        computed = crc32c(0, np.frombuffer(data, np.uint8, offset=BODY_CRC_START))
    if computed != body_crc:
        raise CorruptBatch(
            f"entry {index}: a frame with checksum {body_crc:#010x}, computed {computed:#010x}"
        )
    return _new_unstamped((length, term, time, kind, span, length, body_crc, (body,), b""))


def _check_compacted(index: int, term: int, data: bytes) -> Unstamped:
    headers = parse_compacted(data, 0)
    if headers is None or headers[0].length != len(data) or len(data) % 8 or headers[1].kind != Kind.RECORDS:
        raise CorruptBatch(f"entry {index}: a compacted frame of {len(data)} bytes with a damaged header")
    compacted, frame = headers
    require_version(frame.version, f"the frame of entry {index}")
    computed = crc32c(0, np.frombuffer(data, np.uint8, offset=COMPACTED_HEADER_BYTES))
    if computed != compacted.body_crc:
        raise CorruptBatch(
            f"entry {index}: a compacted frame with checksum {compacted.body_crc:#010x}, computed {computed:#010x}"
        )
    body = memoryview(data)[COMPACTED_HEADER_BYTES:]
    return Unstamped(
        len(data), term, frame.append_time, frame.kind, frame.span, frame.length, frame.body_crc, (body,),
        data[:COMPACTED_HEADER_BYTES],
    )  # fmt: skip


def _check_other(term: int, kind: int, data: bytes) -> Unstamped:
    if kind == Kind.CONFIGURATION and len(data) > CONFIGURATION_BYTES_MAX:
        raise RecordTooLarge(len(data), CONFIGURATION_BYTES_MAX)
    if FRAME_HEADER_BYTES + len(data) > BATCH_BYTES_LIMIT:
        raise BatchTooLarge(FRAME_HEADER_BYTES + len(data), BATCH_BYTES_LIMIT)
    payload = encode_entry(data)
    length = BODY_CRC_START + payload.size
    return Unstamped(length, term, 0, Kind(kind), 0, length, payload.crc, payload.buffers, b"")


def stamp(entry: Unstamped, place: Place, buffers: list[BytesLike]) -> Place:
    """Add the bytes of the entry at `place` to `buffers`; returns the place behind it."""
    index, offset, term, time, chain = place
    _, entry_term, entry_time, kind, span, length, body_crc, pieces, compacted = entry
    term, time = max(term, entry_term), max(time, entry_time)
    stamp_bytes = _pack_stamp(index, term, offset, time, 0, FORMAT_VERSION, kind, span, length, body_crc)
    chain = crc32c(chain, stamp_bytes)
    if compacted:
        buffers.append(_compacted_headers(compacted, _pack_link(FRAME_MAGIC, chain) + stamp_bytes))
    else:
        buffers += (_pack_link(FRAME_MAGIC, chain), stamp_bytes)
    buffers += pieces
    return _new_place((index + 1, offset + span, term, time, chain))


def _compacted_headers(old: bytes, link_and_stamp: bytes) -> bytes:
    """Both headers of a compacted item, with the frame's link and stamp in them made anew."""
    at = COMPACTED_HEADER.size
    covered = old[LINK.size : at] + link_and_stamp + old[at + BODY_CRC_START :]
    return _pack_link(COMPACTED_MAGIC, crc32c(0, covered)) + covered


def data_of(entry: Unstamped) -> bytes:
    """What an entry without records holds."""
    whole = b"".join(entry.buffers)
    return whole[PRODUCER.size : PRODUCER.size + PRODUCER.unpack_from(whole)[4]]
