"""Clients of several servers: whom they ask, and that they go on when one fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftlog import AsyncClient
from raftlog.client import consuming, pipeline
from raftlog.client.answers import Bounds, Server, Snapshot
from raftlog.client.failures import CallFailed
from raftlog.client.picker import FollowersInTurn
from raftlog.client.producer import ProducerConfig
from tests.raftlog.fake_cluster import FakeCluster, client_of, fake_cluster
from tests.raftlog.serving import run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients take a silent server for a hung one sooner."""
    monkeypatch.setattr(pipeline, "LOOK_S", 0.05)
    monkeypatch.setattr(pipeline, "SILENCE_S_MAX", 0.3)
    monkeypatch.setattr(consuming, "SILENCE_S_MAX", 0.1)
    monkeypatch.setattr("raftlog.client.servers.ASK_S_MAX", 0.3)
    monkeypatch.setattr("raftlog.client.calls.ATTEMPT_S_MAX", 0.3)


def count(cluster: FakeCluster, method: str) -> list[int]:
    """Calls of the method that came to n1, n2 and n3."""
    return [node.calls.count(method) for node in cluster.nodes.values()]


# ── whom they ask ───────────────────────────────────────────────────────────────────────────────────


def test_followers_come_first_in_turn_then_the_leader_then_learners() -> None:
    leader, learner = Server("l", "l:1", is_leader=True), Server("x", "x:1", is_leader=False, is_voter=False)
    first, second = Server("a", "a:1", is_leader=False), Server("b", "b:1", is_leader=False)
    picker = FollowersInTurn()

    orders = [picker([learner, leader, first, second]) for _ in range(3)]

    assert orders == [
        [first, second, leader, learner],
        [second, first, leader, learner],
        [first, second, leader, learner],
    ]
    assert picker([learner, leader]) == [leader, learner]
    assert picker([]) == []


def test_produces_go_to_the_leader_and_consumes_to_the_followers_in_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n3") as client:
            for number in range(4):
                assert await client.append(b"%d" % number) == number
            for offset in range(4):
                assert (await client.read(offset)).value == b"%d" % offset

            assert count(cluster, "ProduceBatchStream") == [1, 0, 0]
            assert count(cluster, "Consume") == [0, 2, 2]

    run(scenario())


def test_a_picker_of_ones_own_is_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:

            def last(servers: Any) -> list[Server]:
                return list(reversed(servers))

            async with AsyncClient(cluster.nodes["n1"].address, picker=last) as client:
                for _ in range(3):
                    await client.bounds()

            assert count(cluster, "ConsumeBatches") == [0, 0, 3]

    run(scenario())


def test_a_client_of_no_server_is_a_mistake() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="no address"):
            AsyncClient([])

    run(scenario())


def test_a_server_is_found_through_any_address_that_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n2", "n3") as client:
            await cluster.nodes["n2"].kill()
            assert await client.append(b"a") == 0
            assert count(cluster, "ProduceBatchStream") == [1, 0, 0]

    run(scenario())


def test_where_the_leader_cannot_be_reached_another_server_sends_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            leader = cluster.nodes["n1"]
            await leader.kill()  # for this client; the others act as if it were there

            assert await client.append(b"a") == 0
            assert count(cluster, "ProduceBatchStream")[0] == 0

    run(scenario())


# ── leaders change ──────────────────────────────────────────────────────────────────────────────────


def test_appends_follow_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0
            cluster.leader = cluster.nodes["n3"]
            assert await client.append(b"b") == 1
            assert await client.append_batch([b"c", b"d"]) == (2, 4)

            assert count(cluster, "ProduceBatchStream") == [1, 0, 1]
            assert cluster.values() == [b"a", b"b", b"c", b"d"]

    run(scenario())


@pytest.mark.parametrize("victim", ["n1", "n2", "n3"])
def test_the_death_of_any_server_is_no_error(tmp_path: Path, victim: str) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n1", "n2") as client:
            stored = [await client.append(b"%d" % number) for number in range(3)]
            producer = client.producer(ProducerConfig(linger_ms=0))
            tail = client.follow(0)
            read = [(await anext(tail)).value for _ in range(3)]
            await cluster.nodes[victim].kill()
            if victim == "n1":
                cluster.leader = None
                asyncio.get_running_loop().call_later(0.3, setattr, cluster, "leader", cluster.nodes["n3"])

            stored.append(await client.append(b"3"))
            stored.append(await producer.send(b"4"))
            read += [(await anext(tail)).value for _ in range(2)]

            assert stored == [0, 1, 2, 3, 4]
            assert read == cluster.values() == [b"0", b"1", b"2", b"3", b"4"]
            assert await client.bounds() == Bounds(0, 5)
            for offset in range(5):
                assert (await client.read(offset)).value == b"%d" % offset
            assert len(await client.servers()) == 3
            await tail.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_a_leader_that_hangs_is_left_for_the_next_one(tmp_path: Path, impatient: None) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0
            old = cluster.nodes["n1"]
            old.unhung.clear()
            waiting = asyncio.ensure_future(client.append(b"b"))
            while not old.calls.count("ProduceBatchStream"):
                await asyncio.sleep(0.001)
            cluster.leader = cluster.nodes["n2"]

            assert await waiting == 1
            assert cluster.values() == [b"a", b"b"]

    run(scenario())


def test_a_follower_that_hangs_or_hears_of_nothing_new_is_left(tmp_path: Path, impatient: None) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append_batch([b"a", b"b"])
            tail = client.follow(0)
            assert (await anext(tail)).value == b"a"
            assert (await anext(tail)).value == b"b"
            for name in ("n2", "n3"):
                cluster.nodes[name].lag = 1
                cluster.nodes[name].unhung.clear()
            await client.append(b"c")

            assert (await anext(tail)).value == b"c"
            assert (await client.read(2)).value == b"c"
            await tail.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_a_server_that_came_back_is_found_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=20) as client:
            assert await client.append(b"a") == 0
            for node in cluster.nodes.values():
                await node.kill()
            waiting = asyncio.ensure_future(client.append(b"b"))
            reading = asyncio.ensure_future(client.read(0))
            await asyncio.sleep(0.2)  # they try in vain; not for a condition
            for node in cluster.nodes.values():
                await node.start()

            assert await waiting == 1
            assert (await reading).value == b"a"

    run(scenario())


def test_without_a_leader_the_time_is_over_at_last_and_nothing_is_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=0.3) as client:
            cluster.leader = None
            with pytest.raises(CallFailed, match="no leader is known") as caught:
                await client.append(b"a")

            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
            assert cluster.values() == []

    run(scenario())


def test_a_consumer_that_takes_its_time_is_not_cut_off(tmp_path: Path, impatient: None) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            for number in range(3):
                await client.append(b"%d" % number)
            before = sum(count(cluster, "ConsumeBatches"))
            found = []
            async for batch in client.batches(bytes_max=1):
                found += batch.to_pylist()
                await asyncio.sleep(0.2)  # longer than a server may be silent; not for a condition

            assert found == [b"0", b"1", b"2"]
            assert sum(count(cluster, "ConsumeBatches")) == before + 1

    run(scenario())


def test_servers_that_came_later_are_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            late = cluster.nodes.pop("n3")
            await client.append(b"a")
            cluster.nodes["n3"] = late
            for _ in range(10):
                await client.read(0)
            assert not late.calls
            monkeypatch.setattr("raftlog.client.servers.REFRESH_S", 0.0)
            while not late.calls.count("Consume"):
                await client.read(0)

    run(scenario())


def test_closing_a_client_ends_what_others_wait_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            client = client_of(cluster)
            await client.append(b"a")
            tail = client.follow(0)
            await anext(tail)
            waiting = asyncio.ensure_future(anext(tail))
            for name in ("n2", "n3"):
                cluster.nodes[name].unhung.clear()
            reading = asyncio.ensure_future(client.read(0))
            while not sum(count(cluster, "Consume")):
                await asyncio.sleep(0.001)
            await client.close()

            for one in (waiting, reading):
                with pytest.raises(RuntimeError, match="the client is closed"):
                    await one

    run(scenario())


# ── what was seen stays seen ────────────────────────────────────────────────────────────────────────


def test_what_was_stored_is_read_although_the_followers_lag(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append_batch([b"a", b"b", b"c"])
            cluster.nodes["n2"].lag, cluster.nodes["n3"].lag = 3, 1
            for _ in range(2):  # each follower
                assert await client.bounds() == Bounds(0, 3)
                assert (await client.read(2)).value == b"c"
                assert [record.value async for record in client.scan()] == [b"a", b"b", b"c"]
                assert [record.value async for record in client.scan(2)] == [b"c"]
                assert [record.value async for record in client.scan(0, 1)] == [b"a"]

    run(scenario())


def test_what_a_consumer_saw_is_there_for_the_calls_behind_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            cluster.log.append_batch([b"a", b"b"])
            async with client_of(cluster) as client:
                cluster.nodes["n3"].lag = 2
                seen = [record.value async for record in client.scan()]  # n2
                assert seen == [b"a", b"b"]
                assert await client.bounds() == Bounds(0, 2)  # n3

    run(scenario())


def test_a_server_that_never_catches_up_is_told_when_the_time_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=0.2) as client:
            await client.append(b"a")
            for node in cluster.nodes.values():
                node.lag = 1
            with pytest.raises(CallFailed, match="has not caught up"):
                await client.bounds()

    run(scenario())


# ── calls to the cluster ────────────────────────────────────────────────────────────────────────────


def test_membership_calls_reach_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n3") as client:
            members = await client.join("n4", "host:1", directory_id="d")
            await client.promote("n4")
            await client.leave("n4")
            assert await client.truncate(0) == 0
            assert await client.transfer_leadership("n2") == "n2"
            await client.leave("n1")

            assert [(one.name, one.address, one.directory_id) for one in members] == [("n4", "host:1", "d")]
            kinds = [type(request).__name__.removesuffix("Request") for _, request in cluster.requests]
            assert kinds == ["Join", "Promote", "Leave", "Truncate", "TransferLeadership", "Leave"]
            assert {node for node, _ in cluster.requests[:5]} == {"n1"}

    run(scenario())


def test_status_and_snapshots_are_of_the_server_that_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n1", "n2") as client:
            for number, name in enumerate(("n1", "n2", "n3"), start=1):
                address = cluster.nodes[name].address
                status = await client.status(address)
                assert (status.node_id, status.term, status.members[0].name) == (name, 7, "n1")
                assert await client.take_snapshot(address) == Snapshot(5, number)
            await cluster.nodes["n2"].kill()
            assert (await client.status()).node_id in ("n1", "n3")

    run(scenario())


def test_a_named_server_that_is_down_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=0.3) as client:
            await cluster.nodes["n3"].kill()
            with pytest.raises(CallFailed):
                await client.status(cluster.nodes["n3"].address)

    run(scenario())
