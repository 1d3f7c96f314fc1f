"""What was tried in vain is not tried again at once."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final, NamedTuple

RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0


class _Refusal(NamedTuple):
    place: Hashable  # what was tried: with another one it is tried at once
    reason: str
    until: float  # monotonic seconds
    wait_s: float


class Refusals:
    """By name. Waits double from RETRY_S_MIN to RETRY_S_MAX, and begin anew once it went well."""

    def __init__(self) -> None:
        self._refusals: dict[str, _Refusal] = {}

    def add(self, name: str, place: Hashable, reason: str, now: float) -> None:
        before = self._refusals.get(name)
        wait_s = RETRY_S_MIN
        if before is not None and before.place == place:
            wait_s = min(2 * before.wait_s, RETRY_S_MAX)
        self._refusals[name] = _Refusal(place, reason, now + wait_s, wait_s)

    def forget(self, name: str) -> None:
        self._refusals.pop(name, None)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget the others, so that there are never more than there are servers."""
        for name in self._refusals.keys() - set(names):
            del self._refusals[name]

    def reason(self, name: str, place: Hashable, now: float) -> str:
        """Why it is not tried now; "" if it may be."""
        refusal = self._refusals.get(name)
        if refusal is None or refusal.place != place or now >= refusal.until:
            return ""
        return f"{refusal.reason}; tried again in {refusal.until - now:.0f} s"
