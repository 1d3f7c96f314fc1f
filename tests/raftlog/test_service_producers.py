"""The log service: idempotent producers, expected offsets, linearizable reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import RecordBatch
from logstore.encode import encode_batch
from logstore.frame import wire_frame
from raftlog.errors import (
    InvalidRecord,
    NotCaughtUp,
    OutcomeUnknown,
    SequenceGap,
    StaleEpoch,
    UnexpectedOffset,
)
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.call import Call
from raftlog.server.merging import ProduceMerger, Producer
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import CONFIG, ROOT, each, ended, frame_of, produce, run, service_of


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FakeClusterLog]:
    with FakeClusterLog(tmp_path / "log", CONFIG) as log:
        yield log


def numbered(sequence: int, *, producer: int = 7, epoch: int = 0, **more: Any) -> pb.ProduceRequest:
    """A record of an idempotent producer; its value is its sequence number."""
    return pb.ProduceRequest(
        record=pb.Record(value=b"%d" % sequence), producer_id=producer, producer_epoch=epoch,
        sequence=sequence, **more,
    )  # fmt: skip


def values_in(log: FakeClusterLog) -> list[bytes]:
    return [record.value for record in log.scan()]


# ── idempotent records ──────────────────────────────────────────────────────────────────────────────


def test_records_of_a_producer_that_follow_each_other_are_one_batch_with_its_header(
    log: FakeClusterLog,
) -> None:
    async def scenario() -> None:
        stream = service_of(log).produce_stream(each(*(numbered(n, epoch=2) for n in range(20))), ROOT)
        found, error = await ended(stream)
        assert ([one.offset for one in found], error) == (list(range(20)), None)

    run(scenario())
    (batch,) = log.batches()
    assert (batch.producer_id, batch.producer_epoch, batch.first_sequence, len(batch)) == (7, 2, 0, 20)


def test_records_of_different_producers_share_no_batch_and_each_keeps_its_order(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        calls = []
        for sequence in range(3):
            calls += [service.produce(numbered(sequence, producer=producer), ROOT) for producer in (1, 2)]
            calls.append(service.produce(produce(b"none"), ROOT))
        await asyncio.gather(*calls)

    run(scenario())
    assert log.batches_begun == [(1, 0, 0, 3), (2, 0, 0, 3), (0, 0, 0, 3)]


def test_a_gap_between_sequence_numbers_is_a_gap_between_batches_and_refused(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        stream = service_of(log).produce_stream(each(numbered(0), numbered(1), numbered(3)), ROOT)
        found, error = await ended(stream)
        assert [one.offset for one in found] == [0, 1]
        assert isinstance(error, SequenceGap) and (error.expected, error.actual) == (3, 2)

    run(scenario())
    assert log.batches_begun == [(7, 0, 0, 2), (7, 0, 3, 1)]


def test_records_that_are_sent_again_get_their_first_offsets_however_they_are_merged(
    log: FakeClusterLog,
) -> None:
    async def scenario() -> None:
        service = service_of(log)
        await ended(service.produce_stream(each(*(numbered(n) for n in range(5))), ROOT))
        log.append(b"of somebody else")
        log._next_offset += 1
        again = service.produce_stream(each(*(numbered(n) for n in range(3, 9))), ROOT)
        found, error = await ended(again)
        assert ([one.offset for one in found], error) == ([3, 4, 6, 7, 8, 9], None)

    run(scenario())
    expected = [b"0", b"1", b"2", b"3", b"4", b"of somebody else", b"5", b"6", b"7", b"8"]
    assert values_in(log) == expected


def test_an_older_instance_of_a_producer_is_refused(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        await service.produce(numbered(0, epoch=1), ROOT)
        with pytest.raises(StaleEpoch) as caught:
            await service.produce(numbered(1, epoch=0), ROOT)
        assert (caught.value.expected, caught.value.actual) == (0, 1)

    run(scenario())


@pytest.mark.parametrize("fields", [{"producer_epoch": 1}, {"sequence": 1}])
def test_an_epoch_or_a_sequence_number_without_a_producer_is_invalid(
    log: FakeClusterLog, fields: dict[str, int]
) -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidRecord, match="all three or none"):
            await service_of(log).produce(pb.ProduceRequest(record=pb.Record(value=b"x"), **fields), ROOT)

    run(scenario())
    assert log.end == 0


def test_a_record_that_cannot_be_stored_is_a_gap_for_those_of_its_producer_behind_it(
    log: FakeClusterLog,
) -> None:
    bad = numbered(1)
    bad.record.headers.add(name="n" * 70_000)

    async def scenario() -> None:
        service = service_of(log, queue_bytes_max=1 << 20)
        log.config = type(CONFIG)(sync="never", record_bytes_max=1 << 17)
        calls = [service.produce(one, ROOT) for one in (numbered(0), bad, numbered(2))]
        first, second, third = await asyncio.gather(*calls, return_exceptions=True)
        assert first == pb.ProduceResponse(offset=0)
        assert isinstance(second, InvalidRecord)
        assert isinstance(third, SequenceGap)

    run(scenario())
    assert values_in(log) == [b"0"]


def test_a_lost_leadership_is_told_to_every_record_of_the_batch(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        log.lost = OutcomeUnknown("deposed")
        calls = [service.produce(numbered(n), ROOT) for n in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes == [log.lost] * 3

    run(scenario())
    assert log.batches_begun == [(7, 0, 0, 3)]


def test_producers_do_not_wait_for_each_other() -> None:
    class Held(FakeClusterLog):
        """Answers when it is told to."""

        def begin_append(self, batch: Any, *, expected_offset: int | None = None) -> Any:
            future = asyncio.get_running_loop().create_future()
            begun.append((len(batch), future))
            return len(batch), future

    begun: list[tuple[int, asyncio.Future[int]]] = []

    async def scenario() -> None:
        held = Held.__new__(Held)
        held.config = CONFIG
        merger = ProduceMerger(held, queue_bytes_max=1 << 20)
        one, other = Producer(1, 0), Producer(2, 0)
        offsets = [merger.submit(b"a", producer=one), merger.submit(b"b", producer=other)]
        await asyncio.sleep(0)
        assert len(begun) == 2
        offsets.append(merger.submit(b"c", producer=one, sequence=1))
        await asyncio.sleep(0)
        assert len(begun) == 2  # gathers, while its producer's batch before is on its way
        begun[0][1].set_result(10)
        assert await offsets[0] == 10
        begun[2][1].set_result(11)
        begun[1][1].set_result(12)
        assert [await one for one in offsets] == [10, 12, 11]

    run(scenario())


# ── expected offsets ────────────────────────────────────────────────────────────────────────────────


def test_a_record_is_stored_only_at_the_offset_that_it_expects(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        request = pb.ProduceRequest(record=pb.Record(value=b"x"), expected_offset=0)
        assert (await service.produce(request, ROOT)).offset == 0
        with pytest.raises(UnexpectedOffset) as caught:
            await service.produce(request, ROOT)
        assert (caught.value.expected, caught.value.actual) == (0, 1)

    run(scenario())
    assert log.end == 1


def test_a_record_that_expects_an_offset_is_alone_and_in_its_place(log: FakeClusterLog) -> None:
    expecting = pb.ProduceRequest(record=pb.Record(value=b"2"), expected_offset=2)

    async def scenario() -> None:
        requests = each(produce(b"0"), produce(b"1"), expecting, produce(b"3"), produce(b"4"))
        found, error = await ended(service_of(log).produce_stream(requests, ROOT))
        assert ([one.offset for one in found], error) == ([0, 1, 2, 3, 4], None)

    run(scenario())
    assert [batch.to_pylist() for batch in log.batches()] == [[b"0", b"1"], [b"2"], [b"3", b"4"]]


def test_of_records_that_expect_the_same_offset_one_is_stored(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        request = pb.ProduceRequest(record=pb.Record(value=b"x"), expected_offset=0)
        outcomes = await asyncio.gather(
            *(service.produce(request, ROOT) for _ in range(5)), return_exceptions=True
        )
        assert [type(one) for one in outcomes] == [pb.ProduceResponse, *[UnexpectedOffset] * 4]

    run(scenario())
    assert log.end == 1


def test_a_batch_is_stored_only_at_the_offset_that_it_expects_and_with_its_producers_header(
    log: FakeClusterLog,
) -> None:
    frame = wire_frame(encode_batch([b"a", b"b"], producer_id=9, producer_epoch=1, first_sequence=0))

    async def scenario() -> None:
        service = service_of(log)
        with pytest.raises(UnexpectedOffset):
            await service.produce_batch(pb.ProduceBatchRequest(batch=frame_of(b"x"), expected_offset=1), ROOT)
        request = pb.ProduceBatchRequest(batch=frame, expected_offset=0)
        assert (await service.produce_batch(request, ROOT)).end_offset == 2
        again = service.produce_batch_stream(each(pb.ProduceBatchRequest(batch=frame)), ROOT)
        ((one,), error) = await ended(again)
        assert (one.first_offset, one.end_offset, error) == (0, 2, None)

    run(scenario())
    (batch,) = log.batches()
    assert isinstance(batch, RecordBatch)
    assert (batch.producer_id, batch.producer_epoch, batch.to_pylist()) == (9, 1, [b"a", b"b"])


# ── linearizable reads ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["consume", "consume_stream", "consume_batches"])
@pytest.mark.parametrize("is_linearizable", [False, True])
def test_only_a_linearizable_read_asks_what_was_acknowledged(
    log: FakeClusterLog, method: str, is_linearizable: bool
) -> None:
    log.append(b"a")
    kind: Any = pb.ConsumeBatchesRequest if method == "consume_batches" else pb.ConsumeRequest

    async def scenario() -> None:
        answer = getattr(service_of(log), method)(kind(offset=0, linearizable=is_linearizable), ROOT)
        if method == "consume":
            await answer
        else:
            await anext(answer)
            await answer.aclose()

    run(scenario())
    assert log.asked == [("read_index",)] * is_linearizable


def test_a_linearizable_read_fails_where_no_quorum_answers_and_another_one_does_not(
    log: FakeClusterLog,
) -> None:
    log.append(b"a")
    log.behind = True

    async def scenario() -> None:
        service = service_of(log)
        with pytest.raises(NotCaughtUp):
            await service.consume(pb.ConsumeRequest(linearizable=True), ROOT)
        assert (await service.consume(pb.ConsumeRequest(), ROOT)).record.value == b"a"

    run(scenario())


def test_a_linearizable_read_has_no_longer_than_its_caller(log: FakeClusterLog) -> None:
    log.append(b"a")
    waited: list[float] = []

    async def read_index(timeout_s: float) -> int:
        waited.append(timeout_s)
        return log.end

    async def scenario() -> None:
        log.read_index = read_index  # type: ignore[method-assign]
        service = service_of(log)
        for timeout_s in (0.5, 1000.0, None):
            await service.consume(pb.ConsumeRequest(linearizable=True), Call("root", timeout_s=timeout_s))

    run(scenario())
    assert waited == [0.5, 10.0, 10.0]
