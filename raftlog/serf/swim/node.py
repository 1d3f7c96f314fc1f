"""SWIM as a value: one member of a memberlist cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from raftlog.engine import Answered, Asked, Effect, Receive, Unanswered, Wake
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import SwimConfig
from raftlog.serf.messages import Address, Versions
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.members import SwimMember

Event = Receive[bytes] | Asked[bytes] | Answered[bytes] | Unanswered | Wake


class Swim:
    """Knows who is alive. Bytes in, bytes out; see raftlog.engine for what its owner owes it."""

    refused: Counter[str]  # what came and was not taken in, by why

    def __init__(
        self,
        config: SwimConfig,
        name: str,
        address: Address,
        meta: bytes,
        codec: Codec,
        random: Random,
        above: Above,
        *,
        versions: Versions = Versions(),
    ) -> None:
        raise NotImplementedError

    def start(self, now: float) -> None:
        """Be alive, at incarnation 1. Tells `above.joined` of this node."""
        raise NotImplementedError

    def step(self, event: Event, now: float) -> None:
        """Take in what happened. Nothing that came from the network raises."""
        raise NotImplementedError

    def drain(self) -> list[Effect]:
        """Send, Ask, Reply and Note, in order. A Reply to an Asked that deserves no answer has b"": close it."""
        raise NotImplementedError

    def deadline(self) -> float:
        """When to step Wake; infinite if nothing is waited for. Ask again after each step and each call."""
        raise NotImplementedError

    def join(self, address: Address, on_outcome: Callable[[str], None], now: float) -> None:
        """Exchange states with this one; within a later step tell "" or why not."""
        raise NotImplementedError

    def leave(self, now: float) -> None:
        """Say goodbye; wait for `has_told_leave` before the node is stopped. For good: no second life."""
        raise NotImplementedError

    def set_meta(self, meta: bytes, now: float) -> None:
        """Tell all of new meta. ValueError if it is above META_BYTES_MAX; nothing changed then."""
        raise NotImplementedError

    def send(self, address: Address, data: bytes, now: float) -> None:
        """A user message to one address, by packet."""
        raise NotImplementedError

    def forget(self, name: str) -> None:
        """Of a member that is gone: as if it had never been. Ignored for others."""
        raise NotImplementedError

    @property
    def members(self) -> Mapping[str, SwimMember]:
        """By name, this node and those gone but not forgotten included."""
        raise NotImplementedError

    @property
    def alive_count(self) -> int:
        """Members that are alive or suspected, this node included."""
        raise NotImplementedError

    @property
    def incarnation(self) -> int:
        """Of this node."""
        raise NotImplementedError

    @property
    def health_score(self) -> int:
        """Lifeguard's: 0 is healthy, below awareness_max."""
        raise NotImplementedError

    @property
    def rumours_waiting(self) -> int:
        raise NotImplementedError

    @property
    def has_left(self) -> bool:
        raise NotImplementedError

    @property
    def has_told_leave(self) -> bool:
        """The leave was sent as often as any rumour is, or nobody is there to hear it."""
        raise NotImplementedError
