"""One node of Serf, as a value: who is there and why, user events, queries, keys of the encryption."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from raftlog.engine import Effect
from raftlog.serf.config import SerfConfig
from raftlog.serf.events import Member
from raftlog.serf.messages import Address

if TYPE_CHECKING:
    from raftlog.serf.codec.keyring import Keyring
    from raftlog.serf.codec.packets import Codec


class SerfNode:
    """An engine (raftlog/engine.py) whose messages are bytes: packets (`Send`, `Receive`) and streams (`Ask`, `Asked`).

    Its events are the engine's and `events.Request`. Numbers of requests and of streams (`Asked.request`) are drawn by
    the runner from one counter, for both are answered by `Reply`: bytes for a stream, the outcome for a request.
    """

    def __init__(
        self,
        config: SerfConfig,
        *,
        name: str,
        address: Address,
        tags: Mapping[str, str],
        codec: Codec,
        random: Random,
        now: float,
    ) -> None:
        """It is there, alone. ValueError if the name or the tags are too long."""
        raise NotImplementedError

    def step(self, event: Any, now: float) -> None:
        """Take in what happened; after it has left, nothing but a refusal of requests."""
        raise NotImplementedError

    def drain(self) -> list[Effect]:
        raise NotImplementedError

    def deadline(self) -> float | None:
        raise NotImplementedError

    def members(self) -> tuple[Member, ...]:
        """All that are known, by name; itself too."""
        raise NotImplementedError

    @property
    def local(self) -> Member:
        raise NotImplementedError

    @property
    def keyring(self) -> Keyring:
        raise NotImplementedError

    @property
    def has_left(self) -> bool:
        """It said goodbye, or lost its name to another: it is silent for ever."""
        raise NotImplementedError

    def counts(self) -> Mapping[str, int]:
        """For metrics."""
        raise NotImplementedError
