"""How long to wait between attempts."""

from __future__ import annotations

from random import Random


class BackOff:
    """Waits that double from the shortest to the longest, each shortened by chance by up to half.

    Without chance, servers that lost each other at one moment would meet again at one moment.
    """

    def __init__(self, *, seconds_min: float, seconds_max: float, random: Random) -> None:
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._random = random
        self._seconds = seconds_min

    def next(self) -> float:
        """Seconds to wait now."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._seconds_max)
        return seconds * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """An attempt succeeded: begin with the shortest again."""
        self._seconds = self._seconds_min
