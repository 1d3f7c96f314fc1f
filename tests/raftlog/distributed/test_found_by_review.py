"""What went wrong once between the parts of a node."""

from __future__ import annotations

from pathlib import Path

from raftlog.engine import NodeId
from raftlog.storage.data_directory import DataDirectory
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import append, look


def test_a_server_that_ended_when_its_data_was_set_aside_is_let_in_at_its_next_start(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"a", b"b")
        cluster.wait_until_equal()
        cluster.wait_until(
            lambda: all(look(cluster, leader, lambda log: [s.directory_id for s in log.get_servers()])),
            "not all directories are known",
        )
        follower = next(node for node in cluster.running if node != leader)
        cluster.kill(follower)
        directory = DataDirectory.open(tmp_path / follower, node_name=NodeId(follower))
        directory.set_aside("a test")
        directory.close()

        cluster.restart(follower)

        cluster.wait_until(lambda: cluster.ends().get(follower) == 2, "it was not let in")
