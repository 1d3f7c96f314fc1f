"""What a cluster answers about its members: who was found, what the autopilot thinks, keys of the gossip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raftlog.pb.raftlog.v1 import cluster_pb2 as pb


class KnownServer(NamedTuple):
    """A server as it was found, beside what Raft knows. Empty text: not known."""

    name: str
    address: str
    gossip_address: str
    status: str  # alive, leaving, left, failed, or listed: named, not watched; empty: not seen
    status_s: float  # for how many seconds; 0: not known
    raft_role: str  # leader, voter or learner; empty: no member
    version: str
    directory_id: str
    cluster_id: str  # that it says to be of
    remarks: tuple[str, ...]  # what is not as it should be


class KnownServers(NamedTuple):
    """As one server sees them."""

    node_id: str  # that server
    cluster_id: str
    servers: tuple[KnownServer, ...]  # by name


class AutopilotServer(NamedTuple):
    """A server as the leader's autopilot sees it."""

    name: str
    address: str
    status: str  # as of KnownServer
    is_member: bool
    is_voter: bool
    is_leader: bool
    is_healthy: bool
    healthy_since_s: float  # for how many seconds it has been as healthy, or as unhealthy, as it is
    last_contact_s: float | None  # seconds since the leader heard of it; None: not since it leads
    trailing_entries: int | None  # that it lacks of the leader's log; None: not known
    reason: str  # why it is healthy or not, why it is no voter, or no member


class AutopilotAction(NamedTuple):
    """Something that the autopilot did, or tried."""

    time: int  # UTC nanoseconds
    text: str
    error: str  # why it could not be done; empty: it was


class Autopilot(NamedTuple):
    """What the leader's autopilot thinks."""

    mode: str  # act, advise or off
    is_leader: bool  # of the server that answered; one that does not lead knows the mode alone
    is_healthy: bool  # every member is
    failure_tolerance: int  # voters that may fail now without loss of the quorum
    voters_max: int | None  # None: every member may vote
    servers: tuple[AutopilotServer, ...]  # by name
    advice: tuple[str, ...]  # what it does next, or would, and what it holds back
    last_actions: tuple[AutopilotAction, ...]  # the latest last


class GossipKey(NamedTuple):
    id: str  # the key itself is not told
    members: int  # that have it
    primary_members: int  # that encrypt with it


class KeysAnswer(NamedTuple):
    """What members said to a question about keys."""

    members: int  # that are alive
    answers: int  # how many of them answered
    errors: Mapping[str, str]  # why a member could not do it, by its name
    keys: tuple[GossipKey, ...]  # of a list

    @property
    def is_complete(self) -> bool:
        """All answered, and none refused."""
        return self.answers == self.members and not self.errors


def to_known_servers(message: pb.ListMembersResponse) -> KnownServers:
    servers = (
        KnownServer(
            one.name, one.rpc_addr, one.gossip_addr, one.status, one.status_s, one.raft_role, one.version,
            one.directory_id, one.cluster_id, tuple(one.remarks),
        )
        for one in message.servers
    )  # fmt: skip
    return KnownServers(message.node_id, message.cluster_id, tuple(servers))


def to_autopilot(message: pb.GetAutopilotResponse) -> Autopilot:
    return Autopilot(
        message.mode, message.is_leader, message.is_healthy, message.failure_tolerance, message.voters_max or None,
        tuple(map(_to_server, message.servers)), tuple(message.advice),
        tuple(AutopilotAction(one.time_ns, one.text, one.error) for one in message.last_actions),
    )  # fmt: skip


def _to_server(message: pb.AutopilotServer) -> AutopilotServer:
    fields: dict[str, Any] = {
        name: getattr(message, name) for name in AutopilotServer._fields if name != "address"
    }
    for name in ("last_contact_s", "trailing_entries"):
        if not message.HasField(name):
            fields[name] = None
    return AutopilotServer(address=message.rpc_addr, **fields)


def to_keys_answer(message: pb.ChangeGossipKeysResponse) -> KeysAnswer:
    keys = tuple(GossipKey(one.id, one.members, one.primary_members) for one in message.keys)
    return KeysAnswer(message.members, message.answers, dict(message.errors), keys)
