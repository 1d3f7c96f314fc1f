"""Changes of membership (paper, 6; dissertation 4): simple, joint, one at a time, learners."""

from __future__ import annotations

import pytest

from raftlog.engine import NodeId, Receive
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind, Configuration, Transition
from raftlog.raft.events import Campaign, Committed, Promote, Refused, TransferLeadership, Why
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import HigherTerm, Vote
from tests.raftlog.raft.builders import N1, N2, N3, N4, N5, change, payloads
from tests.raftlog.raft.cluster import Cluster, led

ADD, LEARN, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE


def configurations(cluster: Cluster, *names: NodeId) -> set[str]:
    return {str(cluster[name].configuration) for name in names or cluster.servers}


# ── simple and joint changes ────────────────────────────────────────────────────────────────────────


def test_added_voter_gets_the_log_and_counts() -> None:
    cluster = led(outside=(N4,))
    cluster.propose(N1)
    cluster.settle()

    request = cluster.change(N1, change((ADD, N4)))
    cluster.settle()

    assert cluster.outcome(N1, request) == Committed(3, 3, term=1)
    assert configurations(cluster) == {"voters=(n1 n2 n3 n4)"}
    assert cluster.log(N4) == cluster.log(N1)


def test_change_takes_effect_when_it_is_applied() -> None:
    """Not when it is appended (as in the dissertation): etcd's rule, with which commit and configuration go together."""
    cluster = led(outside=(N4,))
    cluster.hold_applying(N1)
    cluster.change(N1, change((ADD, N4)))
    cluster.settle()
    before = str(cluster[N1].configuration)

    cluster.release_applying(N1)

    assert (cluster[N1].log.committed, before) == (2, "voters=(n1 n2 n3)")
    assert configurations(cluster, N1) == {"voters=(n1 n2 n3 n4)"}


def test_second_change_is_refused_until_the_first_is_applied() -> None:
    """4.1: one at a time. Also right after it, in the same moment."""
    cluster = led(outside=(N4, N5))
    cluster.hold_applying(N1)
    cluster.change(N1, change((ADD, N4)))
    early = cluster.change(N1, change((ADD, N5)))
    cluster.settle()
    committed = cluster.change(N1, change((ADD, N5)))
    cluster.release_applying(N1)

    late = cluster.change(N1, change((ADD, N5)))
    cluster.settle()

    whys = [getattr(cluster.outcome(N1, request), "why", None) for request in (early, committed)]
    assert whys == [Why.CHANGE_PENDING, Why.CHANGE_PENDING]
    assert cluster.outcome(N1, late) == Committed(3, 3, term=1)
    assert configurations(cluster) == {"voters=(n1 n2 n3 n4 n5)"}


def test_new_leader_takes_no_change_before_what_it_inherited_is_applied() -> None:
    """There may be a change among the entries of earlier terms that it does not know to be committed."""
    cluster = led(outside=(N4,))
    cluster.propose(N1)
    cluster.settle(until=lambda: cluster[N2].log.last_index == 2)
    cluster.take()
    cluster.campaign(N2)
    cluster.settle(until=lambda: cluster[N2].role.name is Role.LEADER)

    early = cluster.change(N2, change((ADD, N4)))
    cluster.settle()
    late = cluster.change(N2, change((ADD, N4)))
    cluster.settle()

    assert getattr(cluster.outcome(N2, early), "why", None) is Why.CHANGE_PENDING
    assert isinstance(cluster.outcome(N2, late), Committed)


def test_several_changes_go_through_a_joint_configuration_that_the_leader_leaves() -> None:
    """4.3."""
    cluster = led(outside=(N4, N5))

    cluster.change(N1, change((ADD, N4), (ADD, N5), (REMOVE, N2), (REMOVE, N3)))
    cluster.settle()

    assert configurations(cluster, N1, N4, N5) == {"voters=(n1 n4 n5)"}
    assert [note["configuration"] for note in cluster.notes(N1, "configuration_changed")] == [
        "voters=(n1 n4 n5)&&(n1 n2 n3) autoleave",
        "voters=(n1 n4 n5)",
    ]


def joint() -> Cluster:
    """n1 leads (n1 n4 n5)&&(n1 n2 n3), which is left when someone asks for it."""
    cluster = led(outside=(N4, N5))
    cluster.change(
        N1, change((ADD, N4), (ADD, N5), (REMOVE, N2), (REMOVE, N3), transition=Transition.EXPLICIT)
    )
    cluster.settle()
    assert configurations(cluster) == {"voters=(n1 n4 n5)&&(n1 n2 n3)"}
    return cluster


@pytest.mark.parametrize(
    ("reachable", "is_committed"),
    [((N2, N3), False), ((N4, N5), False), ((N2, N4), True), ((N3, N5), True), ((N2,), False)],
)
def test_joint_commit_needs_a_majority_of_both_halves(
    reachable: tuple[NodeId, ...], is_committed: bool
) -> None:
    cluster = joint()
    cluster.isolate(N1, *reachable)

    request = cluster.propose(N1)
    cluster.settle()

    assert (cluster.outcome(N1, request) is not None) is is_committed


@pytest.mark.parametrize(
    ("reachable", "is_elected"),
    [((N4, N5), False), ((N2, N3), False), ((N2, N4), True), ((N3, N5, N4), True)],
)
def test_joint_election_needs_a_majority_of_both_halves(
    reachable: tuple[NodeId, ...], is_elected: bool
) -> None:
    cluster = joint()
    cluster.isolate(N1, *reachable)

    cluster.now += 4.0
    cluster.step(N1, TransferLeadership(N1))
    cluster.step(N1, Receive(N2, HigherTerm(5)))
    cluster.campaign(N1)
    cluster.settle()

    assert (cluster[N1].role.name is Role.LEADER) is is_elected


def test_joint_configuration_is_left_explicitly() -> None:
    cluster = joint()

    request = cluster.change(N1, change())
    cluster.settle()

    assert isinstance(cluster.outcome(N1, request), Committed)
    assert configurations(cluster, N1, N4, N5) == {"voters=(n1 n4 n5)"}


def test_joint_configuration_whose_leader_is_lost_is_left_by_the_next() -> None:
    cluster = led(outside=(N4,))
    cluster.hold_applying(N1)
    cluster.change(N1, change((ADD, N4), (REMOVE, N3)))
    cluster.settle()
    cluster.crash(N1)
    assert configurations(cluster, N2) == {"voters=(n1 n2 n4)&&(n1 n2 n3) autoleave"}

    cluster.elect(N2)

    assert configurations(cluster, N2, N4) == {"voters=(n1 n2 n4)"}


def test_joint_configuration_is_left_also_after_a_transfer_that_was_given_up() -> None:
    """The change came into force while leadership was being handed over, when nothing may be proposed."""
    cluster = led(outside=(N4,))
    cluster.hold_applying(N1)
    cluster.change(N1, change((ADD, N4), (REMOVE, N3)))
    cluster.settle()
    cluster.cut |= {(N1, N2)}
    cluster.step(N1, TransferLeadership(N2))
    cluster.release_applying(N1)
    cluster.settle()
    cluster.heal()

    cluster.advance(3.0)

    assert cluster[N1].role.name is Role.LEADER
    assert configurations(cluster, N1) == {"voters=(n1 n2 n4)"}


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        (((REMOVE, N1), (REMOVE, N2), (REMOVE, N3)), "removed all voters"),
        ((), "can't leave a non-joint config"),
    ],
)
def test_impossible_change_is_refused(changes: tuple[tuple[ChangeKind, NodeId], ...], detail: str) -> None:
    cluster = led()

    request = cluster.change(N1, change(*changes))

    assert cluster.outcome(N1, request) == Refused(Why.INVALID_CHANGE, N1, detail)
    assert cluster[N1].log.last_index == 1


def test_impossible_change_in_the_log_is_ignored_by_all_alike() -> None:
    cluster = Cluster(3, validate_changes=False)
    cluster.elect(N1)

    cluster.change(N1, change())
    cluster.settle()
    request = cluster.propose(N1)
    cluster.settle()

    assert configurations(cluster) == {"voters=(n1 n2 n3)"}
    assert [len(cluster.notes(name, "ignored_change")) for name in (N1, N2, N3)] == [1, 1, 1]
    assert cluster.outcome(N1, request) == Committed(3, 3, term=1)


# ── learners ────────────────────────────────────────────────────────────────────────────────────────


def test_learner_gets_the_log_and_does_not_count() -> None:
    """4.2.1: it is brought up first, so that it does not hold up commitment as a voter."""
    cluster = led(outside=(N4,))
    cluster.change(N1, change((LEARN, N4)))
    cluster.settle()
    cluster.isolate(N1, N4)

    request = cluster.propose(N1, b"x")
    cluster.settle()

    assert payloads(cluster.log(N4)) == [b"x"]
    assert cluster.outcome(N1, request) is None


def test_learner_does_not_campaign() -> None:
    cluster = Cluster(3, learners=[N4])
    cluster.elect(N1)
    cluster.isolate(N4)

    cluster.advance(30.0)
    cluster.step(N4, Campaign())

    assert cluster[N4].role.name is Role.FOLLOWER


def test_learner_that_does_not_know_yet_that_it_votes_gives_its_vote() -> None:
    """It may be needed: the candidate's log holds the change that made it a voter."""
    cluster = Cluster(3, learners=[N4])

    cluster.step(N4, Receive(N1, Vote(1, 0, 0)))

    assert cluster[N4].vote == N1


def test_learner_that_has_caught_up_is_promoted() -> None:
    cluster = led(outside=(N4,))
    cluster.change(N1, change((LEARN, N4)))
    cluster.settle()

    cluster.step(N1, Promote(900, N4))
    cluster.settle()

    assert cluster.outcome(N1, 900) == Committed(3, 3, term=1)
    assert configurations(cluster) == {"voters=(n1 n2 n3 n4)"}


@pytest.mark.parametrize(("lag", "is_promoted"), [(0, True), (3, True), (4, False)])
def test_learner_that_is_too_far_behind_is_not_promoted(lag: int, is_promoted: bool) -> None:
    cluster = Cluster(3, learners=[N4], promotion_lag_max=3)
    cluster.elect(N1)
    cluster.isolate(N4)
    for _ in range(lag):
        cluster.propose(N1)
        cluster.settle()

    cluster.step(N1, Promote(900, N4))
    cluster.settle()

    assert isinstance(cluster.outcome(N1, 900), Committed) is is_promoted
    if not is_promoted:
        assert getattr(cluster.outcome(N1, 900), "why", None) is Why.NOT_CAUGHT_UP


def test_learner_that_was_not_heard_of_lately_is_not_promoted() -> None:
    cluster = Cluster(3, learners=[N4])
    cluster.elect(N1)
    cluster.isolate(N4)
    cluster.advance(3.0)

    cluster.step(N1, Promote(900, N4))

    assert getattr(cluster.outcome(N1, 900), "why", None) is Why.NOT_CAUGHT_UP


def test_learner_that_was_never_heard_of_is_not_promoted() -> None:
    """It was added a moment ago and has answered nothing yet: a short log does not make it caught up."""
    cluster = led(outside=(N4,))
    cluster.crash(N4)
    cluster.change(N1, change((LEARN, N4)))
    cluster.settle()

    cluster.step(N1, Promote(900, N4))

    assert getattr(cluster.outcome(N1, 900), "why", None) is Why.NOT_CAUGHT_UP


@pytest.mark.parametrize("who", [N2, N5])
def test_who_is_no_learner_is_not_promoted(who: NodeId) -> None:
    cluster = led()

    cluster.step(N1, Promote(900, who))

    assert cluster.outcome(N1, 900) == Refused(Why.INVALID_CHANGE, N1, f"{who} is not a learner")


def test_voter_is_demoted_and_leads_no_more() -> None:
    cluster = led()

    cluster.change(N1, change((LEARN, N1)))
    cluster.settle()

    assert configurations(cluster) == {"voters=(n2 n3) learners=(n1)"}
    assert cluster[N1].role.name is Role.FOLLOWER


def test_newcomer_that_does_not_know_the_first_configuration_does_not_lead_alone() -> None:
    """Applied to no configuration at all, "add n4" would make n4 the only voter: a second cluster, of one node."""
    cluster = Cluster(3, outside=[N4], storages={N4: MemoryStorage(Configuration())})
    cluster.elect(N1)
    cluster.change(N1, change((ADD, N4)))
    cluster.settle()

    cluster.isolate(N4)
    cluster.advance(10.0)

    assert cluster[N4].role.name is not Role.LEADER
