"""What operators ask about members: who was found, what the autopilot thinks, and that a removed server departs.

A part of `raftlog.v1.Cluster`, for servers that look for others. Nothing here knows gRPC.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from raftlog.errors import InvalidRequest, NotSupported
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.server.call import OBJECT, Access, Call, Leader
from raftlog.server.cluster_service import ClusterStatus, MemberStatus, by_leader, check_name

MODES: Final = ("act", "advise", "off")


class Candidate(Protocol):
    """What a source says of a server: a hint. Empty text: it does not know."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...  # host:port of its services
    @property
    def directory_id(self) -> str: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def role(self) -> str: ...  # member, joining, leaving
    @property
    def version(self) -> str: ...
    @property
    def gossip_address(self) -> str: ...
    @property
    def status(self) -> str: ...  # alive, leaving, left, failed, listed
    @property
    def since(self) -> float: ...  # monotonic seconds; 0: not known


class Source(Protocol):
    """Where this server looks for others."""

    def members(self) -> Sequence[Candidate]: ...


class ServerReport(Protocol):
    """proto/raftlog/v1/cluster.proto explains these, as AutopilotServer."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def is_member(self) -> bool: ...
    @property
    def is_voter(self) -> bool: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def is_healthy(self) -> bool: ...
    @property
    def healthy_since_s(self) -> float: ...
    @property
    def last_contact_s(self) -> float | None: ...
    @property
    def trailing_entries(self) -> int | None: ...
    @property
    def reason(self) -> str: ...


class ActionReport(Protocol):
    @property
    def time_ns(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def error(self) -> str: ...


class AutopilotReport(Protocol):
    """The same, as GetAutopilotResponse."""

    @property
    def mode(self) -> str: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def is_healthy(self) -> bool: ...
    @property
    def failure_tolerance(self) -> int: ...
    @property
    def voters_max(self) -> int | None: ...
    @property
    def servers(self) -> Sequence[ServerReport]: ...
    @property
    def advice(self) -> Sequence[str]: ...
    @property
    def last_actions(self) -> Sequence[ActionReport]: ...


class Autopilot(Protocol):
    def report(self) -> AutopilotReport:
        """What it thinks; where this server does not lead, little more than the mode."""
        ...

    async def set_mode(self, mode: str) -> None:
        """Keep the mode in the log; NotLeader where this server does not lead."""
        ...


class MembershipLog(Protocol):
    """What the service needs of a log."""

    def status(self) -> ClusterStatus: ...
    def require_leader(self) -> None:
        """NotLeader where this server does not lead."""
        ...


# Leaves the gossip and begins to end serving; returns once others were told.
Depart = Callable[[], Awaitable[None]]


class MembershipService:
    """Methods of `raftlog.v1.Cluster` about members; its proto file says what each promises."""

    def __init__(
        self,
        log: MembershipLog,
        access: Access,
        leader: Leader,
        *,
        source: Source | None,
        autopilot: Autopilot | None,
        depart: Depart,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` and `autopilot` are None where this server has none. `clock` is that of the source's `since`."""
        self._log = log
        self._access = access
        self._leader = leader
        self._source = source
        self._autopilot = autopilot
        self._depart = depart
        self._clock = clock

    async def list_members(self, request: pb.ListMembersRequest, call: Call) -> pb.ListMembersResponse:
        self._access.require_subject(call.subject)
        if self._source is None:
            raise NotSupported(
                "this server does not look for others (discovery is off): `raftlog servers` lists the members"
            )
        status = self._log.status()
        return pb.ListMembersResponse(
            node_id=status.node_id,
            cluster_id=status.cluster_id,
            servers=known_servers(self._source.members(), status, now=self._clock()),
        )

    async def get_autopilot(self, request: pb.GetAutopilotRequest, call: Call) -> pb.GetAutopilotResponse:
        self._access.require_subject(call.subject)

        async def get() -> pb.GetAutopilotResponse:
            report = self._require_autopilot().report()
            if not report.is_leader:
                self._log.require_leader()  # one that has just begun to lead answers with what little it knows
            return _report(report)

        return await by_leader(self._leader, get, "GetAutopilot", request, pb.GetAutopilotResponse, call)

    async def set_autopilot(self, request: pb.SetAutopilotRequest, call: Call) -> pb.SetAutopilotResponse:
        self._access.check(call.subject, OBJECT, "admin")
        if request.mode not in MODES:
            raise InvalidRequest(f"mode: {request.mode[:20]!r} is none of {', '.join(MODES)}")

        async def set_mode() -> pb.SetAutopilotResponse:
            await self._require_autopilot().set_mode(request.mode)
            return pb.SetAutopilotResponse()

        kind = pb.SetAutopilotResponse
        return await by_leader(self._leader, set_mode, "SetAutopilot", request, kind, call)

    async def depart(self, request: pb.DepartRequest, call: Call) -> pb.DepartResponse:
        if not call.is_peer:
            self._access.check(call.subject, OBJECT, "admin")
        check_name("id", request.id)
        name = self._log.status().node_id
        if request.id != name:
            raise InvalidRequest(f"id: this server is {name}, not {request.id}: ask that one")
        await self._depart()
        return pb.DepartResponse()

    def _require_autopilot(self) -> Autopilot:
        if self._autopilot is None:
            raise NotSupported("this cluster's engine has no autopilot: members are changed by hand")
        return self._autopilot


# ── what was found beside what Raft knows ───────────────────────────────────────────────────────────


def known_servers(
    candidates: Sequence[Candidate], status: ClusterStatus, *, now: float
) -> list[pb.KnownServer]:
    """Every member and every candidate once, by name, then address. A candidate without a name goes by its address."""
    members = {member.id: member for member in status.members}
    names = {member.address: member.id for member in status.members}
    found = [(each.name or names.get(each.address, ""), each) for each in candidates]
    servers = [_known(name, members.get(name), each, status, now=now) for name, each in found]
    unseen = members.keys() - {name for name, _ in found}
    servers += [_known(name, members[name], None, status, now=now) for name in unseen]
    return sorted(servers, key=lambda one: (one.name, one.rpc_addr))


def _known(
    name: str, member: MemberStatus | None, candidate: Candidate | None, status: ClusterStatus, *, now: float
) -> pb.KnownServer:
    known = pb.KnownServer(
        name=name, raft_role=_role(member, status), remarks=_remarks(member, candidate, status)
    )
    if candidate is not None:
        known.rpc_addr, known.gossip_addr = candidate.address, candidate.gossip_address
        known.status, known.version = candidate.status, candidate.version
        known.status_s = max(now - candidate.since, 0.0) if candidate.since else 0.0
        known.directory_id, known.cluster_id = candidate.directory_id, candidate.cluster_id
    if member is not None:
        known.rpc_addr = member.address
        known.directory_id = member.directory_id or known.directory_id
    return known


def _role(member: MemberStatus | None, status: ClusterStatus) -> str:
    if member is None:
        return ""
    if member.id == status.leader_id:
        return "leader"
    return "voter" if member.is_voter else "learner"


def _remarks(member: MemberStatus | None, candidate: Candidate | None, status: ClusterStatus) -> list[str]:
    if member is None:
        return [] if candidate is None else _remarks_on_stranger(candidate, status)
    if candidate is None:
        return [] if member.id == status.node_id else ["a member, not found by discovery"]
    remarks = []
    if candidate.status == "failed":
        remarks.append("failed, still counts for the quorum" if member.is_voter else "failed")
    elif candidate.status in ("leaving", "left"):
        remarks.append(f"{candidate.status}, still a member")
    if candidate.cluster_id not in ("", status.cluster_id):
        remarks.append(f"says it is of cluster {candidate.cluster_id}")
    if candidate.address not in ("", member.address):
        remarks.append(f"says it is at {candidate.address}")
    if candidate.directory_id and member.directory_id not in ("", candidate.directory_id):
        remarks.append("has another data directory than when it became a member")
    return remarks


def _remarks_on_stranger(candidate: Candidate, status: ClusterStatus) -> list[str]:
    if candidate.status not in ("alive", "listed"):
        return []  # the status says it
    if candidate.cluster_id not in ("", status.cluster_id):
        return [f"of another cluster: {candidate.cluster_id}"]
    if not candidate.address:
        return ["no server of raftlog: it tells no rpc_addr"]
    if candidate.role == "joining":
        return ["not a member yet: it waits to be let in"]
    return ["not a member"]


def _report(report: AutopilotReport) -> pb.GetAutopilotResponse:
    servers = (
        pb.AutopilotServer(
            name=one.name, rpc_addr=one.address, status=one.status, is_member=one.is_member, is_voter=one.is_voter,
            is_leader=one.is_leader, is_healthy=one.is_healthy, healthy_since_s=one.healthy_since_s,
            last_contact_s=one.last_contact_s, trailing_entries=one.trailing_entries, reason=one.reason,
        )
        for one in report.servers
    )  # fmt: skip
    actions = (
        pb.AutopilotAction(time_ns=one.time_ns, text=one.text, error=one.error) for one in report.last_actions
    )
    return pb.GetAutopilotResponse(
        mode=report.mode, is_leader=report.is_leader, is_healthy=report.is_healthy,
        failure_tolerance=report.failure_tolerance, voters_max=report.voters_max or 0, servers=servers,
        advice=report.advice, last_actions=actions,
    )  # fmt: skip
