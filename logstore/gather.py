"""Many values at once by offset, vectorised: for numpy users who pick records by an array of offsets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from logstore.column import cut_strings
from logstore.config import KIB, MIB
from logstore.errors import CorruptLog, RecordCompacted
from logstore.frame import FRAME_HEADER_BYTES, HOLE_MAGIC
from logstore.segment import PLAIN, UNKNOWN, Segment

WINDOW_BYTES_MAX: Final = MIB  # one read: small enough that the values are cut while they are in the cache
GAP_BYTES_MAX: Final = 32 * KIB  # reading so much in vain costs less than another read
DENSE_VALUES_MIN: Final = 16  # fewer values are read sooner one by one than vectorised


Int64s = NDArray[np.int64]


def gather(segment: Segment, offsets: Int64s) -> list[bytes]:
    """The values at `offsets` (ascending, all in this segment). Frames are verified first."""
    end = segment.end_offset  # taken before the index's count: the writer moves it after
    segment.require_below(int(offsets[-1]), end)
    index = segment.index
    count = index.count
    firsts = index.rows["offset"][:count].astype(np.int64)
    ends = np.append(firsts[1:], end)
    positions = np.append(index.rows["position"][:count], segment.end_position).astype(np.int64)

    rows = firsts.searchsorted(offsets, "right") - 1
    frames, first_wanted = np.unique(rows, return_index=True)
    wanted_ends = np.append(first_wanted[1:], len(offsets))
    how = _verify(segment, frames)

    values: list[bytes] = []
    for start, stop, is_dense in _windows(
        positions[frames], positions[frames + 1], how, wanted_ends - first_wanted
    ):
        chosen = slice(int(first_wanted[start]), int(wanted_ends[stop - 1]))
        if is_dense:
            low, high = int(positions[frames[start]]), int(positions[frames[stop - 1] + 1])
            of_row = rows[chosen]
            columns = positions[of_row] + (FRAME_HEADER_BYTES - low)
            counts = ends[of_row] - firsts[of_row]
            values += _cut(segment, low, high, columns, offsets[chosen] - firsts[of_row], counts)
        elif how[start] == PLAIN:
            values += [segment.read(offset).value for offset in offsets[chosen].tolist()]
        else:
            values += _pick(segment, int(frames[start]), offsets[chosen])
    return values


def _verify(segment: Segment, frames: Int64s) -> NDArray[np.uint8]:
    """How the records of each frame can be read; frames that were not seen yet are verified."""
    how = np.frombuffer(segment.index.verified, np.uint8)[frames]
    for place in np.flatnonzero(how == UNKNOWN).tolist():
        how[place] = segment.note_verified(segment.item(int(frames[place])))
    return how


def _windows(
    starts: Int64s, stops: Int64s, how: NDArray[np.uint8], wanted: Int64s
) -> Iterator[tuple[int, int, bool]]:
    """Frames to be treated alike, as (first, end, is dense).

    Dense ones are plain, lie near each other and are read at once; the others are plain ones that are not, whose
    values are read one by one, and single frames that have to be decoded.
    """
    is_plain = how == PLAIN
    number = (starts - starts[0]) // WINDOW_BYTES_MAX
    is_apart = (starts[1:] - stops[:-1] > GAP_BYTES_MAX) | (number[1:] != number[:-1])
    is_dense = is_plain & (stops - starts <= WINDOW_BYTES_MAX)

    def first_ones() -> NDArray[np.intp]:
        differs = (is_dense[1:] != is_dense[:-1]) | ~is_plain[1:] | ~is_plain[:-1]
        return np.append(0, np.flatnonzero(differs | (is_dense[1:] & is_apart)) + 1)

    firsts = first_ones()
    is_dense &= np.repeat(
        np.add.reduceat(wanted, firsts) >= DENSE_VALUES_MIN, np.diff(firsts, append=len(starts))
    )
    bounds = [*first_ones().tolist(), len(starts)]
    return ((start, stop, bool(is_dense[start])) for start, stop in pairwise(bounds))


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
    return cut_strings(data, values_at + words[pairs], values_at + words[pairs + 1])


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
