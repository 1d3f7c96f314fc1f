"""Many values at once by offset, vectorised: for numpy users who pick records by an array of offsets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from logstore.config import KIB, MIB
from logstore.errors import CorruptLog, RecordCompacted
from logstore.frame import FRAME_HEADER_BYTES, HOLE_MAGIC
from logstore.segment import PLAIN, UNKNOWN, Segment

WINDOW_BYTES_MAX: Final = MIB  # one read: small enough that the values are cut while they are in the cache
SPARE_BYTES_MAX: Final = 16 * KIB  # reading so much in vain per value costs less than reading the value alone

ALIKE_BYTES_MAX: Final = 1024  # values of one size up to this are copied by numpy, which takes half the time

Int64s = NDArray[np.int64]


def gather(segment: Segment, offsets: Int64s, end: int) -> list[bytes]:
    """The values at `offsets` (ascending, all in this segment and below `end`). Frames are verified first."""
    index = segment.index
    count = index.count
    firsts = index.rows["offset"][:count].astype(np.int64)
    ends = np.append(firsts[1:], min(end, segment.end_offset))
    positions = np.append(index.rows["position"][:count], segment.end_position).astype(np.int64)

    rows = firsts.searchsorted(offsets, "right") - 1
    frames, first_wanted = np.unique(rows, return_index=True)
    wanted_ends = np.append(first_wanted[1:], len(offsets))
    how = _verify(segment, frames)

    values: list[bytes] = []
    for start, stop in _windows(positions[frames], positions[frames + 1], how):
        chosen = slice(first_wanted[start], wanted_ends[stop - 1])
        low, high = int(positions[frames[start]]), int(positions[frames[stop - 1] + 1])
        if how[start] != PLAIN:
            values += _pick(segment, int(frames[start]), offsets[chosen])
        elif high - low > SPARE_BYTES_MAX * (chosen.stop - chosen.start):
            values += [segment.read(offset, end).value for offset in offsets[chosen].tolist()]
        else:
            of_row = rows[chosen]
            columns = positions[of_row] + (FRAME_HEADER_BYTES - low)
            counts = ends[of_row] - firsts[of_row]
            values += _cut(segment, low, high, columns, offsets[chosen] - firsts[of_row], counts)
    return values


def _verify(segment: Segment, frames: Int64s) -> NDArray[np.uint8]:
    """How the records of each frame can be read; frames that were not seen yet are verified."""
    how = np.frombuffer(segment.index.verified, np.uint8)[frames]
    for place in np.flatnonzero(how == UNKNOWN).tolist():
        how[place] = segment.note_verified(segment.item(int(frames[place])))
    return how


def _windows(starts: Int64s, stops: Int64s, how: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Neighbouring plain frames that are worth one read together; every other frame alone."""
    number = (starts - starts[0]) // WINDOW_BYTES_MAX
    is_far = starts[1:] - stops[:-1] > SPARE_BYTES_MAX
    is_first = is_far | (number[1:] != number[:-1]) | (how[1:] != PLAIN) | (how[:-1] != PLAIN)
    bounds = [0, *(np.flatnonzero(is_first) + 1).tolist(), len(starts)]
    return pairwise(bounds)


def _cut(
    segment: Segment, low: int, high: int, columns: Int64s, numbers: Int64s, counts: Int64s
) -> list[bytes]:
    """Values out of plain frames in low..high of the store.

    Of each value: where the frame's offset column is from `low`, its number in the frame, the frame's count.
    """
    data = segment.file.read(high - low, low)
    if len(data) != high - low:
        raise CorruptLog(segment.store_path, low, "the file is shorter than when it was verified")
    words = np.frombuffer(data, "<u4")
    pairs = (columns >> 2) + numbers
    values_at = columns + ((4 * counts + 11) & ~7)
    starts, stops = values_at + words[pairs], values_at + words[pairs + 1]
    size = int(stops[0] - starts[0])
    if 0 < size <= ALIKE_BYTES_MAX and (stops - starts == size).all():
        alike = sliding_window_view(np.frombuffer(data, np.uint8), size)[starts]
        values: list[bytes] = alike.view(f"V{size}").ravel().tolist()
        return values
    return [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def _pick(segment: Segment, row: int, offsets: Int64s) -> list[bytes]:
    """Values of one frame that has to be decoded."""
    item = segment.item(row)
    if item.magic == HOLE_MAGIC:
        raise RecordCompacted(int(offsets[0]), "it was damaged, and repair gave it up")
    batch = item.batch()
    there = batch.offsets.astype(np.int64)
    places = there.searchsorted(offsets)
    found = (
        there[np.minimum(places, len(there) - 1)] == offsets if len(there) else np.zeros(len(offsets), bool)
    )
    if not found.all():
        raise RecordCompacted(int(offsets[~found][0]))
    values = batch.to_pylist()
    return [values[place] for place in places.tolist()]
