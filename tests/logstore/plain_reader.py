"""Reads a log with nothing but docs/FORMATS.md and Python: a model for a reader in another language."""

from collections.abc import Iterator
from pathlib import Path
from struct import calcsize, unpack_from

import zstandard

FRAME, COMPACTED = (0, 56, 48, "<II20xIIIBB"), (32, 128, 8, "<IIIIIBB")  # where header, body and sizes are
TABLE = list(range(256))
for _ in range(8):
    TABLE = [crc >> 1 ^ (0x82F63B78 if crc & 1 else 0) for crc in TABLE]


def crc32c(data: bytes, seed: int = 0) -> int:
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_log(directory: Path) -> Iterator[tuple[object, ...]]:
    """(offset, value, key, time, headers, term) of each record, up to where the log ends."""
    for path in sorted(directory.glob("*.store")):
        data = path.read_bytes()
        magic, crc, at, version, segment_id, chain = unpack_from("<8sIII4xQ32xI", data)
        assert (magic, crc, version) == (b"LOGSEG\r\n", crc32c(data[12:at]), 1), path
        while at + 96 <= len(data):  # no records can be in less
            magic, crc, mark_id = unpack_from("<4sIQ", data, at)
            if magic == b"LmrK" and (crc, mark_id) == (crc32c(data[at + 8 : at + 24]), segment_id):
                at += 24
                continue
            if magic == b"LhoL" and crc == crc32c(data[at + 8 : at + 64]):
                (chain,), at = unpack_from("<I", data, at + 56), at + 64
                continue
            header, body, sizes, layout = COMPACTED if magic == b"LcmP" else FRAME
            magic, crc, *stamp, kind = unpack_from("<4sI8xQQq3xB", data, at + header)
            length, body_crc, *shape = unpack_from(layout, data, at + sizes)
            found = (
                crc32c(data[at + header + 8 : at + header + 56], chain),
                crc32c(data[at + body : at + length]),
            )
            if magic != b"LfrM" or (crc, body_crc) != found:
                break
            if kind == 1:
                yield from read_records(data, at + header + 96, *stamp, header > 0, *shape)
            at, chain = at + length, crc


def read_records(
    data: bytes, at: int, term: int, first: int, time: int, is_compacted: int, n: int, stored: int, *rest: int
) -> Iterator[tuple[object, ...]]:
    def column(is_there: int, code: str) -> tuple[int, ...]:
        nonlocal at
        start, at = at, at + (calcsize(code) + 7) // 8 * 8 * bool(is_there)
        return unpack_from(code, data, start) if is_there else tuple([0] * (n + 1))

    numbers = column(1, f"<{n}I") if is_compacted else range(n)
    value, key = column(1, f"<{n + 1}I"), column(rest[1] & 1, f"<{n + 1}I")
    times, header = column(rest[1] & 2, f"<{n}q"), column(rest[1] & 4, f"<{n + 1}I")
    values, keys, headers = data[at : at + stored], data[at + stored :], data[at + stored + key[n] :]
    values = zstandard.decompress(values) if rest[2] else values
    for i, number in enumerate(numbers):
        pairs = tuple(read_headers(headers[header[i] : header[i + 1]]))
        texts = values[value[i] : value[i + 1]], keys[key[i] : key[i + 1]]
        yield first + number, *texts, times[i] or time, pairs, term


def read_headers(data: bytes) -> Iterator[tuple[str, bytes]]:
    while data:
        name, value = unpack_from("<HI", data)
        yield data[6 : 6 + name].decode(), data[6 + name : 6 + name + value]
        data = data[6 + name + value :]
