"""What memberlist wraps messages in, apart from encryption: label, checksum, compression, compounds.

Each function puts one on or takes one off. Source: memberlist, label.go and util.go.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from raftlog.serf.codec import kinds, lzw
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import pack, unpack_fields

LABEL_BYTES_MAX: Final = 255
CRC_BYTES: Final = 5  # the kind and the checksum
COMPOUND_BYTES: Final = 2  # the kind and the count
PART_BYTES: Final = 2  # of each part in a compound, beside itself
PARTS_MAX: Final = 255
PART_BYTES_MAX: Final = (1 << 16) - 1
LZW_ALGORITHM: Final = 0


def with_label(data: bytes, label: bytes) -> bytes:
    """The kind, the length of the label in one byte, the label, and the data; without a label the data."""
    return bytes([kinds.LABEL, len(label)]) + label + data if label else data


def without_label(data: bytes, label: bytes) -> bytes:
    """The data behind the label. BadPacket if there is another label than this, or none where one is expected."""
    header = with_label(b"", label)
    if not data.startswith(header) or (not label and data[:1] == bytes([kinds.LABEL])):
        raise BadPacket("label: expected this cluster's, found another or none")
    return data[len(header) :]


def with_crc(data: bytes) -> bytes:
    return bytes([kinds.CRC]) + zlib.crc32(data).to_bytes(4, "big") + data


def without_crc(data: bytes) -> bytes:
    """The data behind the checksum, which is looked at; all of it if there is none."""
    if len(data) < CRC_BYTES or data[0] != kinds.CRC:
        return data
    stored, body = int.from_bytes(data[1:CRC_BYTES], "big"), data[CRC_BYTES:]
    if zlib.crc32(body) != stored:
        raise BadPacket(f"checksum: stored {stored:#010x}, computed {zlib.crc32(body):#010x}")
    return body


def compressed(data: bytes) -> bytes:
    return bytes([kinds.COMPRESSED]) + pack({"Algo": LZW_ALGORITHM, "Buf": lzw.compress(data)})


def decompressed(body: bytes, bytes_max: int) -> bytes:
    """What is in a compressed message, given without its kind. BadPacket if that is more than `bytes_max` bytes."""
    fields = unpack_fields(body, "compressed")
    algorithm = fields.uint(b"Algo", 8)
    if algorithm != LZW_ALGORITHM:
        raise BadPacket(f"compressed: expected algorithm {LZW_ALGORITHM}, LZW, found {algorithm}")
    return lzw.decompress(fields.blob(b"Buf"), bytes_max=bytes_max)


def compound(parts: Sequence[bytes]) -> bytes:
    """The kind, the count in one byte, the lengths in two bytes each, big endian, and the parts.

    ValueError for more than 255 parts, or for one above 65,535 bytes.
    """
    if len(parts) > PARTS_MAX:
        raise ValueError(f"compound: expected {PARTS_MAX} parts at most, found {len(parts)}")
    if any(len(part) > PART_BYTES_MAX for part in parts):
        raise ValueError(f"compound: expected parts of {PART_BYTES_MAX} bytes at most")
    lengths = b"".join(len(part).to_bytes(2, "big") for part in parts)
    return bytes([kinds.COMPOUND, len(parts)]) + lengths + b"".join(parts)


def parts_of(body: bytes) -> tuple[list[bytes], int]:
    """The parts of a compound, given without its kind, and how many were cut off at the end."""
    count = body[0] if body else 0
    position = 1 + PART_BYTES * count
    if not body or len(body) < position:
        raise BadPacket(f"compound: expected {position} bytes of count and lengths, found {len(body)}")
    parts: list[bytes] = []
    for at in range(1, position, PART_BYTES):
        end = position + int.from_bytes(body[at : at + PART_BYTES], "big")
        if end > len(body):
            break
        parts.append(body[position:end])
        position = end
    return parts, count - len(parts)
