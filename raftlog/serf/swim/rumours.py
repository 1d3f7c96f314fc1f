"""Rumours that wait to be told: the newest first, each a limited number of times.

Source: SWIM 4.1 (updates ride on packets; those told least often go first; each is told a multiple of log(n) times).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import ceil, log10
from typing import NamedTuple


def times_told(mult: int, members: int) -> int:
    """How often each rumour is told by each member."""
    return mult * ceil(log10(members + 1))


class _Rumour(NamedTuple):
    """Sorted: told least often, then longest, then newest."""

    told: int
    length_negated: int
    number_negated: int
    name: str
    data: bytes


class Rumours:
    """At most `count_max`, one for each name: beyond it the one told most often is dropped."""

    def __init__(self, *, mult: int, count_max: int) -> None:
        self._mult = mult
        self._count_max = count_max
        self._sorted: list[_Rumour] = []
        self._of: dict[str, _Rumour] = {}
        self._number = 0  # of rumours put in, ever

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def put(self, name: str, data: bytes) -> None:
        """Tell this, and nothing older of this name."""
        self.drop(name)
        self._number += 1
        self._add(_Rumour(0, -len(data), -self._number, name, data))
        if len(self._sorted) > self._count_max:
            self.drop(self._sorted[-1].name)

    def drop(self, name: str) -> None:
        rumour = self._of.pop(name, None)
        if rumour is not None:
            del self._sorted[bisect_left(self._sorted, rumour)]

    def take(self, overhead: int, limit: int, members: int) -> list[bytes]:
        """What to send along in one packet: sum(len + overhead) <= limit. Counts as told once."""
        times = times_told(self._mult, members)
        taken: list[_Rumour] = []
        told = 0
        while True:
            # The first of those told so often that fits; where none does, the first of the next group.
            at = bisect_left(self._sorted, (told, overhead - limit))
            if at == len(self._sorted):
                break
            rumour = self._sorted[at]
            if rumour.told > told:
                told = rumour.told
                continue
            del self._sorted[at]
            del self._of[rumour.name]
            limit -= len(rumour.data) + overhead
            taken.append(rumour)
        for rumour in taken:  # only now: none is told twice in one packet
            if rumour.told + 1 < times:
                self._add(rumour._replace(told=rumour.told + 1))
        return [rumour.data for rumour in taken]

    def _add(self, rumour: _Rumour) -> None:
        insort(self._sorted, rumour)
        self._of[rumour.name] = rumour
