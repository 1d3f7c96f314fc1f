"""Terms and votes, the same in every role (paper, 5.1, 5.2 and 5.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raftlog.engine import NodeId
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    SnapshotChunk,
    SnapshotReply,
    Vote,
    VoteReply,
)

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode

_REPLIES: Final = (
    AppendReply, AppendRejected, HigherTerm, HeartbeatReply, VoteReply, PreVoteReply, SnapshotReply, ReadReply,
)  # fmt: skip


def adopt_term(node: RaftNode, sender: NodeId, message: Message) -> bool:
    """A message of a later term. Returns whether it is to be handled."""
    if isinstance(message, Vote | PreVote):
        if has_lease(node) and not (isinstance(message, Vote) and message.is_transfer):
            return False  # a leader was heard of lately: neither the term nor the vote moves (dissertation 4.2.3)
        if isinstance(message, PreVote):
            return True
    elif isinstance(message, PreVoteReply) and message.is_granted:
        return True  # of the term that this node would campaign in
    elif isinstance(message, _REPLIES) and sender not in node.configuration.members:
        return False  # a removed node that campaigned since; its term must not depose anybody
    is_leader = isinstance(message, Append | Heartbeat | SnapshotChunk)
    node.become_follower(message.term, sender if is_leader else None)
    return True


def has_lease(node: RaftNode) -> bool:
    """A leader was heard of so lately that no other is helped to take its place."""
    if node.now < node.promised_until:
        return True
    is_lately = node.now < node.election_start + node.config.election_timeout_s_min
    return node.config.check_quorum and is_lately and node.role.leader is not None


def answer_stale(node: RaftNode, sender: NodeId, message: Message) -> None:
    if isinstance(message, Append | Heartbeat):
        # Its sender cannot learn of this term otherwise, if this node's votes are not asked for any more.
        if node.config.check_quorum or node.config.pre_vote:
            node.send_when_durable(sender, HigherTerm(node.term))
    elif isinstance(message, PreVote):
        _refuse(node, sender, PreVoteReply)


def vote(node: RaftNode, sender: NodeId, message: Vote | PreVote) -> None:
    """Grant it to a node whose log is at least as up to date, at most one per term.

    Learners vote, too: one may have been made a voter by a change that it has not seen yet.
    """
    is_pre_vote = isinstance(message, PreVote)
    is_free = (
        node.vote == sender
        or (node.vote is None and node.role.leader is None)
        or (is_pre_vote and message.term > node.term)
    )
    if node.now < node.promised_until and not (isinstance(message, Vote) and message.is_transfer):
        is_free = False
    is_granted = is_free and node.view.as_up_to_date(message.last_index, message.last_term)
    if not is_granted:
        _refuse(node, sender, PreVoteReply if is_pre_vote else VoteReply)
    elif is_pre_vote:
        node.send_when_durable(sender, PreVoteReply(message.term, is_granted=True))
    else:
        node.set_state(node.term, sender)
        node.election_start = node.now
        node.send_when_durable(sender, VoteReply(node.term, is_granted=True))


def _refuse(node: RaftNode, candidate: NodeId, reply: type[VoteReply | PreVoteReply]) -> None:
    commit = node.log.committed
    node.send_when_durable(candidate, reply(node.term, False, commit, node.log.term(commit) or 0))
