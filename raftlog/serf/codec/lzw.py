"""LZW as memberlist uses it: codes of 9 to 12 bits, lowest bits first, literals of 8 bits (Go's compress/lzw).

Codes 0 to 255 are bytes, 256 clears the table, 257 ends. Each code but the first after a clear gives the table one
entry more: the text before it and the first byte of its own. A code is one bit wider as soon as the table has as many
entries as the width can count; the writer clears the table before it would be full.
"""

from __future__ import annotations

from typing import Final

from raftlog.serf.codec.errors import BadPacket

CLEAR: Final = 256
END: Final = 257
FIRST: Final = 258  # the first code that the table gives out
WIDTH_MIN: Final = 9
WIDTH_MAX: Final = 12
TABLE_MAX: Final = 1 << WIDTH_MAX
CODES_MAX: Final = TABLE_MAX - 1  # at so many the writer clears
BLOCK: Final = 6  # bytes moved at once between the stream and a number that stays small
BLOCK_BITS: Final = 8 * BLOCK
BLOCK_MASK: Final = (1 << BLOCK_BITS) - 1

LITERALS: Final[list[bytes | None]] = [*(bytes([byte]) for byte in range(256)), None, None]


def compress(data: bytes) -> bytes:
    """The same bytes as Go's writer makes; longer than `data` if nothing in it repeats."""
    width, overflow, last = WIDTH_MIN, 1 << WIDTH_MIN, END
    out = bytearray()
    pending, bits = CLEAR, width
    table: dict[int, int] = {}
    code = data[0] if data else None
    for literal in memoryview(data)[1:]:
        assert code is not None
        key = code << 8 | literal
        longer = table.get(key)
        if longer is not None:
            code = longer
            continue
        pending |= code << bits
        bits += width
        code = literal
        last += 1
        if last == overflow:
            width += 1
            overflow <<= 1
        if last == CODES_MAX:
            pending |= CLEAR << bits
            bits += width
            width, overflow, last = WIDTH_MIN, 1 << WIDTH_MIN, END
            table.clear()
        else:
            table[key] = last
        if bits >= BLOCK_BITS:
            out += (pending & BLOCK_MASK).to_bytes(BLOCK, "little")
            pending >>= BLOCK_BITS
            bits -= BLOCK_BITS
    if code is not None:
        pending |= code << bits
        bits += width
        last += 1
        if last == overflow:
            width += 1
        if last == CODES_MAX:
            pending |= CLEAR << bits
            bits += width
            width = WIDTH_MIN
    pending |= END << bits
    bits += width
    out += pending.to_bytes((bits + 7) // 8, "little")
    return bytes(out)


def decompress(data: bytes, *, bytes_max: int) -> bytes:
    """What was compressed. BadPacket beyond `bytes_max`, for a code that cannot be, and without an end.

    Memory: `bytes_max` and as much again for the table. Time: some 0.2 µs for each code.
    """
    table = LITERALS.copy()
    width, mask, overflow = WIDTH_MIN, (1 << WIDTH_MIN) - 1, 1 << WIDTH_MIN
    pending = bits = position = size = 0
    before: bytes | None = None
    out: list[bytes] = []
    while True:
        if bits < width:
            block = data[position : position + BLOCK]
            pending |= int.from_bytes(block, "little") << bits
            bits += 8 * len(block)
            position += BLOCK
            if bits < width:
                raise BadPacket(f"compressed: expected an end, found none in {len(data)} bytes")
        code = pending & mask
        pending >>= width
        bits -= width
        if code < len(table):
            text = table[code]
            if text is None:
                if code == END:
                    return b"".join(out)
                del table[FIRST:]  # not a new table: a flood of clears would make one for every nine bits
                width, mask, overflow = WIDTH_MIN, (1 << WIDTH_MIN) - 1, 1 << WIDTH_MIN
                before = None
                continue
        elif code == len(table) and before is not None:
            text = before + before[:1]
        else:
            raise BadPacket(f"compressed: expected a code up to {len(table) - 1}, found {code}")
        out.append(text)
        size += len(text)
        if size > bytes_max:
            raise BadPacket(f"compressed: expected {bytes_max} bytes at most in it, found more")
        if before is not None:
            table.append(before + text[:1])
            if len(table) == overflow and width < WIDTH_MAX:
                width += 1
                mask = mask << 1 | 1
                overflow <<= 1
        before = text if len(table) < TABLE_MAX else None  # full: it stays as it is until a clear
