"""Leadership is handed over (dissertation 3.10)."""

from __future__ import annotations

from raftlog.engine import Receive
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind
from raftlog.raft.events import Committed, Propose, Refused, TransferLeadership, Unreachable, Why
from raftlog.raft.messages import Append, TimeoutNow, TransferRequest, Vote
from tests.raftlog.raft.builders import N1, N2, N3, N4, change
from tests.raftlog.raft.cluster import Cluster, led


def test_caught_up_target_is_told_to_campaign_at_once_and_leads() -> None:
    cluster = led()

    cluster.step(N1, TransferLeadership(N2))
    sent = [letter.message for letter in cluster.letters]
    cluster.settle()

    assert sent == [TimeoutNow(1)]
    assert cluster.roles() == {N1: Role.FOLLOWER, N2: Role.LEADER, N3: Role.FOLLOWER}


def test_campaign_of_a_transfer_needs_no_pre_vote_and_ends_the_lease() -> None:
    """4.2.3: the others have heard of the leader lately, and vote all the same."""
    cluster = led()
    cluster.step(N1, TransferLeadership(N2))
    cluster.deliver(cluster.letters[0])

    votes = cluster.on_the_way(Vote)

    assert [(letter.to, letter.message) for letter in votes] == [
        (N1, Vote(2, 1, 1, is_transfer=True)),
        (N3, Vote(2, 1, 1, is_transfer=True)),
    ]


def test_target_that_is_behind_gets_the_entries_first() -> None:
    cluster = led()
    cluster.isolate(N2)
    cluster.propose(N1)
    cluster.settle()
    cluster.heal()

    cluster.step(N1, TransferLeadership(N2))
    told_early = cluster.on_the_way(TimeoutNow)
    cluster.heartbeat(N1)

    assert told_early == []
    assert cluster[N2].role.name is Role.LEADER
    assert cluster[N2].log.committed == 3


def test_proposal_made_just_before_the_transfer_is_handed_over_with_it() -> None:
    """The target is told when it has every entry, also one that was proposed since the last append."""
    cluster = led()
    cluster[N1].step(Propose(901, [b"x"]), cluster.now)
    cluster.step(N1, TransferLeadership(N2))

    cluster.settle()

    assert cluster[N2].role.name is Role.LEADER
    assert cluster.outcome(N1, 901) == Committed(2, 2, term=1)


def test_nothing_is_proposed_during_a_transfer() -> None:
    cluster = led()
    cluster.isolate(N2)
    cluster.step(N1, TransferLeadership(N2))

    requests = [cluster.propose(N1), cluster.change(N1, change((ChangeKind.REMOVE, N3)))]

    assert [cluster.outcome(N1, request) for request in requests] == [Refused(Why.TRANSFERRING, N1)] * 2
    assert cluster[N1].log.last_index == 1


def test_leader_goes_on_when_the_target_does_not_take_over() -> None:
    """3.10: if it does not complete after about an election timeout, the prior leader aborts it."""
    cluster = led()
    cluster.isolate(N2)
    cluster.step(N1, TransferLeadership(N2))
    cluster.settle()

    cluster.advance(cluster.config.election_timeout_s_min)
    request = cluster.propose(N1)
    cluster.settle()

    assert cluster.outcome(N1, request) == Committed(2, 2, term=1)


def test_later_transfer_takes_the_place_of_an_earlier_one() -> None:
    cluster = led()
    cluster.isolate(N2)
    cluster.step(N1, TransferLeadership(N2))

    cluster.step(N1, TransferLeadership(N3))
    cluster.settle()

    assert cluster[N3].role.name is Role.LEADER


def test_transfer_to_itself_ends_one_that_is_under_way() -> None:
    cluster = led()
    cluster.isolate(N2)
    cluster.step(N1, TransferLeadership(N2))

    cluster.step(N1, TransferLeadership(N1))

    assert cluster.outcome(N1, cluster.propose(N1)) is None


def test_learners_and_strangers_are_no_targets() -> None:
    cluster = Cluster(3, learners=[N4])
    cluster.elect(N1)

    for target in (N4, "n9"):
        cluster.step(N1, TransferLeadership(target))  # type: ignore[arg-type]

    assert cluster.letters == []
    assert cluster.outcome(N1, cluster.propose(N1)) is None


def test_follower_passes_the_wish_on() -> None:
    cluster = led()

    cluster.step(N3, TransferLeadership(N2))
    passed_on = [(letter.to, letter.message) for letter in cluster.letters]
    cluster.settle()

    assert passed_on == [(N1, TransferRequest(1, N2))]
    assert cluster[N2].role.name is Role.LEADER


def test_target_that_is_removed_meanwhile_ends_the_transfer() -> None:
    cluster = led()
    cluster.isolate(N2)
    cluster.hold_applying(N1)
    cluster.change(N1, change((ChangeKind.REMOVE, N2)))
    cluster.settle()
    cluster.step(N1, TransferLeadership(N2))

    cluster.release_applying(N1)
    cluster.settle()

    assert cluster.outcome(N1, cluster.propose(N1)) is None


def test_order_to_campaign_from_an_earlier_term_is_not_obeyed() -> None:
    cluster = led()
    cluster.step(N1, TransferLeadership(N2))
    late = cluster.take(TimeoutNow)
    cluster.elect(N3)

    cluster.deliver(late[0])

    assert cluster[N2].role.name is Role.FOLLOWER
    assert cluster[N2].term == 2


def test_removed_node_does_not_obey_an_order_to_campaign() -> None:
    cluster = led()
    cluster.change(N1, change((ChangeKind.REMOVE, N3)))
    cluster.settle()
    cluster.heartbeat(N1)

    cluster.step(N3, Receive(N1, TimeoutNow(1)))

    assert cluster[N3].configuration.voters == (N1, N2)
    assert cluster[N3].role.name is Role.FOLLOWER


def test_target_in_probe_is_brought_up_by_the_next_heartbeat() -> None:
    cluster = led()
    cluster.propose(N1)
    lost = cluster.take(Append, to=N2)
    cluster.step(N1, Unreachable(N2))
    cluster.settle()

    cluster.step(N1, TransferLeadership(N2))
    cluster.heartbeat(N1)

    assert len(lost) == 1
    assert cluster[N2].role.name is Role.LEADER
