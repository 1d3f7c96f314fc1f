"""The index of one segment: a row per entry, in numpy. Derived from the store, so never worth repairing.

Row r is entry base_index + r. Every column ascends, so an entry is found by its number and an offset or a
time by one binary search.

The active segment's index is mapped memory over `<base>.index`; it is rebuilt at every opening. When a segment
is sealed its index is written once more, whole and with a checksum, and renamed into place; from then on it is
read, checked and kept in memory while it is in use.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from logstore.checksum import crc32c
from logstore.filesystem import FileSystem
from logstore.frame import FORMAT_VERSION

ROW: Final = np.dtype([("offset", "<u8"), ("position", "<u8"), ("term", "<u8"), ("time", "<i8")])
ROW_BYTES: Final = ROW.itemsize
HEADER_BYTES: Final = 64
MAGIC: Final = b"LOGINDEX"

ROWS_AT_FIRST: Final = 2046  # with the header about 64 KiB
ROWS_PER_STEP_MAX: Final = 32 * 1024  # 1 MiB: grown by doubling, but never by more than this

_HEADER: Final = Struct(
    "<8sIIQQQQQI4x"
)  # magic, CRC, version, segment id, base, rows, end position, end offset, CRC
_ROW: Final = Struct("<QQQq")
assert _HEADER.size == HEADER_BYTES and _ROW.size == ROW_BYTES


class Mappable(Protocol):
    """The part of a File that a growing index needs."""

    def map(self, size: int) -> Any: ...


class _Memory:
    """Stands in for the file of an index that is only in memory."""

    def __init__(self) -> None:
        self._data = bytearray()

    def map(self, size: int) -> bytearray:
        self._data = self._data.ljust(size, b"\0")
        return self._data


class Index:
    """Rows of one segment. `count` of them are valid; readers take `count` before they take `words`."""

    __slots__ = ("_buffer", "_file", "capacity", "count", "rows", "verified", "words")

    capacity: int  # rows that fit
    count: int  # valid rows; moved by the writer only, after the row is complete
    rows: NDArray[np.void]  # ROW[capacity]
    words: memoryview  # the same memory as u64: the quickest way to a single field
    verified: bytearray  # by row, what was seen of its frame since the log was opened; see `segment`

    def __init__(self, buffer: Any, count: int, file: Mappable | None = None) -> None:
        """`buffer` has a header of 64 bytes, whose content does not matter, and then rows.

        With `file` the buffer was mapped over it, and it grows; without, the index is complete.
        """
        self._file = file
        self.count = count
        self.verified = bytearray()
        self._map(buffer)

    def _map(self, buffer: Any) -> None:
        self._buffer = buffer
        self.capacity = (len(buffer) - HEADER_BYTES) // ROW_BYTES
        self.words = memoryview(buffer).cast("Q")
        self.rows = np.frombuffer(buffer, ROW, self.capacity, HEADER_BYTES)
        self.verified = self.verified.ljust(self.capacity, b"\0")

    @classmethod
    def active(cls, file: Mappable) -> Index:
        """An empty index that grows, over an empty file."""
        return cls(file.map(HEADER_BYTES + ROWS_AT_FIRST * ROW_BYTES), 0, file)

    @classmethod
    def growing_in_memory(cls) -> Index:
        """An empty index that grows, for a log that may not be written."""
        return cls.active(_Memory())

    @classmethod
    def in_memory(cls, rows: NDArray[np.void]) -> Index:
        return cls(bytes(HEADER_BYTES) + rows.tobytes(), len(rows))

    def put(self, row: int, offset: int, position: int, term: int, time: int) -> None:
        """Set the row behind the last, or once more after an interrupted append; `reserve` made room for it."""
        _ROW.pack_into(self._buffer, HEADER_BYTES + ROW_BYTES * row, offset, position, term, time)
        self.count = row + 1

    def extend(self, rows: NDArray[np.void]) -> None:
        self.reserve(len(rows))
        self.rows[self.count : self.count + len(rows)] = rows
        self.count += len(rows)

    def reserve(self, count: int) -> None:
        """Make room for `count` more rows, or raise OSError (disk full) with nothing changed."""
        if self.count + count <= self.capacity:
            return
        assert self._file is not None
        step = max(min(self.capacity, ROWS_PER_STEP_MAX), count)
        # Readers may still hold the old mapping; it stays valid, and the file only grows.
        self._map(self._file.map(HEADER_BYTES + (self.capacity + step) * ROW_BYTES))

    def truncate(self, count: int) -> None:
        assert count <= self.count
        self.count = count
        self.verified[count:] = bytes(self.capacity - count)

    def find(self, offset: int, end: int) -> tuple[int, int, int]:
        """(row, first offset, end offset) of the frame that holds `offset`, if records end before `end`.

        The frame of the last row ends at `end`: rows that were added since the caller saw that end do not count.
        """
        count, words = self.count, self.words  # in this order; see the class
        first = words[8]
        # Frames are mostly alike, so proportion mostly finds the row. A row is four words, behind eight.
        row = (offset - first) * count // (end - first)
        at = 8 + 4 * row
        if row < count and words[at] <= offset:
            frame_end = words[at + 4] if row + 1 < count else end
            if offset < frame_end:
                return row, words[at], frame_end
        row = int(self.rows["offset"][:count].searchsorted(offset, "right")) - 1
        at = 8 + 4 * row
        return row, words[at], words[at + 4] if row + 1 < count else end

    def offset(self, row: int) -> int:
        return self.words[8 + 4 * row]

    def position(self, row: int) -> int:
        return self.words[9 + 4 * row]

    def term(self, row: int) -> int:
        return self.words[10 + 4 * row]

    def time(self, row: int) -> int:
        return self.words[11 + 4 * row]

    def find_time(self, time: int) -> int:
        """The first row with an append time at or after `time`; `count` if none."""
        return int(self.rows["time"][: self.count].searchsorted(time, "left"))


def pack_index(
    index: Index, *, segment_id: int, base_index: int, end_position: int, end_offset: int
) -> bytes:
    """The file of a full segment's index, whole."""
    rows = index.rows[: index.count].tobytes()
    fields = (FORMAT_VERSION, segment_id, base_index, index.count, end_position, end_offset, crc32c(0, rows))
    covered = _HEADER.pack(MAGIC, 0, *fields)[12:]
    return MAGIC + crc32c(0, covered).to_bytes(4, "little") + covered + rows


class SavedIndex:
    """The header of an index file that is whole: what the store it belongs to looks like."""

    __slots__ = ("base_index", "count", "end_offset", "end_position", "rows_crc", "segment_id")

    def __init__(self, fields: tuple[int, ...]) -> None:
        self.segment_id, self.base_index, self.count, self.end_position, self.end_offset, self.rows_crc = (
            fields
        )


def read_saved_header(fs: FileSystem, path: str) -> SavedIndex | None:
    """What the index file at `path` says of its store; None if it is missing, damaged or was never sealed."""
    try:
        file = fs.open(path, writable=False)
    except FileNotFoundError:
        return None
    data = file.read(HEADER_BYTES, 0)
    file.close()
    if len(data) < HEADER_BYTES:
        return None
    magic, crc, version, *fields = _HEADER.unpack(data)
    if magic != MAGIC or version != FORMAT_VERSION or crc32c(0, data[12:]) != crc:
        return None
    return SavedIndex(tuple(fields))


def load_index(fs: FileSystem, path: str, saved: SavedIndex) -> Index | None:
    """The rows of a saved index, or None if they are damaged, or gone since its header was read."""
    try:
        file = fs.open(path, writable=False)
    except FileNotFoundError:
        return None
    data = file.read(HEADER_BYTES + saved.count * ROW_BYTES, 0)
    file.close()
    if len(data) < HEADER_BYTES + saved.count * ROW_BYTES:
        return None
    if crc32c(0, np.frombuffer(data, np.uint8, offset=HEADER_BYTES)) != saved.rows_crc:
        return None
    return Index(data, saved.count)
