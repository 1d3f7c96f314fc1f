"""The log service: streams of produces."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Config
from logstore.testing import CrashFileSystem
from raftlog.errors import ServerStopping
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.produce_streams import AHEAD_MAX
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import (
    CONFIG,
    ROOT,
    each,
    ended,
    frame_of,
    produce,
    run,
    service_of,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FakeClusterLog]:
    with FakeClusterLog(tmp_path / "log", CONFIG) as log:
        yield log


# ── produce streams ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, AHEAD_MAX, AHEAD_MAX + 1, 3 * AHEAD_MAX])
def test_a_stream_answers_each_record_in_order_and_ends_when_the_client_does(
    log: FakeClusterLog, count: int
) -> None:
    async def scenario() -> None:
        requests = each(*(produce(b"%d" % number) for number in range(count)))
        found, error = await ended(service_of(log, queue_bytes_max=1 << 20).produce_stream(requests, ROOT))
        assert ([response.offset for response in found], error) == (list(range(count)), None)

    run(scenario())
    assert [record.value for record in log.scan()] == [b"%d" % number for number in range(count)]


def test_a_stream_waits_where_the_queue_is_full(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        requests = each(*(produce(bytes(400)) for _ in range(50)))
        found, error = await ended(service_of(log, queue_bytes_max=1000).produce_stream(requests, ROOT))
        assert ([response.offset for response in found], error) == (list(range(50)), None)

    run(scenario())


def test_a_merged_record_waits_while_batches_fill_the_logs_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        with FakeClusterLog(tmp_path / "synced", Config(pending_bytes_max=2000)) as log:
            service = service_of(log)
            _, batch = log.begin_append([bytes(1900)])
            answer = await service.produce(produce(bytes(500)), ROOT)
            assert (await batch, answer.offset) == (0, 1)

    run(scenario())


def test_a_stream_of_batches_waits_where_the_logs_queue_is_full(tmp_path: Path) -> None:
    async def scenario() -> None:
        with FakeClusterLog(tmp_path / "synced", Config(pending_bytes_max=2000)) as log:
            batch = pb.ProduceBatchRequest(batch=frame_of(bytes(900), b""))
            found, error = await ended(service_of(log).produce_batch_stream(each(*[batch] * 10), ROOT))
        ranges = [(response.first_offset, response.end_offset) for response in found]
        assert (ranges, error) == ([(2 * n, 2 * n + 2) for n in range(10)], None)

    run(scenario())


def test_a_stream_lets_others_get_on_where_the_log_is_full_of_what_it_does_not_wait_for(
    log: FakeClusterLog,
) -> None:
    begin = log.begin_append
    has_room: list[bool] = []

    def full(batch: Any, **more: Any) -> Any:
        if not has_room:
            raise logstore.QueueFull(0)
        return begin(batch, **more)

    async def scenario() -> None:
        log.begin_append = full  # type: ignore[method-assign]
        asyncio.get_running_loop().call_later(0.01, has_room.append, True)
        batch = pb.ProduceBatchRequest(batch=frame_of(b"x"))
        for stream in (
            service_of(log).produce_batch_stream(each(batch), ROOT),
            service_of(log).produce_stream(each(produce(b"y")), ROOT),
        ):
            found, error = await ended(stream)
            assert (len(found), error) == (1, None)

    run(scenario())


def test_requests_are_begun_before_the_first_is_answered(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def requests() -> AsyncIterator[pb.ProduceRequest]:
            yield produce(b"a")
            yield produce(b"b")
            asked.set()
            await asyncio.Event().wait()

        stream = service_of(log).produce_stream(requests(), ROOT)
        first = asyncio.ensure_future(anext(stream))
        await asked.wait()
        assert [(await first).offset, (await anext(stream)).offset] == [0, 1]
        await stream.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_what_was_sent_before_a_refused_record_is_answered_and_what_comes_behind_is_not_begun(
    log: FakeClusterLog,
) -> None:
    async def scenario() -> None:
        requests = each(produce(b"a"), produce(bytes(1025)), produce(b"behind"))
        found, error = await ended(service_of(log).produce_stream(requests, ROOT))
        assert ([response.offset for response in found], type(error)) == ([0], logstore.RecordTooLarge)

    run(scenario())
    assert [record.value for record in log.scan()] == [b"a"]


@pytest.mark.parametrize("kind", ["records", "batches"])
def test_when_the_disk_fails_one_error_ends_the_stream_and_none_is_left_for_nobody(kind: str) -> None:
    async def scenario() -> None:
        disk = CrashFileSystem()
        log = FakeClusterLog("data", Config(), filesystem=disk)
        service = service_of(log)
        assert (await service.produce(produce(b"kept"), ROOT)).offset == 0
        disk.fail("sync")
        if kind == "records":
            stream: Any = service.produce_stream(each(*[produce(b"lost")] * 5), ROOT)
        else:
            batch = pb.ProduceBatchRequest(batch=frame_of(b"lost"))
            stream = service.produce_batch_stream(each(*[batch] * 5), ROOT)
        found, error = await ended(stream)
        assert (found, type(error)) == ([], logstore.LogPoisoned)
        with pytest.raises(logstore.LogPoisoned):
            await service.produce(produce(b"refused"), ROOT)
        assert (await service.consume(pb.ConsumeRequest(), ROOT)).record.value == b"kept"
        with pytest.raises(logstore.LogPoisoned):
            log.close()

    run(scenario())


def test_a_full_disk_refuses_a_record_and_takes_the_next_once_there_is_room() -> None:
    async def scenario() -> None:
        disk = CrashFileSystem()
        with FakeClusterLog("data", Config(), filesystem=disk) as log:
            service = service_of(log)
            disk.fail("write", error=errno.ENOSPC)
            with pytest.raises(logstore.DiskFull):
                await service.produce(produce(b"a"), ROOT)
            assert (await service.produce(produce(b"b"), ROOT)).offset == 0

    run(scenario())


@pytest.mark.parametrize("kind", ["records", "batches"])
def test_a_stop_answers_what_a_stream_has_taken_and_ends_it(log: FakeClusterLog, kind: str) -> None:
    async def scenario() -> None:
        service = service_of(log)
        asked = asyncio.Event()

        async def requests() -> AsyncIterator[Any]:
            yield produce(b"a") if kind == "records" else pb.ProduceBatchRequest(batch=frame_of(b"a"))
            asked.set()
            await asyncio.Event().wait()

        method: Any = service.produce_stream if kind == "records" else service.produce_batch_stream
        stream = asyncio.ensure_future(ended(method(requests(), ROOT)))
        await asked.wait()
        service.stop()
        found, error = await stream
        assert (len(found), type(error)) == (1, ServerStopping)

    run(scenario())
    assert log.end == 1
