"""A candidate, and one that asks first whether it could win (pre-vote, dissertation 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raftlog.engine import NodeId
from raftlog.raft.messages import (
    Append,
    Heartbeat,
    Message,
    PreVote,
    PreVoteReply,
    SnapshotChunk,
    Vote,
    VoteReply,
)
from raftlog.raft.quorum import VoteResult, joint_vote_result
from raftlog.raft.role import Role

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode


class _Votes:
    """What was answered. The first answer of each counts."""

    __slots__ = ("_node", "_votes")

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self._votes: dict[NodeId, bool] = {}

    def record(self, voter: NodeId, *, is_granted: bool) -> VoteResult:
        self._votes.setdefault(voter, is_granted)
        configuration = self._node.configuration
        return joint_vote_result(configuration.voters, configuration.outgoing, self._votes)


class PreCandidate:
    """Asks; its term, its vote and those of the others do not move."""

    __slots__ = ("_votes", "node")

    name: Final = Role.PRE_CANDIDATE
    leader: Final = None

    def __init__(self, node: RaftNode) -> None:
        self.node = node
        self._votes = _Votes(node)

    def ask_for_votes(self) -> None:
        node = self.node
        for voter in node.configuration.all_voters:
            if voter != node.id:
                node.send(voter, PreVote(node.term + 1, node.log.last_index, node.log.last_term))
        self._count(node.id, is_granted=True)

    def receive(self, sender: NodeId, message: Message) -> None:
        if isinstance(message, PreVoteReply):
            # A grant is of the term asked for; one of this term answers an earlier question.
            if message.is_granted == (message.term == self.node.term + 1):
                self._count(sender, is_granted=message.is_granted)
        else:
            follow_leader(self.node, sender, message)

    def _count(self, voter: NodeId, *, is_granted: bool) -> None:
        match self._votes.record(voter, is_granted=is_granted):
            case VoteResult.WON:
                self.node.campaign(is_pre_vote=False)
            case VoteResult.LOST:
                self.node.become_follower(self.node.term, None)
            case VoteResult.PENDING:
                pass


class Candidate:
    """Asks for votes in a new term, once its own vote is durable: a node asks only once in a term, restarts included.

    Else a vote that was given for what it forgot could elect it:

    1. n1 has entry 2, not durable yet, and asks in term 2; n2 has it, too, and grants.
    2. n1 crashes. Its log ends with entry 1, its term is 1. n2 and n3 have committed entry 2.
    3. n1 asks in term 2 again. n2 refuses; but its grant of before arrives late, and n1 would lead without entry 2.

    Or, having led and sent entries, it could be elected in that term once more, and number other entries alike.
    """

    __slots__ = ("_is_transfer", "_votes", "node")

    name: Final = Role.CANDIDATE
    leader: Final = None

    def __init__(self, node: RaftNode, *, is_transfer: bool) -> None:
        self.node = node
        self._is_transfer = is_transfer
        self._votes = _Votes(node)

    def ask_for_votes(self) -> None:
        node = self.node
        for voter in node.configuration.all_voters:
            if voter != node.id:
                request = Vote(node.term, node.log.last_index, node.log.last_term, self._is_transfer)
                node.send_when_durable(voter, request)

    def persisted(self) -> None:
        if self.node.writes.durable_state == (self.node.term, self.node.id):
            self._count(self.node.id, is_granted=True)

    def receive(self, sender: NodeId, message: Message) -> None:
        if isinstance(message, VoteReply):
            self._count(sender, is_granted=message.is_granted)
        else:
            follow_leader(self.node, sender, message)

    def _count(self, voter: NodeId, *, is_granted: bool) -> None:
        match self._votes.record(voter, is_granted=is_granted):
            case VoteResult.WON:
                self.node.become_leader()
            case VoteResult.LOST:
                self.node.become_follower(self.node.term, None)
            case VoteResult.PENDING:
                pass


def follow_leader(node: RaftNode, sender: NodeId, message: Message) -> None:
    """Another node has won this term: what it sends is taken as a follower takes it."""
    if isinstance(message, Append | Heartbeat | SnapshotChunk):
        node.become_follower(node.term, sender)
        node.role.receive(sender, message)
