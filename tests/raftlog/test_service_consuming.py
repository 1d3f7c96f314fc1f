"""The log service: consuming, and what others may cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Config, Record
from raftlog.errors import Overloaded, PermissionDenied
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.budget import ResponseBudget
from raftlog.server.service import FRAMES_BYTES_MAX
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import (
    CONFIG,
    ROOT,
    ended,
    frame_of,
    produce,
    run,
    service_of,
    taken,
    values_of,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FakeClusterLog]:
    with FakeClusterLog(tmp_path / "log", CONFIG) as log:
        yield log


# ── consuming ───────────────────────────────────────────────────────────────────────────────────────


def request(**fields: Any) -> pb.ConsumeBatchesRequest:
    return pb.ConsumeBatchesRequest(**fields)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(), [0, 1, 2, 3]),
        (request(earliest=True), [0, 1, 2, 3]),
        (request(offset=2), [2, 3]),
        (request(offset=1, end_offset=2), [0, 1]),  # frames are whole
        (request(offset=4), []),
        (request(latest=True), []),
        (request(end_offset=0), []),
        (request(end_offset=99), [0, 1, 2, 3]),
        (request(time_ns=0), [0, 1, 2, 3]),
        (request(time_ns=1500), [2, 3]),
        (request(time_ns=9999), []),
        (request(offset=3, end_offset=1), []),
    ],
)
def test_batches_are_read_from_where_the_client_says(
    tmp_path: Path, asked: pb.ConsumeBatchesRequest, expected: list[int]
) -> None:
    times = iter((1000, 2000, 3000))
    with FakeClusterLog(tmp_path / "timed", CONFIG, clock=lambda: next(times)) as log:
        for values in ([b"0", b"1"], [b"2"], [b"3"]):
            log.append_batch(values)

        async def scenario() -> None:
            found = [response async for response in service_of(log).consume_batches(asked, ROOT)]
            assert [int(value) for value in values_of(found)] == expected
            assert all((one.log_start, one.high_watermark) == (0, 4) for one in found)
            assert len(found) >= 1
            if not expected:
                assert found[0].first_offset == found[0].end_offset

        run(scenario())


def test_responses_follow_each_other_and_keep_to_the_bytes_asked_for(log: FakeClusterLog) -> None:
    for number in range(10):
        log.append(b"%d" % number * 100)

    async def scenario() -> None:
        responses = service_of(log).consume_batches(request(bytes_max=500), ROOT)
        found = [response async for response in responses]
        assert [response.first_offset for response in found[1:]] == [one.end_offset for one in found[:-1]]
        assert max(len(response.frames) for response in found) <= 500
        assert len(found) > 1
        assert len(values_of(found)) == 10

    run(scenario())


@pytest.mark.parametrize(
    "asked", [request(offset=5), request(offset=(1 << 64) - 1), request(offset=5, end_offset=9)]
)
def test_batches_behind_the_end_are_out_of_range(
    log: FakeClusterLog, asked: pb.ConsumeBatchesRequest
) -> None:
    log.append(b"a")

    async def scenario() -> None:
        with pytest.raises(logstore.OffsetOutOfRange):
            await anext(service_of(log).consume_batches(asked, ROOT))

    run(scenario())


def test_offsets_before_the_start_are_out_of_range_everywhere(log: FakeClusterLog) -> None:
    log.reset(10)
    log.append(b"a")

    async def scenario() -> None:
        service = service_of(log)
        for stream in (
            service.consume_batches(request(offset=9), ROOT),
            service.consume_batches(request(offset=9, follow=True), ROOT),
            service.consume_stream(pb.ConsumeRequest(offset=9), ROOT),
        ):
            with pytest.raises(logstore.OffsetOutOfRange) as caught:
                await anext(stream)
            assert (caught.value.offset, caught.value.start, caught.value.end) == (9, 10, 11)

    run(scenario())


@pytest.mark.parametrize("start", [0, 2, 3])
def test_a_tail_goes_on_with_what_is_appended_later(log: FakeClusterLog, start: int) -> None:
    log.append_batch([b"0", b"1"])

    async def scenario() -> None:
        service = service_of(log)
        tail = service.consume_stream(pb.ConsumeRequest(offset=start), ROOT)
        early = await taken(tail, max(2 - start, 0))
        waiting = asyncio.ensure_future(anext(tail))
        for number in range(2, 5):
            await service.produce(produce(b"%d" % number), ROOT)
        found = [*early, await waiting, *await taken(tail, 4 - max(start, len(early)))]
        expected = list(range(start, 5))
        assert [response.record.offset for response in found] == expected
        assert [int(response.record.value) for response in found] == expected
        await tail.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_a_bounded_tail_waits_for_its_end_and_ends_there(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        stream = service.consume_batches(request(follow=True, offset=0, end_offset=2), ROOT)
        waiting = asyncio.ensure_future(ended(stream))
        for value in (b"a", b"b", b"c"):
            await service.produce(produce(value), ROOT)
        found, error = await waiting
        assert (values_of(found)[:2], found[-1].end_offset, error) == ([b"a", b"b"], 2, None)

    run(scenario())


def test_a_tail_ends_when_the_log_is_closed(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        waiting = asyncio.ensure_future(ended(service_of(log).consume_stream(pb.ConsumeRequest(), ROOT)))
        await asyncio.sleep(0)
        await asyncio.to_thread(log.close)
        found, error = await waiting
        assert (found, type(error)) == ([], logstore.LogClosed)

    run(scenario())


def test_a_tail_passes_over_records_that_compaction_removed(tmp_path: Path) -> None:
    with FakeClusterLog(tmp_path / "keyed", Config(sync="never", segment_bytes_max=4096)) as log:
        for number in range(60):
            log.append(Record(b"%d" % number * 50, key=b"same"))
        log.append(b"behind")
        log.compact()
        kept = [record.offset for record in log.scan()]

        async def scenario() -> None:
            service = service_of(log)
            tail = service.consume_stream(pb.ConsumeRequest(), ROOT)
            assert [response.record.offset for response in await taken(tail, len(kept))] == kept
            await tail.aclose()  # type: ignore[attr-defined]
            with pytest.raises(logstore.RecordCompacted):
                await service.consume(pb.ConsumeRequest(), ROOT)

        run(scenario())


# ── what others may cost ────────────────────────────────────────────────────────────────────────────


class Door:
    """Lets everybody in until it is closed."""

    is_open = True

    def require_subject(self, subject: str | None) -> None:
        pass

    def check(self, subject: str | None, object: str, action: str) -> None:
        if not self.is_open:
            raise PermissionDenied(subject or "", action, object)


@pytest.mark.parametrize("method", ["consume_stream", "consume_batches"])
def test_who_may_no_longer_consume_gets_nothing_more_on_an_open_stream(
    log: FakeClusterLog, method: str
) -> None:
    request = {
        "consume_stream": pb.ConsumeRequest(),
        "consume_batches": pb.ConsumeBatchesRequest(offset=0, follow=True),
    }[method]
    log.append(b"before")

    async def scenario() -> None:
        door = Door()
        tail = getattr(service_of(log, access=door), method)(request, ROOT)
        await anext(tail)
        door.is_open = False
        log.append(b"after")
        with pytest.raises(PermissionDenied):
            await anext(tail)

    run(scenario())


@pytest.mark.parametrize("method", ["produce_stream", "produce_batch_stream"])
def test_who_may_no_longer_produce_stores_nothing_more_on_an_open_stream(
    log: FakeClusterLog, method: str
) -> None:
    request = {
        "produce_stream": produce(b"x"),
        "produce_batch_stream": pb.ProduceBatchRequest(batch=frame_of(b"x")),
    }[method]

    async def scenario() -> None:
        door, requests = Door(), asyncio.Queue[Any]()

        async def sent() -> AsyncIterator[Any]:
            while True:
                yield await requests.get()

        answers = getattr(service_of(log, access=door), method)(sent(), ROOT)
        requests.put_nowait(request)
        await anext(answers)
        door.is_open = False
        requests.put_nowait(request)
        with pytest.raises(PermissionDenied):
            await anext(answers)
        assert log.end == 1

    run(scenario())


def test_a_stream_waits_while_slower_ones_hold_all_that_may_be_held(log: FakeClusterLog) -> None:
    log.append_batch([b"a", b"b"])

    async def scenario() -> None:
        service = service_of(log, unsent_bytes_max=1)
        slow = service.consume_batches(pb.ConsumeBatchesRequest(offset=0), ROOT)
        assert values_of([await anext(slow)]) == [b"a", b"b"]
        other = service.consume_batches(pb.ConsumeBatchesRequest(offset=1), ROOT)
        waiting = asyncio.ensure_future(anext(other))
        await asyncio.wait((waiting,), timeout=0.05)
        assert not waiting.done()
        await slow.aclose()  # type: ignore[attr-defined]
        assert (await waiting).end_offset == 2

    run(scenario())


def test_a_stream_that_waits_too_long_for_slower_ones_is_refused() -> None:
    async def scenario() -> None:
        budget = ResponseBudget(100, patience_s=0.01)
        async with budget.holding(99):
            await budget.room()
        async with budget.holding(100):
            with pytest.raises(Overloaded):
                await budget.room()
        await budget.room()

    run(scenario())


def test_a_response_keeps_to_the_servers_limit_whatever_is_asked_for(tmp_path: Path) -> None:
    with FakeClusterLog(tmp_path / "wide", Config(sync="never")) as log:
        for _ in range(30):
            log.append(bytes(100_000))

        async def scenario() -> None:
            request = pb.ConsumeBatchesRequest(offset=0, bytes_max=(1 << 32) - 1)
            service = service_of(log, unsent_bytes_max=1 << 30)
            sizes = [len(response.frames) async for response in service.consume_batches(request, ROOT)]
            assert max(sizes) <= FRAMES_BYTES_MAX and len(sizes) == 3

        run(scenario())
