"""Read-only findings about the files of a log: what `logstore verify` prints and `repair` acts on.

A store is walked from its header on. Where the walk stops too early, the next whole frame is searched for: one
in a plausible place with a body that matches its checksum. What lies between is lost, and the frames on either
side say which entries and offsets that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest

import numpy as np

from logstore.checksum import crc32c
from logstore.directory import Directory
from logstore.filesystem import File
from logstore.frame import (
    BODY_CRC_START,
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    MARK_BYTES,
    SEGMENT_HEADER_BYTES,
    STAMP_START,
    SegmentHeader,
    chain_before,
    parse_frame_header,
)
from logstore.index import load_index, read_saved_header
from logstore.recovery import SEARCH_BYTES, Survey, read_header, survey_unvouched
from logstore.walk import Tail, Walk

Progress = Callable[[int], None]  # called with how many bytes were read since the last call


class Harm(Enum):
    """What a finding means for the records."""

    LOST = "lost"  # acknowledged records cannot be read
    TORN = "torn"  # the rest of a write that a crash cut short; the next opening puts it aside
    NONE = "no record concerned"  # an index or a mark: derived, and made again


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, where it is, and which entries and offsets (half-open) it concerns."""

    harm: Harm
    path: str
    position: int
    bytes: int
    reason: str
    first_index: int = 0
    end_index: int = 0
    first_offset: int = 0
    end_offset: int | None = 0  # None: nobody knows how many there were at the end of the log

    def __str__(self) -> str:
        text = f"{self.path}: byte {self.position}: {self.harm.value}: {self.reason}"
        if self.harm is Harm.LOST:
            text += f"; offsets {self.first_offset} "
            text += "and on" if self.end_offset is None else f"to before {self.end_offset}"
            text += f", entries {self.first_index} to before {self.end_index}"
        return text


@dataclass(slots=True)
class Damage:
    """A stretch of a store that cannot be read."""

    position: int
    bytes: int
    before: Tail
    end_index: int
    end_offset: int | None  # None: it reaches to the end of the log
    chain: int  # what the frame behind it continues
    reason: str


@dataclass(slots=True)
class Store:
    """One store, read from end to end."""

    path: str
    base_index: int
    file: File
    header: SegmentHeader | None  # None: damaged
    start: Tail
    end: Tail
    items: list[tuple[int, int]] = field(
        default_factory=list
    )  # (position, bytes) of each whole one, no marks
    damages: list[Damage] = field(default_factory=list)


def examine(directory: Directory, progress: Progress = lambda _: None) -> tuple[list[Store], list[Finding]]:
    """Read all files of a log, changing nothing; stores oldest first."""
    bases = sorted(name.base_index for name in directory.names() if name.is_store)
    surveys, durable_index = survey_unvouched(directory, bases, writable=False)
    unvouched = {found.base_index: found for found in surveys}
    stores: list[Store] = []
    findings: list[Finding] = []
    for base_index, next_base in zip_longest(bases, bases[1:]):
        previous = stores[-1].end if stores else None
        survey = unvouched.get(base_index)
        if survey is not None and survey.header is None and durable_index < base_index:
            reason = "a segment that a crash kept from being made"
            findings.append(Finding(Harm.TORN, survey.path, 0, survey.file.size(), reason))
            continue
        following = _start_of(directory, next_base) if next_base is not None else None
        end_index = durable_index + 1 if next_base is None else next_base
        store = _examine_store(
            directory,
            base_index,
            previous,
            end_index,
            following,
            progress,
            findings,
            is_last=next_base is None,
        )
        stores.append(store)
        findings += _findings_about(store, previous, survey, is_last=next_base is None)
        findings += _index_findings(directory, store)
    return stores, findings


def _start_of(directory: Directory, base_index: int) -> Tail | None:
    """Where a segment's header says that it starts; None if the header is damaged."""
    path = directory.store_path(base_index)
    header = read_header(directory.fs.open(path, writable=False), path)
    return Tail.at_start(header) if header is not None and header.base_index == base_index else None


def _examine_store(
    directory: Directory,
    base_index: int,
    previous: Tail | None,
    end_index: int,
    following: Tail | None,
    progress: Progress,
    findings: list[Finding],
    *,
    is_last: bool,
) -> Store:
    path = directory.store_path(base_index)
    file = directory.fs.open(path, writable=False)
    header = read_header(file, path)
    if header is not None and header.base_index != base_index:
        header = None
    start = _start(file, header, base_index, previous)
    store = Store(path, base_index, file, header, start, start)
    segment_id = header.segment_id if header else 0
    tail: Tail | None = start
    while tail is not None:
        walk = Walk(file, tail, segment_id=segment_id)
        _take_items(store, walk, progress)
        if header is not None:
            findings += [
                Finding(Harm.NONE, path, at, MARK_BYTES, "a mark is damaged") for at in walk.damaged_marks
            ]
        store.end = walk.tail
        tail = _step_over(store, walk, end_index, following, is_last=is_last)
    return store


def _start(file: File, header: SegmentHeader | None, base_index: int, previous: Tail | None) -> Tail:
    """Where a store's first item is and what it continues; without the header, as far as others know."""
    if header is not None:
        return Tail.at_start(header)
    if previous is not None and previous.next_index == base_index:
        first = previous._replace(position=SEGMENT_HEADER_BYTES)
        found = find_frame(file, first)
        if found is not None and found.next_index == base_index:  # perhaps behind a longer header
            return first._replace(position=found.position)
        return first
    first = Tail(SEGMENT_HEADER_BYTES, base_index, 0, 0, 0, 0)
    found = find_frame(file, first)
    return first if found is None else found._replace(next_index=base_index)


def _take_items(store: Store, walk: Walk, progress: Progress) -> None:
    while True:
        before = walk.tail
        if run := walk.run():
            store.items += zip(run.positions.tolist(), run.lengths.tolist(), strict=True)
        elif item := walk.next():
            if item.damage:
                store.damages.append(
                    Damage(
                        item.position, item.length, before, item.end_index, item.end_offset, item.header_crc,
                        item.damage,
                    )
                )  # fmt: skip
            else:
                store.items.append((item.position, item.length))
        else:
            return
        progress(walk.tail.position - before.position)


def _step_over(
    store: Store, walk: Walk, end_index: int, following: Tail | None, *, is_last: bool
) -> Tail | None:
    """Where to go on behind damage that stopped the walk; None if the store holds all entries below `end_index`.

    `following` is the start of the next segment, if there is one whose header says so.
    """
    tail = walk.tail
    if tail.next_index >= end_index:
        return None
    behind = find_frame(store.file, tail._replace(position=tail.position + 8))
    if behind is None and following is None and not is_last:
        return None  # the next store, once it is read, says what is missing in front of it
    end = behind or following or tail
    position = behind.position if behind else store.file.size()
    reason = walk.stopped or "the file is too short"
    if behind is None and following is not None:  # its end is lost, or a whole file: nobody can tell
        reason += f"; the next file starts with entry {following.next_index}"
    store.damages.append(
        Damage(
            tail.position, max(position - tail.position, 0), tail, behind.next_index if behind else end_index,
            None if end is tail else end.offset, end.chain, reason,
        )
    )  # fmt: skip
    store.end = end._replace(position=position)
    return behind


def find_frame(file: File, tail: Tail) -> Tail | None:
    """The place of the next whole frame at or behind `tail`, and what it continues; None if there is none."""
    position, size = tail.position, file.size()
    while position < size:
        data = file.read(min(SEARCH_BYTES, size - position), position)
        firsts = np.frombuffer(data, "<u4", len(data) // 8 * 2)[::2]
        for at in (8 * np.flatnonzero(firsts == FRAME_MAGIC)).tolist():
            if found := _frame_at(file, position + at, tail):
                return found
        position += len(data) if position + len(data) == size else len(data) // 8 * 8
    return None


def _frame_at(file: File, position: int, tail: Tail) -> Tail | None:
    head = file.read(FRAME_HEADER_BYTES, position)
    if len(head) < FRAME_HEADER_BYTES:
        return None
    frame = parse_frame_header(head)
    is_plausible = (
        frame.version == FORMAT_VERSION
        and frame.entry_index >= tail.next_index
        and frame.first_offset >= tail.offset
        and frame.length >= FRAME_HEADER_BYTES
        and frame.length % 8 == 0
        and position + frame.length <= file.size()
    )
    if not is_plausible:
        return None
    body = file.read(frame.length - BODY_CRC_START, position + BODY_CRC_START)
    if crc32c(0, body) != frame.body_crc:
        return None
    chain = chain_before(frame.header_crc, head[STAMP_START:BODY_CRC_START])
    return Tail(position, frame.entry_index, frame.first_offset, tail.term, tail.time, chain)


def _findings_about(
    store: Store, previous: Tail | None, survey: Survey | None, *, is_last: bool
) -> Iterator[Finding]:
    if store.header is None:
        yield Finding(
            Harm.LOST, store.path, 0, store.start.position, "the segment's header is damaged",
            store.base_index, store.start.next_index, store.start.offset, store.start.offset,
        )  # fmt: skip
    if previous is not None and previous.next_index < store.base_index:
        yield Finding(
            Harm.LOST, store.path, 0, 0, "what comes before this segment is missing",
            previous.next_index, store.base_index, previous.offset, store.start.offset,
        )  # fmt: skip
    for damage in store.damages:
        yield Finding(
            Harm.LOST, store.path, damage.position, damage.bytes, damage.reason,
            damage.before.next_index, damage.end_index, damage.before.offset, damage.end_offset,
        )  # fmt: skip
    if is_last and survey is not None and survey.present_end > store.end.position:
        size = survey.present_end - store.end.position
        yield Finding(Harm.TORN, store.path, store.end.position, size, "a write that a crash cut short")


def _index_findings(directory: Directory, store: Store) -> Iterator[Finding]:
    """A saved index that does not say what the store does."""
    path = directory.index_path(store.base_index)
    saved = read_saved_header(directory.fs, path)
    if saved is None or store.header is None or saved.segment_id != store.header.segment_id:
        return  # none, or that of the active segment, which nobody believes
    index = load_index(directory.fs, path, saved)
    positions = np.unique([position for position, _ in store.items]).astype(np.uint64)
    if index is None or not np.isin(positions, index.rows["position"][: index.count]).all():
        yield Finding(Harm.NONE, path, 0, 0, "the index does not match its checksum or its store")
