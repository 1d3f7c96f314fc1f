"""What must be on the disk before it is said (paper, figure 2 "persistent state"; dissertation 3.8)."""

from __future__ import annotations

from raftlog.raft import Role
from raftlog.raft.messages import Append, VoteReply
from tests.raftlog.raft.cluster import N1, N2, N3, Cluster


def test_candidate_does_not_lead_before_its_own_vote_is_durable() -> None:
    """3.8. Otherwise it could forget that it led, be elected in the same term again, and number other entries alike:

    1. n1 is elected by n2 and n3 in term 1 while its own disk is slow, and n2 gets its entries (1, no-op), (2, "a").
    2. n1 crashes and remembers nothing of it. n3 votes for it once more in term 1: it has voted for n1 before.
    3. n1 appends (1, no-op), (2, "b") and asks n2, which has entries of the same indexes and terms, and keeps "a".
    """
    cluster = Cluster(3, pre_vote=False)
    cluster.hold_disk(N1)
    cluster.campaign(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(Append)))
    if cluster[N1].role.name is Role.LEADER:
        cluster.propose(N1, b"a")
        cluster.take(to=N3)
        cluster.settle()
    cluster.crash(N1)
    cluster.letters.clear()

    cluster.restart(N1)
    cluster.campaign(N1)
    cluster.settle()
    if cluster[N1].role.name is not Role.LEADER:
        cluster.elect(N1)
    cluster.propose(N1, b"b")
    cluster.settle()

    assert cluster.log(N2) == cluster.log(N1)


def test_votes_of_a_majority_wait_for_the_candidates_own_disk() -> None:
    """3.8, the rule itself."""
    cluster = Cluster(3, pre_vote=False)
    cluster.hold_disk(N1)
    cluster.campaign(N1)

    cluster.settle()
    before = cluster[N1].role.name
    cluster.release_disk(N1)

    assert (before, cluster[N1].role.name) == (Role.CANDIDATE, Role.LEADER)
    assert not cluster.on_the_way(VoteReply)
