"""Cutting the end off a segment, so that it can be written on."""

from __future__ import annotations

from typing import Final

import numpy as np

from logstore.config import MIB
from logstore.encode import encode_remaining
from logstore.filesystem import File
from logstore.frame import (
    COMPACTED_HEADER,
    COMPACTED_MAGIC,
    HOLE_MAGIC,
    Kind,
    pack_hole,
    parse_frame_header,
    shortened_header,
)
from logstore.opening import Configuration, activate
from logstore.segment import Segment, all_rows
from logstore.walk import Item, Walk

COPY_BYTES: Final = MIB


def cut_segment(segment: Segment, row: int, end: int) -> Segment:
    """The segment without the entries from `row` on, active and durable.

    If the entry of `row` has records below offset `end` as well, these stay, as after compaction; then the
    store is written anew and renamed, because no single write in place is both smaller and safe.
    """
    directory = segment.directory
    tail = segment.tail_before(row)
    row = tail.next_index - segment.base_index  # the first row of a hole
    rows = segment.index.rows[:row].copy()
    if end <= segment.index.offset(row):
        file = directory.fs.open(segment.store_path, writable=True)
        file.truncate(tail.position)
        file.sync()
    else:
        part = _first_records(segment.item(row), end, tail.chain)
        file = directory.create_temporary(segment.store_path)
        copy_bytes(segment.file, file, tail.position)
        file.write(part, tail.position)
        file.sync()
        directory.put_in_place(segment.store_path)
        file.path = segment.store_path
        walk = Walk(file, tail, segment_id=segment.header.segment_id)
        rows = np.concatenate([rows, all_rows(walk)])
        assert not walk.stopped and walk.tail.offset == end
        tail = walk.tail

    active = Segment(directory, segment.header, file, tail)
    activate(active, rows)
    return active


def _first_records(item: Item, end: int, chain: int) -> bytes:
    """The item with only its records below offset `end`."""
    if item.magic == HOLE_MAGIC:
        return pack_hole(
            first_index=item.entry_index, end_index=item.end_index, first_offset=item.offset, end_offset=end,
            term=item.term, append_time=item.time, chain=item.header_crc,
        )  # fmt: skip
    at = COMPACTED_HEADER.size if item.magic == COMPACTED_MAGIC else 0
    header = parse_frame_header(item.buffer, item.start + at)
    shortened = shortened_header(header, end - item.offset, chain)
    records = list(item.batch().between(item.offset, end))
    return encode_remaining(header, shortened, records, "none")


def copy_bytes(source: File, target: File, count: int) -> None:
    for done in range(0, count, COPY_BYTES):
        target.write(source.read(min(COPY_BYTES, count - done), done), done)


def find_configuration(segment: Segment) -> Configuration:
    """The newest configuration up to the end of `segment`."""
    found = Configuration(segment.header.configuration_index, segment.header.configuration)
    for item in segment.walk(segment.base_index):
        if item.kind == Kind.CONFIGURATION and not item.damage:
            found = Configuration(item.entry_index, item.entry_data())
    return found
