"""From what is known to what is to be done, and why. Pure: the same facts give the same judgement.

The rules, in the order in which their actions are taken; one change at a time, after which all is judged anew:

1. A member that has moved is reached again before anything is said of its health.
2. Who said that it leaves, and is silent, goes soon, so that nobody waits for its vote; only while the others can do
   without it.
3. A learner that has been healthy for long enough votes, as far as voters_max lets it.
4. A replaced disk comes back as a learner, and 5. a newcomer becomes one.
6. Last, who is silent for very long goes, so that 3 has had its chance to make up for it. Silence is by Raft, never by
   gossip alone: a voter that is only not heard by gossip still counts.

No rule removes the leader, or leaves fewer healthy voters than a majority of those that remain. (Consul's autopilot is
the model for 3 and 6.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from raftlog.autopilot.actions import (
    Action,
    AddLearner,
    ChangeAddress,
    Checked,
    Promote,
    RemoveFailed,
    RemoveLeft,
    ReplaceDisk,
    describe,
)
from raftlog.autopilot.facts import Facts, MemberFacts, Memory, Remembered
from raftlog.autopilot.report import ServerReport
from raftlog.autopilot.settings import AutopilotSettings
from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId

ORDER: Final = (ChangeAddress, RemoveLeft, Promote, ReplaceDisk, AddLearner, RemoveFailed)


class Held(NamedTuple):
    """What would be done but for a reason."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"does not {self.what}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    servers: tuple[ServerReport, ...]  # members, and named candidates that are none; by name
    actions: tuple[Action, ...]  # in the order in which they should be done
    held: tuple[Held, ...]
    failure_tolerance: int  # voters that may fail now without loss of the quorum
    is_healthy: bool  # all members are
    memory: Memory  # for the next judgement


def judge(
    facts: Facts, settings: AutopilotSettings, memory: Memory, now: float, *, members_max: int
) -> Judgement:
    """`now` in the monotonic seconds of `memory`. Beyond `members_max` nobody is added."""
    return _Judge(facts, settings, memory, now, members_max).judge()


def majority(voters: int) -> int:
    return voters // 2 + 1


class _Judge:
    """Of one moment."""

    def __init__(
        self, facts: Facts, settings: AutopilotSettings, memory: Memory, now: float, members_max: int
    ) -> None:
        self.facts = facts
        self.settings = settings
        self.now = now
        self.members_max = members_max
        self.members = {member.name: member for member in facts.members}
        self.hints = {NodeId(each.name): each for each in facts.candidates}
        self.actions: list[Action] = []
        self.held: list[Held] = []
        self.reasons: dict[NodeId, str] = {}
        self.memory: dict[NodeId, Remembered] = {}
        for member in facts.members:
            is_healthy, self.reasons[member.name] = self.health(member)
            before = memory.get(member.name)
            self.memory[member.name] = Remembered(
                is_healthy,
                before.since if before is not None and before.is_healthy == is_healthy else now,
                before.first_seen if before is not None else now,
            )
        self.voters = [member.name for member in facts.members if member.is_voter]

    def judge(self) -> Judgement:
        self.promote()
        for member in self.facts.members:
            self.remove(member)
        servers = [self.report(member) for member in self.facts.members]
        for candidate in self.facts.candidates:
            if not candidate.address:
                continue  # it gossips, and is no server of a log
            known = self.members.get(NodeId(candidate.name))
            if known is not None:
                self.compare(known, candidate)
            else:
                servers.append(self.consider(candidate))
        healthy = sum(self.memory[name].is_healthy for name in self.voters)
        return Judgement(
            servers=tuple(sorted(servers, key=lambda server: server.name)),
            actions=tuple(sorted(self.actions, key=lambda action: ORDER.index(type(action)))),
            held=tuple(self.held),
            failure_tolerance=max(0, healthy - majority(len(self.voters))),
            is_healthy=all(each.is_healthy for each in self.memory.values()),
            memory=self.memory,
        )

    # ── health ──────────────────────────────────────────────────────────────────────────────────────

    def health(self, member: MemberFacts) -> tuple[bool, str]:
        contact, trailing, hint = (
            member.last_contact_s,
            member.trailing_entries,
            self.hints.get(member.name),
        )
        if member.is_leader:
            return True, "leads"
        if hint is not None and is_going(hint):
            return False, "it said that it leaves"
        if contact is None:
            return False, "not heard of since this leader leads"
        if contact > self.settings.last_contact_s_max:
            return False, f"silent for {contact:.1f} s"
        if trailing is None or trailing > self.settings.trailing_entries_max:
            return (
                False,
                f"lacks {'an unknown number of' if trailing is None else trailing} committed entries",
            )
        if hint is not None and hint.status == "failed":
            return False, "Raft hears it, but gossip says that it has failed"
        return True, "in contact and up to date"

    def is_in_contact(self, member: MemberFacts) -> bool:
        contact = member.last_contact_s
        return member.is_leader or (contact is not None and contact <= self.settings.last_contact_s_max)

    def report(self, member: MemberFacts) -> ServerReport:
        hint, remembered = self.hints.get(member.name), self.memory[member.name]
        return ServerReport(
            name=member.name,
            address=member.address,
            status=hint.status if hint is not None else "",
            is_member=True,
            is_voter=member.is_voter,
            is_leader=member.is_leader,
            is_healthy=remembered.is_healthy,
            healthy_since_s=self.now - remembered.since,
            last_contact_s=member.last_contact_s,
            trailing_entries=member.trailing_entries,
            reason=self.reasons[member.name],
        )

    # ── learners ────────────────────────────────────────────────────────────────────────────────────

    def promote(self) -> None:
        settings = self.settings
        ready = []
        for member in self.facts.members:
            remembered = self.memory[member.name]
            if member.is_voter or not remembered.is_healthy:
                continue
            healthy_for = self.now - remembered.since
            if healthy_for < settings.stabilisation_s and self.facts.leads_for_s >= settings.waived_s:
                self.reasons[member.name] = (
                    f"healthy for {healthy_for:.1f} s; votes after {settings.stabilisation_s:g} s"
                )
            else:
                assert member.trailing_entries is not None, "it is healthy"
                ready.append((member.trailing_entries, remembered.since, member.name))
        # Who is to be replaced has no place, else it would wait for its replacement, which would wait for its place.
        wanted = [member for member in self.facts.members if member.is_voter and not self.why_failed(member)]
        room = len(ready) if settings.voters_max is None else max(0, settings.voters_max - len(wanted))
        # The most up to date first, then who has been healthy for longest.
        for place, (trailing, since, name) in enumerate(sorted(ready)):
            if place < room:
                why = f"healthy for {self.now - since:.1f} s, and lacks {trailing} committed entries"
                self.act(Promote(name, why))
            else:
                self.reasons[name] = (
                    f"stays a learner: {settings.voters_max} voters are wanted, and as many are there"
                )

    # ── who goes ────────────────────────────────────────────────────────────────────────────────────

    def remove(self, member: MemberFacts) -> None:
        name, hint = member.name, self.hints.get(member.name)
        has_left = (
            hint is not None
            and hint.status == "left"
            and _may_be_same(hint.directory_id, member.directory_id)
        )
        if member.is_leader:
            if has_left:
                self.hold(f"remove {name}", "it leads; `raftlog leave` hands over first")
        elif has_left and self.is_in_contact(member):  # else who has the secret of gossip could say so of all
            self.reasons[name] = "it said that it leaves, but Raft hears it; removed once it is silent"
        elif hint is not None and has_left and not self.is_settled(member, hint):
            self.reasons[name] = f"it said that it leaves; removed after {self.settings.left_s:g} s"
        elif has_left and (self.facts.is_authenticated or not member.is_voter):
            self.remove_left(member, "it said so, and is silent")
        else:
            if has_left:
                self.hold(
                    f"remove {name}",
                    "it seems to have left, but gossip is not encrypted, so anybody may have said that; "
                    "it counts as failed",
                )
            self.remove_failed(member, hint)

    def is_settled(self, member: MemberFacts, hint: Candidate) -> bool:
        """Whether both are so for long enough: that it is a member, and what the source says of it."""
        begun = max(hint.since, self.memory[member.name].first_seen)
        return self.now - begun >= self.settings.left_s

    def remove_left(self, member: MemberFacts, why: str) -> None:
        lack = self.lack_without(member)
        if lack:
            self.hold(f"remove {member.name}, which has left", lack)
        else:
            self.act(RemoveLeft(member.name, why))

    def remove_failed(self, member: MemberFacts, hint: Candidate | None) -> None:
        settings, name = self.settings, member.name
        if self.is_in_contact(member):
            return
        why = self.why_failed(member)
        if not why:
            silent_s, limit_s = self.silence(member)
            if hint is not None and silent_s >= limit_s:
                self.hold(
                    f"remove {name}",
                    f"silent for {silent_s:.0f} s, but gossip says that it is alive",
                )
            elif member.is_voter and self.are_voters_few:
                self.reasons[name] += (
                    f"; not removed, for at least {settings.voters_min} voters are to remain"
                )
            elif limit_s < math.inf:
                self.reasons[name] += f"; removed after {_shown(limit_s)} of silence"
            return
        if member.is_voter and self.are_voters_few:
            self.hold(
                f"remove {name}",
                f"{why}, but at least {settings.voters_min} voters are to remain; add a server first",
            )
            return
        lack = self.lack_without(member)
        if lack:
            self.hold(f"remove {name}", f"{why}, but {lack}")
        else:
            self.act(RemoveFailed(name, why))

    @property
    def are_voters_few(self) -> bool:
        """So few that one which fails stays a voter."""
        return len(self.voters) <= self.settings.voters_min

    def why_failed(self, member: MemberFacts) -> str:
        """Why it is taken for one that does not come back; "" if it is not."""
        if member.is_leader or self.is_in_contact(member):
            return ""
        silent_s, limit_s = self.silence(member)
        hint = self.hints.get(member.name)
        if silent_s < limit_s or (hint is not None and hint.status == "alive"):
            return ""
        return f"silent for {silent_s:.0f} s"

    def silence(self, member: MemberFacts) -> tuple[float, float]:
        """(for how many seconds nothing was heard of it, after how many it has failed)."""
        silent_s, limit_s = member.last_contact_s, self.settings.remove_failed_after_s
        if silent_s is None:  # one that this leader has never heard is silent since this leader knows it
            silent_s = self.now - self.memory[member.name].first_seen
            if not member.is_voter:
                limit_s = min(limit_s, self.settings.unheard_learner_s)
        return silent_s, limit_s

    def lack_without(self, member: MemberFacts) -> str:
        """Why the voters cannot do without this one; "" if they can."""
        if not member.is_voter:
            return ""
        rest = [name for name in self.voters if name != member.name]
        healthy = sum(self.memory[name].is_healthy for name in rest)
        if rest and healthy >= majority(len(rest)):
            return ""
        return (
            f"only {healthy} of the {len(rest)} other voters are healthy, and {majority(len(rest))} must be"
        )

    # ── who comes ───────────────────────────────────────────────────────────────────────────────────

    def compare(self, member: MemberFacts, candidate: Candidate) -> None:
        """A member with what the source says of its name."""
        if not candidate.is_there:
            return
        what = f"take {candidate.address} for {member.name}"
        is_other_disk = not _may_be_same(candidate.directory_id, member.directory_id)
        if not is_other_disk and candidate.address == member.address:
            return
        if member.is_leader:
            if is_other_disk:
                self.hold(what, "another server has the name of the leader; one of both must get another one")
            return
        lack = self.why_not(candidate)
        if lack:
            self.hold(what, lack)
        elif not is_other_disk:
            why = f"it says that it is there now, and no longer at {member.address}"
            self.act(ChangeAddress(member.name, candidate.address, candidate.directory_id, why))
        elif self.is_in_contact(member):
            self.hold(what, "it has another directory, but the server with the known one still answers")
        elif lack := self.lack_without(member):
            self.hold(f"begin anew with {member.name}, whose disk was replaced", lack)
        else:
            why = f"its directory is {candidate.directory_id}, and was {member.directory_id}"
            self.act(ReplaceDisk(member.name, candidate.address, candidate.directory_id, why))

    def consider(self, candidate: Candidate) -> ServerReport:
        """One that is no member."""
        name = NodeId(candidate.name)
        if not candidate.is_there or is_going(candidate):
            reason = f"no member, and {candidate.status if not candidate.is_there else 'leaving'}"
        elif name in self.facts.barred:
            reason = "removed on purpose; `raftlog join` lets it in again"
        elif name in self.facts.just_removed:
            reason = "removed a moment ago; it may not have been heard yet that it leaves"
        elif reason := self.why_not(candidate):
            self.hold(f"add {name}", reason)
        elif len(self.members) >= self.members_max:
            reason = f"there are {self.members_max} members already"
            self.hold(f"add {name}", reason)
        else:
            reason = "about to be checked, and added as a learner"
            self.act(AddLearner(name, candidate.address, candidate.directory_id, "discovery found it"))
        return ServerReport(
            name=name,
            address=candidate.address,
            status=candidate.status,
            is_member=False,
            is_voter=False,
            is_leader=False,
            is_healthy=False,
            healthy_since_s=0.0,
            last_contact_s=None,
            trailing_entries=None,
            reason=reason,
        )

    def why_not(self, candidate: Candidate) -> str:
        """Why nothing is done about what the source says of a server; "" if something may be."""
        if candidate.cluster_id not in ("", self.facts.cluster_id):
            return f"it is of cluster {candidate.cluster_id}, this is {self.facts.cluster_id}"
        for member in self.facts.members:
            if member.address == candidate.address and member.name != candidate.name:
                return f"{candidate.address} is the address of {member.name}; remove that one first"
        return self.facts.refusals.get(candidate.name, "")

    # ── the outcome ─────────────────────────────────────────────────────────────────────────────────

    def act(self, action: Action) -> None:
        """Do it, unless it was tried in vain a moment ago."""
        why_later = "" if isinstance(action, Checked) else self.facts.postponed.get(action.name, "")
        if why_later:
            self.hold(describe(action), why_later)
        else:
            self.actions.append(action)

    def hold(self, what: str, reason: str) -> None:
        self.held.append(Held(what, reason))


def is_going(candidate: Candidate) -> bool:
    """It said that it leaves, or it has left."""
    return candidate.status in ("leaving", "left") or candidate.role == "leaving"


def _shown(seconds: float) -> str:
    """24 h, 10 min, 90 s."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _may_be_same(directory_id: str, known: str) -> bool:
    return not directory_id or not known or directory_id == known
