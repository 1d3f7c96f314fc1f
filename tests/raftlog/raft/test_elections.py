"""Terms and elections (paper, 5.1, 5.2, 5.4.1, 5.6)."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import NodeId, Receive, Send, Wake
from raftlog.raft import RaftNode, Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    HigherTerm,
    Message,
    PreVote,
    Snapshot,
    SnapshotChunk,
    Vote,
    VoteReply,
)
from tests.raftlog.raft.builders import CONFIG, N1, N2, N3, SEED, make_node, react
from tests.raftlog.raft.cluster import Cluster

SNAPSHOT = Snapshot(9, 2, Configuration((N1, N2, N3)), 1)


# ── 5.1: terms ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "message", [Vote(7, 0, 0), AppendReply(7, 0), HigherTerm(7), HeartbeatReply(7, 1), Append(7, 0, 0, (), 0)]
)
def test_node_of_any_role_follows_a_later_term(message: Message) -> None:
    """5.1: if one server's current term is smaller than the other's, it updates its own, and reverts to follower."""
    for campaigns in (0, 1, 2):
        cluster = Cluster(3, pre_vote=False, check_quorum=False)
        if campaigns:
            cluster.step(N1, Campaign())
        if campaigns == 2:
            cluster.settle()

        cluster.step(N1, Receive(N2, message))

        assert (cluster[N1].term, cluster[N1].role.name) == (7, Role.FOLLOWER)


@pytest.mark.parametrize("message", [Append(4, 0, 0, (), 0), Heartbeat(4, 0, 1)])
def test_leader_of_an_earlier_term_is_refused_and_told_the_later_one(message: Message) -> None:
    """5.1: a request with a stale term is rejected. Nothing of it is taken."""
    node = make_node(N1, term=5)

    effects = react(node, Receive(N2, message))

    assert effects == [Send(N2, HigherTerm(5))]
    assert (node.role.leader, node.log.last_index) == (None, 0)


def test_snapshot_of_a_leader_of_an_earlier_term_is_not_taken() -> None:
    node = make_node(N1, term=5)

    effects = react(node, Receive(N2, SnapshotChunk(4, SNAPSHOT, 0, b"x", is_last=True)))

    assert not [effect for effect in effects if not isinstance(effect, Send)]
    assert node.log.last_index == 0


def test_stale_leader_steps_down_when_it_is_told() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N1)
    cluster.elect(N2)
    cluster.heal()

    cluster.heartbeat(N1)

    assert (cluster[N1].role.name, cluster[N1].term) == (Role.FOLLOWER, 2)


@pytest.mark.parametrize(
    "message", [VoteReply(4, is_granted=True), AppendReply(4, 3), HeartbeatReply(4, 1), Vote(4, 9, 4)]
)
def test_message_of_an_earlier_term_changes_nothing(message: Message) -> None:
    node = make_node(N1, 1, 2, 5, pre_vote=False)
    react(node, Campaign())
    before = node.status()

    effects = react(node, Receive(N2, message))

    assert effects == []
    assert node.status() == before


# ── 5.2: elections ──────────────────────────────────────────────────────────────────────────────────


def test_followers_stay_followers_as_long_as_they_hear_a_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)

    cluster.advance(30.0)

    assert cluster.roles() == {N1: Role.LEADER, N2: Role.FOLLOWER, N3: Role.FOLLOWER}
    assert cluster[N1].term == 1


def test_follower_that_hears_nothing_campaigns() -> None:
    cluster = Cluster(3)

    cluster.wake(N1)

    assert cluster[N1].role.name is Role.PRE_CANDIDATE


def test_campaign_is_a_new_term_a_vote_for_itself_and_a_request_to_all() -> None:
    node = make_node(N1, 1, 2, pre_vote=False)

    effects = react(node, Campaign())

    assert (node.term, node.vote, node.role.name) == (3, N1, Role.CANDIDATE)
    assert [effect.to for effect in effects if isinstance(effect, Send)] == [N2, N3]
    assert {effect.message for effect in effects if isinstance(effect, Send)} == {Vote(3, 2, 2)}


@pytest.mark.parametrize(
    ("voters", "granted", "refused", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (2, 0, 0, Role.CANDIDATE),
        (2, 1, 0, Role.LEADER),
        (3, 1, 0, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (4, 1, 0, Role.CANDIDATE),
        (4, 2, 0, Role.LEADER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 1, 3, Role.FOLLOWER),
        (5, 2, 2, Role.LEADER),
    ],
)
def test_votes_of_a_majority_make_a_leader(voters: int, granted: int, refused: int, role: Role) -> None:
    cluster = Cluster(voters, pre_vote=False)
    cluster.step(N1, Campaign())
    others = iter(cluster.configuration.voters[1:])

    for is_granted in [True] * granted + [False] * refused:
        if cluster[N1].role.name is Role.CANDIDATE:
            cluster.step(N1, Receive(next(others), VoteReply(1, is_granted)))

    assert cluster[N1].role.name is role


def test_vote_repeated_counts_once() -> None:
    cluster = Cluster(5, pre_vote=False)
    cluster.step(N1, Campaign())

    for _ in range(3):
        cluster.step(N1, Receive(N2, VoteReply(1, is_granted=True)))

    assert cluster[N1].role.name is Role.CANDIDATE


def test_first_answer_of_a_voter_counts() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.step(N1, Campaign())

    for is_granted in (False, True):
        cluster.step(N1, Receive(N2, VoteReply(1, is_granted)))

    assert cluster[N1].role.name is Role.CANDIDATE


def test_vote_of_a_stranger_does_not_count() -> None:
    cluster = Cluster(3, pre_vote=False, outside=[NodeId("n9")])
    cluster.step(N1, Campaign())

    cluster.step(N1, Receive(NodeId("n9"), VoteReply(1, is_granted=True)))

    assert cluster[N1].role.name is Role.CANDIDATE


def test_vote_goes_to_the_first_who_asks_and_to_no_other_in_the_term() -> None:
    node = make_node(N3)

    effects = react(node, *(Receive(sender, Vote(1, 0, 0)) for sender in (N1, N2, N1)))

    replies = [(e.to, e.message) for e in effects if isinstance(e, Send)]
    assert replies == [
        (N1, VoteReply(1, is_granted=True)),
        (N2, VoteReply(1, is_granted=False)),
        (N1, VoteReply(1, is_granted=True)),
    ]


def test_follower_of_a_leader_votes_for_nobody_in_its_term() -> None:
    node = make_node(N3, term=1)
    react(node, Receive(N1, Heartbeat(1, 0, 1)))

    effects = react(node, Receive(N2, Vote(1, 0, 0)))

    assert effects == [Send(N2, VoteReply(1, is_granted=False))]


def test_voter_gives_the_one_it_voted_for_time() -> None:
    """5.2: granting a vote counts as hearing of one who may lead."""
    node = make_node(N3, term=1)
    node.step(Wake(), 0.9)

    node.step(Receive(N1, Vote(1, 0, 0)), 0.9)

    deadline = node.deadline()
    assert deadline is not None
    assert deadline >= 0.9 + CONFIG.election_timeout_s_min


@pytest.mark.parametrize("message", [Append(1, 0, 0, (), 0), Heartbeat(1, 0, 1)])
def test_candidate_follows_the_leader_of_its_term(message: Message) -> None:
    """5.2: if the leader's term is at least as large as the candidate's, it recognises the leader."""
    node = make_node(N1, pre_vote=False)
    react(node, Campaign())

    react(node, Receive(N2, message))

    assert (node.role.name, node.role.leader) == (Role.FOLLOWER, N2)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_split_votes_are_resolved_by_timeouts_drawn_anew(pre_vote: bool) -> None:
    """5.2: three campaign at the same moment, and none wins; soon one does."""
    cluster = Cluster(3, pre_vote=pre_vote)
    for name in (N1, N2, N3):
        cluster.step(name, Campaign())
    cluster.settle()

    cluster.advance(20.0)

    assert sorted(role.value for role in cluster.roles().values()) == ["follower", "follower", "leader"]


@pytest.mark.parametrize("seed", range(20))
def test_even_cluster_elects_one_leader_per_term(seed: int) -> None:
    """The helper asserts it after every step; here with messages out of order."""
    print(f"seed={seed}")
    rng = Random(seed)
    cluster = Cluster(4, pre_vote=rng.random() < 0.5)
    for _ in range(300):
        if cluster.letters and rng.random() < 0.8:
            cluster.deliver(rng.choice(cluster.letters))
        else:
            cluster.wake(rng.choice(list(cluster.servers)))

    cluster.advance(30.0)

    assert list(cluster.roles().values()).count(Role.LEADER) == 1


def test_designated_first_leader_campaigns_at_once_when_nothing_ever_happened() -> None:
    cluster = Cluster(3, first_leader=N2)

    cluster.advance(0.0)

    assert cluster.roles() == {N1: Role.FOLLOWER, N2: Role.LEADER, N3: Role.FOLLOWER}


def test_designated_first_leader_waits_like_all_once_there_was_a_term() -> None:
    cluster = Cluster(3, first_leader=N2)
    cluster.advance(0.0)
    cluster.crash(N2)
    cluster.restart(N2)

    cluster.advance(0.0)

    assert cluster[N2].role.name is Role.FOLLOWER


# ── 5.4.1: who may be elected ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("last_index", "last_term", "is_granted"),
    [(3, 3, True), (4, 3, True), (2, 3, False), (1, 4, True), (9, 2, False)],
)
def test_vote_needs_a_log_at_least_as_up_to_date(last_index: int, last_term: int, is_granted: bool) -> None:
    """5.4.1: the later last term; with equal ones, the longer log."""
    for is_pre_vote in (False, True):
        node = make_node(N1, 1, 2, 3, term=8)
        request = PreVote(9, last_index, last_term) if is_pre_vote else Vote(9, last_index, last_term)

        effects = react(node, Receive(N2, request))

        replies = [e.message for e in effects if isinstance(e, Send)]
        assert [getattr(reply, "is_granted", None) for reply in replies] == [is_granted]


def test_node_that_lacks_what_is_committed_is_not_elected() -> None:
    """5.4.3, leader completeness, in its smallest story."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)
    cluster.propose(N1)
    cluster.settle()
    cluster.heal()
    cluster.isolate(N1)

    cluster.now += 2.0
    cluster.step(N3, Campaign())
    cluster.settle()

    assert cluster[N3].role.name is Role.PRE_CANDIDATE
    assert cluster[N2].role.name is Role.FOLLOWER


# ── 5.6: timing ─────────────────────────────────────────────────────────────────────────────────────


def test_election_timeouts_are_drawn_evenly_within_the_bounds() -> None:
    """One draw per election; the bounds are the configuration's, the draws the given generator's."""
    rng = Random(SEED)
    drawn = []
    for _ in range(500):
        node = RaftNode(N1, CONFIG, MemoryStorage(Configuration((N1, N2, N3))), rng)
        drawn.append(node.deadline() or 0.0)

    assert all(CONFIG.election_timeout_s_min <= timeout <= CONFIG.election_timeout_s_max for timeout in drawn)
    assert min(drawn) < 1.05
    assert max(drawn) > 1.95


def test_same_generator_same_timeouts() -> None:
    deadlines = [make_node(N1).deadline() for _ in range(2)]

    assert deadlines[0] == deadlines[1]


def test_timeout_is_drawn_anew_for_each_campaign() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.isolate(N1)
    waits = []
    for _ in range(5):
        cluster.wake(N1)
        waits.append((cluster[N1].deadline() or 0.0) - cluster.now)

    assert len(set(waits)) == 5


def test_heartbeats_go_out_at_their_interval() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    start, times = cluster.now, []

    for _ in range(5):
        cluster.wake(N1)
        times.append(round(cluster.now - start, 6))
        assert [letter.to for letter in cluster.on_the_way(Heartbeat)] == [N2, N3]
        cluster.settle()

    assert times == [0.1, 0.2, 0.3, 0.4, 0.5]
