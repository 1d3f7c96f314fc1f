"""What the leader knows at one moment, and what it remembers from the moments before. Nothing else is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """What Raft knows of a member."""

    name: NodeId
    address: str
    directory_id: str  # "": not known yet
    is_voter: bool
    is_leader: bool = False
    last_contact_s: float | None = None  # seconds since it answered; None: never since this server leads
    trailing_entries: int | None = None  # committed ones that it lacks; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    cluster_id: str
    leads_for_s: float
    members: tuple[MemberFacts, ...]  # by name
    candidates: tuple[Candidate, ...] = ()  # of the source, named, by name
    is_authenticated: bool = False  # what the source says of them was said by those who have its secret
    barred: frozenset[str] = frozenset()  # names of candidates that were removed on purpose
    just_removed: frozenset[str] = frozenset()  # that were members a moment ago, and have not come back since
    # By name, why not to try now what was tried in vain a moment ago: with what the source says of a server, and with a
    # member. Empty text: it may be tried.
    refusals: Mapping[str, str] = field(default_factory=dict)
    postponed: Mapping[str, str] = field(default_factory=dict)


class Remembered(NamedTuple):
    """Of one member; times are monotonic seconds."""

    is_healthy: bool
    since: float  # as healthy, or unhealthy, as it is
    first_seen: float  # as a member, by this leader


Memory = Mapping[NodeId, Remembered]  # empty for a new leader
