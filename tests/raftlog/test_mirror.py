"""Copies of a log in another cluster: two servers in this process, each a cluster of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from logstore import Record
from logstore.frame import Payload
from raftlog import AsyncClient, TlsFiles
from raftlog.client import mirror
from raftlog.client.failures import CallFailed
from raftlog.client.mirror import CannotMirror, Mirror, Replicator, is_copy, mirror_id
from tests.raftlog.serving import client_of, run, serving

Scenario = Callable[[AsyncClient, AsyncClient], Awaitable[None]]
DEADLINE_S = 20.0


@pytest.fixture
def between(tmp_path: Path, certificates: Path) -> Callable[[Scenario], None]:
    """Runs a scenario with clients of two new clusters."""

    def run_between(scenario: Scenario) -> None:
        async def with_both() -> None:
            async with AsyncExitStack() as stack:
                clients = []
                for name in ("east", "west"):
                    (tmp_path / name).mkdir()
                    agent = await stack.enter_async_context(
                        serving(tmp_path / name, certificates, node_name=name)
                    )
                    clients.append(await stack.enter_async_context(client_of(agent, certificates)))
                await scenario(*clients)

        run(with_both())

    return run_between


async def values(client: AsyncClient) -> list[bytes]:
    return [record.value async for record in client.scan(linearizable=True)]


async def copy(source: AsyncClient, target: AsyncClient) -> Mirror:
    made = await Mirror.open(source, target)
    await made.run()
    return made


# ── once, and in order ──────────────────────────────────────────────────────────────────────────────


def test_a_log_is_copied_once_however_often_it_is_asked_for(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        expected = [b"%d" % number for number in range(50)]
        for value in expected:
            await east.append(value)

        counts = [((await copy(east, west)).copied) for _ in range(3)]
        await east.append(b"late")
        counts.append((await copy(east, west)).copied)

        assert counts == [50, 0, 0, 1]
        assert await values(west) == [*expected, b"late"]

    between(scenario)


def test_nothing_to_copy_is_no_error(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        done = await copy(east, west)

        assert (done.copied, done.position, done.missed) == (0, 0, 0)

    between(scenario)


def test_keys_headers_and_times_of_producers_are_copied(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        given = Record(b"v", key=b"k", timestamp=1_700_000_000_000_000_000, headers=(("name", b"1"),))
        await east.append(given)
        await east.append(b"without a time")

        await copy(east, west)

        first, second = [record async for record in west.scan()]
        assert (first.value, first.key, first.timestamp, first.headers) == (
            b"v",
            b"k",
            given.timestamp,
            given.headers,
        )
        [_, original] = [record async for record in east.scan()]
        assert second.timestamp > original.timestamp  # the time of an append is the target's own

    between(scenario)


def test_large_batches_are_copied_as_they_are_and_small_ones_together(
    between: Callable[[Scenario], None],
) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        large = [b"x" * 100] * 1000
        await east.append_batch([b"a", b"b"])
        await east.append_batch([b"c"])
        await east.append_batch(large)
        await east.append_batch([b"d"])

        await copy(east, west)

        sizes = [len(batch) async for batch in west.batches()]
        assert sizes == [3, 1000, 1]
        assert await values(west) == [b"a", b"b", b"c", *large, b"d"]

    between(scenario)


def test_a_copy_that_was_cut_short_goes_on_behind_its_last_record(
    between: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BATCH_RECORDS_MAX", 10)

    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        for number in range(55):
            await east.append(b"%d" % number)
        first = await Mirror.open(east, west)
        store = first._store
        batches = 0

        async def fail_at_the_third(payload: Payload) -> None:
            nonlocal batches
            batches += 1
            if batches == 3:
                raise ConnectionResetError
            await store(payload)

        monkeypatch.setattr(first, "_store", fail_at_the_third)
        with pytest.raises(ConnectionResetError):
            await first.run()
        second = await copy(east, west)

        assert (first.copied, second.copied) == (20, 35)
        assert await values(west) == [b"%d" % number for number in range(55)]

    between(scenario)


def test_two_copies_at_the_same_time_store_nothing_twice(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        for number in range(30):
            await east.append(b"%d" % number)

        both = await asyncio.gather(copy(east, west), copy(east, west), return_exceptions=True)

        assert any(isinstance(done, Mirror) for done in both)
        assert await values(west) == [b"%d" % number for number in range(30)]

    between(scenario)


def test_the_target_forgot_the_mirror_and_the_cursor_says_where_to_go_on(
    between: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        await east.append_batch([b"a", b"b"])
        done = await copy(east, west)
        assert [(one.group, one.offset) for one in await east.cursors()] == [(done.group, 2)]
        await east.append(b"c")

        async def forgotten(_: Mirror, era: int) -> tuple[int, int]:
            return era, 0

        monkeypatch.setattr(Mirror, "_known_of", forgotten)
        assert (await copy(east, west)).copied == 1
        assert await values(west) == [b"a", b"b", b"c"]

    between(scenario)


def test_records_that_are_gone_before_they_are_copied_are_counted(
    between: Callable[[Scenario], None],
) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        await east.append_batch([b"a", b"b"])
        await copy(east, west)
        await east.append_batch([b"c", b"d", b"e"])
        await east.truncate(4)

        done = await copy(east, west)

        assert (done.missed, done.copied) == (2, 1)
        assert await values(west) == [b"a", b"b", b"e"]

    between(scenario)


# ── no circles ──────────────────────────────────────────────────────────────────────────────────────


def test_clusters_that_copy_each_other_do_not_go_in_circles(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, west: AsyncClient) -> None:
        for turn in range(3):
            await east.append(b"east %d" % turn)
            await west.append(b"west %d" % turn)
            await copy(east, west)
            await copy(west, east)

        assert [(await copy(east, west)).copied, (await copy(west, east)).copied] == [0, 0]
        for client in (east, west):
            found = await values(client)
            assert sorted(found) == sorted(
                [b"east %d" % turn for turn in range(3)] + [b"west %d" % turn for turn in range(3)]
            )
            assert [value for value in found if value.startswith(b"east")] == [
                b"east 0",
                b"east 1",
                b"east 2",
            ]

    between(scenario)


def test_a_cluster_is_not_copied_into_itself(between: Callable[[Scenario], None]) -> None:
    async def scenario(east: AsyncClient, _: AsyncClient) -> None:
        with pytest.raises(CannotMirror, match="are the same cluster"):
            await Mirror.open(east, east)

    between(scenario)


def test_ids_of_copies_are_told_from_those_of_clients() -> None:
    ours = mirror_id("c", 0)

    assert is_copy(ours)
    assert ours != mirror_id("d", 0)
    assert ours != mirror_id("c", 1 << 32)
    assert ours == mirror_id("c", (1 << 32) - 1)
    assert mirror_id("c", (1 << 40) - 1) < 1 << 64
    assert not is_copy((1 << 63) - 1)


# ── many sources ────────────────────────────────────────────────────────────────────────────────────


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.01)


def test_a_replicator_copies_what_comes_from_whom_it_was_told_of(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            agents = []
            for name in ("a", "b", "target"):
                (tmp_path / name).mkdir()
                agents.append(
                    await stack.enter_async_context(serving(tmp_path / name, certificates, node_name=name))
                )
            a, b, target = [
                await stack.enter_async_context(client_of(agent, certificates)) for agent in agents
            ]
            replicator = Replicator(target, tls=TlsFiles.in_folder(certificates, "root-client"))
            replicator.join("a", agents[0].rpc_address)
            replicator.join("a", "127.0.0.1:1")  # is known
            replicator.join("b", [agents[1].rpc_address])
            await a.append(b"a0")
            await b.append(b"b0")

            async def has_both() -> bool:
                return sorted(await values(target)) == [b"a0", b"b0"]

            await until(has_both)
            await replicator.leave("a")
            await replicator.leave("nobody")
            await a.append(b"a1")
            await b.append(b"b1")

            async def has_b() -> bool:
                return sorted(await values(target)) == [b"a0", b"b0", b"b1"]

            await until(has_b)
            await replicator.close()
            await replicator.close()
            replicator.join("a", agents[0].rpc_address)
            assert replicator.failures == {}
            assert sorted(await values(target)) == [b"a0", b"b0", b"b1"]

    run(scenario())


def test_a_replicator_tells_of_a_source_that_it_cannot_reach(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as target:
            replicator = Replicator(target, tls=TlsFiles.in_folder(certificates, "root-client"))
            monkeypatch.setattr(
                mirror, "AsyncClient", lambda *given, tls: AsyncClient(*given, tls=tls, timeout_s=0.1)
            )
            replicator.join("away", "127.0.0.1:1")

            async def has_failed() -> bool:
                return isinstance(replicator.failures.get("away"), CallFailed)

            await until(has_failed)
            await replicator.close()
            assert replicator.failures == {}

    run(scenario())
