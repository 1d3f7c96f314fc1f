"""What the clients' calls answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftlog.pb.raftlog.v1 import cluster_pb2 as cluster_pb


class Server(NamedTuple):
    """A server of the cluster."""

    name: str
    address: str
    is_leader: bool
    is_voter: bool = True  # False: a learner, which stores and serves but does not count for a quorum


class Bounds(NamedTuple):
    """Offsets that exist: start to before end."""

    start: int
    end: int


class Cursor(NamedTuple):
    """How far a group of consumers has come."""

    group: str
    offset: int  # of the record to consume next
    time: int  # when it was committed, UTC nanoseconds by the log's clock


class Snapshot(NamedTuple):
    """What a server wrote of its views."""

    entry_index: int  # of the last entry in it
    bytes: int


class Member(NamedTuple):
    """A server as the cluster's membership has it. The last three are known by the leader alone."""

    name: str
    address: str
    directory_id: str
    is_voter: bool
    is_leader: bool
    match_index: int  # its log is the leader's up to here
    state: str  # probe, replicate or snapshot
    is_active: bool  # heard of lately


class Status(NamedTuple):
    """What a server is and believes."""

    node_id: str
    cluster_id: str
    directory_id: str
    role: str  # leader, follower, pre-candidate or candidate
    term: int
    leader_id: str
    first_index: int  # entries of its log
    last_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    log_start: int  # record offsets
    high_watermark: int
    members: tuple[Member, ...]
    configuration: str  # voters and learners, as Raft has them
    engine: str  # raft or pysyncobj
    trouble: str  # what is wrong, for a person; empty if nothing is
    format_version: int  # that the cluster writes


def to_member(message: cluster_pb.Member) -> Member:
    return Member(
        message.id, message.rpc_addr, message.directory_id, message.is_voter, message.is_leader,
        message.match_index, message.state, message.is_active,
    )  # fmt: skip


def to_status(message: cluster_pb.GetStatusResponse) -> Status:
    fields: dict[str, Any] = {name: getattr(message, name) for name in Status._fields}
    return Status(**{**fields, "members": tuple(map(to_member, message.members))})
