"""Groups of consumers go on where they left off, and lose no record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest

from logstore import Config
from raftlog import Client
from raftlog.client.answers import Cursor
from raftlog.client.failures import CallFailed
from raftlog.client.groups import GroupPlace
from tests.raftlog.fake_cluster import FakeCluster, client_of, fake_cluster
from tests.raftlog.serving import run

NEVER_S = 3600.0


@pytest.fixture
def values() -> list[bytes]:
    return [b"%d" % number for number in range(10)]


async def taken(records: Any, count: int) -> list[bytes]:
    """The next values; the iteration is left then, in the midst of the last record."""
    found: list[bytes] = []
    async with aclosing(records) as some:
        async for record in some:
            found.append(record.value)
            if len(found) == count:
                break
    return found


def test_cursors_are_kept_and_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.commit_cursor("b", 3)
            await client.commit_cursor("a", 1)
            await client.commit_cursor("b", 4)

            assert await client.cursors() == [Cursor("a", 1, 1), Cursor("b", 4, 1)]
            assert await client.cursors("b", linearizable=True) == [Cursor("b", 4, 1)]
            assert await client.cursors("c") == []
            assert {name for name, _ in cluster.requests} == {"n1"}

    run(scenario())


def test_a_group_goes_on_behind_the_last_record_that_it_consumed(tmp_path: Path, values: list[bytes]) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append_batch(values)

            assert await taken(client.consume("g", commit_interval_s=NEVER_S), 4) == values[:4]
            assert cluster.cursors == {"g": 3}  # who left may not have finished with the fourth
            assert [record.value async for record in client.consume("g")] == values[3:]
            assert cluster.cursors == {"g": 10}
            assert [record async for record in client.consume("g")] == []

    run(scenario())


def test_a_new_group_begins_where_it_is_told(tmp_path: Path, values: list[bytes]) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append_batch(values)

            assert [record.value async for record in client.consume("g", start=7)] == values[7:]
            assert [record.value async for record in client.consume("g", start=0)] == []
            assert await taken(client.consume("late", start=10, follow=False), 1) == []

    run(scenario())


def test_a_group_whose_place_was_removed_goes_on_at_the_start_of_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = Config(segment_bytes_max=1024)
        async with fake_cluster(tmp_path, config) as cluster, client_of(cluster) as client:
            for _ in range(4):
                await client.append(bytes(900))
            cluster.cursors["g"] = 1
            cluster.log.truncate(2)
            start = cluster.log.start
            assert start > 1

            assert [record.offset async for record in client.consume("g")] == list(range(start, 4))

    run(scenario())


def test_what_a_waiting_group_has_consumed_is_committed_at_intervals(
    tmp_path: Path, values: list[bytes]
) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append_batch(values)
            records = client.consume("g", follow=True, commit_interval_s=0.01)
            waiting = asyncio.ensure_future(taken(records, 11))
            while cluster.cursors.get("g") != 10:
                await asyncio.sleep(0.001)
            await client.append(b"10")

            assert await waiting == [*values, b"10"]
            assert cluster.cursors == {"g": 10}

    run(scenario())


def test_cursors_that_cannot_be_kept_end_the_iteration(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def refuse(_: int) -> None:
            raise CallFailed(grpc.StatusCode.PERMISSION_DENIED, "no")

        place = GroupPlace(0, refuse, interval_s=0.001)
        place.require_kept()
        place.next = 1
        with pytest.raises(CallFailed):
            while True:
                await asyncio.sleep(0.001)
                place.require_kept()
        with pytest.raises(CallFailed):
            await place.finish()

    run(scenario())


def test_a_place_is_committed_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        committed = []

        async def commit(offset: int) -> None:
            committed.append(offset)

        place = GroupPlace(5, commit, interval_s=NEVER_S)
        await place.finish()
        place = GroupPlace(5, commit, interval_s=NEVER_S)
        place.next = 7
        await place.finish()
        await place.finish()

        assert committed == [7]

    run(scenario())


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[tuple[FakeCluster, Client]]:
    """Servers in a thread, and a client that blocks."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    servers = fake_cluster(tmp_path)
    cluster = asyncio.run_coroutine_threadsafe(servers.__aenter__(), loop).result(10)
    try:
        with Client([node.address for node in cluster.nodes.values()]) as client:
            yield cluster, client
    finally:
        asyncio.run_coroutine_threadsafe(servers.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_blocking_client_does_the_same(fakes: tuple[FakeCluster, Client], values: list[bytes]) -> None:
    cluster, client = fakes
    assert client.append_batch(values, expected_offset=0) == (0, 10)
    found = []
    with closing(client.consume("g", commit_interval_s=NEVER_S)) as records:  # type: ignore[type-var]
        for record in records:
            found.append(record.value)
            if len(found) == 4:
                break

    assert (found, cluster.cursors) == (values[:4], {"g": 3})
    assert [record.value for record in client.consume("g")] == values[3:]
    assert client.cursors() == [Cursor("g", 10, 1)]
    client.commit_cursor("g", 2)
    assert [record.offset for record in client.consume("g")] == list(range(2, 10))
    assert client.read(9, linearizable=True).value == b"9"
    assert client.bounds(linearizable=True).end == 10
    assert len(list(client.scan(linearizable=True))) == 10
    assert sum(len(batch) for batch in client.batches(linearizable=True)) == 10
    assert cluster.linearizable == 4


def test_the_blocking_client_calls_the_cluster(fakes: tuple[FakeCluster, Client]) -> None:
    cluster, client = fakes
    assert [member.name for member in client.join("n4", "host:1")] == ["n4"]
    client.promote("n4")
    client.leave("n4")
    assert client.truncate(0) == 0
    assert client.transfer_leadership("n3") == "n3"
    assert client.take_snapshot(cluster.nodes["n2"].address).bytes == 2
    assert client.status(cluster.nodes["n2"].address).node_id == "n2"
    assert [server.is_leader for server in client.servers()] == [False, False, True]
    assert client.append(b"a", expected_offset=0) == 0
    with client.producer() as producer:
        handle = producer.send_batch(next(client.batches()))
    assert handle.result() == (1, 2)
