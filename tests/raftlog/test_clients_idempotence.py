"""Whatever fails between a producer and the log, a record is stored once, and its caller is told the truth."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import pytest

from logstore import RecordBatch
from logstore.batch import check_wire_frame
from logstore.encode import encode_batch
from raftlog.client import pipeline
from raftlog.client.batch import Handle, Place, frame_at
from raftlog.client.failures import CallFailed
from raftlog.client.producer import ProducerConfig, ProducerFull
from raftlog.errors import AlreadyStored, StaleEpoch, UnexpectedOffset
from tests.raftlog.fake_cluster import FakeCluster, client_of, fake_cluster
from tests.raftlog.serving import run

ONE_EACH = ProducerConfig(linger_ms=0, batch_records_max=1)


async def outcome_of(handle: Any) -> Any:
    """The offset, or the error."""
    try:
        return await handle
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error


def outline(outcome: Any) -> Any:
    """What a test compares: an offset, or (code, whether it may have been stored)."""
    return (outcome.code, outcome.is_unknown) if isinstance(outcome, CallFailed) else outcome


async def outlines(handles: list[Any]) -> list[Any]:
    return [outline(await outcome_of(handle)) for handle in handles]


# ── places ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("values", [[b"a"], [b"", b"bc", b""], [bytes(100_000)]])
def test_a_batch_at_a_place_is_whole(values: list[bytes]) -> None:
    frame = frame_at(encode_batch(values), Place(7, 2, 2**40))

    header = check_wire_frame(frame)
    batch = RecordBatch.from_bytes(frame)

    assert (header.producer_id, header.producer_epoch, header.first_sequence) == (7, 2, 2**40)
    assert batch.to_pylist() == values


def test_a_batch_read_from_a_log_can_be_sent_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append(b"before")
            await client.append_batch([b"a", b"b"])
            read = [batch async for batch in client.batches(1)][0]
            assert read.entry_index and read.first_offset == 1
            part = read.between(2, 3)

            assert await client.append_batch(read) == (3, 5)
            assert await client.append_batch(part) == (5, 6)
            assert await client.append_batch(read.to_bytes()) == (6, 8)
            assert cluster.values() == [b"before", b"a", b"b", b"a", b"b", b"b", b"a", b"b"]

    run(scenario())


# ── lost answers ────────────────────────────────────────────────────────────────────────────────────


def test_a_record_whose_answer_was_lost_is_stored_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            cluster.nodes["n1"].lost_answers = 3
            assert await client.append(b"a") == 0
            assert await client.append_batch([b"b", b"c"]) == (1, 3)
            assert cluster.values() == [b"a", b"b", b"c"]

    run(scenario())


def test_batches_ahead_of_a_lost_answer_are_sent_again_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            cluster.nodes["n1"].lost_answers = 2
            producer = client.producer(ONE_EACH)
            handles = [producer.send(b"%d" % number) for number in range(10)]
            assert await outlines(handles) == list(range(10))
            assert cluster.values() == [b"%d" % number for number in range(10)]

    run(scenario())


def test_leaders_that_come_and_go_lose_nothing_and_store_nothing_twice(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def disturb(cluster: FakeCluster) -> None:
        while True:
            node = cluster.nodes[chance.choice(("n1", "n2", "n3"))]
            match chance.randrange(3):
                case 0:
                    cluster.leader = node
                case 1:
                    node.lost_answers = chance.randrange(3)
                case 2:
                    await node.kill()
                    await node.start()
            await asyncio.sleep(chance.random() * 0.1)

    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, "n1", "n2", "n3") as client:
            disturbing = asyncio.ensure_future(disturb(cluster))
            producer = client.producer(ProducerConfig(linger_ms=0, batch_records_max=3))
            handles: list[Handle] = []
            single: list[asyncio.Future[int]] = []
            for number in range(60):
                handles.append(producer.send(b"p%d" % number))
                single.append(asyncio.ensure_future(client.append(b"s%d" % number)))
                await asyncio.sleep(chance.random() * 0.005)
            offsets = [await handle for handle in handles]
            offsets += await asyncio.gather(*single)
            disturbing.cancel()
            await asyncio.gather(disturbing, return_exceptions=True)

            values = cluster.values()
            expected = [b"p%d" % number for number in range(60)] + [b"s%d" % number for number in range(60)]
            assert sorted(values) == sorted(expected)
            assert [values[offset] for offset in offsets] == expected
            assert offsets[:60] == sorted(offsets[:60])

    run(scenario())


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────

BAD = (grpc.StatusCode.INVALID_ARGUMENT, "too odd")


def test_what_was_sent_behind_a_refused_batch_is_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            producer = client.producer(ONE_EACH)
            assert await producer.send(b"first") == 0
            cluster.nodes["n1"].refusals = [BAD]
            handles = [producer.send(value) for value in (b"bad", b"b", b"c")]

            assert await outlines(handles) == [(BAD[0], False), 1, 2]
            assert cluster.values() == [b"first", b"b", b"c"]

    run(scenario())


def test_a_refusal_of_what_was_sent_before_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            producer = client.producer(ONE_EACH)
            cluster.nodes["n1"].lost_answers = 1
            cluster.nodes["n1"].refusals_after_loss = [(grpc.StatusCode.PERMISSION_DENIED, "no more")]
            first = producer.send(b"stored")

            assert await outlines([first]) == [(grpc.StatusCode.PERMISSION_DENIED, True)]
            assert await producer.send(b"next") == 1  # in the next epoch
            assert cluster.values() == [b"stored", b"next"]

    run(scenario())


def test_single_appends_do_not_suffer_for_others_of_their_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            await client.append(b"first")
            cluster.nodes["n1"].refusals = [BAD, BAD]  # the batch of three, and then one of them
            outcomes = await asyncio.gather(
                *(client.append(value) for value in (b"a", b"b", b"c")), return_exceptions=True
            )

            assert sorted(map(str, map(outline, outcomes))) == sorted(["1", "2", str((BAD[0], False))])
            assert len(cluster.values()) == 3

    run(scenario())


def test_overload_is_waited_for_and_a_full_disk_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
            cluster.nodes["n1"].refusals = [(exhausted, "busy")]
            assert await client.append(b"a") == 0
            cluster.nodes["n1"].refusals = [(exhausted, "disk full, retry in 5000")]
            cluster.nodes["n1"].pushback_ms = 5_000
            with pytest.raises(CallFailed, match="disk full") as caught:
                await client.append(b"b")
            assert (caught.value.code, caught.value.is_unknown) == (exhausted, False)

    run(scenario())


def test_of_batches_on_the_way_only_the_one_that_is_too_large_fails(tmp_path: Path) -> None:
    """gRPC refuses its message and so ends the stream; which one it was is not said."""

    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            leader = cluster.nodes["n1"]
            await leader.kill()
            leader.message_bytes_max = 100_000
            await leader.start()
            producer = client.producer(ONE_EACH)
            handles = [producer.send(value) for value in (b"a", b"b", bytes(200_000), b"c", b"d")]

            assert await outlines(handles) == [0, 1, (BAD[0], False), 2, 3]
            assert cluster.values() == [b"a", b"b", b"c", b"d"]

    run(scenario())


def test_an_expected_offset_is_kept_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a", expected_offset=0) == 0
            with pytest.raises(UnexpectedOffset) as caught:
                await client.append(b"x", expected_offset=0)
            assert (caught.value.expected, caught.value.actual) == (0, 1)
            cluster.nodes["n1"].lost_answers = 1
            assert await client.append_batch([b"b", b"c"], expected_offset=1) == (1, 3)
            with pytest.raises(UnexpectedOffset):
                await client.append_batch([b"x"], expected_offset=1)
            outcomes = await asyncio.gather(
                *(client.append(b"%d" % number, expected_offset=3) for number in range(3)),
                return_exceptions=True,
            )
            assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [3]
            assert await client.append(b"d") == 4
            assert len(cluster.values()) == 5

    run(scenario())


def test_what_was_stored_too_long_ago_to_know_where_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            cluster.nodes["n1"].lost_answers = 1
            cluster.forgets_offsets = True
            with pytest.raises(AlreadyStored):
                await client.append(b"a")
            cluster.forgets_offsets = False
            assert await client.append(b"b") == 1
            assert cluster.values() == [b"a", b"b"]

    run(scenario())


def test_a_producer_that_the_log_has_forgotten_begins_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert [await client.append(b"a"), await client.append(b"b")] == [0, 1]
            cluster.producers.clear()
            assert await client.append(b"c") == 2
            assert cluster.values() == [b"a", b"b", b"c"]

    run(scenario())


def test_a_gap_where_something_may_be_stored_is_asked_about_again(tmp_path: Path) -> None:
    """A server that was deposed lacks what the real leader has; to begin anew there could store twice."""

    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0
            forgotten = dict(cluster.producers)
            cluster.nodes["n1"].lost_answers = 1
            waiting = asyncio.ensure_future(client.append(b"b"))
            while cluster.nodes["n1"].lost_answers:
                await asyncio.sleep(0)
            cluster.producers.clear()
            while cluster.refused < 2:
                await asyncio.sleep(0.001)
            cluster.producers.update(forgotten)

            assert await waiting == 1
            assert cluster.values() == [b"a", b"b"]

    run(scenario())


def test_a_newer_epoch_of_the_same_producer_is_told_and_passed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0
            (state,) = cluster.producers.values()
            state.epoch = 9
            with pytest.raises(StaleEpoch):
                await client.append(b"b")
            assert await client.append(b"c") == 1

    run(scenario())


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_over_its_time_is_unknown_and_what_comes_behind_it_is_stored_behind_it(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=1.0) as client:
            assert await client.append(b"a") == 0
            for node in cluster.nodes.values():
                node.unhung.clear()
            late = asyncio.ensure_future(outcome_of(client.append(b"late")))
            await asyncio.sleep(0.6)  # the second has more time left; not for a condition
            behind = asyncio.ensure_future(outcome_of(client.append(b"behind")))
            assert outline(await late) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
            for node in cluster.nodes.values():
                node.unhung.set()

            assert await behind == 2
            assert cluster.values() == [b"a", b"late", b"behind"]

    run(scenario())


def test_after_all_is_over_its_time_nothing_old_can_be_taken_for_what_is_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=1.0) as client:
            assert await client.append(b"a") == 0
            for node in cluster.nodes.values():
                node.unhung.clear()
            calls = [client.append_batch([value]) for value in (b"x", b"y")]
            told = [outline(one) for one in await asyncio.gather(*calls, return_exceptions=True)]
            assert told == [(grpc.StatusCode.DEADLINE_EXCEEDED, True)] * 2
            for node in cluster.nodes.values():
                node.unhung.set()

            offset = await client.append(b"z")
            values = cluster.values()
            assert values[offset] == b"z"
            assert sorted({*values}) == sorted(values)

    run(scenario())


def test_nothing_is_unknown_where_nobody_could_be_reached(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster, timeout_s=0.2) as client:
            for node in cluster.nodes.values():
                await node.kill()
            calls = [client.append(b"a"), client.append_batch([b"b"])]
            assert await outlines(calls) == [(grpc.StatusCode.UNAVAILABLE, False)] * 2

    run(scenario())


def test_a_bug_in_the_writer_is_told_to_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0

            def broken(*_: Any) -> bytes:
                raise ZeroDivisionError

            monkeypatch.setattr(pipeline, "frame_at", broken)
            with pytest.raises(ZeroDivisionError):
                await client.append(b"b")
            monkeypatch.undo()
            assert await client.append(b"c") == 1

    run(scenario())


def test_a_bug_in_the_pipeline_is_told_to_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            assert await client.append(b"a") == 0

            def broken(*_: Any) -> None:
                raise ZeroDivisionError

            cluster.nodes["n1"].lost_answers = 1
            monkeypatch.setattr(pipeline.Pipeline, "_mark_sent", broken)
            with pytest.raises(ZeroDivisionError):
                await client.append(b"b")
            monkeypatch.undo()
            assert await client.append(b"c") == 2

    run(scenario())


# ── ready batches ───────────────────────────────────────────────────────────────────────────────────


def test_ready_batches_are_stored_as_they_are_in_order_with_single_records(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            producer = client.producer(ProducerConfig(linger_ms=60_000, in_flight_max=2))
            batch = RecordBatch.encode([b"x", b"y"])
            cluster.nodes["n1"].lost_answers = 1
            single = producer.send(b"1")
            ready = [producer.send_batch(batch) for _ in range(5)]
            raw = producer.send_batch(batch.to_bytes(), expected_offset=11)
            wrong = producer.send_batch(batch, expected_offset=0)
            last = producer.send(b"2")
            await outcome_of(producer.flush())

            assert await single == 0
            assert [await one for one in ready] == [(1 + 2 * n, 3 + 2 * n) for n in range(5)]
            assert await raw == raw.result() == (11, 13)
            assert isinstance(await outcome_of(wrong), UnexpectedOffset)
            assert await last == 13
            assert [len(one) async for one in client.batches()] == [1, 2, 2, 2, 2, 2, 2, 1]

    run(scenario())


def test_ready_batches_count_for_the_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, client_of(cluster) as client:
            producer = client.producer(ProducerConfig(pending_bytes_max=1000))
            batch = RecordBatch.encode([bytes(800)])
            first = producer.send_batch(batch)
            with pytest.raises(ProducerFull):
                producer.send_batch(batch)
            await producer.room()
            assert [await first, await producer.send_batch(batch)] == [(0, 1), (1, 2)]

    run(scenario())
