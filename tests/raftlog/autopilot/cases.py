"""Situations to judge, in one line each."""

from __future__ import annotations

from typing import Any

from raftlog.autopilot.facts import Facts, MemberFacts, Memory, Remembered
from raftlog.autopilot.judgement import Judgement, judge
from raftlog.autopilot.settings import AutopilotSettings
from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId

NOW = 1_000_000.0
LONG = 100_000.0  # seconds: longer than any limit
DAY = 24 * 3600.0


def member(name: str, **more: Any) -> MemberFacts:
    """A voter in good health."""
    known = {
        "address": f"{name}:8400",
        "directory_id": f"d-{name}",
        "is_voter": True,
        "last_contact_s": 0.05,
        "trailing_entries": 0,
    }
    return MemberFacts(**{"name": NodeId(name), **known, **more})


def leader(name: str = "n1", **more: Any) -> MemberFacts:
    return member(name, is_leader=True, last_contact_s=None, **more)


def learner(name: str, **more: Any) -> MemberFacts:
    return member(name, is_voter=False, **more)


def dead(name: str, silent_s: float | None = LONG, **more: Any) -> MemberFacts:
    return member(name, last_contact_s=silent_s, **more)


def candidate(name: str, **more: Any) -> Candidate:
    known = {"address": f"{name}:8400", "directory_id": f"d-{name}", "cluster_id": "c"}
    return Candidate(**{"name": name, **known, **more})


def facts(*members: MemberFacts, **more: Any) -> Facts:
    """As a leader that leads for long sees it."""
    return Facts(**{"cluster_id": "c", "leads_for_s": LONG, "members": members, **more})


def remembers(*members: MemberFacts, healthy_for_s: float = LONG) -> Memory:
    """All of them have been healthy, and members, for so long."""
    since = NOW - healthy_for_s
    return {one.name: Remembered(True, since, since) for one in members}


def judged(
    found: Facts, memory: Memory | None = None, *, members_max: int = 64, **settings: Any
) -> Judgement:
    return judge(
        found,
        AutopilotSettings(**settings),
        remembers(*found.members) if memory is None else memory,
        NOW,
        members_max=members_max,
    )
