"""The members that SWIM knows."""

from __future__ import annotations

from dataclasses import dataclass

from raftlog.serf.messages import Address, State, Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimMember:
    """What is known of a member. A change makes a new value."""

    name: str
    address: Address
    meta: bytes
    incarnation: int  # of the member's own counting, from 1; never goes back
    state: State
    versions: Versions
    changed_at: float  # when the state became what it is, by the clock of the steps

    @property
    def is_gone(self) -> bool:
        """Dead, or left."""
        return self.state in (State.DEAD, State.LEFT)
