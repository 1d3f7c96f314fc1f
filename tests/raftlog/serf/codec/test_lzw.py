"""Compressed bytes at their limits, and such as no writer makes."""

from __future__ import annotations

import random

import pytest

from raftlog.serf.codec import lzw
from raftlog.serf.codec.errors import BadPacket


def codes(*values: int, width: int = 9) -> bytes:
    """These codes, all of one width."""
    number = 0
    for at, value in enumerate(values):
        number |= value << at * width
    return number.to_bytes((len(values) * width + 7) // 8, "little")


@pytest.mark.parametrize("length", [0, 1, 2, 255, 3836, 3837, 3838, 3839, 3840, 7675, 7676, 7677])
def test_noise_comes_back_at_the_lengths_where_the_table_is_cleared(length: int) -> None:
    noise = random.Random(length).randbytes(length)

    assert lzw.decompress(lzw.compress(noise), bytes_max=length) == noise


def test_code_that_is_only_just_being_made_is_understood() -> None:
    assert lzw.decompress(codes(lzw.CLEAR, 97, 258, lzw.END), bytes_max=3) == b"aaa"


def test_stream_without_a_clear_at_its_start_is_understood() -> None:
    assert lzw.decompress(codes(97, 98, 258, lzw.END), bytes_max=4) == b"abab"


def test_full_table_stays_as_it_is_until_a_clear() -> None:
    """As Go reads it; Go's writer clears before. 4096 entries: 258 at first, and one with each code but the first."""
    number = bits = 0
    width = 9
    entries = 258
    sent = 0
    for at in range(5000):
        number |= 97 << bits
        bits += width
        sent += 1
        if at:
            entries = min(entries + 1, 4096)
        width = min(max(9, entries.bit_length()), 12)
    number |= 258 << bits  # "aa" as ever
    bits += width
    number |= lzw.END << bits
    data = number.to_bytes((bits + width + 7) // 8, "little")

    assert lzw.decompress(data, bytes_max=10_000) == b"a" * (sent + 2)


@pytest.mark.parametrize(
    "data",
    [
        codes(lzw.CLEAR, 258, lzw.END),  # nothing was said before it
        codes(lzw.CLEAR, 97, 259, lzw.END),  # beyond what was made
        codes(300, lzw.END),
    ],
)
def test_code_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket, match="expected a code up to"):
        lzw.decompress(data, bytes_max=1000)


@pytest.mark.parametrize("data", [b"", b"\x00", codes(lzw.CLEAR), codes(97, 98)])
def test_stream_without_an_end_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket, match="expected an end"):
        lzw.decompress(data, bytes_max=1000)


def test_stream_of_exactly_the_limit_is_understood_and_one_byte_more_is_refused() -> None:
    data = lzw.compress(bytes(1000))

    assert lzw.decompress(data, bytes_max=1000) == bytes(1000)
    with pytest.raises(BadPacket, match="expected 999 bytes at most"):
        lzw.decompress(data, bytes_max=999)


def test_bomb_is_given_up_at_the_limit() -> None:
    bomb = lzw.compress(bytes(2_000_000))
    assert len(bomb) < 3000

    with pytest.raises(BadPacket, match="expected 65536 bytes at most"):
        lzw.decompress(bomb, bytes_max=65536)


class Table(list[bytes | None]):
    """Counts how often it is copied."""

    copies = 0

    def copy(self) -> list[bytes | None]:
        self.copies += 1
        return super().copy()


def test_flood_of_clears_makes_no_table_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet of 1,300 bytes, compressed twice, unfolds to 50,000 clears."""
    table = Table(lzw.LITERALS)
    monkeypatch.setattr(lzw, "LITERALS", table)

    text = lzw.decompress(codes(97, 98, 258, *[lzw.CLEAR] * 50_000, 97, 98, 258, lzw.END), bytes_max=8)

    assert text == b"abababab"
    assert table.copies == 1


def test_bytes_behind_the_end_are_ignored() -> None:
    assert lzw.decompress(lzw.compress(b"abc") + b"more", bytes_max=3) == b"abc"
