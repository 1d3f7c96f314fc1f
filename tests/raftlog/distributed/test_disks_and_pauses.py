"""Disks that are full, slow or stuck, and processes that stand still: what the cluster does meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logstore import DiskFull
from raftlog.distributed import housekeeping
from raftlog.raft.storage import Write
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import append, call, server_of, steady, values


class Disk:
    """Stands in front of a node's storage: writes wait while it is stuck, and take so long."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._storage: Any = server_of(cluster, node).replica.storage
        self._write = self._storage.write
        setattr(self._storage, "write", self)  # noqa: B010 - mypy knows that it is a method
        self.goes = threading.Event()
        self.goes.set()
        self.seconds = 0.0
        self.writes = 0

    def __call__(self, writes: Sequence[Write]) -> None:
        self.goes.wait()
        time.sleep(self.seconds)
        self._write(writes)
        self.writes += 1


def test_a_full_disk_refuses_appends_serves_reads_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 40]
    monkeypatch.setattr(
        housekeeping,
        "os",
        SimpleNamespace(statvfs=lambda path: SimpleNamespace(f_bavail=free[0], f_frsize=1)),
    )
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"before")

        free[0] = 0
        cluster.wait_until(lambda: server_of(cluster, leader).replica.is_full, "it does not notice")
        with pytest.raises(DiskFull, match="Make room, and it goes on by itself"):
            append(cluster, leader, b"refused")
        assert values(cluster, leader, 0, 1) == [b"before"]

        free[0] = 1 << 40
        cluster.wait_until(lambda: not server_of(cluster, leader).replica.is_full, "it does not go on")
        assert append(cluster, leader, b"after") == (1, 2)
    assert os.statvfs(tmp_path).f_bavail > 0


def test_a_leader_whose_disk_is_stuck_hands_over_and_follows_when_it_goes_again(tmp_path: Path) -> None:
    with Cluster(tmp_path, settings={"persist_timeout_ms": 500}) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"before")
        disk = Disk(cluster, leader)

        disk.goes.clear()
        begun = server_of(cluster, leader)._begin(
            server_of(cluster, leader)._engine.log.append_batch([b"when the disk got stuck"])
        )
        try:
            cluster.wait_until(lambda: cluster.leader() not in (None, leader), "nobody took over", 30)
            now = cluster.wait_for_leader()
            assert append(cluster, now, b"by the next")[0] >= 1
        finally:
            disk.goes.set()
        begun.exception(30)  # whatever it was: the others may have stored it, or not

        cluster.wait_until_equal(30)
        end = cluster.ends()[now]
        assert values(cluster, leader, 0, end) == values(cluster, now, 0, end)


def test_a_slow_disk_under_load_causes_no_election(tmp_path: Path) -> None:
    with Cluster(
        tmp_path, settings={"election_timeout_ms_min": 3_000, "election_timeout_ms_max": 6_000}
    ) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"x")
        term = server_of(cluster, leader).replica.driver.node.term
        disks = [Disk(cluster, node) for node in cluster.nodes]
        for disk in disks:
            disk.seconds = 0.1

        async def load(log: Any) -> None:
            for _ in range(15):
                await log.append_batch([bytes(1000)] * 100)

        call(cluster, leader, load)

        assert all(disk.writes for disk in disks)
        assert (cluster.leader(), server_of(cluster, leader).replica.driver.node.term) == (leader, term)


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_pause_shorter_than_half_the_election_timeout_causes_no_election(tmp_path: Path, who: str) -> None:
    with Cluster(
        tmp_path, settings={"election_timeout_ms_min": 3_000, "election_timeout_ms_max": 6_000}
    ) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"x")
        cluster.wait_until_equal()
        terms = {node: server_of(cluster, node).replica.driver.node.term for node in cluster.nodes}
        paused = leader if who == "leader" else next(node for node in cluster.nodes if node != leader)

        cluster.pause(paused)
        time.sleep(1.4)  # that it stands still is what is tried
        cluster.resume(paused)

        assert append(cluster, leader, b"y") == (1, 2)
        cluster.wait_until_equal()
        assert {node: server_of(cluster, node).replica.driver.node.term for node in cluster.nodes} == terms
