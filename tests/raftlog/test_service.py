"""The log service: who may do what, single records, batches."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Config, Record, RecordBatch
from raftlog.errors import InvalidRecord, Overloaded, PermissionDenied, Unauthenticated
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.call import Call
from raftlog.server.service import LogService
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import (
    CONFIG,
    NOBODY,
    ROOT,
    STRANGER,
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


# ── who may do what ─────────────────────────────────────────────────────────────────────────────────

CALLS: dict[str, tuple[str, Callable[[LogService, Call], Any]]] = {
    "produce": ("produce", lambda service, call: service.produce(produce(b"x"), call)),
    "produce_stream": ("produce", lambda service, call: service.produce_stream(each(produce(b"x")), call)),
    "produce_batch": (
        "produce",
        lambda service, call: service.produce_batch(pb.ProduceBatchRequest(batch=frame_of(b"x")), call),
    ),
    "produce_batch_stream": (
        "produce",
        lambda service, call: service.produce_batch_stream(
            each(pb.ProduceBatchRequest(batch=frame_of(b"x"))), call
        ),
    ),
    "consume": ("consume", lambda service, call: service.consume(pb.ConsumeRequest(), call)),
    "consume_stream": ("consume", lambda service, call: service.consume_stream(pb.ConsumeRequest(), call)),
    "consume_batches": (
        "consume",
        lambda service, call: service.consume_batches(pb.ConsumeBatchesRequest(), call),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_who_has_no_name_or_no_permission_is_refused_and_nothing_is_stored(
    log: FakeClusterLog, name: str
) -> None:
    action, call = CALLS[name]

    async def scenario() -> None:
        for caller, kind in ((STRANGER, Unauthenticated), (NOBODY, PermissionDenied)):
            result = call(service_of(log), caller)
            with pytest.raises(kind) as caught:
                await (anext(result) if hasattr(result, "__anext__") else result)
        assert str(caught.value) == f"nobody not permitted to {action} to *"

    run(scenario())
    assert log.end == 0


def test_the_servers_are_told_to_everybody_who_has_a_name(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        servers = [
            pb.Server(id="one", rpc_addr="one:8400", is_leader=True, is_voter=True),
            pb.Server(id="two", rpc_addr="two:8400"),
        ]
        expected = pb.GetServersResponse(servers=servers)
        assert await service.get_servers(pb.GetServersRequest(), NOBODY) == expected
        with pytest.raises(Unauthenticated):
            await service.get_servers(pb.GetServersRequest(), STRANGER)

    run(scenario())


# ── single records ──────────────────────────────────────────────────────────────────────────────────


def test_a_record_comes_back_with_key_headers_time_and_the_range_of_the_log(log: FakeClusterLog) -> None:
    sent = pb.Record(value=b"v", key=b"k", timestamp_ns=-5, offset=77, term=9, type=3)
    for name, value in (("a", b"1"), ("a", b""), ("", b"2")):
        sent.headers.add(name=name, value=value)

    async def scenario() -> None:
        service = service_of(log)
        assert (await service.produce(produce(b"first"), ROOT)).offset == 0
        assert (await service.produce(pb.ProduceRequest(record=sent), ROOT)).offset == 1
        expected = pb.Record(value=b"v", key=b"k", timestamp_ns=-5, offset=1, headers=sent.headers)
        assert await service.consume(pb.ConsumeRequest(offset=1), ROOT) == pb.ConsumeResponse(
            record=expected, log_start=0, high_watermark=2
        )

    run(scenario())


@pytest.mark.parametrize("offset", [2, 3, (1 << 64) - 1])
def test_a_record_that_does_not_exist_is_out_of_range(log: FakeClusterLog, offset: int) -> None:
    log.append_batch([b"a", b"b"])

    async def scenario() -> None:
        with pytest.raises(logstore.OffsetOutOfRange) as caught:
            await service_of(log).consume(pb.ConsumeRequest(offset=offset), ROOT)
        assert (caught.value.offset, caught.value.start, caught.value.end) == (offset, 0, 2)

    run(scenario())


@pytest.mark.parametrize(("size", "is_stored"), [(0, True), (1024, True), (1025, False)])
def test_a_record_is_stored_up_to_its_limit(log: FakeClusterLog, size: int, is_stored: bool) -> None:
    async def scenario() -> None:
        service = service_of(log)
        if is_stored:
            assert (await service.produce(produce(bytes(size)), ROOT)).offset == 0
        else:
            with pytest.raises(logstore.RecordTooLarge):
                await service.produce(produce(bytes(size)), ROOT)

    run(scenario())
    assert log.end == int(is_stored)


def test_records_of_one_turn_of_the_loop_are_one_batch_in_their_order(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        calls = [service.produce(produce(b"%d" % number), ROOT) for number in range(20)]
        assert [response.offset for response in await asyncio.gather(*calls)] == list(range(20))

    run(scenario())
    assert [batch.to_pylist() for batch in log.batches()] == [[b"%d" % number for number in range(20)]]


def test_a_record_that_cannot_be_stored_does_not_fail_those_it_was_merged_with(log: FakeClusterLog) -> None:
    headers = [pb.RecordHeader(name="n" * 70_000)]  # longer than a name may be
    many = [pb.RecordHeader() for _ in range(500)]  # no bytes, but 8 or so of lengths each

    async def scenario() -> None:
        service = service_of(log, queue_bytes_max=1 << 20)
        log.config = Config(sync="never", record_bytes_max=1 << 17)
        requests = [
            produce(b"a"), produce(b"b", headers=headers), produce(b"c"), produce(b"d", headers=many), produce(b"e")
        ]  # fmt: skip
        outcomes = await asyncio.gather(
            *(service.produce(request, ROOT) for request in requests), return_exceptions=True
        )
        assert isinstance(outcomes[1], InvalidRecord)
        assert "70000 bytes" in str(outcomes[1])

    run(scenario())
    assert [record.value for record in log.scan()] == [b"a", b"c", b"d", b"e"]


def test_a_full_queue_is_overload_and_what_was_taken_is_stored(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log, queue_bytes_max=1000)
        calls = [service.produce(produce(bytes(500)), ROOT) for _ in range(2)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[0] == pb.ProduceResponse(offset=0)
        assert isinstance(outcomes[1], Overloaded)
        assert (await service.produce(produce(bytes(500)), ROOT)).offset == 1

    run(scenario())


def test_one_record_larger_than_the_queue_is_taken_when_the_queue_is_empty(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        assert (await service_of(log, queue_bytes_max=1).produce(produce(b"large"), ROOT)).offset == 0

    run(scenario())


def test_a_caller_that_goes_away_leaves_the_others_their_answers(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        first, second = (asyncio.ensure_future(service.produce(produce(v), ROOT)) for v in (b"a", b"b"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).offset == 1

    run(scenario())
    assert [record.value for record in log.scan()] == [b"a", b"b"]


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_stored_as_its_producer_made_it(log: FakeClusterLog) -> None:
    sent = frame_of(b"a", Record(b"b", key=b"k", headers=(("h", b"1"),)))

    async def scenario() -> None:
        service = service_of(log)
        response = await service.produce_batch(pb.ProduceBatchRequest(batch=sent), ROOT)
        assert (response.first_offset, response.end_offset) == (0, 2)
        (frames,) = [
            response.frames async for response in service.consume_batches(pb.ConsumeBatchesRequest(), ROOT)
        ]
        assert RecordBatch.from_bytes(frames).to_bytes()[52:] == sent[52:]  # the body, with its checksum

    run(scenario())


def tampered(at: int) -> bytes:
    frame = bytearray(frame_of(b"a", b"b"))
    frame[at] ^= 1
    return bytes(frame)


BAD_BATCHES: dict[str, tuple[bytes, type[Exception]]] = {
    "no bytes": (b"", logstore.CorruptBatch),
    "not a batch": (b"x" * 200, logstore.CorruptBatch),
    "cut": (frame_of(b"a", b"b")[:-8], logstore.CorruptBatch),
    "longer than it says": (frame_of(b"a") + bytes(8), logstore.CorruptBatch),
    "a flipped bit in a value": (tampered(-8), logstore.CorruptBatch),
    "a flipped bit in the columns": (tampered(100), logstore.CorruptBatch),
    "a record too large": (frame_of(bytes(1025)), logstore.RecordTooLarge),
    "too large": (frame_of(*[bytes(1000)] * 5), logstore.BatchTooLarge),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_a_batch_that_is_not_whole_or_over_a_limit_is_refused(log: FakeClusterLog, name: str) -> None:
    batch, kind = BAD_BATCHES[name]

    async def scenario() -> None:
        service = service_of(log)
        with pytest.raises(kind):
            await service.produce_batch(pb.ProduceBatchRequest(batch=batch), ROOT)
        good = pb.ProduceBatchRequest(batch=frame_of(b"good"))
        requests = each(good, pb.ProduceBatchRequest(batch=batch), good)
        found, error = await ended(service.produce_batch_stream(requests, ROOT))
        assert (len(found), type(error)) == (1, kind)

    run(scenario())
    assert [record.value for record in log.scan()] == [b"good"]


ONE_MIB = 1 << 20
RANDOM = random.Random(1).randbytes(100_000)


@pytest.mark.parametrize(
    ("values", "compression", "expected"),
    [
        ([bytes(1000)], "none", True),
        ([bytes(ONE_MIB - 200)], "none", True),
        ([bytes(ONE_MIB)], "none", False),
        ([RANDOM], "none", True),
        ([RANDOM[:90_000], bytes(90_000)], "zstd", False),
        ([bytes(100_000)], "zstd", True),  # a few bytes once compressed
        ([Record(RANDOM, headers=(("h", b"1"),))], "none", False),
    ],
)
def test_a_batch_whose_check_takes_long_is_checked_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[Any], compression: Any, expected: bool
) -> None:
    threads: list[threading.Thread] = []
    check = RecordBatch.from_bytes

    def noting(data: bytes, *, config: Config) -> RecordBatch:
        threads.append(threading.current_thread())
        return check(data, config=config)

    frame = RecordBatch.encode(values, compression=compression).to_bytes()

    async def scenario() -> None:
        monkeypatch.setattr("logstore.batch.RecordBatch.from_bytes", noting)
        with FakeClusterLog(tmp_path / "wide") as log:
            response = await service_of(log).produce_batch(pb.ProduceBatchRequest(batch=frame), ROOT)
        assert (response.first_offset, response.end_offset) == (0, len(values))

    run(scenario())
    assert (threading.main_thread() in threads) is expected and len(threads) == 1
