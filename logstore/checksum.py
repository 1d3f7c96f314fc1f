"""CRC-32C, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import google_crc32c
import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


crc32c: Callable[[int, bytes | NDArray[np.uint8]], int] = google_crc32c.extend
"""crc32c(seed, data) -> CRC-32C of `data` continuing from `seed` (0 to begin).

The package refuses memoryview and bytearray; a numpy array over them costs no copy.
"""


@cache
def _tables() -> tuple[list[int], list[int]]:
    """(forward table by low byte, index of the forward entry with a given high byte)."""
    forward = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        forward.append(crc)
    backward = [0] * 256
    for byte, crc in enumerate(forward):
        backward[crc >> 24] = byte
    return forward, backward


def seed_of(crc: int, data: bytes) -> int:
    """The seed for which `crc32c(seed, data) == crc`.

    There is exactly one, because each step of a CRC is reversible. Repair uses it to join the chain of
    header CRCs again behind a frame that is lost.
    """
    forward, backward = _tables()
    register = crc ^ 0xFFFFFFFF
    for byte in reversed(data):
        low = backward[register >> 24]
        register = (((register ^ forward[low]) << 8) & 0xFFFFFFFF) | (low ^ byte)
    return register ^ 0xFFFFFFFF
