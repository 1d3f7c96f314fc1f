"""What must always hold in a node, and between one moment and the next. A violation is a bug here, never bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raftlog.engine import NodeId
from raftlog.raft.progress import ProgressState
from raftlog.raft.role import Role

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode


class Facts(NamedTuple):
    """Of one moment of a node."""

    term: int
    vote: NodeId | None
    role: Role
    leader: NodeId | None
    committed: int
    applied: int
    first_index: int
    last_index: int
    last_term: int


def facts(node: RaftNode) -> Facts:
    log, role = node.log, node.role
    return Facts(
        node.term, node.vote, role.name, role.leader, log.committed, log.applied, log.first_index, log.last_index,
        log.last_term,
    )  # fmt: skip


def check(node: RaftNode) -> None:
    """The state against itself."""
    log, role = node.log, node.role
    # What was applied was handed out, and that was committed and durable.
    assert log.applied <= log.applying <= log.committed <= log.last_index, "applied..last"
    assert log.applying <= max(log.durable, log.applied), "applied what is not durable here"
    assert log.durable <= log.last_index or log.installing is not None, "durable beyond the log"
    # The tail continues the storage without a gap, and its entries are numbered and ordered.
    assert log.tail_first + len(log.tail) == log.last_index + 1, "the tail does not end at last_index"
    assert log.tail_first <= log.handed_end <= log.last_index + 1, "handed out"
    if log.tail:
        assert log.tail[0].index == log.tail_first and log.tail[-1].index == log.last_index, "tail's numbers"
        assert log.tail[-1].term == log.last_term, "tail's last term"
    assert log.last_term <= node.term, "an entry of a term that this node does not know of"
    assert all(log.applied < change.index <= log.last_index for change in log.changes), "changes"
    # The disk follows.
    assert node.writes.durable_state.term <= node.term, "durable term"
    match role.name:
        case Role.LEADER:
            _check_leader(node)
        case Role.CANDIDATE:
            assert node.vote == node.id, "a candidate votes for itself"
        case Role.FOLLOWER | Role.PRE_CANDIDATE:
            pass


def _check_leader(node: RaftNode) -> None:
    from raftlog.raft.leader import Leader

    role, log = node.role, node.log
    assert isinstance(role, Leader)
    assert node.vote == node.id, "a leader was elected with its own vote"
    assert tuple(role.progress) == node.configuration.members, "progress is of the members"
    for member, progress in role.progress.items():
        assert 0 <= progress.match < progress.next <= log.last_index + 1, (
            f"{member}: match < next <= last + 1"
        )
        assert progress.is_learner == (member in node.configuration.learners), f"{member}: learner"
        if progress.state is ProgressState.SNAPSHOT:
            assert progress.next <= progress.pending_snapshot + 1, f"{member}: next is not above the snapshot"
    if node.id in role.progress:
        assert role.progress[node.id].match <= log.durable, "a leader counts itself for what its disk has"


def check_change(before: Facts, after: Facts) -> None:
    """The state against what it was one step before."""
    assert after.term >= before.term, "terms never go back"
    if after.term == before.term:
        assert before.vote is None or after.vote == before.vote, "one vote per term"
        assert not (before.role is Role.LEADER and after.role in (Role.CANDIDATE, Role.PRE_CANDIDATE)), (
            "a leader does not campaign in its own term"
        )
        if before.role is Role.LEADER and after.role is Role.LEADER:
            assert after.last_index >= before.last_index, "a leader never cuts its own log"
        if before.leader is not None and after.leader is not None:
            assert after.leader == before.leader, "one leader per term"
    assert after.committed >= before.committed, "what is committed stays so"
    assert after.applied >= before.applied, "what is applied stays so"
    assert after.first_index >= before.first_index, "a log's beginning never comes back"
    assert after.role is not Role.LEADER or before.role in (
        Role.LEADER,
        Role.CANDIDATE,
        Role.PRE_CANDIDATE,
    ), "only a candidate is elected"
