"""Facts found on disk -> what to do, as a table; and the survey that finds the facts.

What may lie on disk after a crash: everything that was synced, and of what was not, any part. A mark tells
the two apart: it says up to which entry all was durable when it was written.

    damage above the last mark   a torn tail: never acknowledged. Cut at the last whole frame, kept aside.
    damage below it              corruption: bytes that were once safe have changed. Reported, never dropped.

Only segments that no newer one vouches for are surveyed: with sync="always" the active one alone. A damaged
body below the last mark does not stop an opening, because the frame's header still says where the next frame
is; reading that frame raises CorruptLog, as it does in a sealed segment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logstore.config import MIB
from logstore.directory import Directory
from logstore.errors import CorruptLog
from logstore.filesystem import File
from logstore.frame import (
    CONFIGURATION_BYTES_MAX,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    MARK_BYTES,
    MARK_MAGIC,
    SEGMENT_HEADER_BYTES,
    Kind,
    SegmentHeader,
    parse_frame_header,
    parse_mark,
    parse_segment_header,
)
from logstore.index import ROW
from logstore.segment import index_rows
from logstore.walk import Tail, Walk

SEARCH_BYTES: Final = 8 * MIB  # read at once when looking behind damage


class Facts(NamedTuple):
    """About one surveyed segment, oldest first, after the segments before it were dealt with."""

    header: bool  # its header is whole and names the base index that its file name does
    linked: bool  # it begins where the segment before it ends; true of the first
    damaged: bool  # bytes of its present life follow its last whole frame
    vouched: bool  # a mark says that what is missing or damaged in it was durable


class Verdict(Enum):
    KEEP = "keep"
    CUT = "cut the tail at the last whole frame"
    DISCARD = "put the whole file aside"
    CORRUPT = "report, change nothing"


TABLE: Final[dict[str, tuple[dict[str, bool], Verdict]]] = {
    # A. All is well: it ends with a whole frame, and nothing is missing.
    "A": ({"header": True, "linked": True, "damaged": False, "vouched": False}, Verdict.KEEP),
    # B. The usual crash: the last write was torn, and nobody was told that it had happened.
    "B": ({"header": True, "linked": True, "damaged": True, "vouched": False}, Verdict.CUT),
    # C. Frames that were durable are damaged, or the file has been cut short behind our back.
    "C": ({"header": True, "linked": True, "vouched": True}, Verdict.CORRUPT),
    # D. Written before the segment in front of it was durable, and that one lost its tail.
    "D": ({"header": True, "linked": False, "vouched": False}, Verdict.DISCARD),
    # E. It was durable, so the segment in front of it was too: a file is missing.
    "E": ({"header": True, "linked": False, "vouched": True}, Verdict.CORRUPT),
    # F. The crash came while it was being made; its first frame was never acknowledged.
    "F": ({"header": False, "vouched": False}, Verdict.DISCARD),
    # G. Its header was durable and is damaged now.
    "G": ({"header": False, "vouched": True}, Verdict.CORRUPT),
}


def decide(facts: Facts) -> Verdict:
    """The verdict of the one row of TABLE that these facts match."""
    known = facts._asdict()
    verdicts = [verdict for pattern, verdict in TABLE.values() if pattern.items() <= known.items()]
    assert len(verdicts) == 1, (facts, verdicts)
    return verdicts[0]


@dataclass
class Survey:
    """What a store was found to hold."""

    base_index: int
    path: str
    file: File
    header: SegmentHeader | None
    tail: Tail  # behind the last whole frame; the start if there is none
    rows: NDArray[np.void] = field(default_factory=lambda: np.empty(0, ROW))  # of the index
    breaks: list[tuple[Tail, int]] = field(
        default_factory=list
    )  # before each damaged body: place, rows so far
    configurations: list[tuple[int, bytes]] = field(default_factory=list)  # entries of that kind: index, data
    stopped: str = ""  # why the walk ended
    present_end: int = 0  # bytes of the store that may be of its present life, whole or not
    durable_index: int = 0

    @property
    def is_whole(self) -> bool:
        """Nothing in it is damaged, torn or missing."""
        ends = self.tail.position >= self.present_end and self.tail.next_index > self.durable_index
        return self.header is not None and ends and not self.breaks

    def cut_at(self, place: tuple[Tail, int], reason: str) -> None:
        """Count the frame at `place` and all behind it as damaged."""
        self.present_end = max(self.present_end, self.tail.position)
        self.tail, rows = place
        self.rows = self.rows[:rows]
        self.breaks = [one for one in self.breaks if one[0].position < self.tail.position]
        self.configurations = [one for one in self.configurations if one[0] < self.tail.next_index]
        self.stopped = reason


def survey(directory: Directory, base_index: int, *, writable: bool) -> Survey:
    """Read one store from end to end.

    Where another process may be writing, a mark can vouch for frames that came behind the reading. So if anything
    is missing the store is read once more: what a mark of the first reading vouches for has to be there by then,
    and later marks say nothing about what the second reading had passed already.
    """
    found = _survey_once(directory, base_index, writable=writable)
    if writable or found.is_whole:
        return found
    again = _survey_once(directory, base_index, writable=writable)
    again.durable_index = min(again.durable_index, found.durable_index)
    return again


def _survey_once(directory: Directory, base_index: int, *, writable: bool) -> Survey:
    path = directory.store_path(base_index)
    file = directory.fs.open(path, writable=writable)
    header = read_header(file, path)
    if header is None or header.base_index != base_index:
        found = Survey(base_index, path, file, None, Tail(0, base_index, 0, 0, 0, 0))
        found.stopped = "the segment's header is damaged, or of an older life of the file"
        _look_behind(found, stale_end=file.size())
        return found
    found = Survey(base_index, path, file, header, Tail.at_start(header), durable_index=header.durable_index)
    walk = Walk(file, found.tail, segment_id=header.segment_id)
    rows: list[NDArray[np.void]] = []
    while True:
        before = walk.tail
        if run := walk.run():
            rows.append(run.rows())
            for data, index in run.entries_of(Kind.CONFIGURATION):
                found.configurations.append((index, data))
        elif item := walk.next():
            if item.damage:
                found.breaks.append((before, before.next_index - base_index))
            elif item.kind == Kind.CONFIGURATION:
                found.configurations.append((item.entry_index, item.entry_data()))
            rows.append(index_rows(item))
        else:
            break
    found.rows = np.concatenate([found.rows, *rows])
    found.tail = walk.tail
    found.stopped = walk.stopped
    found.durable_index = max(found.durable_index, walk.durable_index)
    _look_behind(found, stale_end=header.stale_end)
    return found


def read_header(file: File, path: str) -> SegmentHeader | None:
    """The segment header of a store; None if it is damaged or not there."""
    data = file.read(4096, 0)
    length = int.from_bytes(data[12:16], "little")
    if len(data) < length <= SEGMENT_HEADER_BYTES + CONFIGURATION_BYTES_MAX + 8:
        data = file.read(length, 0)
    return parse_segment_header(data, path)


def _look_behind(found: Survey, *, stale_end: int) -> None:
    """Search what lies behind the walk's end for bytes of the segment's present life.

    Where the file was never written before (behind `stale_end`) any byte but zero is of this life. In front of
    it, an older life's frames and marks have lower entry indexes than this segment's first.
    """
    position, size = found.tail.position, found.file.size()
    while position < size:
        data = found.file.read(min(SEARCH_BYTES, size - position), position)
        usable = len(data) // 8 * 8
        firsts = np.frombuffer(data, "<u4", usable // 4)[::2]
        for at in (8 * np.flatnonzero((firsts == FRAME_MAGIC) | (firsts == MARK_MAGIC))).tolist():
            _take_in(found, data, at, position + at)
        if position + len(data) > stale_end:
            fresh_from = max(stale_end - position, 0)
            written = np.flatnonzero(np.frombuffer(data, np.uint8, offset=fresh_from))
            if written.size:
                found.present_end = max(found.present_end, position + fresh_from + int(written[-1]) + 1)
        if position + len(data) == size:
            return
        position += usable - FRAME_HEADER_BYTES  # a header may lie across the end of what was read


def _take_in(found: Survey, data: bytes, at: int, position: int) -> None:
    """Learn from what may be a mark or a frame header at `at` of data, `position` of the store."""
    if (mark := parse_mark(data, at)) and mark.magic == MARK_MAGIC:
        known = found.header is None or found.header.segment_id == mark.segment_id
        if known and mark.durable_index >= found.base_index:
            found.present_end = max(found.present_end, position + MARK_BYTES)
            found.durable_index = max(found.durable_index, mark.durable_index)
    elif at + FRAME_HEADER_BYTES <= len(data):
        frame = parse_frame_header(data, at)
        if frame.magic == FRAME_MAGIC and frame.entry_index >= found.base_index:
            end = min(position + max(frame.length, FRAME_HEADER_BYTES), found.file.size())
            found.present_end = max(found.present_end, end)


def survey_unvouched(
    directory: Directory, base_indexes: list[int], *, writable: bool
) -> tuple[list[Survey], int]:
    """(surveys of the newest segments, oldest first; the highest entry that anything vouches for).

    Goes back from the newest until everything older is vouched for.
    """
    surveys: list[Survey] = []
    durable_index = 0
    for base_index in reversed(base_indexes):
        found = survey(directory, base_index, writable=writable)
        surveys.insert(0, found)
        durable_index = max(durable_index, found.durable_index)
        if found.header is not None and durable_index >= base_index - 1:
            break
    return surveys, durable_index


def judge(surveys: list[Survey], durable_index: int) -> list[tuple[Survey, Verdict]]:
    """The verdict on each survey, oldest first.

    A survey whose unvouched part has a damaged body is shortened to the frame before it.
    """
    verdicts = []
    next_bases: list[int | None] = [*(found.base_index for found in surveys[1:]), None]
    is_first = True  # what came before it is vouched for
    end: Tail | None = None
    for found, next_base in zip(surveys, next_bases, strict=False):
        for place in found.breaks:
            if place[0].next_index > durable_index:
                found.cut_at(place, "a frame's body does not match its checksum")
                break
        linked = is_first or (found.header is not None and end is not None and _continues(found.header, end))
        missing_from = found.tail.next_index if found.header and linked else found.base_index
        vouched = missing_from <= durable_index and (next_base is None or missing_from < next_base)
        facts = Facts(found.header is not None, linked, found.present_end > found.tail.position, vouched)
        verdicts.append((found, decide(facts)))
        end = found.tail if verdicts[-1][1] in (Verdict.KEEP, Verdict.CUT) else None
        is_first = False
    return verdicts


def _continues(header: SegmentHeader, end: Tail) -> bool:
    return Tail.at_start(header).link == end.link


def corrupt(found: Survey) -> CorruptLog:
    tail = found.tail
    offset = tail.offset if found.header else None
    return CorruptLog(
        found.path, tail.position, found.stopped or "bytes are missing", entry=tail.next_index, offset=offset
    )
