"""Who is there and who went, and why: memberlist's word on life and death, ordered by what members said they would do.

memberlist tells that a member is there or gone. Members say by *intents*, with Lamport times, that they join or leave;
whoever said so before it went has left, any other has failed:

    status     there again   intent to join   intent to leave   gone
    ALIVE      ALIVE         -                LEAVING           FAILED, or LEFT if it told memberlist itself
    LEAVING    ALIVE         ALIVE            -                 LEFT
    LEFT       ALIVE         -                -                 -
    FAILED     ALIVE         -                LEFT (forced)     LEFT if it told memberlist itself

An intent counts only if its time is later than that of the one before. Intents and memberlist's rumours overtake each
other, so an intent of somebody not known yet is remembered for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from raftlog.serf.config import SerfConfig
from raftlog.serf.events import (
    Member,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberReaped,
    MemberUpdated,
    Status,
    Told,
)
from raftlog.serf.messages import Address, JoinIntent, LeaveIntent, Versions

# Going takes two broadcasts. Whoever is there for so many more did not mean to: the intent was one of its former life, or
# somebody else's with the same Lamport time as its next join, so that its own word never was the later one. Real Serf
# takes such a member for LEAVING until it goes.
LEAVING_BROADCASTS_MAX: Final = 4


@dataclass(slots=True)
class SerfMember:
    """What is known of one member; moved by MemberTable only."""

    name: str
    address: Address
    tags: Mapping[str, str]
    versions: Versions
    status: Status = Status.ALIVE
    status_time: int = 0  # Lamport's, of the last intent that counted
    gone_at: float = 0.0  # since when it is LEFT or FAILED
    is_pruned: bool = False  # to be forgotten as soon as it is gone

    def public(self) -> Member:
        return Member(
            name=self.name, address=self.address, tags=self.tags, status=self.status, versions=self.versions
        )


class Heard(Enum):
    """What an intent was worth."""

    OLD = "old"  # nothing; it is not passed on
    NEW = "new"  # it is passed on
    REFUTE = "refute"  # it says that this node leaves, which is not so: to be answered, not passed on


@dataclass(frozen=True, slots=True)
class RecentIntent:
    """Of somebody who is not known yet."""

    intent: JoinIntent | LeaveIntent
    heard_at: float


class MemberTable:
    """All members that are known, this node too; `members_max` at most, then the one gone longest is forgotten."""

    def __init__(self, config: SerfConfig, name: str) -> None:
        self._config = config
        self._name = name
        self._members: dict[str, SerfMember] = {}
        # Those of them with this status, in the order of going; moved by _set_status and _forget only.
        self._gone: dict[Status, dict[str, SerfMember]] = {Status.FAILED: {}, Status.LEFT: {}}
        self._leaving: dict[str, float] = {}  # who is LEAVING, since when
        self._intents: dict[str, RecentIntent] = {}  # by name, the one heard first in front
        self.is_leaving = False  # this node; until then it refutes what says so
        self._news: list[Told] = []

    def get(self, name: str) -> SerfMember | None:
        return self._members.get(name)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def failed(self) -> list[SerfMember]:
        return list(self._gone[Status.FAILED].values())

    @property
    def left(self) -> list[SerfMember]:
        return list(self._gone[Status.LEFT].values())

    @property
    def here(self) -> list[SerfMember]:
        """Alive or leaving, in the order in which they became known."""
        return [member for member in self._members.values() if member.status not in self._gone]

    def count(self) -> dict[Status, int]:
        counts = dict.fromkeys(Status, 0)
        for member in self._members.values():
            counts[member.status] += 1
        return counts

    def public(self) -> tuple[Member, ...]:
        return tuple(self._members[name].public() for name in sorted(self._members))

    def status_times(self) -> dict[str, int]:
        return {name: member.status_time for name, member in self._members.items()}

    def has_others_alive(self) -> bool:
        return any(
            member.status is Status.ALIVE and member.name != self._name for member in self._members.values()
        )

    def take_news(self) -> list[Told]:
        """What happened since the last time, in order."""
        news, self._news = self._news, []
        return news

    # ── what memberlist says ──

    def joined(self, name: str, address: Address, tags: Mapping[str, str], versions: Versions) -> None:
        """It is there, for the first time or again."""
        member = self._members.get(name)
        if member is not None and member.status is Status.ALIVE:
            self.updated(name, address, tags, versions)
            return
        if member is None:
            self._make_room()
            member = self._members[name] = SerfMember(name, address, tags, versions)
            self._remember_intent(member)
        else:
            self._set_status(member, Status.ALIVE)
            member.address, member.tags, member.versions = address, tags, versions
        member.gone_at = 0.0
        member.is_pruned = False
        self._news.append(MemberJoined(member.public()))

    def _remember_intent(self, member: SerfMember) -> None:
        recent = self._intents.pop(member.name, None)
        if recent is None:
            return
        member.status_time = recent.intent.time
        if isinstance(recent.intent, LeaveIntent) and member.name != self._name:
            self._set_leaving(member, recent.heard_at)

    def updated(self, name: str, address: Address, tags: Mapping[str, str], versions: Versions) -> None:
        """Its address, tags or versions are these now."""
        member = self._members.get(name)
        if member is None or (member.address, member.tags, member.versions) == (address, tags, versions):
            return
        member.address, member.tags, member.versions = address, tags, versions
        self._news.append(MemberUpdated(member.public()))

    def gone(self, name: str, *, said_so: bool, now: float) -> None:
        """It is not there any more; `said_so`: it told memberlist itself, which real Serf does not look at."""
        member = self._members.get(name)
        if member is None or member.status is Status.LEFT:
            return
        has_left = said_so or member.status is Status.LEAVING
        status = Status.LEFT if has_left else Status.FAILED
        if member.status is status:
            return
        self._set_status(member, status)
        member.gone_at = now
        self._news.append(MemberLeft(member.public()) if has_left else MemberFailed(member.public()))
        if member.is_pruned and has_left:
            self._forget(member)

    # ── what members say ──

    def hear_join(self, intent: JoinIntent, now: float) -> Heard:
        member = self._members.get(intent.node)
        if member is None:
            return self._keep_intent(intent, now)
        if intent.time <= member.status_time:
            return Heard.OLD
        member.status_time = intent.time
        if member.status is Status.LEAVING and not (member.name == self._name and self.is_leaving):
            self._set_status(member, Status.ALIVE)
            member.is_pruned = False
        return Heard.NEW

    def hear_leave(self, intent: LeaveIntent, now: float) -> Heard:
        member = self._members.get(intent.node)
        if member is None:
            return self._keep_intent(intent, now)
        if member.name == self._name and not self.is_leaving:
            # One as late as this node's join counts at those that heard it first: real Serf lets that stand.
            return Heard.REFUTE if intent.time >= member.status_time else Heard.OLD
        if intent.time <= member.status_time:
            return Heard.OLD

        member.status_time = intent.time  # also where nothing changes: else two would pass it on for ever
        if member.status is Status.ALIVE:
            self._set_leaving(member, now)
        elif member.status is Status.FAILED:
            self._set_status(member, Status.LEFT)
            self._news.append(MemberLeft(member.public()))
        if intent.is_pruned and member.name != self._name:
            member.is_pruned = True
            if member.status is Status.LEFT:
                self._forget(member)
        return Heard.NEW

    def _keep_intent(self, intent: JoinIntent | LeaveIntent, now: float) -> Heard:
        """At most `members_max` are kept; then the one heard first goes."""
        known = self._intents.get(intent.node)
        if known is not None and intent.time <= known.intent.time:
            return Heard.OLD
        self._intents.pop(intent.node, None)
        while len(self._intents) >= self._config.swim.members_max:
            del self._intents[next(iter(self._intents))]
        self._intents[intent.node] = RecentIntent(intent, now)
        return Heard.NEW

    # ── forgetting ──

    def reap(self, now: float) -> None:
        """Forget who was gone for too long, and old intents, and that somebody would leave who never went."""
        config = self._config
        for name, since in list(self._leaving.items()):
            if name != self._name and now - since > LEAVING_BROADCASTS_MAX * config.broadcast_timeout_s:
                self._set_status(self._members[name], Status.ALIVE)
                self._members[name].is_pruned = False
        for name, recent in list(self._intents.items()):
            if now - recent.heard_at > config.recent_intent_timeout_s:
                del self._intents[name]
        for status, timeout_s in (
            (Status.FAILED, config.reconnect_timeout_s),
            (Status.LEFT, config.tombstone_timeout_s),
        ):
            for member in list(self._gone[status].values()):
                if now - member.gone_at > timeout_s:
                    self._forget(member)

    @property
    def has_anything_to_reap(self) -> bool:
        return bool(self._intents or self._leaving) or any(self._gone.values())

    @property
    def has_failed(self) -> bool:
        return bool(self._gone[Status.FAILED])

    def _make_room(self) -> None:
        if len(self._members) >= self._config.swim.members_max:
            gone = [member for member in self.failed + self.left if member.name != self._name]
            if gone:
                self._forget(min(gone, key=lambda member: member.gone_at))

    def _set_leaving(self, member: SerfMember, now: float) -> None:
        self._set_status(member, Status.LEAVING)
        self._leaving[member.name] = now

    def _set_status(self, member: SerfMember, status: Status) -> None:
        self._leaving.pop(member.name, None)
        for gone in self._gone.values():
            gone.pop(member.name, None)
        member.status = status
        if status in self._gone:
            self._gone[status][member.name] = member

    def _forget(self, member: SerfMember) -> None:
        del self._members[member.name]
        self._leaving.pop(member.name, None)
        for gone in self._gone.values():
            gone.pop(member.name, None)
        self._news.append(MemberReaped(member.public()))
