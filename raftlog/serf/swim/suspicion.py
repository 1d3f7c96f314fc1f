"""How long a suspected member has to refute before it is taken for dead.

Source: SWIM 4.2 (suspicion before death); Lifeguard IV-B (the time starts long and shrinks with each independent
confirmation, for many who miss a member are right more likely than one).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from math import inf, log, log10
from typing import Final

SWEPT_ABOVE: Final = 64  # deadlines that are skipped; so many cost nothing


def timeout_s_min(mult: int, members: int, probe_interval_s: float) -> float:
    """Of a suspicion that is confirmed: long enough for a rumour to reach all and a refutation to come back."""
    return mult * max(1.0, log10(max(1, members))) * probe_interval_s


def confirmations_wanted(mult: int, members: int) -> int:
    """How many others have to suspect the member too until the time is at its minimum; 0: too few are there.

    Two less than `mult`, so that the minimum is met two probe intervals early. Neither this node nor the suspected one
    confirms anything.
    """
    wanted = mult - 2
    return wanted if 0 < wanted <= members - 2 else 0


def timeout_s(confirmations: int, wanted: int, *, s_min: float, s_max: float) -> float:
    """From the start of the suspicion on; between `s_min` and `s_max`."""
    if wanted < 1:
        return s_min
    part = log(confirmations + 1) / log(wanted + 1)
    return max(s_min, s_max - (s_max - s_min) * part)


class Suspicion:
    """Of one member at one incarnation."""

    def __init__(self, accuser: str, *, wanted: int, s_min: float, s_max: float, now: float) -> None:
        self._accusers = {accuser}  # at most 1 + wanted
        self._wanted = wanted
        self._s_min = s_min
        self._s_max = s_max
        self._since = now
        self.confirmations = 0

    @property
    def deadline(self) -> float:
        return self._since + timeout_s(self.confirmations, self._wanted, s_min=self._s_min, s_max=self._s_max)

    def confirm(self, accuser: str) -> bool:
        """Whether this is news: somebody who had not accused it yet, while confirmations are wanted."""
        if self.confirmations >= self._wanted or accuser in self._accusers:
            return False
        self._accusers.add(accuser)
        self.confirmations += 1
        return True


class Suspicions:
    """All that this node holds, by the name of the member, and which of them are over."""

    def __init__(self) -> None:
        self._of: dict[str, Suspicion] = {}
        # (deadline, name), also of suspicions that are over or have been shortened since: those are skipped when they
        # come up, and swept out when they are many.
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._of)

    def start(self, name: str, suspicion: Suspicion) -> None:
        """In place of any other of this member."""
        self._of[name] = suspicion
        self._wait_for(name, suspicion)

    def confirm(self, name: str, accuser: str) -> bool:
        """Whether it was news of a member that is suspected."""
        suspicion = self._of.get(name)
        if suspicion is None or not suspicion.confirm(accuser):
            return False
        self._wait_for(name, suspicion)
        return True

    def end(self, name: str) -> None:
        if self._of.pop(name, None) is not None and not self._of:
            self._deadlines.clear()

    @property
    def deadline(self) -> float:
        """Nothing is over before it; infinite if nobody is suspected."""
        return self._deadlines[0][0] if self._deadlines else inf

    def over(self, now: float) -> Iterator[tuple[str, int]]:
        """Those whose time is over, with how many confirmed them; they are ended."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, name = heapq.heappop(self._deadlines)
            suspicion = self._of.get(name)
            if suspicion is not None and suspicion.deadline <= now:
                self.end(name)
                yield name, suspicion.confirmations

    def _wait_for(self, name: str, suspicion: Suspicion) -> None:
        if len(self._deadlines) >= SWEPT_ABOVE + 4 * len(self._of):
            self._deadlines = [(held.deadline, name) for name, held in self._of.items()]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (suspicion.deadline, name))
