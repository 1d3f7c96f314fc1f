"""Columns of byte strings: Arrow's binary array, as numpy sees it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from logstore.config import BATCH_BYTES_LIMIT
from logstore.errors import BatchTooLarge, CorruptBatch
from logstore.record import Headers

if TYPE_CHECKING:
    import pyarrow

UInt32s = NDArray[np.uint32]

_HEADER_LENGTHS: Final = Struct("<HI")  # of the name in UTF-8, of the value
ALIKE_BYTES_MAX: Final = 1024  # strings of one size up to this are copied by numpy, in half the time
HEADER_NAME_BYTES_MAX: Final = 0xFFFF


class BytesColumn:
    """n byte strings in one buffer. `offsets` is u32[n + 1]; string i is data[offsets[i]:offsets[i + 1]]."""

    __slots__ = ("_buffer", "_start", "offsets")

    def __init__(self, offsets: UInt32s, buffer: bytes, start: int) -> None:
        self.offsets = offsets
        self._buffer = buffer
        self._start = start  # where data begins within buffer

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes, u8, read-only and without a copy."""
        return np.frombuffer(self._buffer, np.uint8, int(self.offsets[-1]), self._start)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> bytes:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._buffer[self._start + int(self.offsets[i]) : self._start + int(self.offsets[i + 1])]

    def slice(self, start: int, end: int) -> BytesColumn:
        """Strings start..end-1, sharing memory."""
        return BytesColumn(self.offsets[start : end + 1], self._buffer, self._start)

    def to_pylist(self) -> list[bytes]:
        start = self._start + int(self.offsets[0])
        sizes = np.diff(self.offsets)
        if len(sizes) > 1 and (sizes == sizes[0]).all() and sizes[0]:
            strings: list[bytes] = np.frombuffer(self._buffer, f"V{sizes[0]}", len(sizes), start).tolist()
            return strings
        # BytesIO shares the buffer; reading on from it makes bytes at half the price of slicing.
        reader = BytesIO(self._buffer)
        reader.seek(start)
        return list(map(reader.read, sizes.tolist()))

    def to_arrow(self) -> pyarrow.BinaryArray:
        """A pyarrow.BinaryArray over the same memory (needs the extra `arrow`)."""
        import pyarrow

        buffers = [None, pyarrow.py_buffer(self.offsets), pyarrow.py_buffer(self.data)]
        array: pyarrow.BinaryArray = pyarrow.Array.from_buffers(pyarrow.binary(), len(self), buffers)
        return array


class PackedStrings(NamedTuple):
    """Byte strings being encoded: offsets u32[n + 1] from 0, and the bytes back to back."""

    offsets: UInt32s
    data: bytes

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.offsets).astype(np.int64)


def pack_strings(strings: Sequence[bytes]) -> PackedStrings:
    """`strings` may hold any bytes-like objects; TypeError for others, BatchTooLarge over the format's limit."""
    data = b"".join(strings)
    if len(data) > BATCH_BYTES_LIMIT:
        raise BatchTooLarge(len(data), BATCH_BYTES_LIMIT)
    # An array of a list is the quickest way from Python's lengths to numpy's.
    offsets = np.frombuffer(array("I", [0, *map(len, strings)]), np.uint32).cumsum(dtype="<u4")
    if offsets[-1] != len(data):  # a memoryview of wider items counts items, not bytes
        return pack_strings([bytes(item) for item in strings])
    return PackedStrings(offsets, data)


def cut_strings(buffer: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[bytes]:
    """buffer[starts[i]:stops[i]] for each i."""
    if not len(starts):
        return []
    size = int(stops[0] - starts[0])
    if 0 < size <= ALIKE_BYTES_MAX and (stops - starts == size).all():
        alike = sliding_window_view(np.frombuffer(buffer, np.uint8), size)[starts]
        strings: list[bytes] = alike.view(f"V{size}").ravel().tolist()
        return strings
    return [buffer[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def encode_headers(headers: Headers) -> bytes:
    parts: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        if len(encoded) > HEADER_NAME_BYTES_MAX:
            raise ValueError(f"a header's name has {len(encoded)} bytes; at most {HEADER_NAME_BYTES_MAX} fit")
        data = bytes(memoryview(value))  # its length counts bytes, whatever the items were
        parts += (_HEADER_LENGTHS.pack(len(encoded), len(data)), encoded, data)
    return b"".join(parts)


def decode_headers(data: bytes) -> Headers:
    headers = []
    position = 0
    while position < len(data):
        if position + _HEADER_LENGTHS.size > len(data):
            raise CorruptBatch(f"a record's headers end in the middle of a length, at byte {position}")
        name_length, value_length = _HEADER_LENGTHS.unpack_from(data, position)
        value_at = position + _HEADER_LENGTHS.size + name_length
        end = value_at + value_length
        if end > len(data):
            raise CorruptBatch(f"a record's header at byte {position} says it ends at {end} of {len(data)}")
        try:
            name = data[position + _HEADER_LENGTHS.size : value_at].decode()
        except UnicodeDecodeError as error:
            raise CorruptBatch(f"a record's header name at byte {position} is not UTF-8") from error
        headers.append((name, data[value_at:end]))
        position = end
    return tuple(headers)


def ascending_from_zero(offsets: UInt32s, end: int) -> bool:
    """Whether offsets from outside start at 0, never descend, and end at `end`."""
    return bool(offsets[0] == 0 and offsets[-1] == end and (offsets[1:] >= offsets[:-1]).all())
