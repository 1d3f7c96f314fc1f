"""The log service as functions of a request and a call: no gRPC, no network."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Config, Record, RecordBatch
from logstore.encode import encode_batch
from logstore.errors import LogError
from logstore.frame import wire_frame
from logstore.testing import CrashFileSystem
from logstore.transfer import read_frames
from raftlog.errors import InvalidRecord, Overloaded, PermissionDenied, ServerStopping, Unauthenticated
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server import acl
from raftlog.server.authorizer import Authorizer
from raftlog.server.budget import ResponseBudget
from raftlog.server.call import Call
from raftlog.server.service import AHEAD_MAX, FRAMES_BYTES_MAX, Access, LogService

ROOT = Call("root")
NOBODY = Call("nobody")
STRANGER = Call(None)
DEADLINE_S = 10.0
QUEUE_BYTES_MAX = 4096
UNSENT_BYTES_MAX = 1 << 20

CONFIG = Config(sync="never", record_bytes_max=1024, batch_bytes_max=4096, pending_bytes_max=QUEUE_BYTES_MAX)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logstore.Log]:
    with logstore.Log(tmp_path / "log", CONFIG) as log:
        yield log


def service_of(
    log: logstore.Log,
    *,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
    unsent_bytes_max: int = UNSENT_BYTES_MAX,
    access: Access | None = None,
) -> LogService:
    access = access or Authorizer(str(acl.MODEL_FILE), str(acl.POLICY_FILE))
    servers = [pb.Server(id="one", rpc_addr="one:8400", is_leader=True)]
    return LogService(
        log, access, lambda: servers, queue_bytes_max=queue_bytes_max, unsent_bytes_max=unsent_bytes_max
    )


def run(scenario: Awaitable[Any]) -> None:
    """Run it, and fail if it hangs or if an error was left for nobody."""

    async def with_deadline() -> None:
        overlooked: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: overlooked.append(context))
        await asyncio.wait_for(scenario, DEADLINE_S)
        gc.collect()  # errors are reported as overlooked when they are forgotten
        assert overlooked == []

    asyncio.run(with_deadline())


def frame_of(*values: bytes | Record) -> bytes:
    return wire_frame(encode_batch(list(values)))


def produce(value: bytes, **more: Any) -> pb.ProduceRequest:
    return pb.ProduceRequest(record=pb.Record(value=value, **more))


async def each(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def taken(responses: AsyncIterator[Any], count: int) -> list[Any]:
    """The first `count` responses; the stream stays open."""
    return [await anext(responses) for _ in range(count)]


async def ended(responses: AsyncIterator[Any]) -> tuple[list[Any], Exception | None]:
    """All responses of a stream, and the error that ended it."""
    found = []
    try:
        async for response in responses:
            found.append(response)
    except (LogError, InvalidRecord, ServerStopping) as error:
        return found, error
    return found, None


def values_of(responses: list[pb.ConsumeBatchesResponse]) -> list[bytes]:
    frames = b"".join(response.frames for response in responses)
    return [record.value for found in read_frames(frames) for record in found.records(0, 1 << 60)]


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
    log: logstore.Log, name: str
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


def test_the_servers_are_told_to_everybody_who_has_a_name(log: logstore.Log) -> None:
    async def scenario() -> None:
        service = service_of(log)
        expected = pb.GetServersResponse(servers=[pb.Server(id="one", rpc_addr="one:8400", is_leader=True)])
        assert await service.get_servers(pb.GetServersRequest(), NOBODY) == expected
        with pytest.raises(Unauthenticated):
            await service.get_servers(pb.GetServersRequest(), STRANGER)

    run(scenario())


# ── single records ──────────────────────────────────────────────────────────────────────────────────


def test_a_record_comes_back_with_key_headers_time_and_the_range_of_the_log(log: logstore.Log) -> None:
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
def test_a_record_that_does_not_exist_is_out_of_range(log: logstore.Log, offset: int) -> None:
    log.append_batch([b"a", b"b"])

    async def scenario() -> None:
        with pytest.raises(logstore.OffsetOutOfRange) as caught:
            await service_of(log).consume(pb.ConsumeRequest(offset=offset), ROOT)
        assert (caught.value.offset, caught.value.start, caught.value.end) == (offset, 0, 2)

    run(scenario())


@pytest.mark.parametrize(("size", "is_stored"), [(0, True), (1024, True), (1025, False)])
def test_a_record_is_stored_up_to_its_limit(log: logstore.Log, size: int, is_stored: bool) -> None:
    async def scenario() -> None:
        service = service_of(log)
        if is_stored:
            assert (await service.produce(produce(bytes(size)), ROOT)).offset == 0
        else:
            with pytest.raises(logstore.RecordTooLarge):
                await service.produce(produce(bytes(size)), ROOT)

    run(scenario())
    assert log.end == int(is_stored)


def test_records_of_one_turn_of_the_loop_are_one_batch_in_their_order(log: logstore.Log) -> None:
    async def scenario() -> None:
        service = service_of(log)
        calls = [service.produce(produce(b"%d" % number), ROOT) for number in range(20)]
        assert [response.offset for response in await asyncio.gather(*calls)] == list(range(20))

    run(scenario())
    assert [batch.to_pylist() for batch in log.batches()] == [[b"%d" % number for number in range(20)]]


def test_a_record_that_cannot_be_stored_does_not_fail_those_it_was_merged_with(log: logstore.Log) -> None:
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


def test_a_full_queue_is_overload_and_what_was_taken_is_stored(log: logstore.Log) -> None:
    async def scenario() -> None:
        service = service_of(log, queue_bytes_max=1000)
        calls = [service.produce(produce(bytes(500)), ROOT) for _ in range(2)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[0] == pb.ProduceResponse(offset=0)
        assert isinstance(outcomes[1], Overloaded)
        assert (await service.produce(produce(bytes(500)), ROOT)).offset == 1

    run(scenario())


def test_one_record_larger_than_the_queue_is_taken_when_the_queue_is_empty(log: logstore.Log) -> None:
    async def scenario() -> None:
        assert (await service_of(log, queue_bytes_max=1).produce(produce(b"large"), ROOT)).offset == 0

    run(scenario())


def test_a_caller_that_goes_away_leaves_the_others_their_answers(log: logstore.Log) -> None:
    async def scenario() -> None:
        service = service_of(log)
        first, second = (asyncio.ensure_future(service.produce(produce(v), ROOT)) for v in (b"a", b"b"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).offset == 1

    run(scenario())
    assert [record.value for record in log.scan()] == [b"a", b"b"]


# ── produce streams ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, AHEAD_MAX, AHEAD_MAX + 1, 3 * AHEAD_MAX])
def test_a_stream_answers_each_record_in_order_and_ends_when_the_client_does(
    log: logstore.Log, count: int
) -> None:
    async def scenario() -> None:
        requests = each(*(produce(b"%d" % number) for number in range(count)))
        found, error = await ended(service_of(log, queue_bytes_max=1 << 20).produce_stream(requests, ROOT))
        assert ([response.offset for response in found], error) == (list(range(count)), None)

    run(scenario())
    assert [record.value for record in log.scan()] == [b"%d" % number for number in range(count)]


def test_a_stream_waits_where_the_queue_is_full(log: logstore.Log) -> None:
    async def scenario() -> None:
        requests = each(*(produce(bytes(400)) for _ in range(50)))
        found, error = await ended(service_of(log, queue_bytes_max=1000).produce_stream(requests, ROOT))
        assert ([response.offset for response in found], error) == (list(range(50)), None)

    run(scenario())


def test_a_merged_record_waits_while_batches_fill_the_logs_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        with logstore.Log(tmp_path / "synced", Config(pending_bytes_max=2000)) as log:
            service = service_of(log)
            _, batch = log.begin_append([bytes(1900)])
            answer = await service.produce(produce(bytes(500)), ROOT)
            assert (await batch, answer.offset) == (0, 1)

    run(scenario())


def test_a_stream_of_batches_waits_where_the_logs_queue_is_full(tmp_path: Path) -> None:
    async def scenario() -> None:
        with logstore.Log(tmp_path / "synced", Config(pending_bytes_max=2000)) as log:
            batch = pb.ProduceBatchRequest(batch=frame_of(bytes(900), b""))
            found, error = await ended(service_of(log).produce_batch_stream(each(*[batch] * 10), ROOT))
        ranges = [(response.first_offset, response.end_offset) for response in found]
        assert (ranges, error) == ([(2 * n, 2 * n + 2) for n in range(10)], None)

    run(scenario())


def test_requests_are_begun_before_the_first_is_answered(log: logstore.Log) -> None:
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
    log: logstore.Log,
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
        log = logstore.Log("data", Config(), filesystem=disk)
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
        with logstore.Log("data", Config(), filesystem=disk) as log:
            service = service_of(log)
            disk.fail("write", error=errno.ENOSPC)
            with pytest.raises(logstore.DiskFull):
                await service.produce(produce(b"a"), ROOT)
            assert (await service.produce(produce(b"b"), ROOT)).offset == 0

    run(scenario())


@pytest.mark.parametrize("kind", ["records", "batches"])
def test_a_stop_answers_what_a_stream_has_taken_and_ends_it(log: logstore.Log, kind: str) -> None:
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


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_stored_as_its_producer_made_it(log: logstore.Log) -> None:
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
def test_a_batch_that_is_not_whole_or_over_a_limit_is_refused(log: logstore.Log, name: str) -> None:
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
    with logstore.Log(tmp_path / "timed", CONFIG, clock=lambda: next(times)) as log:
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


def test_responses_follow_each_other_and_keep_to_the_bytes_asked_for(log: logstore.Log) -> None:
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
def test_batches_behind_the_end_are_out_of_range(log: logstore.Log, asked: pb.ConsumeBatchesRequest) -> None:
    log.append(b"a")

    async def scenario() -> None:
        with pytest.raises(logstore.OffsetOutOfRange):
            await anext(service_of(log).consume_batches(asked, ROOT))

    run(scenario())


def test_offsets_before_the_start_are_out_of_range_everywhere(log: logstore.Log) -> None:
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
def test_a_tail_goes_on_with_what_is_appended_later(log: logstore.Log, start: int) -> None:
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


def test_a_bounded_tail_waits_for_its_end_and_ends_there(log: logstore.Log) -> None:
    async def scenario() -> None:
        service = service_of(log)
        stream = service.consume_batches(request(follow=True, offset=0, end_offset=2), ROOT)
        waiting = asyncio.ensure_future(ended(stream))
        for value in (b"a", b"b", b"c"):
            await service.produce(produce(value), ROOT)
        found, error = await waiting
        assert (values_of(found)[:2], found[-1].end_offset, error) == ([b"a", b"b"], 2, None)

    run(scenario())


def test_a_tail_ends_when_the_log_is_closed(log: logstore.Log) -> None:
    async def scenario() -> None:
        waiting = asyncio.ensure_future(ended(service_of(log).consume_stream(pb.ConsumeRequest(), ROOT)))
        await asyncio.sleep(0)
        await asyncio.to_thread(log.close)
        found, error = await waiting
        assert (found, type(error)) == ([], logstore.LogClosed)

    run(scenario())


def test_a_tail_passes_over_records_that_compaction_removed(tmp_path: Path) -> None:
    with logstore.Log(tmp_path / "keyed", Config(sync="never", segment_bytes_max=4096)) as log:
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
    log: logstore.Log, method: str
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
    log: logstore.Log, method: str
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


def test_a_stream_waits_while_slower_ones_hold_all_that_may_be_held(log: logstore.Log) -> None:
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
    with logstore.Log(tmp_path / "wide", Config(sync="never")) as log:
        for _ in range(30):
            log.append(bytes(100_000))

        async def scenario() -> None:
            request = pb.ConsumeBatchesRequest(offset=0, bytes_max=(1 << 32) - 1)
            service = service_of(log, unsent_bytes_max=1 << 30)
            sizes = [len(response.frames) async for response in service.consume_batches(request, ROOT)]
            assert max(sizes) <= FRAMES_BYTES_MAX and len(sizes) == 3

        run(scenario())


def test_a_large_batch_is_checked_beside_the_loop(log: logstore.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    check = RecordBatch.from_bytes

    def noting(data: bytes, *, config: Config) -> RecordBatch:
        threads.append(threading.current_thread())
        return check(data, config=config)

    async def scenario() -> None:
        monkeypatch.setattr("raftlog.server.service.CHECK_HERE_BYTES_MAX", 100)
        monkeypatch.setattr("logstore.batch.RecordBatch.from_bytes", noting)
        request = pb.ProduceBatchRequest(batch=frame_of(bytes(1000), b"next"))
        response = await service_of(log).produce_batch(request, ROOT)
        assert (response.first_offset, response.end_offset) == (0, 2)
        assert threads and threading.main_thread() not in threads

    run(scenario())
