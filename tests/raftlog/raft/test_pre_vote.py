"""Who has a leader keeps it: pre-vote (dissertation 9.6), check-quorum (6.2), disruptive servers (4.2.3)."""

from __future__ import annotations

from raftlog.engine import NodeId, Receive, Send
from raftlog.raft import Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign, ForgetLeader
from raftlog.raft.messages import (
    PreVote,
    PreVoteReply,
    Vote,
)
from tests.raftlog.raft.builders import N1, N2, N3, make_node, react, storage_with
from tests.raftlog.raft.cluster import Cluster

# ── 9.6: pre-vote ───────────────────────────────────────────────────────────────────────────────────


def test_node_cut_off_does_not_raise_its_term() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)

    cluster.advance(60.0)

    assert cluster[N3].term == 1


def test_node_that_was_cut_off_does_not_depose_the_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)
    cluster.propose(N1)
    cluster.advance(10.0)

    cluster.heal()
    cluster.advance(10.0)

    assert cluster.roles() == {N1: Role.LEADER, N2: Role.FOLLOWER, N3: Role.FOLLOWER}
    assert (cluster[N1].term, cluster[N3].log.committed) == (1, 2)


def test_pre_vote_moves_neither_term_nor_vote_of_anyone() -> None:
    cluster = Cluster(3)
    cluster.step(N1, Campaign())
    cluster.settle(until=lambda: cluster[N1].role.name is not Role.PRE_CANDIDATE)

    assert (cluster[N1].term, cluster[N2].term, cluster[N3].term) == (1, 0, 0)
    assert cluster[N3].vote is None


def test_granted_pre_vote_of_an_earlier_question_does_not_count() -> None:
    node = make_node(N1, term=5)
    react(node, Campaign())

    react(node, Receive(N2, PreVoteReply(5, is_granted=True)))

    assert node.role.name is Role.PRE_CANDIDATE


def test_refused_pre_vote_tells_the_later_term() -> None:
    """Or else a node whose term is behind could never be elected."""
    node = make_node(N1, term=5)

    effects = react(node, Receive(N2, PreVote(3, 9, 2)))

    assert effects == [Send(N2, PreVoteReply(5, is_granted=False))]


def test_longer_log_with_the_lower_term_comes_to_lead() -> None:
    """n1 has the log, n2 the later term, n3 is down: n1 learns of the term and is elected."""
    voters = Configuration((N1, N2, N3))
    cluster = Cluster(3, storages={N1: storage_with(voters, 1, 1, 2), N2: storage_with(voters, 1, term=9)})
    cluster.crash(N3)

    cluster.advance(60.0)

    assert cluster[N1].role.name is Role.LEADER


# ── 6.2 and 4.2.3: who has a leader keeps it, and who has no quorum leads no more ──────────────────


def test_leader_that_hears_of_no_quorum_steps_down() -> None:
    cluster = Cluster(5)
    cluster.elect(N1)
    cluster.isolate(N1, N2)

    cluster.advance(2 * cluster.config.election_timeout_s_min)

    assert cluster[N1].role.name is not Role.LEADER


def test_leader_that_hears_of_a_quorum_leads_on() -> None:
    cluster = Cluster(5)
    cluster.elect(N1)
    cluster.isolate(N1, N2, N3)

    cluster.advance(20.0)

    assert cluster[N1].role.name is Role.LEADER
    assert cluster[N1].term == 1


def test_learners_are_no_quorum() -> None:
    cluster = Cluster(3, learners=[NodeId("n1x"), NodeId("n1y")])
    cluster.elect(N1)
    for voter in (N2, N3):
        cluster.isolate(voter)

    cluster.advance(2 * cluster.config.election_timeout_s_min)

    assert cluster[N1].role.name is not Role.LEADER


def test_request_for_a_vote_is_not_heard_while_the_leader_is() -> None:
    """4.2.3: within the minimum election timeout neither the term nor the vote moves."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.now += cluster.config.election_timeout_s_min - 0.01

    cluster.step(N2, Receive(N3, Vote(9, 9, 9)))
    early = cluster[N2].term
    cluster.now += 0.01
    cluster.step(N2, Receive(N3, Vote(9, 9, 9)))

    assert (early, cluster[N2].term) == (1, 9)


def test_leader_itself_does_not_hear_requests_for_votes() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.heartbeat(N1, count=15)

    cluster.step(N1, Receive(N3, Vote(9, 9, 9)))

    assert cluster[N1].role.name is Role.LEADER


def test_follower_that_is_told_its_leader_is_gone_votes_at_once() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)

    cluster.step(N2, ForgetLeader())
    cluster.step(N2, Receive(N3, Vote(2, 1, 1)))

    assert cluster[N2].vote == N3


def test_leases_are_not_forgotten() -> None:
    cluster = Cluster(3, lease_reads=True)
    cluster.elect(N1)

    cluster.step(N2, ForgetLeader())

    assert cluster[N2].role.leader == N1
