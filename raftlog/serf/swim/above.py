"""What the protocol above (Serf) is asked and told by SWIM, always within a step of it."""

from __future__ import annotations

from typing import Protocol

from raftlog.serf.messages import Alive
from raftlog.serf.swim.members import SwimMember


class Above(Protocol):
    """This node itself is a member too: `joined` tells of it at the start, `updated` and `left` of what it does."""

    def joined(self, member: SwimMember) -> None:
        """It became alive: for the first time, or again after it was dead or had left."""

    def left(self, member: SwimMember) -> None:
        """It is DEAD, or LEFT if it said so itself."""

    def updated(self, member: SwimMember) -> None:
        """Its meta, its address or its versions changed while it was alive or suspected."""

    def conflicts(self, member: SwimMember, other: Alive) -> None:
        """Somebody at another address claims the name of a member, perhaps this node's. Told at each claim."""

    def refuses(self, alive: Alive) -> bool:
        """Whether this must not be taken in."""

    def user_message(self, data: bytes) -> None:
        """Came by packet or stream; not checked by anyone."""

    def user_state(self, is_join: bool) -> bytes:
        """What to tell in an exchange of states."""

    def merge_user_state(self, data: bytes, is_join: bool) -> None:
        """What the other told; not called with nothing."""

    def has_rumours(self) -> bool:
        """Whether `rumours` would give anything: as long as it does, gossip goes on."""

    def rumours(self, overhead: int, limit: int) -> list[bytes]:
        """User messages to send along, sum(len + overhead) <= limit; counted as sent once."""

    def ack_payload(self) -> bytes:
        """To send with the ack of a ping; short."""

    def ping_done(self, member: SwimMember, rtt_s: float, payload: bytes) -> None:
        """It answered a direct ping."""
