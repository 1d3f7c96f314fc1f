"""Linearizable reads without writing (paper, 8; dissertation 6.4): the read-index, and leases."""

from __future__ import annotations

from raftlog.engine import Receive, Wake
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind
from raftlog.raft.events import Read, ReadReady, Refused, Why
from raftlog.raft.messages import Heartbeat, HeartbeatReply, PreVote, ReadReply, ReadRequest
from tests.raftlog.raft.builders import N1, N2, N3, N4, change, make_node, react
from tests.raftlog.raft.cluster import Cluster, led


def test_read_is_answered_after_a_quorum_has_replied_to_a_later_heartbeat() -> None:
    """6.4, steps 2 to 4: the commit index of the read's arrival, once leadership is confirmed."""
    cluster = led()
    request = cluster.read(N1)
    rounds = [letter.to for letter in cluster.on_the_way(Heartbeat)]
    before = cluster.outcome(N1, request)

    cluster.settle()

    assert (rounds, before) == ([N2, N3], None)
    assert cluster.outcome(N1, request) == ReadReady(1)


def test_read_needs_a_quorum_round_begun_after_it_came() -> None:
    """Replies to an earlier round prove nothing about now."""
    cluster = led()
    cluster.wake(N1)
    earlier = cluster.take(Heartbeat)
    request = cluster.read(N1)
    cluster.take(Heartbeat)

    for letter in earlier:
        cluster.deliver(letter)
    cluster.settle()

    assert cluster.outcome(N1, request) is None


def test_reply_of_one_of_five_is_no_quorum() -> None:
    cluster = led(5)
    cluster.isolate(N1, N2)
    request = cluster.read(N1)

    cluster.settle()

    assert cluster.outcome(N1, request) is None


def test_reply_repeated_counts_once() -> None:
    cluster = led(5)
    request = cluster.read(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(HeartbeatReply)))
    reply = cluster.on_the_way(HeartbeatReply)[0]
    cluster.take()

    for _ in range(3):
        cluster.deliver(reply)

    assert cluster.outcome(N1, request) is None


def test_learner_confirms_no_read() -> None:
    cluster = Cluster(3, learners=[N4])
    cluster.elect(N1)
    cluster.isolate(N1, N4)
    request = cluster.read(N1)

    cluster.settle()

    assert cluster.outcome(N1, request) is None


def test_read_in_a_joint_configuration_needs_a_quorum_of_both_halves() -> None:
    cluster = Cluster(3, outside=[N4])
    cluster.elect(N1)
    cluster.hold_applying(N1)  # the leave is not proposed as long as the joint one is not applied
    joint = change((ChangeKind.ADD_VOTER, N4), (ChangeKind.REMOVE, N2))
    cluster.change(N1, joint)
    cluster.settle()
    cluster.isolate(N1, N3, N4)
    cluster.release_applying(N1)
    assert cluster[N1].configuration.is_joint
    cluster.isolate(N1, N4)

    request = cluster.read(N1)
    cluster.settle()
    before = cluster.outcome(N1, request)
    cluster.heal()
    cluster.heartbeat(N1)

    assert before is None
    assert isinstance(cluster.outcome(N1, request), ReadReady)


def test_reads_that_came_together_share_a_round() -> None:
    cluster = led()
    for request in (101, 102, 103):
        cluster[N1].step(Read(request), cluster.now)

    cluster.drain(N1)
    heartbeats = len(cluster.on_the_way(Heartbeat))
    cluster.settle()

    assert heartbeats == 2
    assert [cluster.outcome(N1, request) for request in (101, 102, 103)] == [ReadReady(1)] * 3


def test_new_leader_answers_no_read_before_it_has_committed_in_its_term() -> None:
    """6.4, step 1: it does not know the latest commit index until then. n2 does not know that entry 2 was committed."""
    cluster = led()
    cluster.propose(N1)
    cluster.settle(until=lambda: cluster[N1].log.committed == 2)
    cluster.take()
    known = cluster[N2].log.committed
    cluster.campaign(N2)
    cluster.settle(until=lambda: cluster[N2].role.name is Role.LEADER)
    no_op = cluster.take()

    request = cluster.read(N2)
    early = cluster.outcome(N2, request), cluster.on_the_way(Heartbeat)
    for letter in no_op:
        cluster.deliver(letter)
    cluster.settle()

    assert (known, early) == (1, (None, []))
    assert cluster.outcome(N2, request) == ReadReady(3)


def test_follower_asks_the_leader() -> None:
    """6.4: followers help, at the price of one message to the leader."""
    cluster = led()
    request = cluster.read(N2)
    asked = cluster.on_the_way(ReadRequest, to=N1)

    cluster.settle()

    assert len(asked) == 1
    assert cluster.outcome(N2, request) == ReadReady(1)


def test_follower_that_gets_no_answer_refuses_in_time() -> None:
    cluster = led()
    cluster.isolate(N1)
    request = cluster.read(N2)

    cluster.advance(cluster.config.election_timeout_s_max)

    assert cluster.outcome(N2, request) == Refused(Why.TIMED_OUT, cluster[N2].role.leader)


def test_follower_without_a_leader_refuses_at_once() -> None:
    cluster = Cluster(3)

    request = cluster.read(N2)

    assert cluster.outcome(N2, request) == Refused(Why.NOT_LEADER)


def test_late_answer_from_before_a_restart_is_not_taken_for_a_new_read() -> None:
    """The caller counts its requests from 1 again after a restart; the leader's answer is of an older commit index."""
    cluster = led()
    cluster.step(N2, Read(1))
    cluster.settle(until=lambda: bool(cluster.on_the_way(ReadReply)))
    late = cluster.take(ReadReply)
    cluster.crash(N2)
    cluster.propose(N1)
    cluster.settle()
    cluster.restart(N2)
    cluster.heartbeat(N1)

    cluster.step(N2, Read(1))
    cluster.deliver(late[0])
    before = cluster.outcome(N2, 1)
    cluster.settle()

    assert (before, cluster.outcome(N2, 1)) == (None, ReadReady(2))


def test_repeated_answer_is_given_once() -> None:
    cluster = led()
    request = cluster.read(N2)
    cluster.settle(until=lambda: bool(cluster.on_the_way(ReadReply)))
    answer = cluster.on_the_way(ReadReply)[0]

    cluster.settle()
    cluster.deliver(answer)

    assert cluster.outcomes(N2, request) == [ReadReady(1)]


def test_leader_deposed_in_between_never_answers() -> None:
    """6.4: that is what the round is for. n2 leads and has committed more."""
    cluster = led()
    cluster.isolate(N1)
    request = cluster.read(N1)
    cluster.elect(N2)
    cluster.propose(N2)
    cluster.settle()

    cluster.heal()
    cluster.advance(1.0)

    assert cluster.outcome(N1, request) == Refused(
        Why.NOT_LEADER, cluster[N1].role.leader
    ) or cluster.outcome(N1, request) == Refused(Why.NOT_LEADER)


def test_leader_without_a_quorum_gives_its_reads_up_when_it_steps_down() -> None:
    cluster = led()
    cluster.isolate(N1)
    request = cluster.read(N1)

    cluster.advance(2 * cluster.config.election_timeout_s_min)

    assert cluster.outcome(N1, request) == Refused(Why.NOT_LEADER)


def test_single_node_answers_by_itself() -> None:
    cluster = led(1)

    request = cluster.read(N1)

    assert cluster.outcome(N1, request) == ReadReady(1)


def test_read_that_waits_when_the_only_other_voter_is_removed_is_answered() -> None:
    """Nobody is left to answer a heartbeat."""
    cluster = led(voters=2)
    cluster.hold_applying(N1)
    cluster.change(N1, change((ChangeKind.REMOVE, N2)))
    cluster.settle()
    cluster.isolate(N2)
    request = cluster.read(N1)
    cluster.settle()

    cluster.release_applying(N1)
    before = cluster.outcome(N1, request)
    cluster.wake(N1)

    assert (before, cluster.outcome(N1, request)) == (None, ReadReady(2))


def test_one_read_too_many_is_refused() -> None:
    cluster = led(requests_max=2)
    requests = [cluster.read(N1) for _ in range(3)]
    full = [cluster.outcome(N1, request) for request in requests]

    cluster.settle()

    assert full == [None, None, Refused(Why.OVERLOADED, N1)]
    assert [cluster.outcome(N1, request) for request in requests[:2]] == [ReadReady(1)] * 2


def test_one_read_too_many_of_a_follower_is_refused() -> None:
    cluster = led(requests_max=2)

    requests = [cluster.read(N2) for _ in range(3)]

    assert [cluster.outcome(N2, request) for request in requests] == [None, None, Refused(Why.OVERLOADED, N1)]


def test_heartbeats_that_nobody_answers_are_not_remembered_for_ever() -> None:
    for voters, check_quorum in ((1, True), (3, False)):
        cluster = led(voters, check_quorum=check_quorum)
        cluster.isolate(N1)

        cluster.advance(300.0)

        reads = cluster[N1].role._reads  # type: ignore[union-attr]  # what it holds shows nowhere else
        assert reads.round > 2_900
        assert len(reads._sent_at) <= 1_024


def test_heartbeat_reply_says_nothing_of_the_disk_and_does_not_wait_for_it() -> None:
    node = make_node(N1, 1, 1)
    react(node, Receive(N2, Heartbeat(1, commit=0, round=6)))

    effects = react(node, Receive(N2, Heartbeat(1, commit=0, round=7)))

    assert [(effect.message, effect.after) for effect in effects] == [(HeartbeatReply(1, 7), None)]  # type: ignore[union-attr]


def test_read_does_not_disturb_the_rhythm_of_heartbeats() -> None:
    cluster = led()
    deadline = cluster[N1].deadline()
    cluster.read(N1)

    after = cluster[N1].deadline()

    assert after == deadline


def test_pre_vote_is_not_granted_while_heartbeats_come() -> None:
    """Stickiness is what read leases rest on (6.4.1), and what keeps a disruptive server out (4.2.3)."""
    cluster = led()
    cluster.heartbeat(N1)

    cluster.step(N2, Receive(N3, PreVote(term=2, last_index=9, last_term=9)))

    assert cluster.letters == []


def test_reads_that_wait_are_not_answered_by_the_passing_of_time() -> None:
    cluster = led(check_quorum=False)
    cluster.isolate(N1)
    request = cluster.read(N1)

    for _ in range(100):
        cluster.now += 0.1
        cluster.step(N1, Wake())

    assert cluster.outcome(N1, request) is None
