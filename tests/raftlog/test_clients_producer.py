"""The producer that merges records into batches, against a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import logstore
from logstore import Record
from logstore.config import MIB
from logstore.filesystem import OsFile
from raftlog import Client, ProducerConfig, TlsFiles
from raftlog.client.answers import Bounds
from raftlog.client.batch import Handle
from raftlog.client.failures import CallFailed
from raftlog.client.producer import ProducerClosed, ProducerFull
from tests.raftlog.serving import client_of, run, server_in_thread, serving

WAIT_S_MAX = 10.0


SLOW = ProducerConfig(linger_ms=60_000)  # nothing is sent before it must be


def lengths(client: Client) -> list[int]:
    return [len(batch) for batch in client.batches()]


def test_records_sent_within_the_linger_are_one_batch(client: Client) -> None:
    with client.producer(ProducerConfig(linger_ms=50)) as producer:
        handles = [producer.send(b"%d" % number) for number in range(100)]
        offsets = [handle.result(WAIT_S_MAX) for handle in handles]

    assert offsets == list(range(100))
    assert len(lengths(client)) < 10


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (ProducerConfig(linger_ms=60_000, batch_records_max=1), 10, [1, 1, 1, 1, 1]),
        (ProducerConfig(linger_ms=60_000, batch_records_max=2), 10, [2, 2, 1]),
        (ProducerConfig(linger_ms=60_000, batch_bytes_max=2 * (36 + 64)), 36, [2, 2, 1]),  # exactly full
        (ProducerConfig(linger_ms=60_000, batch_bytes_max=2 * (36 + 64)), 37, [1, 1, 1, 1, 1]),  # one over
        (ProducerConfig(linger_ms=60_000, batch_bytes_max=1), 10, [1, 1, 1, 1, 1]),
    ],
)
def test_a_batch_ends_at_its_limits(
    client: Client, config: ProducerConfig, size: int, expected: list[int]
) -> None:
    with client.producer(config) as producer:
        for _ in range(5):
            producer.send(bytes(size))

    assert lengths(client) == expected


def test_flush_sends_what_waits_and_returns_when_it_is_stored(client: Client) -> None:
    with client.producer(SLOW) as producer:
        producer.flush()  # nothing waits
        handle = producer.send(b"a")
        assert not handle.done()
        producer.flush()

        assert handle.done()
        assert handle.result() == 0


def test_records_keep_their_keys_headers_and_compression(client: Client) -> None:
    sent = [Record(b"v" * 1000, key=b"k", timestamp=7, headers=(("h", b"1"),)), b"plain", bytearray(b"other")]

    with client.producer(ProducerConfig(compression="zstd")) as producer:
        for value in sent:
            producer.send(value)  # type: ignore[arg-type]

    found = [(record.value, record.key, record.headers) for record in client.scan()]
    assert found == [(b"v" * 1000, b"k", (("h", b"1"),)), (b"plain", b"", ()), (b"other", b"", ())]


def test_a_record_too_large_is_refused_before_it_is_sent(client: Client) -> None:
    with client.producer(SLOW) as producer, pytest.raises(logstore.RecordTooLarge):
        producer.send(bytes(16 * 2**20 + 1))

    assert client.bounds() == Bounds(0, 0)


def test_records_of_each_thread_keep_their_order(client: Client) -> None:
    with client.producer(ProducerConfig(batch_records_max=7, pending_bytes_max=5_000)) as producer:

        def send(thread: int) -> list[int]:
            handles = [producer.send(b"%d %d" % (thread, number)) for number in range(300)]
            return [handle.result(WAIT_S_MAX) for handle in handles]

        with ThreadPoolExecutor(4) as threads:
            offsets = list(threads.map(send, range(4)))

    values = [record.value for record in client.scan()]
    for thread, own in enumerate(offsets):
        assert own == sorted(own)
        assert [values[offset] for offset in own] == [b"%d %d" % (thread, number) for number in range(300)]
    assert len(values) == 1200


def test_a_batch_that_the_server_refuses_fails_its_records_and_the_producer_goes_on(
    tmp_path: Path, certificates: Path
) -> None:
    tls = TlsFiles.in_folder(certificates, "root-client")
    with (
        server_in_thread(tmp_path, certificates, record_bytes_max=1000) as agent,
        Client(agent.rpc_address, tls=tls) as client,
    ):
        producer = client.producer(SLOW)
        failed = [producer.send(b"a"), producer.send(bytes(1001))]
        with pytest.raises(CallFailed, match="record_bytes_max"):
            producer.flush()
        for handle in failed:
            with pytest.raises(CallFailed) as caught:
                handle.result()
            assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.INVALID_ARGUMENT, False)
        good = producer.send(b"good")
        producer.close()  # does not raise what handles tell

        assert good.result() == 0


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (Record(b"x", headers=(("n" * 70_000, b""),)), ValueError),
        (Record(b"x", headers=(("n", bytes(16 * MIB)),)), logstore.RecordTooLarge),
        (Record(b"x", timestamp=1 << 63), OverflowError),
        (Record(b"x", timestamp=1.5), TypeError),  # type: ignore[arg-type]
        (Record(b"x", timestamp=0.0), TypeError),  # type: ignore[arg-type]
    ],
)
def test_a_record_that_cannot_be_encoded_is_refused_and_those_of_its_batch_are_stored(
    client: Client, record: Record, kind: type[Exception]
) -> None:
    with client.producer(SLOW) as producer:
        handles = [producer.send(Record(b"a", timestamp=1))]
        with pytest.raises(kind):
            producer.send(record)
        handles.append(producer.send(b"b"))

    assert [handle.result() for handle in handles] == [0, 1]


def test_a_refusal_for_lack_of_permission_is_told_whenever_it_comes_and_nothing_was_stored(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path, certificates) as agent,
            client_of(agent, certificates, "nobody-client") as client,
        ):
            outcomes: list[Any] = []
            for steps in range(100):  # of the loop, between the opening of the stream and the last write
                producer = client.producer(ProducerConfig(linger_ms=0, batch_records_max=1))
                handles = [producer.send(b"x") for _ in range(3)]
                for _ in range(steps % 20):
                    await asyncio.sleep(0)
                handles.append(producer.send(b"x"))
                outcomes += await asyncio.gather(*map(as_task, handles), return_exceptions=True)
                await producer.close()

        told = {(one.code, one.is_unknown, str(one)) for one in outcomes}
        text = "PERMISSION_DENIED: nobody not permitted to produce to *"
        assert told == {(grpc.StatusCode.PERMISSION_DENIED, False, text)}

    run(scenario())


async def as_task(handle: Handle) -> int:
    return await handle


@pytest.fixture
def stuck(tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a server that has stored one record and answers no more until the test is over."""
    released = threading.Event()
    sync = OsFile.sync
    tls = TlsFiles.in_folder(certificates, "root-client")
    with (
        server_in_thread(tmp_path, certificates, sync="always") as agent,
        Client(agent.rpc_address, tls=tls) as client,
    ):
        client.append(b"first")
        monkeypatch.setattr(
            "logstore.filesystem.OsFile.sync", lambda file: (released.wait(WAIT_S_MAX), sync(file))[1]
        )
        yield client
        released.set()


def error_of(handle: Handle) -> tuple[grpc.StatusCode, bool]:
    """(code, whether the record may have been stored) of one that has failed."""
    with pytest.raises(CallFailed) as caught:
        handle.result(0)
    return caught.value.code, caught.value.is_unknown


def test_a_block_left_by_an_exception_abandons_what_is_not_answered(stuck: Client) -> None:
    config = ProducerConfig(linger_ms=60_000, batch_records_max=1, in_flight_max=2)
    with pytest.raises(KeyboardInterrupt), stuck.producer(config) as producer:
        handles = [producer.send(b"x") for _ in range(3)]
        raise KeyboardInterrupt

    with pytest.raises(ProducerClosed):
        producer.send(b"x")
    producer.close()  # no error
    errors = [error_of(handle) for handle in handles]
    cancelled = grpc.StatusCode.CANCELLED
    assert errors[2:] == [(cancelled, False)]  # it was never sent
    assert {code for code, _ in errors} == {cancelled}


def test_close_waits_once_for_a_server_that_does_not_answer(stuck: Client) -> None:
    config = ProducerConfig(linger_ms=60_000, batch_records_max=1, in_flight_max=1, answer_timeout_s=0.3)
    with stuck.producer(config) as producer:
        handles = [producer.send(b"x") for _ in range(3)]

    errors = [error_of(handle) for handle in handles]
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    assert errors == [(late, True), (late, False), (late, False)]  # the others were not sent


def test_what_could_not_be_sent_to_a_lost_server_fails_in_time(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            client = client_of(agent, certificates)
            producer = client.producer(ProducerConfig(linger_ms=0, answer_timeout_s=0.3))
            assert await producer.send(b"stored") == 0
        with pytest.raises(CallFailed) as caught:
            await producer.send(b"lost")
        assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.UNAVAILABLE, False)
        await client.close()

    run(scenario())


def test_an_answer_that_does_not_come_fails_what_is_on_the_way(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        released = threading.Event()
        sync = OsFile.sync
        async with (
            serving(tmp_path, certificates, sync="always") as agent,
            client_of(agent, certificates) as client,
        ):
            producer = client.producer(ProducerConfig(linger_ms=0, answer_timeout_s=0.3))
            assert await producer.send(b"first") == 0
            monkeypatch.setattr(
                "logstore.filesystem.OsFile.sync", lambda file: (released.wait(WAIT_S_MAX), sync(file))[1]
            )
            with pytest.raises(CallFailed) as caught:
                await producer.send(b"late")
            released.set()
            assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
            assert await producer.send(b"next") == 2

    run(scenario())


def test_time_in_which_nothing_was_on_the_way_is_no_time_without_an_answer(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        released = threading.Event()
        sync = OsFile.sync
        async with (
            serving(tmp_path, certificates, sync="always") as agent,
            client_of(agent, certificates) as client,
        ):
            producer = client.producer(ProducerConfig(linger_ms=0, answer_timeout_s=1.0))
            assert await producer.send(b"first") == 0
            monkeypatch.setattr(
                "logstore.filesystem.OsFile.sync", lambda file: (released.wait(WAIT_S_MAX), sync(file))[1]
            )
            await asyncio.sleep(0.75)  # idle; not for a condition
            handle = producer.send(b"second")
            asyncio.get_running_loop().call_later(0.5, released.set)
            assert await handle == 1

    run(scenario())


def test_a_full_producer_refuses_until_there_is_room(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            producer = client.producer(ProducerConfig(linger_ms=0, pending_bytes_max=1000))
            await producer.room()  # at once
            first = producer.send(bytes(5000))  # one record is always taken
            with pytest.raises(ProducerFull):
                producer.send(b"x")
            await producer.room()
            assert (await first, await producer.send(b"x")) == (0, 1)

    run(scenario())


def test_who_gives_up_waiting_takes_nothing_from_the_others(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            producer = client.producer(ProducerConfig(linger_ms=100))
            handles = [producer.send(b"a"), producer.send(b"b")]
            waiting = asyncio.ensure_future(asyncio.wait_for(handles[0], None))
            flushing = asyncio.ensure_future(producer.flush())
            await asyncio.sleep(0)
            waiting.cancel()
            flushing.cancel()
            assert [await handle for handle in handles] == [0, 1]

    run(scenario())


def test_a_result_may_be_waited_for_only_so_long(client: Client) -> None:
    with client.producer(SLOW) as producer:
        handle = producer.send(b"a")
        with pytest.raises(TimeoutError):
            handle.result(0.001)
