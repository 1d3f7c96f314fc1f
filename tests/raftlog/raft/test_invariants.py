"""Each invariant can fail: a state is broken by hand, and the assertion names what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftlog.engine import Receive
from raftlog.raft import RaftNode, Role, invariants
from raftlog.raft.events import Campaign
from raftlog.raft.leader import Leader
from raftlog.raft.log import PendingChange
from raftlog.raft.messages import Append
from raftlog.raft.progress import Progress, ProgressState
from raftlog.raft.storage import HardState
from tests.raftlog.raft.builders import N1, N2, entries, make_node, react
from tests.raftlog.raft.cluster import Cluster


def follower() -> RaftNode:
    """Entries 1..2 are durable, committed and handed out to be applied; 3..4 are being written."""
    node = make_node(N1, 1, 1, commit=2)
    react(node, Receive(N2, Append(1, 2, 1, entries(1, 1, first=3), commit=2)))
    return node


def leader() -> RaftNode:
    cluster = Cluster(3)
    cluster.elect(N1)
    return cluster[N1]


def progress(node: RaftNode) -> Progress:
    assert isinstance(node.role, Leader)
    return node.role.progress[N2]


def put(owner: Callable[[RaftNode], object], name: str, value: object) -> Callable[[RaftNode], None]:
    return lambda node: setattr(owner(node), name, value)


def log(node: RaftNode) -> object:
    return node.log


def itself(node: RaftNode) -> object:
    return node


def test_states_that_are_not_broken_pass() -> None:
    for node in (follower(), leader()):
        invariants.check(node)


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (put(log, "applied", 3), "applied..last"),
        (put(log, "applying", 3), "applied..last"),
        (put(log, "committed", 5), "applied..last"),
        (put(log, "durable", 1), "applied what is not durable here"),
        (put(log, "durable", 5), "durable beyond the log"),
        (lambda node: node.log.tail.clear(), "the tail does not end at last_index"),
        (put(log, "handed_end", 6), "handed out"),
        (put(log, "handed_end", 0), "handed out"),
        (lambda node: node.log.tail.reverse(), "tail's numbers"),
        (put(log, "last_term", 0), "tail's last term"),
        (put(itself, "term", 0), "a term that this node does not know of"),
        (put(log, "changes", [PendingChange(0, b"")]), "changes"),
        (put(log, "changes", [PendingChange(5, b"")]), "changes"),
        (lambda node: setattr(node.writes, "durable_state", HardState(2)), "durable term"),
    ],
)
def test_broken_follower_is_found(break_it: Callable[[RaftNode], None], what: str) -> None:
    node = follower()

    break_it(node)

    with pytest.raises(AssertionError, match=what):
        invariants.check(node)


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (put(itself, "vote", N2), "elected with its own vote"),
        (lambda node: node.role.progress.pop(N2), "progress is of the members"),
        (put(progress, "match", 2), "n2: match < next"),
        (put(progress, "match", -1), "n2: match < next"),
        (put(progress, "next", 3), "n2: match < next"),
        (put(progress, "is_learner", True), "n2: learner"),
        (put(progress, "state", ProgressState.SNAPSHOT), "n2: next is not above the snapshot"),
        (put(log, "durable", 0), "durable here|what its disk has"),
    ],
)
def test_broken_leader_is_found(break_it: Callable[[RaftNode], None], what: str) -> None:
    node = leader()

    break_it(node)

    with pytest.raises(AssertionError, match=what):
        invariants.check(node)


def test_leader_that_counts_itself_for_what_its_disk_does_not_have_is_found() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.hold_disk(N1)
    cluster.propose(N1)

    cluster.progress(N1, N1).maybe_update(2)

    with pytest.raises(AssertionError, match="what its disk has"):
        invariants.check(cluster[N1])


def test_candidate_that_voted_for_another_is_found() -> None:
    node = make_node(N1, pre_vote=False)
    react(node, Campaign())

    node.vote = N2

    with pytest.raises(AssertionError, match="a candidate votes for itself"):
        invariants.check(node)


BEFORE = invariants.Facts(
    term=5,
    vote=N1,
    role=Role.LEADER,
    leader=N1,
    committed=3,
    applied=3,
    first_index=2,
    last_index=6,
    last_term=5,
)


def test_change_that_breaks_nothing_passes() -> None:
    invariants.check_change(BEFORE, BEFORE)
    invariants.check_change(
        BEFORE, BEFORE._replace(term=6, vote=N2, role=Role.FOLLOWER, leader=N2, last_index=4, committed=4)
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"term": 4}, "terms never go back"),
        ({"vote": N2}, "one vote per term"),
        ({"vote": None}, "one vote per term"),
        ({"role": Role.CANDIDATE}, "a leader does not campaign in its own term"),
        ({"role": Role.PRE_CANDIDATE}, "a leader does not campaign in its own term"),
        ({"last_index": 5}, "a leader never cuts its own log"),
        ({"leader": N2}, "one leader per term"),
        ({"committed": 2}, "what is committed stays so"),
        ({"applied": 2}, "what is applied stays so"),
        ({"first_index": 1}, "a log's beginning never comes back"),
    ],
)
def test_change_that_breaks_a_promise_is_found(change: dict[str, object], what: str) -> None:
    after = BEFORE._replace(**change)  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match=what):
        invariants.check_change(BEFORE, after)


def test_follower_that_leads_at_once_is_found() -> None:
    before = BEFORE._replace(role=Role.FOLLOWER, leader=None)

    with pytest.raises(AssertionError, match="only a candidate is elected"):
        invariants.check_change(before, BEFORE)


def test_time_that_goes_back_is_found() -> None:
    node = make_node(N1)
    node.step(Campaign(), 1.0)

    with pytest.raises(AssertionError, match=r"time went back from 1\.0 to 0\.5"):
        node.step(Campaign(), 0.5)


def test_invariants_are_checked_after_every_step_when_asked_for() -> None:
    node = follower()
    node.log.committed = 9

    with pytest.raises(AssertionError, match="applied..last"):
        node.step(Campaign(), 0.0)


def test_invariants_cost_nothing_when_not_asked_for() -> None:
    node = make_node(N1, 1, 1, commit=2, check_invariants=False)
    node.log.tail_first = 7

    node.step(Campaign(), 0.0)

    assert node.role.name is Role.PRE_CANDIDATE
