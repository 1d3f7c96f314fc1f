"""What a node is and believes, for people and for the cluster service."""

from __future__ import annotations

from dataclasses import dataclass

from raftlog.distributed.replica import Replica
from raftlog.raft.leader import Leader


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """A member as this node knows it. The last three are known to the leader alone."""

    id: str
    address: str
    directory_id: str
    is_voter: bool
    is_leader: bool
    match_index: int = 0  # its log is the leader's up to here, durably
    state: str = ""  # probe, replicate or snapshot
    is_active: bool = False  # heard of lately


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    node_id: str
    cluster_id: str
    directory_id: str
    role: str
    term: int
    leader_id: str  # "": none is known
    first_index: int
    last_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int  # of the views
    members: tuple[MemberStatus, ...]
    configuration: str  # voters and learners, as Raft has them
    engine: str
    trouble: str  # "": nothing is wrong
    format_version: int  # that the cluster writes


def status_of(replica: Replica) -> NodeStatus:
    raft = replica.driver.node.status()
    return NodeStatus(
        node_id=replica.id,
        cluster_id=replica.cluster_id,
        directory_id=replica.directory_id,
        role=raft.role.value,
        term=raft.term,
        leader_id=replica.leader or "",
        first_index=replica.storage.first_index,
        last_index=raft.last_index,
        commit_index=raft.commit,
        applied_index=raft.applied,
        snapshot_index=replica.storage.views_index,
        members=members_of(replica),
        configuration=str(raft.configuration),
        engine="raft",
        trouble=_trouble(replica),
        format_version=replica.format_version,
    )


def members_of(replica: Replica) -> tuple[MemberStatus, ...]:
    """By name."""
    members = replica.applier.views.members
    role = replica.driver.node.role
    progress = role.progress if isinstance(role, Leader) else {}
    found = []
    for node in members.configuration.members:
        known, its = members.get(node), progress.get(node)
        found.append(
            MemberStatus(
                id=node,
                address=known.address if known is not None else "",
                directory_id=known.directory_id if known is not None else "",
                is_voter=node in members.configuration.all_voters,
                is_leader=node == replica.leader,
                match_index=its.match if its is not None else 0,
                state=its.state.value if its is not None else "",
                is_active=its is not None and (its.recent_active or node == replica.id),
            )
        )
    return tuple(found)


def _trouble(replica: Replica) -> str:
    if replica.failure is not None:
        return str(replica.failure)
    if replica.is_full:
        return "the disk has no room for appends"
    if replica.leader is None:
        return "no leader is known"
    return ""
