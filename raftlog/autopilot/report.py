"""What the reconciler thinks of the servers, what it did and would do, and why: for people and for the cluster service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ACTIONS_KEPT: Final = 50  # older ones are in the log of the server


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """One server, a member or one that may become one."""

    name: str
    address: str  # host:port; "": not known
    status: str  # alive, leaving, left or failed, as its source of members says; "": the source says nothing of it
    is_member: bool
    is_voter: bool
    is_leader: bool
    is_healthy: bool
    healthy_since_s: float  # for how many seconds it has been as healthy, or as unhealthy, as it is
    last_contact_s: float | None  # seconds since the leader heard of it; None: not since it leads
    trailing_entries: int | None  # that it lacks of the leader's log; None: not known
    reason: str  # why it is healthy or not, why it is no voter, or no member


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionReport:
    """Something that was done, or tried."""

    time_ns: int  # UTC
    text: str  # what, and why
    error: str = ""  # why it could not be done; "": it was


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotReport:
    """As the asked server sees it. One that does not lead knows the mode alone, and says so in `advice`."""

    mode: str  # act, advise or off
    is_leader: bool  # of the server that was asked: only the leader judges
    is_healthy: bool  # every member is
    failure_tolerance: int  # voters that may fail now without loss of the quorum
    voters_max: int | None  # None: every member may vote
    servers: tuple[ServerReport, ...]  # by name
    advice: tuple[str, ...]  # what it does next, or would, and what it holds back; each with why
    last_actions: tuple[ActionReport, ...]  # the latest last; at most ACTIONS_KEPT
