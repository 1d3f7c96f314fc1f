"""What any source of members says, and to whom: gossip, a list, DNS, or a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a source says of a server: a hint, never believed alone. Empty text: the source does not know it."""

    name: str
    address: str  # host:port, where clients and other servers reach it
    directory_id: str = ""  # uuid of its data directory
    cluster_id: str = ""
    role: str = ""  # "member", "joining" (it asks to be let in), or "leaving"
    version: str = ""
    gossip_address: str = ""
    status: str = "alive"  # alive, leaving, left, or failed; listed: the source names it, and watches nobody
    since: float = 0.0  # monotonic seconds: since when it has this status

    @property
    def is_there(self) -> bool:
        """As far as the source knows: it neither failed nor goes."""
        return self.status in ("alive", "listed")


class Handler(Protocol):
    """Called in the loop, so it must not block; what it raises is logged and ends nothing."""

    def join(self, name: str, addr: str) -> None: ...
    def leave(self, name: str) -> None: ...


class Source(Protocol):
    """Where servers may be found. Nothing is said before `start` has returned."""

    @property
    def is_authenticated(self) -> bool:
        """Whether only who has a secret can make it say something: then a server that left did so itself."""
        ...

    async def start(self) -> None: ...

    @property
    def is_complete(self) -> bool:
        """Whether everything that it was told to ask has answered; what it found is in `members`."""
        ...

    def members(self) -> Sequence[Candidate]:
        """By name; this server may be among them."""
        ...

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when `members` may say something new, or after the timeout."""
        ...

    async def set_tags(self, **tags: str) -> None:
        """Have others see these of this server, too; a source that carries none does nothing."""
        ...

    async def leave(self) -> None:
        """Tell the others that this server goes for good, as far as the source can."""
        ...

    async def come_back(self) -> None:
        """After `leave`: be seen by the others again. RaftlogError."""
        ...

    async def close(self) -> None: ...
