"""What is committed, and stays so (paper, 5.4.2, figure 8; 5.4.3)."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import Receive
from raftlog.raft import Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign
from raftlog.raft.messages import Append, AppendReply
from tests.raftlog.raft.builders import N1, N2, N3, N4, N5, entries, storage_with
from tests.raftlog.raft.cluster import Cluster

# ── 5.4.2 and figure 8 ──────────────────────────────────────────────────────────────────────────────


def figure_8() -> Cluster:
    """Step c: s1 leads again, in term 4; its entry 2 of term 2 is on s1, s2 and s3, and not committed."""
    voters = Configuration((N1, N2, N3, N4, N5))
    terms = {N1: (1, 2), N2: (1, 2), N3: (1,), N4: (1,), N5: (1, 3)}
    storages = {name: storage_with(voters, *of, term=max(of), commit=1) for name, of in terms.items()}
    cluster = Cluster(5, storages=storages, pre_vote=False, check_quorum=False)
    for name in (N1, N2, N3, N4):  # they took part in s5's election
        cluster[name].step(Receive(N5, Append(3, 9, 3, (), commit=0)), 0.0)
        cluster.drain(name)
    cluster.letters.clear()
    cluster.crash(N5)
    cluster.step(N1, Campaign())
    cluster.settle(until=lambda: cluster[N1].role.name is Role.LEADER)
    assert cluster[N1].term == 4
    cluster.take()
    return cluster


def test_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Figure 8 (c): entry 2 is on a majority, and must not count."""
    cluster = figure_8()

    for name in (N2, N3):
        cluster.step(N1, Receive(name, AppendReply(4, match=2)))

    assert cluster[N1].log.committed == 1


def test_entry_of_an_earlier_term_may_be_overwritten_although_a_majority_had_it() -> None:
    """Figure 8 (d): s1 crashes; s5 is elected by s2, s3 and s4 and overwrites entry 2."""
    cluster = figure_8()
    cluster.step(N3, Receive(N1, Append(4, 1, 1, entries(2, first=2), commit=1)))
    cluster.take()
    cluster.crash(N1)
    cluster.restart(N5)

    for _ in range(2):
        cluster.step(N5, Campaign())
        cluster.settle()

    assert cluster[N5].role.name is Role.LEADER
    assert [cluster.terms(name)[1] for name in (N2, N3, N4, N5)] == [3, 3, 3, 3]
    assert cluster[N2].log.committed == 3


def test_entry_of_an_earlier_term_is_committed_with_one_of_this_term() -> None:
    """Figure 8 (e): once an entry of term 4 is on a majority, s5 cannot be elected."""
    cluster = figure_8()
    for name in (N2, N3):
        cluster.step(name, Receive(N1, Append(4, 1, 1, cluster.log(N1)[1:], commit=1)))
    cluster.settle()
    committed = cluster[N1].log.committed
    cluster.crash(N1)
    cluster.restart(N5)

    for _ in range(3):
        cluster.step(N5, Campaign())
        cluster.settle()

    assert committed == 3
    assert cluster[N5].role.name is not Role.LEADER
    assert cluster.terms(N2) == [1, 2, 4]


def test_leader_begins_its_term_with_an_entry_of_its_own() -> None:
    """6.4, 8: the no-op, without which what was before would wait for the next proposal."""
    voters = Configuration((N1, N2, N3))
    cluster = Cluster(3, storages={name: storage_with(voters, 1, 1, commit=1) for name in (N1, N2, N3)})

    cluster.elect(N1)

    assert cluster.terms(N1) == [1, 1, 2]
    assert set(cluster.commits().values()) == {3}


# ── 5.4.3: leader completeness ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(30))
def test_what_is_committed_is_in_the_log_of_every_later_leader(seed: int) -> None:
    print(f"seed={seed}")
    rng = Random(seed)
    cluster = Cluster(5, persist_timeout_s=1e9)
    # Index: the entry's term, and the term in which it was committed
    committed: dict[int, tuple[int, int]] = {}

    for _ in range(2_000):
        cluster.happen(rng)
        for name, server in cluster.servers.items():
            node = server.node
            if node.role.name is Role.LEADER and rng.random() < 0.05:
                cluster.propose(name)
            for index in range(len(committed) + 1, node.log.committed + 1):
                committed[index] = (node.log.term(index) or 0, node.term)
            if node.role.name is Role.LEADER:
                for index, (term, by) in committed.items():
                    assert node.term < by or node.log.term(index) == term
    for name in cluster.servers:
        cluster.release_disk(name)
    cluster.advance(60.0)

    assert len({tuple(cluster.log(name)) for name in cluster.servers}) == 1
    assert len(cluster.chosen) >= len(committed) > 0
