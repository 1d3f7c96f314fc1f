"""Members from a list."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from raftlog.discovery.announcing import Announcer
from raftlog.discovery.source import Candidate, Handler


class StaticMembers:
    """A Source that says what it was told, for ever."""

    def __init__(
        self, addresses: Mapping[str, str], *, handler: Handler | None = None, own_name: str = ""
    ) -> None:
        """`addresses`: host:port of each server by its name."""
        self._addresses = dict(addresses)
        self._announcer = Announcer(handler, own_name=own_name)
        self._members: tuple[Candidate, ...] = ()

    @property
    def is_authenticated(self) -> bool:
        """Whoever wrote the list is the operator, and nobody ever leaves it."""
        return True

    async def start(self) -> None:
        now = time.monotonic()
        self._members = tuple(
            Candidate(name=name, address=address, status="listed", since=now)
            for name, address in sorted(self._addresses.items())
        )
        self._announcer.announce(self._members)

    @property
    def is_complete(self) -> bool:
        """There is nobody to ask."""
        return True

    def members(self) -> Sequence[Candidate]:
        return self._members

    async def wait_for_change(self, timeout_s: float) -> None:
        await self._announcer.wait_for_change(timeout_s)

    async def set_tags(self, **tags: str) -> None:
        """A list carries none."""

    async def leave(self) -> None:
        """Nobody reads it."""

    async def come_back(self) -> None:
        """It was never away."""

    async def close(self) -> None:
        """Nothing is open."""
