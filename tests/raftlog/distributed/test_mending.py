"""Damage on one node's disk: found, told, and made good by the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from logstore import CorruptLog
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import (
    append,
    call,
    fill,
    frames_of,
    look,
    server_of,
    small_segments,
    values,
)


def damage(folder: Path, needle: bytes) -> None:
    """Flip a byte of the first frame that holds these bytes."""
    for store in sorted(folder.glob("*.store")):
        content = bytearray(store.read_bytes())
        place = content.find(needle)
        if place >= 0:
            content[place] ^= 0xFF
            store.write_bytes(content)
            return
    raise AssertionError(f"{needle!r} is in no store of {folder}")


def voters(cluster: Cluster) -> tuple[str, ...]:
    leader = cluster.leader()
    return (
        () if leader is None else tuple(server_of(cluster, leader).replica.driver.node.configuration.voters)
    )


def test_a_damaged_frame_is_fetched_from_a_peer_while_the_rest_is_served(tmp_path: Path) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        fill(cluster, leader, 40)
        follower = next(node for node in cluster.running if node != leader)
        cluster.wait_until_equal()
        intact = frames_of(cluster, follower, 2, server_of(cluster, follower).replica.log.last_index + 1)
        cluster.stop(follower)
        damage(tmp_path / follower / "log", b"7" + bytes(1000))
        cluster.restart(follower)
        cluster.wait_until_equal()

        with pytest.raises(CorruptLog):
            values(cluster, follower, 7, 8)
        assert values(cluster, follower, 0, 7) == [b"%d" % number + bytes(1000) for number in range(7)]

        def is_mended() -> bool:
            try:
                return values(cluster, follower, 7, 8) == [b"7" + bytes(1000)]
            except CorruptLog:
                return False

        cluster.wait_until(is_mended, "the frame is not mended", 30)
        assert frames_of(cluster, follower, 2, 2 + len(intact)) == intact


def test_a_leader_with_a_damaged_frame_goes_on_and_mends_it_when_a_follower_needs_it(tmp_path: Path) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        late, other = (node for node in cluster.running if node != leader)
        cluster.kill(late)
        fill(cluster, leader, 40)
        cluster.stop(leader)
        damage(tmp_path / leader / "log", b"9" + bytes(1000))
        cluster.kill(other)
        cluster.restart(leader)
        cluster.restart(other)
        now = cluster.wait_for_leader()
        if now != leader:
            call(cluster, now, lambda log: log.transfer_leadership(leader))
            cluster.wait_until(lambda: cluster.leader() == leader, "it does not lead")

        cluster.restart(late)

        cluster.wait_until(lambda: cluster.ends()[late] >= 40, "the follower has not caught up", 30)
        append(cluster, cluster.wait_for_leader(), b"goes on")
        assert values(cluster, late, 9, 10) == [b"9" + bytes(1000)]


@pytest.mark.parametrize("what", ["state", "cut", "wiped"])
def test_a_node_that_lost_what_it_promised_comes_back_as_a_learner_and_then_votes_again(
    tmp_path: Path, what: str
) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        fill(cluster, leader, 30)
        victim = next(node for node in cluster.running if node != leader)
        cluster.wait_until_equal()
        cluster.wait_until(
            lambda: all(look(cluster, leader, lambda log: [s.directory_id for s in log.get_servers()])),
            "not all directories are known",
        )
        before = server_of(cluster, victim).replica.directory_id
        cluster.stop(victim)
        folder = tmp_path / victim
        match what:
            case "state":
                for copy in ("state-a", "state-b"):
                    (folder / copy).write_bytes(b"\xff" * 64)
            case "cut":
                newest = max((folder / "log").glob("*.store"))
                newest.write_bytes(newest.read_bytes()[:100])
            case "wiped":
                shutil.rmtree(folder)
        changes = look(cluster, leader, lambda log: log.replica.log.configuration.entry_index)
        cluster.restart(victim)

        cluster.wait_until(
            lambda: victim in voters(cluster) and cluster.ends().get(victim, 0) >= 30
            and server_of(cluster, cluster.leader() or leader).replica.log.configuration.entry_index > changes,
            "it does not vote again", 30,
        )  # fmt: skip
        replica = server_of(cluster, victim).replica
        assert replica.directory_id != before
        assert values(cluster, victim, 0, 30) == [b"%d" % number + bytes(1000) for number in range(30)]
