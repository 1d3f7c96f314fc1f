"""A follower: takes entries and snapshots from the leader, and says what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raftlog.engine import NodeId
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
)
from raftlog.raft.role import Role
from raftlog.raft.storage import SnapshotPart

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode


class Follower:
    __slots__ = ("leader", "node")

    name: Final = Role.FOLLOWER
    leader: NodeId | None  # of this term, once it was heard of

    def __init__(self, node: RaftNode, leader: NodeId | None = None) -> None:
        self.node = node
        self.leader = leader

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message of this term."""
        match message:
            case Append():
                self._hear(sender)
                self._append(message)
            case Heartbeat():
                self._hear(sender)
                self.node.commit_to(message.commit)
                self._answer_heartbeat(sender, message)
            case SnapshotChunk():
                self._hear(sender)
                self._take_chunk(message)
            case TimeoutNow():
                self.node.campaign(is_transfer=True)
            case _:
                pass  # a reply to what this node sent in another role

    def _answer_heartbeat(self, leader: NodeId, message: Heartbeat) -> None:
        """It waits for the disk only where leases rest on it: a node that forgot this term would vote at once."""
        node, reply = self.node, HeartbeatReply(message.term, message.round)
        if node.config.lease_reads and node.writes.durable_state.term < node.term:
            node.send_when_durable(leader, reply)
        else:
            node.send(leader, reply)

    def _hear(self, leader: NodeId) -> None:
        node = self.node
        self.leader = leader
        node.election_start = node.now
        if node.config.lease_reads:
            node.promised_until = node.now + node.config.election_timeout_s_min

    def _append(self, message: Append) -> None:
        """Append what is missing; cut only what conflicts (paper, figure 2; an append may be an old one)."""
        node, log, leader = self.node, self.node.log, self.leader
        assert leader is not None
        prev_index, prev_term = message.prev_index, message.prev_term
        if prev_index < log.committed:
            node.send_when_durable(leader, AppendReply(node.term, log.committed))
            return
        if not log.matches(prev_index, prev_term):
            hint_index, hint_term = log.match_below(prev_index, prev_term)
            node.send_when_durable(
                leader, AppendRejected(node.term, prev_index, hint_index, hint_term, message.attempt)
            )
            return

        entries = message.entries
        last_new = prev_index + len(entries)
        if entries:
            if prev_index != log.last_index:
                entries = entries[log.first_conflict(entries) :]
                if entries and entries[0].index <= log.last_index:
                    node.truncate(entries[0].index)
            if entries:
                log.append(entries)
        node.commit_to(min(message.commit, last_new))
        node.send_when_durable(leader, AppendReply(node.term, last_new))

    def _take_chunk(self, message: SnapshotChunk) -> None:
        """Keep a part of a snapshot if it is the next one; ask for the next one.

        The snapshot may be older than this node's membership: it learns of that from the entries that follow.
        """
        node, log, leader, snapshot = self.node, self.node.log, self.leader, message.snapshot
        assert leader is not None
        if snapshot.index > log.committed and log.matches(snapshot.index, snapshot.term):
            node.commit_to(snapshot.index)  # all of it is here already
        if snapshot.index <= log.committed:
            node.incoming = None
            node.send_when_durable(leader, AppendReply(node.term, log.committed))
            return

        is_same = node.incoming is not None and node.incoming[:2] == (leader, snapshot)
        position = node.incoming[2] if is_same and node.incoming is not None else 0
        end = message.position + len(message.data)
        is_next = message.position == position and end <= snapshot.size_bytes
        if not is_next or message.is_last != (end == snapshot.size_bytes):
            node.send_when_durable(leader, SnapshotReply(node.term, snapshot.index, position))
            return
        node.install(SnapshotPart(snapshot, position, message.data, message.is_last))
        if message.is_last:
            node.incoming = None
            node.send_when_durable(leader, AppendReply(node.term, log.last_index))
        else:
            node.incoming = (leader, snapshot, end)
            node.send_when_durable(leader, SnapshotReply(node.term, snapshot.index, end))
