"""Where one side of a stream ends, found as the bytes come in, without a key."""

from __future__ import annotations

from typing import Final

import msgpack

from raftlog.serf.codec import kinds, streams
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import BAD, ITEMS_MAX, Fields, limits

# Of one side of a stream; memberlist takes 20 MiB: 4096 members need 3 MiB at most
STREAM_BYTES_MAX: Final = 4 * 1024 * 1024
ENCRYPTED_HEADER_BYTES: Final = 5  # the kind and the length
SINGLE: Final = (kinds.PING, kinds.ACK, kinds.ERROR, kinds.COMPRESSED)  # one msgpack value behind the kind


class StreamReader:
    """Gathers one side of a stream until it is whole; what is in it is looked at by `Codec.open_stream`.

    Holds `bytes_max` bytes at most, and as many again of what is not encrypted.
    """

    def __init__(self, bytes_max: int = STREAM_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._start: int | None = None  # of the message, behind the label; None until that is known
        self._end: int | None = None  # None until it is known
        self._unpacker: msgpack.Unpacker | None = None  # of a message that does not declare its length
        self._fed = 0  # bytes of the buffer that it has
        self._header: Fields | None = None  # of a whole state, or of a user message
        self._values_left = 1  # that have to be skipped before the end is known

    def feed(self, data: bytes) -> bool:
        """True once the message is whole. BadPacket if it is none, or as soon as it is known to be too large."""
        self._buffer += data
        if self._end is None:
            self._end = self._find_end()
        if (len(self._buffer) if self._end is None else self._end) > self._bytes_max:
            raise BadPacket(f"stream: expected {self._bytes_max} bytes at most, found more")
        return self._end is not None and len(self._buffer) >= self._end

    @property
    def message_bytes(self) -> bytes:
        """The whole message with its label; what came behind it is not in it."""
        assert self._end is not None
        return bytes(memoryview(self._buffer)[: self._end])

    def _find_end(self) -> int | None:
        if self._start is None:
            self._start = self._find_start()
        if self._start is None or len(self._buffer) <= self._start:
            return None
        kind = self._buffer[self._start]
        if kind == kinds.ENCRYPTED:
            return self._end_of_encrypted(self._start)
        if kind not in (*SINGLE, kinds.PUSH_PULL, kinds.USER):
            raise BadPacket(f"stream: expected a message that streams carry, found kind {kind}")
        try:
            return self._end_of_values(kind, self._start + 1)
        except msgpack.OutOfData:
            return None
        except BAD:
            raise BadPacket("stream: no msgpack within the limits") from None

    def _find_start(self) -> int | None:
        if not self._buffer:
            return None
        if self._buffer[0] != kinds.LABEL:
            return 0
        return 2 + self._buffer[1] if len(self._buffer) > 1 else None

    def _end_of_encrypted(self, start: int) -> int | None:
        body = start + ENCRYPTED_HEADER_BYTES
        if len(self._buffer) < body:
            return None
        return body + int.from_bytes(self._buffer[start + 1 : body], "big")

    def _end_of_values(self, kind: int, body: int) -> int:
        """The end of what declares no length; OutOfData until it is there."""
        if self._unpacker is None:
            self._unpacker = msgpack.Unpacker(
                raw=True, max_buffer_size=2 * self._bytes_max, **limits(ITEMS_MAX)
            )
            self._fed = body
        self._unpacker.feed(memoryview(self._buffer)[self._fed :])
        self._fed = len(self._buffer)
        behind = 0  # bytes behind the values
        if kind in (kinds.PUSH_PULL, kinds.USER):
            if self._header is None:
                self._header = Fields.of(self._unpacker.unpack(), "header")
                self._values_left = streams.node_count(self._header) if kind == kinds.PUSH_PULL else 0
            length = b"UserStateLen" if kind == kinds.PUSH_PULL else b"UserMsgLen"
            behind = self._header.uint(length, streams.LENGTH_BITS)
        while self._values_left:
            self._unpacker.skip()
            self._values_left -= 1
        return body + int(self._unpacker.tell()) + behind
