"""A node on a disk does what a node in memory does, through any crash."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import NodeId
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind
from tests.raftlog.raft.builders import change
from tests.raftlog.storage.builders import N1, N2, N3, N4, SMALL, all_entries, founded
from tests.raftlog.storage.disk_cluster import PATH, DiskCluster

SEED = 20_140_814
STEPS = 1_500


def leaders_of(cluster: DiskCluster) -> list[NodeId]:
    return [name for name, role in cluster.roles().items() if role is Role.LEADER]


def led_by(cluster: DiskCluster) -> NodeId:
    """Let time pass until one leads and has committed what is in its log; returns it."""
    for _ in range(100):
        cluster.advance(cluster.config.election_timeout_s_min)
        leaders = leaders_of(cluster)
        if len(leaders) == 1 and cluster[leaders[0]].log.applied == cluster[leaders[0]].log.last_index:
            return leaders[0]
    raise AssertionError(f"nobody leads: {cluster.roles()}")


def happen(cluster: DiskCluster, rng: Random) -> None:
    """What happens to any cluster, and what its users and its housekeeping do."""
    what = rng.random()
    name = rng.choice(list(cluster.servers))
    if what < 0.06:
        for leader in leaders_of(cluster):
            cluster.propose(leader, b"x" * rng.choice((0, 10, 300)))
    elif what < 0.08:
        kind = rng.choice(
            (ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER, ChangeKind.REMOVE, ChangeKind.UPDATE)
        )
        for leader in leaders_of(cluster):
            cluster.change(leader, change((kind, rng.choice((N3, N4)))))
    elif what < 0.10:
        cluster.save(name, keep=rng.choice((0, 0, 5)))
    elif what < 0.11:
        cluster.crash(name)
        cluster.restart(name)
    else:
        cluster.happen(rng)


@pytest.mark.parametrize("number", range(6))
def test_node_on_a_disk_goes_on_after_any_crash_as_one_in_memory_would(number: int) -> None:
    seed = f"{SEED} {number}"
    print(f"seed {seed}")
    rng = Random(seed)
    cluster = DiskCluster(rng, outside=[N4], snapshot_chunk_bytes=150)

    for _ in range(STEPS):
        happen(cluster, rng)
    for name in cluster.servers:
        cluster.release_disk(name)
        cluster.mirror(name).require_equal()

    assert max(cluster.commits().values()) > 30, "nothing much happened"
    assert len(cluster.leaders) > 1


def test_what_is_written_in_groups_is_what_is_written_one_by_one() -> None:
    print(f"seed {SEED}")
    rng = Random(SEED)
    cluster = DiskCluster(rng)
    for _ in range(600):
        cluster.happen(rng)
        if rng.random() < 0.1:
            for leader in leaders_of(cluster):
                cluster.propose(leader, b"x" * 50)

    for name in (N1, N2, N3):
        writes = cluster.mirror(name).written
        assert len(writes) > 10
        one_by_one, grouped = (
            founded(f"{PATH}/{name}/{each}", node=name).open_storage(SMALL) for each in "ab"
        )
        for write in writes:
            one_by_one.write([write])
        while writes:
            count = rng.randint(1, 10)
            grouped.write(writes[:count])
            writes = writes[count:]

        assert all_entries(grouped) == all_entries(one_by_one)
        assert (grouped.hard_state(), grouped.commit) == (one_by_one.hard_state(), one_by_one.commit)


@pytest.mark.parametrize("number", range(4))
def test_configuration_survives_a_restart_at_any_point_of_its_changes(number: int) -> None:
    seed = f"{SEED} {number}"
    print(f"seed {seed}")
    rng = Random(seed)
    cluster = DiskCluster(rng, outside=[N4])
    changes = [
        change((ChangeKind.ADD_LEARNER, N4)),
        change((ChangeKind.ADD_VOTER, N4), (ChangeKind.REMOVE, N3)),
        change((ChangeKind.ADD_VOTER, N3)),
        change((ChangeKind.REMOVE, N4)),
    ]

    for each in changes:
        cluster.change(led_by(cluster), each)
        until = rng.randrange(12)
        cluster.settle(until=iter([False] * until + [True] * 10_000).__next__)
        for name in rng.sample(sorted(cluster.servers), k=len(cluster.servers)):
            if rng.random() < 0.5:
                cluster.save(name, keep=0)
            cluster.crash(name)
            cluster.restart(name)
        cluster.letters.clear()
        leader = led_by(cluster)
        index = cluster[leader].log.applied
        for name in cluster[leader].configuration.members:
            if cluster[name].log.applied == index:
                assert cluster[name].configuration == cluster.configuration_after(index)
