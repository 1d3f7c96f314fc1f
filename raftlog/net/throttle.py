"""How fast bulk data may be sent, so that catching up takes nothing from what is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BURST_S: Final = 0.1  # of unused time that may be made up for


class Throttle:
    """A rate in bytes a second, shared by all that ask."""

    def __init__(self, bytes_per_s: int, clock: Callable[[], float]) -> None:
        assert bytes_per_s > 0, bytes_per_s
        self._rate = bytes_per_s
        self._clock = clock
        self._free_at = clock()  # when all that was let through will have passed at the rate

    def take(self, size: int) -> float:
        """0.0: send these bytes now, they are counted. Else nothing is counted: ask again after so many seconds.

        What was idle is made up for by at most BURST_S, and a message is not cut, so a large one goes when anything may
        go and makes the next wait longer.
        """
        now = self._clock()
        if self._free_at > now:
            return self._free_at - now
        self._free_at = max(self._free_at, now - BURST_S) + size / self._rate
        return 0.0
