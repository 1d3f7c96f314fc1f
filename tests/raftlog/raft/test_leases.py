"""Reads by lease (dissertation 6.4.1): within it at once, after it by a round, and never while another may be elected."""

from __future__ import annotations

from raftlog.engine import Persist, Receive, Send
from raftlog.raft import Role
from raftlog.raft.events import Campaign, ReadReady, TransferLeadership
from raftlog.raft.messages import Heartbeat, HeartbeatReply, PreVote, PreVoteReply, TimeoutNow, Vote
from tests.raftlog.raft.builders import N1, N2, N3, make_node, react
from tests.raftlog.raft.cluster import Cluster


def led() -> Cluster:
    """n1 leads and has just renewed its lease. It lasts for 1 s less what the clocks may differ by, that is 0.9 s."""
    cluster = Cluster(3, lease_reads=True)
    cluster.elect(N1)
    cluster.heartbeat(N1)
    return cluster


def test_read_within_the_lease_is_answered_at_once() -> None:
    cluster = led()
    cluster.now += 0.89

    request = cluster.read(N1)

    assert cluster.outcome(N1, request) == ReadReady(1)
    assert cluster.letters == []


def test_read_after_the_lease_waits_for_a_round() -> None:
    cluster = led()
    cluster.now += 0.9

    request = cluster.read(N1)
    before = cluster.outcome(N1, request)
    cluster.settle()

    assert (before, cluster.outcome(N1, request)) == (None, ReadReady(1))


def test_lease_begins_when_the_heartbeat_was_sent_not_when_it_was_answered() -> None:
    cluster = led()
    cluster.wake(N1)
    cluster.now += 0.89
    cluster.settle()
    within = cluster.read(N1)
    cluster.now += 0.02

    after = cluster.read(N1)

    assert cluster.outcome(N1, within) == ReadReady(1)
    assert cluster.outcome(N1, after) is None


def test_without_leases_a_read_waits_for_a_round_however_lately_one_was() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.heartbeat(N1)

    request = cluster.read(N1)

    assert cluster.outcome(N1, request) is None


def test_new_leader_has_no_lease_before_its_first_round() -> None:
    cluster = led()
    cluster.elect(N2)

    request = cluster.read(N2)

    assert cluster.outcome(N2, request) is None


def test_lease_is_not_used_while_leadership_is_handed_over() -> None:
    """6.4.1: the target campaigns without waiting for the lease to end."""
    cluster = led()
    cluster.step(N1, TransferLeadership(N2))

    request = cluster.read(N1)

    assert cluster.outcome(N1, request) is None


def test_lease_is_not_used_after_a_transfer_that_was_given_up() -> None:
    """n2 is told to campaign when n1 has given the transfer up long ago. n3 votes for n2, lease or not."""
    cluster = led()
    cluster.step(N1, TransferLeadership(N2))
    late = cluster.take(TimeoutNow)
    for _ in range(15):
        cluster.heartbeat(N1)
    assert cluster.outcome(N1, cluster.propose(N1)) is None  # not refused: the transfer is over
    cluster.settle()
    cluster.heartbeat(N1)

    cluster.isolate(N1)
    cluster.deliver(late[0])
    cluster.settle()
    request = cluster.read(N1)

    assert cluster[N2].role.name is Role.LEADER
    assert cluster.outcome(N1, request) is None


def test_restarted_follower_keeps_the_promise_it_gave() -> None:
    cluster = led()
    cluster.crash(N2)
    cluster.restart(N2)

    cluster.step(N2, Receive(N3, Vote(term=2, last_index=9, last_term=9)))
    early = (list(cluster.letters), cluster[N2].term)
    cluster.now += cluster.config.election_timeout_s_min
    cluster.step(N2, Receive(N3, Vote(term=2, last_index=9, last_term=9)))

    assert early == ([], 1)
    assert cluster[N2].vote == N3


def test_restarted_follower_without_leases_votes_at_once() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.crash(N2)
    cluster.restart(N2)

    cluster.step(N2, Receive(N3, Vote(term=2, last_index=9, last_term=9)))

    assert cluster[N2].vote == N3


def test_follower_of_the_first_leader_ever_keeps_its_promise_over_a_restart() -> None:
    """Its reply to the heartbeat lets the leader read, so the node must know after a crash that it may have replied."""
    node = make_node(N2, lease_reads=True)

    effects = react(node, Receive(N1, Heartbeat(1, commit=0, round=1)))

    persists = [effect for effect in effects if isinstance(effect, Persist)]
    replies = [effect for effect in effects if isinstance(effect, Send)]
    assert [reply.message for reply in replies] == [HeartbeatReply(1, 1)]
    assert [reply.after for reply in replies] == [persist.token for persist in persists]


def test_follower_keeps_its_promise_although_it_learns_of_a_later_term() -> None:
    """The promise is about time, not about the term:

    1. n2 and n3 have not heard of n1 for long. n2 grants n3 its pre-vote; n3 asks for votes in term 2, which is delayed.
    2. n2 itself asks n3 for a pre-vote in term 2.
    3. n1's heartbeat reaches n2, and n2 replies: n1 may read for 0.9 s.
    4. n3 refuses the pre-vote, and says that its term is 2. Now its request for a vote arrives at n2.
    """
    cluster = led()
    cluster.isolate(N1)
    cluster.now += 2.0
    cluster.step(N3, Campaign())
    asked = cluster.take(PreVote, to=N2)
    cluster.step(N2, Campaign())
    asks = cluster.take(PreVote, to=N3)
    cluster.deliver(asked[0])
    granted = cluster.take(PreVoteReply, to=N3)
    cluster.deliver(granted[0])
    votes = cluster.take(Vote, to=N2)
    cluster.deliver(asks[0])
    refused = cluster.take(PreVoteReply, to=N2)
    cluster.letters.clear()
    cluster.heal()
    cluster.step(N2, Receive(N1, Heartbeat(1, commit=1, round=99)))
    cluster.take()

    cluster.deliver(refused[0])
    cluster.deliver(votes[0])

    assert (len(granted), len(votes)) == (1, 1)
    assert cluster[N2].vote != N3


def test_follower_within_the_lease_does_not_campaign_when_it_is_asked_to() -> None:
    """n3 heard of nobody for long and would vote for n2, while n1 may still read."""
    cluster = led()
    cluster.isolate(N3)
    cluster.now += 1.5
    cluster.heartbeat(N1)
    cluster.isolate(N1)
    cluster.cut -= {(N2, N3), (N3, N2)}

    cluster.step(N2, Campaign())
    cluster.settle()
    request = cluster.read(N1)

    assert not (cluster[N2].role.name is Role.LEADER and cluster.outcome(N1, request) is not None)
