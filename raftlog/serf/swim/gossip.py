"""Rounds of gossip: rumours to a few members chosen by chance. Source: SWIM 4.1; own packets for it are memberlist's."""

from __future__ import annotations

from math import inf

from raftlog.serf.config import SwimConfig
from raftlog.serf.messages import State
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.members import Members, SwimMember
from raftlog.serf.swim.post import Post
from raftlog.serf.swim.rumours import Rumours


class Gossip:
    """No round while there is nothing to tell: an idle node sleeps."""

    def __init__(
        self, config: SwimConfig, members: Members, rumours: Rumours, post: Post, above: Above
    ) -> None:
        self._config = config
        self._members = members
        self._rumours = rumours
        self._post = post
        self._above = above
        self._next_at = inf  # in the past after a pause: then the first rumour is told at once

    def start(self, now: float) -> None:
        self._next_at = now

    @property
    def deadline(self) -> float:
        if self._members.count > 1 and (self._rumours or self._above.has_rumours()):
            return self._next_at
        return inf

    def advance(self, now: float) -> None:
        if now < self.deadline:
            return
        self._next_at = now + self._config.gossip_interval_s
        for member in self._members.pick(self._config.gossip_nodes, lambda m: self._hears(m, now)):
            if not self._post.send_rumours(member):
                return

    def _hears(self, member: SwimMember, now: float) -> bool:
        """Who died a moment ago may be alive, and refute what it hears."""
        if member.state is State.DEAD:
            return now - member.changed_at <= self._config.gossip_to_the_dead_s
        return not member.is_gone
