"""Which server to consume from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Protocol

from raftlog.client.answers import Server


class Picker(Protocol):
    """Orders servers for one consumer, the one to ask first in front. Called for each call and reconnection."""

    def __call__(self, servers: Sequence[Server]) -> Sequence[Server]: ...


class FollowersInTurn:
    """Followers, each time another one first; then the leader; then learners, which may be far behind."""

    def __init__(self) -> None:
        self._turns = count()

    def __call__(self, servers: Sequence[Server]) -> list[Server]:
        followers = [server for server in servers if server.is_voter and not server.is_leader]
        turn = next(self._turns) % len(followers) if followers else 0
        leader = [server for server in servers if server.is_leader]
        learners = [server for server in servers if not (server.is_voter or server.is_leader)]
        return [*followers[turn:], *followers[:turn], *leader, *learners]
