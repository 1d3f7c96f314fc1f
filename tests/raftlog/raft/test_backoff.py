"""Where two logs match is found in few steps: both sides' hints skip whole terms (paper, 5.3, end)."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

import pytest

from raftlog.engine import Receive
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import AppendRejected, VoteReply
from tests.raftlog.raft.builders import N1, N2, N3, entries, storage_with
from tests.raftlog.raft.cluster import Cluster, Letter

VOTERS = Configuration((N1, N2, N3))
SEEDS = 300


def brought_up(leader: list[int], follower: list[int]) -> tuple[Cluster, int]:
    """n1, with these terms, is elected by n3, and brings n2 to its log. Returns how many appends n2 rejected."""
    term = max([*leader, *follower, 0])
    cluster = Cluster(
        3,
        storages={
            N1: storage_with(VOTERS, *leader, term=term),
            N2: storage_with(VOTERS, *follower, term=term),
        },
        pre_vote=False,
    )
    cluster.crash(N3)
    cluster.step(N1, Campaign())
    cluster.take()
    cluster.step(N1, Receive(N3, VoteReply(term + 1, is_granted=True)))
    rejections = 0
    while cluster.letters:
        rejections += isinstance(cluster.letters[0].message, AppendRejected)
        assert rejections <= len(leader) + len(follower) + 2, "they do not find out"
        cluster.deliver(cluster.letters[0])
    return cluster, rejections


def diverged(rng: Random) -> tuple[list[int], list[int]]:
    """Two logs as Raft can make them: the same up to some entry; after it, no term is in both."""
    terms = sorted(rng.choices(range(1, 9), k=rng.randint(0, 12)))
    last = terms[-1] if terms else 0
    later = list(range(last + 1, last + 9))
    rng.shuffle(later)
    logs = []
    for own in (later[:4], later[4:]):
        logs.append(terms + sorted(rng.choices(own, k=rng.randint(0, 12))))
    return logs[0], logs[1]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rejections_are_bounded_by_the_terms_in_which_the_logs_differ(seed: int) -> None:
    """A dumb count of them; one more for a follower that is only shorter."""
    print(f"seed={seed}")
    leader, follower = diverged(Random(seed))
    same = next((i for i, pair in enumerate(zip(leader, follower, strict=False)) if pair[0] != pair[1]), None)
    start = same if same is not None else min(len(leader), len(follower))
    differing = min(len(set(leader[start:])), len(set(follower[start:])))

    cluster, rejections = brought_up(leader, follower)

    assert cluster.log(N2) == cluster.log(N1)
    assert rejections <= differing + 1


@pytest.mark.parametrize("length", [10, 100, 1_000])
def test_follower_that_lacks_many_entries_rejects_once(length: int) -> None:
    cluster, rejections = brought_up([1] * length, [1])

    assert cluster.log(N2) == cluster.log(N1)
    assert rejections == 1


@pytest.mark.parametrize("length", [10, 100, 1_000])
def test_long_tail_of_one_term_is_skipped_at_once(length: int) -> None:
    """Neither does the follower's own tail of a term that the leader never saw take one probe per entry."""
    cluster, rejections = brought_up([1] + [3] * length, [1] + [2] * length)

    assert cluster.log(N2) == cluster.log(N1)
    assert rejections <= 2


def test_empty_follower_rejects_once() -> None:
    cluster, rejections = brought_up([1, 2, 3, 4, 5], [])

    assert cluster.log(N2) == cluster.log(N1)
    assert rejections == 1


@pytest.mark.parametrize("seed", range(100))
def test_hint_is_the_highest_index_that_can_match(seed: int) -> None:
    """`match_below` against reading the log from its end."""
    print(f"seed={seed}")
    rng = Random(seed)
    terms = sorted(rng.choices(range(1, 7), k=rng.randint(0, 10)))
    cluster = Cluster(3, storages={N1: storage_with(VOTERS, *terms)})
    index, term = rng.randint(0, 14), rng.randint(0, 8)

    found = cluster[N1].log.match_below(index, term)

    known = dict(enumerate([0, *terms]))
    expected = max(i for i in known if i <= index and known[i] <= term)
    assert found == (expected, known[expected])


def test_hint_of_a_log_that_does_not_reach_so_low_says_that_the_term_is_unknown() -> None:
    storage = MemoryStorage(VOTERS, index=5, term=3)
    cluster = Cluster(3, storages={N1: storage})

    found = [cluster[N1].log.match_below(index, term) for index, term in ((9, 2), (3, 3), (5, 3), (9, 4))]

    assert found == [(4, 0), (3, 0), (5, 3), (5, 3)]


def test_follower_whose_log_is_longer_and_agrees_rejects_nothing() -> None:
    leader = [1, 1, 2]

    cluster, rejections = brought_up(leader, [*leader, 2, 2])

    assert rejections == 0
    assert cluster.log(N2) == cluster.log(N1)
    assert cluster.log(N1)[:3] == entries(*leader)


@pytest.mark.parametrize("seed", range(3))
def test_reordered_appends_are_not_all_sent_again_for_each_rejection(seed: int) -> None:
    """60 appends of one entry each, and replies, that overtake each other freely. Else it takes above 8,000 messages."""
    print(f"seed={seed}")
    rng = Random(seed)
    cluster = Cluster(3, append_bytes_max=1, storages={N1: storage_with(VOTERS, *[1] * 60)})
    cluster.step(N1, Campaign())

    under_way: list[tuple[float, int, Letter]] = []
    now, sent, delivered = 0.0, 0, 0
    while cluster.letters or under_way:
        for letter in cluster.letters:
            sent += 1
            heappush(under_way, (now + 0.3 + rng.expovariate(1.0), sent, letter))
        cluster.letters.clear()
        now, _, letter = heappop(under_way)
        cluster.deliver(letter)
        delivered += 1

    assert cluster.log(N2) == cluster.log(N3) == cluster.log(N1)
    assert delivered < 7_000
