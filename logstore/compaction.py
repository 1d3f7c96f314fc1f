"""Compaction by key: of each key only the last record stays.

Two passes. The first goes from the newest record to the oldest and notes for each key where its last record is;
when `compaction_keys_max` keys are known, further keys are left alone for a later run, so memory is bounded and a
record is only ever removed because a later one of its key is known. The second rewrites sealed segments from the
oldest on, each whole and synced before it takes the place of the old one. That order matters for tombstones: by
the time one is removed, every older record of its key is durably gone, so a crash cannot bring one back.

Entries keep their header, so the chain of header CRCs stays whole and replicas still agree on every entry.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from logstore.batch import RecordBatch
from logstore.config import Config
from logstore.encode import encode_remaining
from logstore.frame import (
    COMPACTED_HEADER,
    COMPACTED_MAGIC,
    FRAME_HEADER_BYTES,
    parse_frame_header,
)
from logstore.record import Record
from logstore.removing import replace
from logstore.segment import Segment, write_store
from logstore.walk import Item
from logstore.writer import Writer

log = logging.getLogger("logstore")

NS_PER_MS: Final = 1_000_000


@dataclass(slots=True)
class Compaction:
    """What a run did, or with `dry_run` would have done."""

    segments_rewritten: int = 0
    records_removed: int = 0
    bytes_freed: int = 0  # 0 with dry_run
    has_more_keys: bool = False  # over compaction_keys_max; a later run does not reach them either
    was_overtaken: bool = False  # a truncation of the suffix ended the run early


def compact(writer: Writer, config: Config, *, end: int | None, now: int, dry_run: bool) -> Compaction:
    """Compact the sealed segments. Appends and reads go on; other maintenance waits for one segment at most.

    Records at or above `end` are not there yet, as far as this run is concerned.
    """
    done = Compaction()
    cuts = writer.cuts
    end = writer.end if end is None else min(end, writer.end)
    # All below `end` first: a record must not go because of a later one that a crash may take.
    writer.make_durable(writer.last_index)
    writer.seal_full_segments()
    segments = writer.layout.segments
    lasts, done.has_more_keys = _last_offsets(segments, end, config.compaction_keys_max)
    rule = _Rule(lasts, end, oldest_tombstone=now - config.tombstone_age_ms_min * NS_PER_MS)
    for segment in segments[:-1]:
        with writer.maintenance():
            if writer.cuts != cuts:
                done.was_overtaken = True
                break
            if segment in writer.layout.segments and segment.end_offset <= end:
                _compact_segment(writer, segment, rule, config, done, dry_run=dry_run)
    log.info(
        "compacted path=%s segments=%d records=%d bytes=%d", segments[0].directory.path, done.segments_rewritten,
        done.records_removed, done.bytes_freed,
    )  # fmt: skip
    return done


def _last_offsets(segments: tuple[Segment, ...], end: int, keys_max: int) -> tuple[dict[bytes, int], bool]:
    """(offset of the last record of each key below `end`, whether there are more keys than `keys_max`)."""
    lasts: dict[bytes, int] = {}
    for segment in reversed(segments):
        in_segment: dict[bytes, int] = {}
        for item in whole_items(segment):
            if item.offset < end and item.has_records:
                batch = item.batch().between(item.offset, end)
                if batch.keys is not None:
                    in_segment.update(zip(batch.keys.to_pylist(), batch.offsets.tolist(), strict=True))
        in_segment.pop(b"", None)
        for key, offset in in_segment.items():
            if key not in lasts:
                if len(lasts) == keys_max:
                    return lasts, True
                lasts[key] = offset
    return lasts, False


class _Rule(NamedTuple):
    """Which records stay."""

    lasts: dict[bytes, int]
    end: int
    oldest_tombstone: int  # append time; older ones go

    def remaining(self, batch: RecordBatch) -> list[Record]:
        lasts = self.lasts
        expired = batch.append_time < self.oldest_tombstone
        return [
            record
            for record in batch
            if not record.key
            or lasts.get(record.key, record.offset) == record.offset
            and (record.value or not expired or record.key not in lasts)
        ]


def _compact_segment(
    writer: Writer, segment: Segment, rule: _Rule, config: Config, done: Compaction, *, dry_run: bool
) -> None:
    removed = 0
    for item in whole_items(segment):
        if item.has_records and (batch := item.batch()).keys is not None:
            removed += len(batch) - len(rule.remaining(batch))
    if not removed:
        return
    done.segments_rewritten += 1
    done.records_removed += removed
    if dry_run:
        return

    def rewritten() -> Iterator[bytes]:
        for item in whole_items(segment):
            yield _compact_item(item, rule, config)

    before = segment.store_bytes
    new = write_store(segment.directory, segment.header, rewritten(), segment.tail)
    replace(writer, segment, new)
    done.bytes_freed += before - new.store_bytes
    new.seal()


def _compact_item(item: Item, rule: _Rule, config: Config) -> bytes:
    if not item.has_records or (batch := item.batch()).keys is None:
        return item.data()
    remaining = rule.remaining(batch)
    if len(remaining) == len(batch):
        return item.data()
    at = item.start + (COMPACTED_HEADER.size if item.magic == COMPACTED_MAGIC else 0)
    header = item.buffer[at : at + FRAME_HEADER_BYTES]
    return encode_remaining(parse_frame_header(header), header, remaining, config.compression)


def whole_items(segment: Segment) -> Iterator[Item]:
    """Every item that a segment holds now; CorruptLog at the first that is damaged."""
    walk = segment.walk(segment.base_index)
    tail = segment.tail  # one for both ends: that of the active segment moves on meanwhile
    walk.end_position = tail.position
    for item in walk:
        if item.damage:
            raise segment.damaged(walk, item)
        yield item
    if walk.tail.next_index < tail.next_index:
        raise segment.damaged(walk, None)
