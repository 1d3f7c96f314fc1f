"""Packets and streams as they leave and as they come, with everything that is around the messages.

From the outside in: label, encryption, checksum (packets), compression, compound (packets), message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftlog.serf.codec import encryption, envelopes, kinds, streams, swim
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.framing import ENCRYPTED_HEADER_BYTES, STREAM_BYTES_MAX
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.streams import StreamMessage
from raftlog.serf.messages import SwimMessage

# Compression here is Python, some 0.1 µs a byte, and a small packet shrinks by little or grows: it is not tried.
COMPRESSED_BYTES_MIN: Final = 512
COMPRESSED_STREAM_BYTES_MAX: Final = 64 * 1024  # larger sides go as they are: the loop would stand still
# What a side may hold that came compressed: it takes a quarter of a second to unfold
COMPRESSED_IN_BYTES_MAX: Final = 1024 * 1024
PACKET_BYTES_MAX: Final = 64 * 1024  # that one packet may hold, compressed parts counted as they unfold
MESSAGES_MAX: Final = 1024  # that are looked at in one packet; the rest is left out
DEPTH_MAX: Final = 4  # of compounds and compression in each other; memberlist sends two


class Codec:
    """Makes packets and streams of messages, and messages of them.

    The keyring may change at any time, but not from empty to not: an encrypted cluster is one from its start.
    """

    left_out: int  # parts of packets not understood while others of the same packet were; only grows

    def __init__(
        self,
        keyring: Keyring,
        *,
        nonce: Callable[[int], bytes],
        label: str = "",
        compression: bool = True,
        verify_incoming: bool = True,
        verify_outgoing: bool = True,
    ) -> None:
        """`nonce` gives so many bytes that never come again. ValueError for a label above 255 bytes.

        With a keyring that has keys: without `verify_incoming` what is not encrypted is taken in too; without
        `verify_outgoing` nothing is encrypted. Both are for moving a cluster to encryption.
        """
        self._keyring = keyring
        self._nonce = nonce
        self._label = label.encode()
        if len(self._label) > envelopes.LABEL_BYTES_MAX:
            raise ValueError(
                f"label: expected {envelopes.LABEL_BYTES_MAX} bytes at most, found {len(self._label)}"
            )
        self._compression = compression
        self._verify_incoming = verify_incoming
        self._verify_outgoing = verify_outgoing
        self.left_out = 0

    @property
    def keyring(self) -> Keyring:
        return self._keyring

    @property
    def is_encrypting(self) -> bool:
        return self._verify_outgoing and not self._keyring.is_empty

    def overhead(self) -> int:
        """Bytes of a packet that are not for messages. Each part of a compound costs PART_BYTES (2) more."""
        encrypted = encryption.OVERHEAD if self.is_encrypting else 0
        label = len(envelopes.with_label(b"", self._label))
        return label + encrypted + envelopes.CRC_BYTES + envelopes.COMPOUND_BYTES

    def packet(self, parts: Sequence[bytes], *, has_crc: bool) -> bytes:
        """One packet of these messages, 1 to 255. With a checksum for whoever speaks protocol 5 or higher."""
        assert parts
        data = parts[0] if len(parts) == 1 else envelopes.compound(parts)
        if self._compression and len(data) >= COMPRESSED_BYTES_MIN:
            smaller = envelopes.compressed(data)
            if len(smaller) < len(data):
                data = smaller
        if has_crc:
            data = envelopes.with_crc(data)
        if self.is_encrypting:
            nonce = self._nonce(encryption.NONCE_BYTES)
            data = encryption.encrypt(self._keyring, nonce, data, self._label)
        return envelopes.with_label(data, self._label)

    def open_packet(self, data: bytes) -> list[SwimMessage]:
        """The messages of a packet, in order. BadPacket if nothing in it is understood.

        A part that is not understood is left out and counted: what one member says wrongly, and others pass on, must
        not cost the ack that it travels with.
        """
        data = envelopes.without_label(data, self._label)
        data = envelopes.without_crc(self._decrypted(data, self._label))
        opened = _Opening()
        opened.take(data, depth=0)
        if not opened.messages:
            raise opened.reason or BadPacket("packet: expected a message, found an empty compound")
        self.left_out += opened.left_out
        return opened.messages

    def stream(self, message: StreamMessage, *, is_reply: bool = False) -> bytes:
        """One whole side of a stream. The label is sent by whoever opened it only."""
        data = streams.encode(message)
        if self._compression and COMPRESSED_BYTES_MIN <= len(data) <= COMPRESSED_STREAM_BYTES_MAX:
            smaller = envelopes.compressed(data)
            if len(smaller) < len(data):
                data = smaller
        if self.is_encrypting:
            header = bytes([kinds.ENCRYPTED]) + (len(data) + encryption.OVERHEAD).to_bytes(4, "big")
            nonce = self._nonce(encryption.NONCE_BYTES)
            data = header + encryption.encrypt(self._keyring, nonce, data, header + self._label)
        return data if is_reply else envelopes.with_label(data, self._label)

    def open_stream(self, data: bytes, *, is_reply: bool = False) -> SwimMessage:
        """The message of one whole side of a stream. BadPacket if it is none."""
        if len(data) > STREAM_BYTES_MAX:
            raise BadPacket(f"stream: expected {STREAM_BYTES_MAX} bytes at most, found {len(data)}")
        data = envelopes.without_label(data, b"" if is_reply else self._label)
        if data[:1] == bytes([kinds.ENCRYPTED]):
            data = self._stream_decrypted(data)
        elif self._verify_incoming and not self._keyring.is_empty:
            raise BadPacket("stream: expected an encrypted one, found a plain one")
        if data[:1] == bytes([kinds.COMPRESSED]):
            if len(data) > COMPRESSED_IN_BYTES_MAX:
                raise BadPacket(
                    f"stream: expected {COMPRESSED_IN_BYTES_MAX} compressed bytes at most, found {len(data)}"
                )
            data = envelopes.decompressed(data[1:], STREAM_BYTES_MAX)
        return streams.decode(data)

    def _decrypted(self, data: bytes, associated: bytes) -> bytes:
        if self._keyring.is_empty:
            return data
        try:
            return encryption.decrypt(self._keyring, data, associated)
        except BadPacket:
            if self._verify_incoming:
                raise
            return data

    def _stream_decrypted(self, data: bytes) -> bytes:
        if self._keyring.is_empty:
            raise BadPacket("stream: expected a plain one, found an encrypted one, and there is no key")
        header, body = data[:ENCRYPTED_HEADER_BYTES], data[ENCRYPTED_HEADER_BYTES:]
        length = int.from_bytes(header[1:], "big")
        if len(header) < ENCRYPTED_HEADER_BYTES or length != len(body):
            raise BadPacket(f"stream: expected {length} encrypted bytes, found {len(body)}")
        return encryption.decrypt(self._keyring, body, header + self._label)


class _Opening:
    """Takes the messages out of one packet, with all its limits."""

    def __init__(self) -> None:
        self.messages: list[SwimMessage] = []
        self.left_out = 0
        self.reason: BadPacket | None = None  # why the first that was left out was
        self._looks_left = MESSAGES_MAX  # at messages and envelopes
        self._bytes_left = PACKET_BYTES_MAX  # to be decompressed

    def take(self, data: bytes, *, depth: int) -> None:
        if not self._looks_left:
            self.left_out += 1
            return
        self._looks_left -= 1
        try:
            self._take(data, depth)
        except BadPacket as error:
            self._leave_out(1, error)

    def _take(self, data: bytes, depth: int) -> None:
        kind = data[0] if data else None
        if kind not in (kinds.COMPOUND, kinds.COMPRESSED):
            self.messages.append(swim.decode(data))
            return
        if depth >= DEPTH_MAX:
            raise BadPacket(
                f"packet: expected compounds and compression in each other {DEPTH_MAX} deep at most"
            )
        if kind == kinds.COMPRESSED:
            self.take(self._decompressed(data[1:]), depth=depth + 1)
            return
        parts, cut_off = envelopes.parts_of(data[1:])
        for part in parts:
            self.take(part, depth=depth + 1)
        if cut_off:
            self._leave_out(cut_off, BadPacket(f"compound: the last {cut_off} parts are cut off"))

    def _decompressed(self, body: bytes) -> bytes:
        bytes_left, self._bytes_left = self._bytes_left, 0  # one that fails has cost as much as the limit
        content = envelopes.decompressed(body, bytes_left)
        self._bytes_left = bytes_left - len(content)
        return content

    def _leave_out(self, count: int, reason: BadPacket) -> None:
        self.left_out += count
        self.reason = self.reason or reason
