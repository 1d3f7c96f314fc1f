"""What is forgotten is forgotten by all nodes alike, and who is behind that gets a snapshot and the frames."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from logstore import Log
from raftlog.distributed.log import DistributedLog
from raftlog.raft.leader import Leader
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import (
    KIB,
    append,
    append_batch,
    call,
    fill,
    frames_of,
    idempotent,
    look,
    server_of,
    small_segments,
    values,
)


def commit_cursor(cluster: Cluster, node: str, offset: int) -> None:
    call(cluster, node, lambda log: log.commit_cursor("g", offset))


def is_between(log: Log, above: int, last: int) -> bool:
    return above < log.start <= last


def starts(cluster: Cluster) -> dict[str, int]:
    return {node: look(cluster, node, lambda log: log.start) for node in cluster.running}


def test_a_truncation_goes_through_the_log_and_frees_segments_on_every_node(tmp_path: Path) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        fill(cluster, leader, 60)

        assert call(cluster, leader, lambda log: log.truncate(41)) == 41

        cluster.wait_until(
            lambda: set(starts(cluster).values()) == {41}, "the nodes do not agree on the start"
        )
        for node in cluster.running:
            log = server_of(cluster, node).replica.log
            cluster.wait_until(partial(is_between, log, 0, 41), "no segments were removed")
        assert values(cluster, leader, 41, 42) == [b"41" + bytes(1000)]


def test_a_follower_behind_the_start_of_the_log_gets_a_snapshot_and_equal_frames(tmp_path: Path) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        late = next(node for node in cluster.running if node != leader)
        cluster.kill(late)
        call(cluster, leader, lambda log: log.append_batch(idempotent(77, 3, 0, b"of a producer")))
        call(cluster, leader, lambda log: log.commit_cursor("group", 1))
        fill(cluster, leader, 60)
        call(cluster, leader, lambda log: log.truncate(50))
        log = server_of(cluster, leader).replica.log
        cluster.wait_until(lambda: log.start > 0, "no segments were removed")

        cluster.restart(late)

        cluster.wait_until_equal(30)
        theirs = server_of(cluster, late).replica
        assert theirs.log.base == log.base
        end = theirs.applier.applied + 1
        assert frames_of(cluster, late, log.first_index, end) == frames_of(
            cluster, leader, log.first_index, end
        )
        assert look(cluster, late, lambda log: [each.group for each in log.cursors()]) == ["group"]
        # What the snapshot says of producers holds when it leads, too.
        call(cluster, cluster.wait_for_leader(), lambda log: log.transfer_leadership(late))
        cluster.wait_until(lambda: cluster.leader() == late, "it does not lead")
        again = call(cluster, late, lambda log: log.append_batch(idempotent(77, 3, 0, b"of a producer")))
        assert again == (0, 1)


def test_a_node_restarts_from_its_snapshot_without_applying_anything_twice(tmp_path: Path) -> None:
    with small_segments(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        for number in range(5):
            append_batch(cluster, leader, idempotent(5, 0, number, b"x"))
            commit_cursor(cluster, leader, number)
        for node in cluster.running:
            call(cluster, node, lambda log: log.take_snapshot())
        append(cluster, leader, b"behind the snapshot")
        cluster.wait_until_equal()
        before = {
            node: look(cluster, node, lambda log: log.replica.applier.views.to_sections())
            for node in cluster.nodes
        }

        for node in cluster.nodes:
            cluster.kill(node)
        for node in cluster.nodes:
            cluster.restart(node)
        cluster.wait_for_leader()
        cluster.wait_until_equal()

        def sections(node: str) -> object:
            return look(cluster, node, lambda log: log.replica.applier.views.to_sections())

        cluster.wait_until(
            lambda: all(sections(node) == before[node] for node in cluster.nodes), "the views differ"
        )
        assert before["n1"] == before["n2"] == before["n3"]


def test_retention_by_size_goes_through_the_log_and_is_the_same_on_all_nodes(tmp_path: Path) -> None:
    with small_segments(tmp_path, retention_bytes_max=48 * KIB) as cluster:
        fill(cluster, cluster.wait_for_leader(), 120)

        cluster.wait_until(
            lambda: min(starts(cluster).values()) > 0 and len(set(starts(cluster).values())) == 1,
            "retention has not begun", 30,
        )  # fmt: skip
        start = starts(cluster)["n1"]
        assert values(cluster, "n1", start, start + 1) == values(cluster, "n2", start, start + 1)


def test_retention_waits_for_a_follower_that_is_there_and_behind(tmp_path: Path) -> None:
    with small_segments(tmp_path, retention_bytes_max=48 * KIB) as cluster:
        leader = cluster.wait_for_leader()
        fill(cluster, leader, 20)

        async def must_wait(log: DistributedLog) -> list[bool]:
            housekeeping, role = log._housekeeping, log.replica.driver.node.role
            assert isinstance(role, Leader)
            progress = next(each for name, each in role.progress.items() if name != leader)
            match, progress.match = progress.match, 2
            waits = housekeeping._must_wait(10)
            assert housekeeping._waits_since is not None
            housekeeping._waits_since -= 601  # retention_wait_s is over
            no_more = housekeeping._must_wait(10)
            progress.match, housekeeping._waits_since = match, None
            return [waits, no_more, housekeeping._must_wait(10)]

        cluster.wait_until_equal()
        assert call(cluster, leader, must_wait) == [True, False, False]
