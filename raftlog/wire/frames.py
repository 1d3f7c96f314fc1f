"""Frames of a connection between servers: what lies between the bytes of a stream and messages.

width  what
4      bytes of the payload, little-endian
1      type of the frame
...    payload
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<IB")
HEADER_BYTES: Final = _HEADER.size


class BadFrame(Exception):
    """The other side announces a frame that this one does not take; nothing of it was kept. End the connection."""


class Frame(NamedTuple):
    """One frame; its payload is a part of the bytes that came, not a copy."""

    type: int
    payload: memoryview


def frame_header(type: int, payload_bytes: int) -> bytes:
    return _HEADER.pack(payload_bytes, type)


class FrameReader:
    """Cuts the bytes of a stream into frames, and copies those of a frame that came in parts once."""

    def __init__(self, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max  # a longer frame is refused when its header is there
        self._parts: list[bytes] = []  # of a frame that is not whole
        self._size = 0  # bytes in the parts; always below what is needed
        self._needed = HEADER_BYTES  # bytes, from where the parts begin, up to which nothing can be done

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now, in order; BadFrame if one is announced that is longer than allowed."""
        if self._size + len(data) < self._needed:
            self._parts.append(data)
            self._size += len(data)
            return []
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
        view = memoryview(data)
        frames, position = [], 0
        while True:
            self._needed = HEADER_BYTES
            if len(view) - position < HEADER_BYTES:
                break
            size, type = _HEADER.unpack_from(view, position)
            if size > self.payload_bytes_max:
                raise BadFrame(f"a frame of {size} bytes: at most {self.payload_bytes_max} are taken")
            self._needed += size
            if len(view) - position < self._needed:
                break
            end = position + self._needed
            frames.append(Frame(type, view[position + HEADER_BYTES : end]))
            position = end
        rest = data[position:]
        self._parts = [rest] if rest else []
        self._size = len(rest)
        return frames
