"""Who was a member a moment ago: one that has itself removed still seems alive to the source until it has left there, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from raftlog.discovery.source import Candidate

REMEMBERED_S: Final = 5.0  # longer than a server needs to leave the gossip once it is removed


class _Removal(NamedTuple):
    directory_id: str
    at: float  # monotonic seconds


class Removals:
    """As one leader sees them."""

    def __init__(self) -> None:
        self._members: Mapping[str, str] = {}  # directory ids by name, at the last look
        self._removals: dict[str, _Removal] = {}

    def look(self, members: Mapping[str, str], now: float) -> None:
        """These are the members now: name -> directory id."""
        for name in self._members.keys() - members.keys():
            self._removals[name] = _Removal(self._members[name], now)
        self._removals = {
            name: removal for name, removal in self._removals.items() if now - removal.at < REMEMBERED_S
        }
        self._members = members

    def just_removed(self, candidates: Sequence[Candidate]) -> frozenset[str]:
        """Names of those that have not come back since."""
        return frozenset(
            each.name
            for each in candidates
            if (removal := self._removals.get(each.name)) is not None
            and each.since <= removal.at
            and each.directory_id in ("", removal.directory_id)
        )
