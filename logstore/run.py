"""Many frames at once: what a walk finds in one buffer, decoded together with numpy.

A log that was appended to record by record consists of small frames, and decoding each alone would cost tens of
microseconds. Here a frame costs its two checksums, and everything else is done once per buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from logstore.batch import NO_HEADERS, RecordBatch, decode_frame, entry_data
from logstore.column import cut_strings, decode_headers
from logstore.frame import FRAME_HEADER_BYTES, Kind, RawEntry, Section, parse_frame_header
from logstore.index import ROW
from logstore.record import Headers, Record

Int64s = NDArray[np.int64]

_new_record: Final[Callable[[tuple[Any, ...]], Record]] = partial(tuple.__new__, Record)
_new_entry: Final[Callable[[tuple[Any, ...]], RawEntry]] = partial(tuple.__new__, RawEntry)


class Run:
    """Consecutive whole frames in one buffer; not compacted ones, not holes. Marks may lie between them."""

    def __init__(self, buffer: bytes, buffer_at: int, starts: Int64s) -> None:
        self._buffer = buffer
        self._bytes = np.frombuffer(buffer, np.uint8)
        self._halves = np.frombuffer(buffer, "<u4", len(buffer) // 4)
        self._words = np.frombuffer(buffer, "<u8", len(buffer) // 8)
        self._starts = starts  # of each frame in the buffer, i64[n], multiples of 8
        self._buffer_at = buffer_at

    def __len__(self) -> int:
        return len(self._starts)

    # Columns of the frame headers, i64[n]; the numbers are positions within a header, see `frame`.

    def _byte(self, at: int) -> Int64s:
        return np.asarray(self._bytes[self._starts + at], np.int64)

    def _half(self, at: int) -> Int64s:
        return np.asarray(self._halves[(self._starts + at) >> 2], np.int64)

    def _word(self, at: int) -> Int64s:
        return np.asarray(self._words[(self._starts + at) >> 3], np.int64)

    @cached_property
    def offsets(self) -> Int64s:
        return self._word(24)

    @cached_property
    def spans(self) -> Int64s:
        return self._half(44)

    @property
    def lengths(self) -> Int64s:
        """Bytes of each frame."""
        return self._half(48)

    @cached_property
    def times(self) -> Int64s:
        return self._word(32)

    @cached_property
    def terms(self) -> Int64s:
        return self._word(16)

    @cached_property
    def kinds(self) -> Int64s:
        return self._byte(43)

    @property
    def positions(self) -> Int64s:
        return self._starts + self._buffer_at

    @property
    def entry_index(self) -> int:
        """Of the first frame."""
        return int(self._words[(int(self._starts[0]) + 8) >> 3])

    @property
    def end_offset(self) -> int:
        return int(self.offsets[-1] + self.spans[-1])

    def follows(self, index: int, offset: int) -> bool:
        """Whether the frames are entries `index` and on, with records from `offset` on, without a gap."""
        indexes = self._word(8)
        ends = np.append(offset, self.offsets + self.spans)[:-1]
        return bool((indexes == np.arange(index, index + len(self))).all() and (self.offsets == ends).all())

    @property
    def is_plain(self) -> NDArray[np.bool_]:
        """As Item.is_plain, for each frame."""
        is_plain: NDArray[np.bool_] = (
            (self.kinds == Kind.RECORDS) & (self._byte(88) == 0) & (self._byte(89) == 0)
        )
        return is_plain

    def rows(self) -> NDArray[np.void]:
        """The row of the index for each frame."""
        rows = np.empty(len(self), ROW)
        rows["offset"], rows["position"], rows["term"], rows["time"] = (
            self.offsets, self.positions, self.terms, self.times,
        )  # fmt: skip
        return rows

    def entries_of(self, kind: Kind) -> Iterator[tuple[bytes, int]]:
        """(data, entry index) of each frame of a kind that holds no records."""
        for number in np.flatnonzero(self.kinds == kind).tolist():
            start = int(self._starts[number])
            yield (
                entry_data(parse_frame_header(self._buffer, start), self._buffer, start),
                self.entry_index + number,
            )

    def raw_entries(self) -> Iterator[RawEntry]:
        buffer, starts = self._buffer, self._starts
        columns = (self.terms, self.kinds, starts, self.lengths, self._half(80))
        for index, (term, kind, at, length, data_bytes) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=self.entry_index
        ):
            if kind == Kind.RECORDS:
                yield _new_entry((index, term, Kind.RECORDS, buffer[at : at + length]))
            else:
                data_at = at + FRAME_HEADER_BYTES
                yield _new_entry((index, term, Kind(kind), buffer[data_at : data_at + data_bytes]))

    def before(self, end: int) -> Run:
        """The frames that start before offset `end`."""
        count = int(self.offsets.searchsorted(end, "left"))
        return self if count == len(self) else Run(self._buffer, self._buffer_at, self._starts[:count])

    # What readers take; `Item` offers the same for one frame.

    def batches(self, start: int, end: int) -> Iterator[RecordBatch]:
        """Batches with records at offsets start..end-1, cut to these."""
        for at in self._starts[self._wanted(start, end)].tolist():
            yield decode_frame(parse_frame_header(self._buffer, at), self._buffer, at).between(start, end)

    def frames(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """(first offset, end offset, bytes) of each frame with records at offsets start..end-1."""
        wanted = self._wanted(start, end)
        firsts, starts = self.offsets[wanted], self._starts[wanted]
        ends, stops = firsts + self.spans[wanted], starts + self.lengths[wanted]
        for first, offset_end, at, stop in zip(
            *(a.tolist() for a in (firsts, ends, starts, stops)), strict=True
        ):
            yield first, offset_end, self._buffer[at:stop]

    def records(self, start: int, end: int) -> Iterator[Record]:
        """The records at offsets start..end-1."""
        wanted = self._wanted(start, end)
        if self._byte(89)[wanted].any():  # compressed ones are decoded one by one
            return chain.from_iterable(self.batches(start, end))
        return self._records(wanted, start, end)

    def _wanted(self, start: int, end: int) -> Int64s:
        is_wanted = (self.kinds == Kind.RECORDS) & (self.offsets < end) & (self.offsets + self.spans > start)
        return np.flatnonzero(is_wanted)

    def _records(self, frames: Int64s, start: int, end: int) -> Iterator[Record]:
        """Decode the columns of all frames as one. What is per frame is repeated for each of its records."""
        spans, sections, first_offsets = self.spans[frames], self._byte(88)[frames], self.offsets[frames]
        narrow = (4 * spans + 11) & ~7  # bytes of a column of n + 1 u32
        has_key, has_time, has_headers = (sections & section != 0 for section in Section)
        columns = self._starts[frames] + FRAME_HEADER_BYTES
        key_columns = columns + narrow
        time_columns = key_columns + narrow * has_key
        header_columns = time_columns + 8 * spans * has_time
        values_at = header_columns + narrow * has_headers
        keys_at = values_at + self._half(80)[frames]
        headers_at = keys_at + np.where(has_key, self._halves[((key_columns >> 2) + spans) * has_key], 0)

        of_frame = np.repeat(np.arange(len(frames)), spans)
        numbers = np.arange(len(of_frame)) - np.repeat(np.cumsum(spans) - spans, spans)
        offsets = first_offsets[of_frame] + numbers
        part = slice(*offsets.searchsorted([start, end]).tolist())
        of_frame, numbers, offsets = of_frame[part], numbers[part], offsets[part]

        def strings(columns: Int64s, data_at: Int64s, is_there: NDArray[np.bool_]) -> list[bytes]:
            there = is_there[of_frame]
            at = ((columns[of_frame] >> 2) + numbers) * there
            lows = (data_at[of_frame] + self._halves[at]) * there
            return cut_strings(self._buffer, lows, (data_at[of_frame] + self._halves[at + 1]) * there)

        times = self.times[frames][of_frame]
        if has_time.any():
            given = self._words[((time_columns[of_frame] >> 3) + numbers) * has_time[of_frame]].astype(
                np.int64
            )
            times = np.where(has_time[of_frame] & (given != 0), given, times)
        keys: Iterable[bytes] = repeat(b"")
        if has_key.any():
            keys = strings(key_columns, keys_at, has_key)
        headers: Iterable[Headers] = repeat(NO_HEADERS)
        if has_headers.any():
            headers = map(decode_headers, strings(header_columns, headers_at, has_headers))
        values = strings(columns, values_at, np.ones(len(frames), bool))
        terms = self.terms[frames][of_frame].tolist()
        return map(
            _new_record, zip(offsets.tolist(), values, keys, times.tolist(), headers, terms, strict=False)
        )
