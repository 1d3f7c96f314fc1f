"""Which server to consume from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from math import inf
from random import Random
from typing import Final, Protocol, runtime_checkable

from raftlog.client.answers import Server


class Picker(Protocol):
    """Orders servers for one consumer, the one to ask first in front. Called for each call and reconnection."""

    def __call__(self, servers: Sequence[Server]) -> Sequence[Server]: ...


@runtime_checkable
class Observer(Protocol):
    """What a picker has besides, if it is to learn from what became of its choices.

    Told in the client's event loop, of calls that the asked server answers by itself: single reads, and streams up to
    their first message. Reads that ask a quorum, and tails that wait for records, are left out.
    """

    def observe(self, address: str, seconds: float) -> None:
        """The server answered, after so long."""

    def failed(self, address: str) -> None:
        """It could not be reached, did not answer, or lags behind what the client has seen."""


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


WEIGHT: Final = 0.2  # of the latest call in the mean: after some ten calls, what was before is forgotten
RETRY_CHANCE: Final = 0.02  # that another server than the quickest is asked, so that a change is noticed
RETRY_CHANCE_MAX: Final = 0.5
ADDRESSES_MAX: Final = 1_000  # remembered; beyond it the one that was remembered first is forgotten


class LowestLatency:
    """The server whose calls took least of late first; those never asked before it, learners behind all.

    Latency is an exponentially weighted mean over the calls of this picker; give each client its own. A server that
    failed comes last, and its mean begins anew with its next answer.
    """

    def __init__(self, *, random: Random | None = None, retry_chance: float = RETRY_CHANCE) -> None:
        """With `retry_chance` another server comes first. ValueError unless it is 0 to RETRY_CHANCE_MAX."""
        if not 0 <= retry_chance <= RETRY_CHANCE_MAX:
            raise ValueError(f"retry_chance: expected 0 to {RETRY_CHANCE_MAX}, found {retry_chance}")
        self._random = random or Random()
        self._retry_chance = retry_chance
        self._means: dict[str, float] = {}  # address -> seconds; inf: it failed since it answered

    def __call__(self, servers: Sequence[Server]) -> list[Server]:
        voters = [server for server in servers if server.is_voter or server.is_leader]
        self._random.shuffle(voters)  # so that clients do not all begin with the same one
        voters.sort(key=lambda server: self._means.get(server.address, 0.0))
        if len(voters) > 1 and self._random.random() < self._retry_chance:
            voters.insert(0, voters.pop(self._random.randrange(1, len(voters))))
        return [*voters, *(server for server in servers if not (server.is_voter or server.is_leader))]

    def observe(self, address: str, seconds: float) -> None:
        mean = self._means.get(address, inf)
        self._remember(address, seconds if mean == inf else mean + WEIGHT * (seconds - mean))

    def failed(self, address: str) -> None:
        self._remember(address, inf)

    def _remember(self, address: str, mean: float) -> None:
        self._means[address] = mean
        if len(self._means) > ADDRESSES_MAX:
            del self._means[next(iter(self._means))]
