"""What is done from time to time: forgetting who is gone for long, and trying to reach who failed.

Each node tries one failed member at a time, with a probability of failed / alive, so that all nodes together try each
failed member about once in `reconnect_interval_s`. Two halves of a cluster find together by it after a partition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from raftlog.serf.home import Home
from raftlog.serf.members import SerfMember


def whom_to_try(failed: Sequence[SerfMember], alive: int, random: Random) -> SerfMember | None:
    """One of those that failed, or this time none."""
    if not failed or random.random() > len(failed) / max(1, alive):
        return None
    return random.choice(failed)


class Upkeep:
    """Timers that run only while there is something to do: an idle cluster wakes nobody for this."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._reap_at = math.inf
        self._reconnect_at = math.inf

    @property
    def deadline(self) -> float:
        return min(self._reap_at, self._reconnect_at)

    def advance(self, *, may_reconnect: bool) -> None:
        home = self._home
        config = home.config
        if home.now >= self._reap_at:
            self._reap_at = math.inf
            home.table.reap(home.now)
            home.tell_of_members()
        if home.now >= self._reconnect_at:
            self._reconnect_at = math.inf
            if may_reconnect:
                self._reconnect()
        if self._reap_at == math.inf and home.table.has_anything_to_reap:
            self._reap_at = home.now + config.reap_interval_s
        if self._reconnect_at == math.inf and home.table.has_failed:
            self._reconnect_at = home.now + config.reconnect_interval_s

    def _reconnect(self) -> None:
        home = self._home
        table = home.table
        member = whom_to_try(table.failed, len(table) - len(table.failed) - len(table.left), home.random)
        if member is not None:
            home.note("serf_reconnecting", node=member.name, address=member.address)
            home.swim.join(member.address, lambda outcome: None, home.now)
