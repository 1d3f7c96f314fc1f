"""Clients choose whom to consume from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from raftlog import AsyncClient
from raftlog.client.answers import Server
from raftlog.client.picker import ADDRESSES_MAX, FollowersInTurn, LowestLatency, Observer, Picker
from tests.raftlog.fake_cluster import FakeCluster, count, fake_cluster
from tests.raftlog.gossip.agents import until
from tests.raftlog.serving import run

DEADLINE_S = 20.0

A, B, C = (Server(name, f"{name}:1", is_leader=name == "a") for name in "abc")
LEARNER = Server("x", "x:1", is_leader=False, is_voter=False)


def latency(**options: Any) -> LowestLatency:
    return LowestLatency(random=Random(1), **{"retry_chance": 0.0, **options})


def test_the_quickest_comes_first_and_learners_last() -> None:
    picker = latency()
    for server, seconds in ((A, 0.03), (B, 0.01), (C, 0.02), (LEARNER, 0.001)):
        picker.observe(server.address, seconds)

    assert picker([LEARNER, A, B, C]) == [B, C, A, LEARNER]
    assert picker([]) == []
    assert picker([LEARNER]) == [LEARNER]


def test_servers_that_were_never_asked_come_before_those_that_were() -> None:
    picker = latency()
    picker.observe(A.address, 0.0001)

    assert picker([A, B])[0] == B


def test_clients_do_not_all_begin_with_the_same_server() -> None:
    firsts = {LowestLatency(random=Random(seed))([A, B, C])[0] for seed in range(50)}

    assert firsts == {A, B, C}


def test_a_server_that_slows_down_is_left_after_some_calls_but_not_for_one_slow_call() -> None:
    picker = latency()
    for _ in range(10):
        picker.observe(A.address, 0.010)
        picker.observe(B.address, 0.020)

    picker.observe(A.address, 0.040)
    assert picker([A, B])[0] == A

    for _ in range(10):
        picker.observe(A.address, 0.040)
    assert picker([A, B])[0] == B


def test_a_server_that_failed_comes_last_until_it_answers_and_begins_anew() -> None:
    picker = latency()
    for server in (A, B):
        picker.observe(server.address, 0.01)

    picker.failed(A.address)
    assert picker([A, B, C]) == [C, B, A]

    picker.observe(A.address, 0.005)
    assert picker([A, B]) == [A, B]


def test_another_than_the_quickest_is_tried_now_and_then() -> None:
    picker = latency(retry_chance=0.1)
    for server, seconds in ((A, 0.01), (B, 0.02), (C, 0.03)):
        picker.observe(server.address, seconds)

    firsts = [picker([A, B, C])[0] for _ in range(1_000)]

    assert 50 < firsts.count(B) + firsts.count(C) < 200
    assert min(firsts.count(B), firsts.count(C)) > 10
    assert all(picker([A]) == [A] for _ in range(100))


@pytest.mark.parametrize("chance", [-0.1, 0.6])
def test_a_chance_that_is_none_is_refused(chance: float) -> None:
    with pytest.raises(ValueError, match="retry_chance"):
        LowestLatency(retry_chance=chance)


def test_addresses_that_a_picker_remembers_are_bounded() -> None:
    picker = latency()
    for number in range(ADDRESSES_MAX + 1):
        picker.observe(f"n{number}:1", 0.01)

    first, second = (Server(name, f"{name}:1", is_leader=False) for name in ("n0", "n1"))
    assert picker([second, first]) == [first, second]  # the first is forgotten, so it is to be tried


class Noting:
    """A picker that takes the given order and writes down what it is told."""

    def __init__(self) -> None:
        self.observed: list[str] = []
        self.failures: list[str] = []

    def __call__(self, servers: Any) -> list[Server]:
        return list(servers)

    def observe(self, address: str, seconds: float) -> None:
        assert 0 <= seconds < DEADLINE_S
        self.observed.append(address)

    def failed(self, address: str) -> None:
        self.failures.append(address)


def client_of(cluster: FakeCluster, picker: Picker, *names: str) -> AsyncClient:
    return AsyncClient([cluster.nodes[name].address for name in names or ("n1",)], picker=picker)


def test_pickers_are_told_how_long_reads_and_first_messages_of_streams_took(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            picker = Noting()
            first = cluster.nodes["n1"].address
            async with client_of(cluster, picker) as client:
                for _ in range(3):
                    await client.append(b"a")
                assert picker.observed == []

                await client.read(0)
                assert picker.observed == [first]
                assert len([one async for one in client.scan()]) == 3
                assert picker.observed == [first] * 2  # of a stream one call

                follow = client.follow(0)
                await anext(follow)
                assert picker.observed == [first] * 3
                await follow.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_what_a_quorum_answers_or_waits_for_records_says_nothing_of_a_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            picker = Noting()
            async with client_of(cluster, picker) as client:
                await client.append(b"a")
                await client.read(0, linearizable=True)
                await client.bounds(linearizable=True)

                follow = client.follow(1)
                waiting = asyncio.ensure_future(anext(follow))
                await until(
                    lambda: sum(count(cluster, "ConsumeBatches")) == 2,
                    lambda: count(cluster, "ConsumeBatches"),
                )
                await client.append(b"b")
                assert (await waiting).value == b"b"
                await follow.aclose()  # type: ignore[attr-defined]

            assert (picker.observed, picker.failures) == ([], [])

    run(scenario())


def test_pickers_are_told_of_servers_that_cannot_be_reached_or_lag(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            picker = Noting()
            lagging, dead = cluster.nodes["n1"], cluster.nodes["n2"]
            async with client_of(cluster, picker, "n1", "n2") as client:
                cluster.leader = cluster.nodes["n3"]
                await client.append(b"a")
                lagging.lag = 1

                assert (await client.read(0)).value == b"a"
                assert picker.failures == [lagging.address]

                assert len([one async for one in client.scan()]) == 1
                assert picker.failures == [lagging.address] * 2

                picker.failures.clear()
                await dead.kill()
                await lagging.kill()
                assert (await client.read(0)).value == b"a"
                assert set(picker.failures) == {lagging.address, dead.address}

    run(scenario())


def test_reads_go_to_the_quickest_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            picker = latency()
            for node, seconds in zip(cluster.nodes.values(), (5.0, 3.0, 5.0), strict=True):
                picker.observe(node.address, seconds)  # more than any takes here
            async with client_of(cluster, picker) as client:
                await client.append(b"a")
                for _ in range(5):
                    await client.read(0)

            assert count(cluster, "Consume") == [0, 5, 0]

    run(scenario())


def test_a_picker_that_only_orders_is_told_nothing() -> None:
    assert not isinstance(FollowersInTurn(), Observer)
    assert isinstance(LowestLatency(), Observer)


def test_a_picker_that_leaves_all_servers_out_is_overruled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, lambda _: []) as client:
            await client.append(b"a")
            assert (await client.read(0)).value == b"a"

    run(scenario())
