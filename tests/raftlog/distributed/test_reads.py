"""Reads: committed data on any node, and all that was acknowledged where that is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logstore import OffsetOutOfRange
from raftlog.distributed.log import DistributedLog
from raftlog.errors import NotLeader, Overloaded
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import append, call, look, server_of, steady


def test_a_leader_that_is_cut_off_serves_what_is_committed_and_nothing_that_is_not(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"committed")
        cluster.partition([leader])

        async def begin(log: DistributedLog) -> None:
            log.begin_append([b"not committed"])[1].add_done_callback(lambda done: done.exception())

        call(cluster, leader, begin)
        cluster.wait_until(
            lambda: (
                server_of(cluster, leader).replica.log.durable_index
                > server_of(cluster, leader).replica.applier.applied
            ),
            "the record is not on its disk",
        )

        assert look(cluster, leader, lambda log: (log.end, log.read(0).value)) == (1, b"committed")
        with pytest.raises(OffsetOutOfRange):
            look(cluster, leader, lambda log: log.read(1))


def test_a_linearizable_read_on_a_follower_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        for count in range(1, 21):
            append(cluster, leader, b"x")

            assert call(cluster, follower, lambda log: log.read_index(10)) >= count


def test_a_linearizable_read_without_a_quorum_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        cluster.partition([leader])

        with pytest.raises((NotLeader, Overloaded, TimeoutError)):
            call(cluster, leader, lambda log: log.read_index(5))


def test_who_waits_on_a_follower_is_woken_by_a_record_that_is_committed_elsewhere(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)

        async def follow(log: DistributedLog) -> int:
            waiting = asyncio.ensure_future(log.wait_async(0))
            await asyncio.sleep(0)
            started.append(True)
            return int(await waiting)

        started: list[bool] = []
        future = server_of(cluster, follower)._begin(follow(server_of(cluster, follower)._engine.log))
        cluster.wait_until(lambda: bool(started), "it does not wait")
        append(cluster, leader, b"x")

        assert future.result(20) == 1


def test_batches_are_read_as_they_were_appended_up_to_what_is_committed(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"a", b"b")
        append(cluster, leader, b"c")

        found = look(cluster, leader, lambda log: [batch.to_pylist() for batch in log.batches(1)])
        assert found == [[b"b"], [b"c"]]
        with pytest.raises(OffsetOutOfRange):
            look(cluster, leader, lambda log: list(log.batches(4)))
