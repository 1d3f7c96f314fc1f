"""Many values at once by offset, vectorised: for numpy users who pick records by an array of offsets."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from logstore.config import KIB, MIB
from logstore.errors import CorruptLog, RecordCompacted
from logstore.frame import FRAME_HEADER_BYTES, HOLE_MAGIC
from logstore.segment import PLAIN, Segment

GAP_BYTES_MAX: Final = 32 * KIB  # reading so much in vain costs less than another read
WINDOW_BYTES_MAX: Final = 4 * MIB  # one read; a longer frame is read alone
ROUND_BYTES_MAX: Final = 64 * MIB  # held at once, besides the values that are returned

Int64s = NDArray[np.int64]


def gather(segment: Segment, offsets: Int64s, end: int) -> list[bytes]:
    """The values at `offsets` (ascending, all in this segment and below `end`). Frames are verified first."""
    index = segment.index
    count = index.count
    firsts = index.rows["offset"][:count].astype(np.int64)
    positions = np.append(index.rows["position"][:count], segment.end_position).astype(np.int64)
    ends = np.append(firsts[1:], min(end, segment.end_offset))

    rows = firsts.searchsorted(offsets, "right") - 1
    frames, first_of_frame = np.unique(rows, return_index=True)
    how = np.array(
        [index.verified[row] or segment.note_verified(segment.item(row)) for row in frames.tolist()]
    )
    sizes = positions[frames + 1] - positions[frames]
    wanted = np.diff(np.append(first_of_frame, len(offsets)))  # values from each frame
    is_dense = (how == PLAIN) & (sizes <= GAP_BYTES_MAX * wanted)

    values: list[bytes] = []
    for start, stop in _runs(is_dense, sizes):
        chosen = slice(first_of_frame[start], first_of_frame[start] + wanted[start:stop].sum())
        if is_dense[start]:
            values += _gather_dense(
                segment, frames[start:stop], rows[chosen], offsets[chosen], firsts, ends, positions
            )
        elif how[start] == PLAIN:
            values += [segment.read(offset, end).value for offset in offsets[chosen].tolist()]
        else:
            values += _pick(segment, int(frames[start]), offsets[chosen])
    return values


def _runs(is_dense: NDArray[np.bool_], sizes: Int64s) -> list[tuple[int, int]]:
    """Neighbouring dense frames together, up to ROUND_BYTES_MAX; every other frame alone."""
    rounds = np.cumsum(sizes) // ROUND_BYTES_MAX
    joins = is_dense[1:] & is_dense[:-1] & (rounds[1:] == rounds[:-1])
    starts = np.append(0, np.flatnonzero(~joins) + 1)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(sizes)], strict=True))


def _gather_dense(
    segment: Segment,
    frames: Int64s,
    rows: Int64s,
    offsets: Int64s,
    firsts: Int64s,
    ends: Int64s,
    positions: Int64s,
) -> list[bytes]:
    """Values of frames that are read whole, many in one read."""
    starts, stops = positions[frames], positions[frames + 1]
    windows = (starts - starts[0]) // WINDOW_BYTES_MAX
    is_new = np.append(True, (starts[1:] - stops[:-1] > GAP_BYTES_MAX) | (windows[1:] != windows[:-1]))
    heads = np.flatnonzero(is_new)
    begin, until = starts[heads], stops[np.append(heads[1:] - 1, len(frames) - 1)]
    data = b"".join(
        [segment.file.read(b - a, a) for a, b in zip(begin.tolist(), until.tolist(), strict=True)]
    )
    if len(data) != (until - begin).sum():
        raise CorruptLog(segment.store_path, int(starts[0]), "the file is shorter than when it was verified")

    # Where the bytes at a position of the store lie in data.
    window_at = np.append(0, np.cumsum(until - begin)[:-1]) - begin
    shift = window_at[np.cumsum(is_new) - 1][frames.searchsorted(rows)]
    columns = positions[rows] + FRAME_HEADER_BYTES + shift
    numbers = offsets - firsts[rows]
    words = np.frombuffer(data, "<u4")
    pairs = columns // 4 + numbers
    values_at = columns + ((4 * (ends[rows] - firsts[rows]) + 11) & ~7)
    lows, highs = values_at + words[pairs], values_at + words[pairs + 1]
    return [data[low:high] for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]


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
