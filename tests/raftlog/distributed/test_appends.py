"""Appends: stored once, where they are expected, and only by who leads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logstore import CorruptBatch, EmptyBatch
from raftlog.distributed.log import DistributedLog
from raftlog.errors import AlreadyStored, NotLeader, SequenceGap, StaleEpoch, UnexpectedOffset
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import (
    append,
    append_batch,
    call,
    idempotent,
    look,
    server_of,
    steady,
    values,
)

P = 0xABCDEF


def others(cluster: Cluster, node: str) -> list[str]:
    return [each for each in cluster.running if each != node]


def test_a_retry_is_answered_as_the_first_time_and_stored_once_also_by_the_next_leader_and_after_restarts(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"before")
        one, two = idempotent(P, 0, 0, b"a", b"b"), idempotent(P, 0, 2, b"c")
        first = [append_batch(cluster, leader, batch) for batch in (one, two)]
        again = [append_batch(cluster, leader, batch) for batch in (one, two)]
        assert first == again == [(1, 3), (3, 4)]

        cluster.kill(leader)
        second = cluster.wait_for_leader()
        by_second = [append_batch(cluster, second, batch) for batch in (one, two)]
        assert by_second == first

        for node in list(cluster.running):
            cluster.kill(node)
        for node in cluster.nodes:
            cluster.restart(node)
        third = cluster.wait_for_leader()
        by_third = [append_batch(cluster, third, batch) for batch in (one, two)]
        assert by_third == first
        assert look(cluster, third, lambda log: log.end) == 4


def test_what_a_producer_gets_wrong_is_refused_with_what_is_right_and_not_stored(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:

        def send(epoch: int, sequence: int, *batch: bytes) -> tuple[int, int]:
            return append_batch(cluster, "n1", idempotent(P, epoch, sequence, *batch))

        assert send(1, 0, b"a") == (0, 1)

        with pytest.raises(SequenceGap) as gap:
            send(1, 5, b"x")
        with pytest.raises(StaleEpoch) as stale:
            send(0, 1, b"x")
        with pytest.raises(AlreadyStored):
            send(1, 0, b"a", b"x")  # cut otherwise than the first time

        assert (gap.value.actual, stale.value.actual) == (1, 1)
        assert look(cluster, "n1", lambda log: log.end) == 1


def test_a_retry_while_the_first_attempt_is_on_its_way_gets_the_same_answer(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        batch = idempotent(P, 0, 0, b"a")

        async def both(log: DistributedLog) -> list[int]:
            first, again = log.begin_append(batch)[1], log.begin_append(batch)[1]
            first.cancel()  # its caller has gone, the batch has not
            return [await again, await log.begin_append(batch)[1]]

        assert call(cluster, leader, both) == [0, 0]
        assert look(cluster, leader, lambda log: log.end) == 1


def test_an_append_goes_where_it_is_expected_or_nowhere(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()

        async def race(log: DistributedLog) -> list[object]:
            # The second and the third come while the first is on its way.
            expected = ((b"x", 0), (b"-", 0), (b"y", 1))
            begun = [log.begin_append([value], expected_offset=offset)[1] for value, offset in expected]
            found = await asyncio.gather(*begun, return_exceptions=True)
            return [
                (each.expected, each.actual) if isinstance(each, UnexpectedOffset) else each for each in found
            ]

        assert call(cluster, leader, race) == [0, (0, 1), 1]
        assert values(cluster, leader, 0, 2) == [b"x", b"y"]


def test_a_follower_refuses_and_names_the_leader_with_its_address(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = others(cluster, leader)[0]
        cluster.wait_until(
            lambda: server_of(cluster, follower).replica.leader == leader, "it knows no leader"
        )

        with pytest.raises(NotLeader) as refused:
            append(cluster, follower, b"x")

        assert (refused.value.leader_id, refused.value.leader_addr) == (leader, cluster.addresses[leader])


def test_a_leader_that_is_cut_off_refuses_nothing_by_a_log_that_may_not_count_any_more(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster:
        old = cluster.wait_for_leader()
        append(cluster, old, b"x")
        cluster.partition([old])
        cluster.wait_until(lambda: cluster.leader() not in (None, old), "nobody else leads")
        append(cluster, cluster.wait_for_leader(), b"y")

        with pytest.raises(NotLeader):
            call(cluster, old, lambda log: log.append_batch([b"z"], expected_offset=2))
        with pytest.raises(NotLeader):
            append_batch(cluster, old, idempotent(P, 0, 7, b"z"))


def test_a_batch_that_is_damaged_or_empty_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:
        damaged = bytearray(idempotent(P, 0, 0, b"abc"))
        damaged[-8] ^= 1

        with pytest.raises(CorruptBatch):
            call(cluster, "n1", lambda log: log.append_batch(bytes(damaged)))
        with pytest.raises(EmptyBatch):
            call(cluster, "n1", lambda log: log.append_batch([]))

        assert append(cluster, "n1", b"first") == (0, 1)


def test_offsets_are_dense_although_leaders_change(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        got: list[int] = []
        for round_number in range(4):
            leader = cluster.wait_for_leader()
            got += [append(cluster, leader, b"%d" % round_number)[0] for _ in range(5)]
            cluster.kill(leader)
            cluster.restart(leader)

        assert got == list(range(20))
        assert cluster.wait_until_equal() == 20
        assert len({tuple(values(cluster, node, 0, 20)) for node in cluster.nodes}) == 1
