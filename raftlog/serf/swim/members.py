"""The members that SWIM knows, and whom to turn to next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from raftlog.serf.messages import Address, State, Versions

INCARNATION_MAX: Final = 2**32 - 1  # on the wire it is a uint32
NAME_BYTES_MAX: Final = 255  # of a member's name; Serf itself allows 128


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


class Members:
    """The table.

    Somebody gone is kept until the protocol above forgets it, or until room is needed: so a packet of its former life,
    sent again, is known to be old. From the ring of those to turn to it falls out sooner.
    """

    def __init__(self, random: Random, *, name: str, count_max: int, remember_s: float) -> None:
        self._random = random
        self._name = name
        self._count_max = count_max
        self._remember_s = remember_s
        self._of: dict[str, SwimMember] = {}
        self._at: dict[Address, str] = {}  # who took an address last; each is a member that has it
        # This node, all that live, and those gone for less than remember_s (and until the next round begins): memberlist's
        # whole list, by whose length intervals and limits scale.
        self._ring: list[str] = []
        self._next = 0  # in the ring
        self.alive_count = 0  # alive or suspected
        self.view: Mapping[str, SwimMember] = MappingProxyType(self._of)

    def __getitem__(self, name: str) -> SwimMember:
        return self._of[name]

    def get(self, name: str) -> SwimMember | None:
        return self._of.get(name)

    def at(self, address: Address) -> SwimMember | None:
        """Who took this address last, and has it still."""
        return self._of.get(self._at.get(address, ""))

    @property
    def count(self) -> int:
        """By which intervals and limits scale: those gone long ago are not in it."""
        return len(self._ring)

    @property
    def others(self) -> int:
        """Alive or suspected ones."""
        own = self._of.get(self._name)
        return self.alive_count - (own is not None and not own.is_gone)

    def put(self, member: SwimMember) -> bool:
        """Take it in or change it; False, and nothing is changed, if it is new and there is no room."""
        known = self._of.get(member.name)
        if known is None and len(self._of) >= self._count_max and not self._make_room():
            return False
        self.alive_count += (not member.is_gone) - (known is not None and not known.is_gone)
        self._of[member.name] = member
        self._at[member.address] = member.name
        if known is not None and known.address != member.address:
            self._vacate(known)
        if known is None or (known.is_gone and not member.is_gone and member.name not in self._ring):
            self._enter(member.name)
        return True

    def forget(self, name: str) -> bool:
        """Whether it was a member that is gone; then it is as if it had never been."""
        member = self._of.get(name)
        if member is None or not member.is_gone or name == self._name:
            return False
        del self._of[name]
        self._vacate(member)
        if name in self._ring:
            at = self._ring.index(name)
            del self._ring[at]
            self._next -= at < self._next
        return True

    def next(self, now: float) -> SwimMember | None:
        """The next other one in the round that lives; None if there is none.

        Every member comes up once in a round, in an order drawn anew for each: at most 2 n - 1 steps lie between two
        times. Source: SWIM 4.3.
        """
        for _ in range(2 * len(self._ring)):
            if self._next >= len(self._ring):
                self._begin_round(now)
            name = self._ring[self._next]
            self._next += 1
            if name != self._name and not self._of[name].is_gone:
                return self._of[name]
        return None

    def pick(self, count: int, is_wanted: Callable[[SwimMember], bool]) -> list[SwimMember]:
        """Up to so many others of the ring, by chance."""
        wanted = [member for name in self._ring if name != self._name and is_wanted(member := self._of[name])]
        return self._random.sample(wanted, min(count, len(wanted)))

    def told(self) -> list[SwimMember]:
        """Those that an exchange of states tells of."""
        return [self._of[name] for name in self._ring]

    def _enter(self, name: str) -> None:
        """Into the ring at a place drawn by chance, so that a newcomer is not always the last to be probed."""
        self._ring.append(name)
        at = self._random.randrange(len(self._ring))
        self._ring[at], self._ring[-1] = self._ring[-1], self._ring[at]

    def _begin_round(self, now: float) -> None:
        self._next = 0
        kept = []
        for name in self._ring:
            member = self._of[name]
            if not member.is_gone or now - member.changed_at <= self._remember_s or name == self._name:
                kept.append(name)
            elif member.incarnation == INCARNATION_MAX:
                self._drop_spent(member)
        self._ring = kept
        self._random.shuffle(self._ring)

    def _drop_spent(self, member: SwimMember) -> None:
        """It has no newer incarnation to come back with: the way back is to be forgotten, as memberlist forgets all."""
        del self._of[member.name]
        self._vacate(member)

    def _make_room(self) -> bool:
        if self.alive_count == len(self._of):
            return False
        gone = [m for m in self._of.values() if m.is_gone and m.name != self._name]
        return bool(gone) and self.forget(min(gone, key=lambda m: (m.changed_at, m.name)).name)

    def _vacate(self, member: SwimMember) -> None:
        if self._at.get(member.address) == member.name:
            del self._at[member.address]
