"""The clients for asyncio and for threads, against a real server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import logstore
from logstore import Record, RecordBatch
from logstore.config import MIB, Config
from logstore.encode import encode_batch
from logstore.filesystem import OsFile
from logstore.frame import wire_frame
from raftlog import Client, ProducerConfig, TlsFiles
from raftlog.agent import Agent
from raftlog.client.answers import Bounds, Server
from raftlog.client.batch import Handle
from raftlog.client.failures import CallFailed
from raftlog.client.patience import Patience
from raftlog.client.producer import ProducerClosed, ProducerFull
from raftlog.errors import TlsError
from tests.raftlog.serving import client_of, config_of, run, serving

WAIT_S_MAX = 10.0


@contextmanager
def server(folder: Path, certificates: Path, **settings: Any) -> Iterator[Agent]:
    """A server on an event loop in a thread, for clients that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    agent = Agent(config_of(folder, certificates, **settings))
    try:
        asyncio.run_coroutine_threadsafe(agent.__aenter__(), loop).result(WAIT_S_MAX)
        try:
            yield agent
        finally:
            asyncio.run_coroutine_threadsafe(agent.stop(), loop).result(WAIT_S_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def agent(tmp_path: Path, certificates: Path) -> Iterator[Agent]:
    with server(tmp_path, certificates) as agent:
        yield agent


@pytest.fixture
def client(agent: Agent, certificates: Path) -> Iterator[Client]:
    with Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client:
        yield client


# ── the interface of a log ──────────────────────────────────────────────────────────────────────────


def appended(log: Any) -> list[tuple[int, int] | int]:
    sent = RecordBatch.from_bytes(wire_frame(encode_batch([b"e"])))
    return [
        log.append(b"a"),
        log.append(bytearray(b"b")),
        log.append(Record(b"c", key=b"k", timestamp=5, headers=(("h", b"1"),))),
        log.append_batch([b"d", Record(b"", key=b"k")]),
        log.append_batch(sent),
    ]


def facts(log: Client | logstore.Log) -> dict[str, Any]:
    """What both tell, times of appends left out."""

    def shown(record: Record) -> tuple[Any, ...]:
        return (record.offset, record.value, record.key, record.headers, record.term)

    first = log.read(0)
    return {
        "scan": [shown(record) for record in log.scan()],
        "part": [shown(record) for record in log.scan(1, 4)],
        "nothing": list(log.scan(6)),
        "batches": [batch.to_pylist() for batch in log.batches()],
        "cut batches": [batch.to_pylist() for batch in log.batches(4, 5)],
        "read": shown(log.read(2)),
        "own time": log.read(2).timestamp,
        "at its time": log.offset_at(first.timestamp),
        "at the beginning": log.offset_at(0),
        "in the future": log.offset_at(1 << 62),
    }


def test_the_client_answers_as_the_log_does(client: Client, tmp_path: Path) -> None:
    with logstore.Log(tmp_path / "embedded") as log:
        assert appended(client) == appended(log) == [0, 1, 2, (3, 5), (5, 6)]

        assert facts(client) == facts(log)
        assert client.bounds() == Bounds(log.start, log.end)


@pytest.mark.parametrize(
    "ask",
    [
        lambda log: log.read(3),
        lambda log: log.read(-1),
        lambda log: log.read(1 << 64),
        lambda log: list(log.scan(4)),
        lambda log: list(log.scan(-1)),
        lambda log: list(log.batches(9)),
    ],
)
def test_the_client_raises_as_the_log_does(client: Client, tmp_path: Path, ask: Callable[[Any], Any]) -> None:
    with logstore.Log(tmp_path / "embedded") as log:
        for one in (client, log):
            one.append_batch([b"a", b"b", b"c"])
        with pytest.raises(logstore.OffsetOutOfRange) as embedded:
            log.read(3)
        with pytest.raises(logstore.OffsetOutOfRange) as caught:
            ask(client)

    assert (caught.value.start, caught.value.end) == (embedded.value.start, embedded.value.end) == (0, 3)


def test_an_empty_batch_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(logstore.EmptyBatch):
        client.append_batch([])

    assert client.bounds() == Bounds(0, 0)


def test_what_is_too_large_is_refused_before_it_is_sent_as_the_log_does(
    client: Client, tmp_path: Path
) -> None:
    too_long = bytes(16 * MIB + 1)
    frame = wire_frame(encode_batch([b"x"]))
    damaged = frame[:-1] + bytes([frame[-1] ^ 1])
    asks: list[tuple[Callable[[Any], Any], type[Exception]]] = [
        (lambda log: log.append(too_long), logstore.RecordTooLarge),
        (lambda log: log.append(Record(bytes(16 * MIB), key=b"k")), logstore.RecordTooLarge),
        (lambda log: log.append(Record(b"x", timestamp=1 << 63)), OverflowError),
        (lambda log: log.append_batch([bytes(12 * MIB)] * 3), logstore.BatchTooLarge),
        (lambda log: log.append_batch(damaged), logstore.CorruptBatch),
    ]
    with logstore.Log(tmp_path / "embedded") as log:
        for ask, kind in asks:
            told = []
            for one in (client, log):
                with pytest.raises(kind) as caught:
                    ask(one)
                told.append(str(caught.value))
            assert told[0] == told[1]

    assert client.bounds() == Bounds(0, 0)


def test_a_record_of_exactly_the_limit_is_taken(client: Client) -> None:
    with client.producer() as producer:
        handles = [producer.send(bytes(16 * MIB)), producer.send(Record(bytes(16 * MIB - 1), key=b"k"))]

    assert [handle.result() for handle in handles] == [0, 1]
    assert client.append(bytes(16 * MIB)) == 2


def test_a_record_that_compaction_removed_is_told_as_the_log_does(tmp_path: Path, certificates: Path) -> None:
    records = [
        Record(bytes(900), key=b"k"),
        Record(b"y", key=b"k"),
        Record(bytes(900), key=b"other"),
        Record(b"z"),
    ]
    with logstore.Log(tmp_path / "data" / "log", Config(segment_bytes_max=1024)) as log:
        for record in records:
            log.append(record)
        log.compact()
        with pytest.raises(logstore.RecordCompacted) as embedded:
            log.read(0)
    tls = TlsFiles.in_folder(certificates, "root-client")

    with (
        server(tmp_path, certificates, segment_bytes_max=1024) as agent,
        Client(agent.rpc_address, tls=tls) as client,
        pytest.raises(logstore.RecordCompacted) as caught,
    ):
        client.read(0)

    assert (str(caught.value), caught.value.offset) == (str(embedded.value), 0)


def test_the_servers_are_listed(client: Client, agent: Agent) -> None:
    assert client.servers() == [Server("one", agent.rpc_address, is_leader=True)]


def test_following_waits_for_what_is_appended_later(client: Client) -> None:
    client.append(b"old")
    tail, tail_of_new = client.follow(0), client.follow()
    assert next(tail).value == b"old"
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(next, tail), threads.submit(next, tail_of_new)]
        numbers = iter(range(1 << 60))
        while not all(future.done() for future in waiting):
            client.append(b"new %d" % next(numbers))

        assert waiting[0].result().offset == 1
        assert waiting[1].result().offset >= 1
    for one in (tail, tail_of_new):
        one.close()  # type: ignore[attr-defined]


def test_the_asyncio_client_does_the_same(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            assert await client.append(b"a") == 0
            assert await client.append_batch([b"b", b"c"]) == (1, 3)
            assert (await client.read(2)).value == b"c"
            assert [record.value async for record in client.scan(1)] == [b"b", b"c"]
            assert [batch.to_pylist() async for batch in client.batches()] == [[b"a"], [b"b", b"c"]]
            assert await client.bounds() == Bounds(0, 3)
            assert await client.offset_at(0) == 0
            tail = client.follow(2)
            assert (await anext(tail)).value == b"c"
            waiting = asyncio.ensure_future(anext(tail))
            assert await client.append(b"d") == 3
            assert (await waiting).value == b"d"
            await tail.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_an_abandoned_iterator_that_is_collected_in_the_loop_of_its_client_blocks_nothing(
    client: Client,
) -> None:
    client.append(b"a")
    tail = client.follow(0)
    assert next(tail).value == b"a"
    circle: list[Any] = [tail]
    circle.append(circle)

    def collecting() -> Iterator[bytes]:  # the client asks for values in its loop
        gc.collect()
        yield b"b"

    gc.disable()
    try:
        del tail, circle
        assert client.append_batch(collecting()) == (1, 2)
    finally:
        gc.enable()


# ── failures and misuse ─────────────────────────────────────────────────────────────────────────────


def test_a_denied_call_says_so_and_that_nothing_was_stored(agent: Agent, certificates: Path) -> None:
    with Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "nobody-client")) as client:
        with pytest.raises(CallFailed) as caught:
            client.append(b"x")

        assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.PERMISSION_DENIED, False)
        assert str(caught.value) == "PERMISSION_DENIED: nobody not permitted to produce to *"


def test_a_message_over_the_limit_of_grpc_is_no_overload(
    agent: Agent, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (("grpc.max_receive_message_length", 1000),)
    monkeypatch.setattr("raftlog.client.connection.OPTIONS", options)
    with Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client:
        client.append(bytes(2000))
        calls: list[Callable[[], Any]] = [lambda: client.read(0), lambda: list(client.scan())]
        for call in calls:
            with pytest.raises(CallFailed, match="larger than max") as caught:
                call()
            assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_where_nobody_listens_nothing_was_stored_and_reads_give_up(certificates: Path) -> None:
    with Client("127.0.0.1:1", tls=TlsFiles.in_folder(certificates, "root-client"), timeout_s=0.2) as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.append(b"x"),
            lambda: client.read(0),
            lambda: list(client.scan()),
        ]
        for call in calls:
            with pytest.raises(CallFailed) as caught:
                call()
            assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.UNAVAILABLE, False)


def test_a_server_that_answers_too_late_leaves_a_produce_unknown(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    sync = OsFile.sync

    with (
        server(tmp_path, certificates, sync="always") as agent,
        Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client"), timeout_s=1) as client,
    ):
        client.append(b"first")
        monkeypatch.setattr(
            "logstore.filesystem.OsFile.sync", lambda file: (released.wait(WAIT_S_MAX), sync(file))[1]
        )
        with pytest.raises(CallFailed) as caught:
            client.append(b"late")
        released.set()

    assert (caught.value.code, caught.value.is_unknown) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
    assert str(caught.value).endswith("; whether it was stored is not known")


def test_a_read_goes_on_when_the_server_comes_back(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            port = agent.rpc_port
            client = client_of(agent, certificates)
            await client.append_batch([b"a", b"b"])
            tail = client.follow(0)
            assert [(await anext(tail)).value for _ in range(2)] == [b"a", b"b"]
        async with serving(tmp_path, certificates, rpc_port=port):
            await client.append(b"c")
            assert await anext(tail) == await client.read(2)
            await tail.aclose()  # type: ignore[attr-defined]
            await client.close()

    run(scenario())


def test_patience_begins_with_the_first_failure_however_long_the_tail_was_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("raftlog.client.patience.time.monotonic", lambda: now[0])
    monkeypatch.setattr("raftlog.client.patience.PAUSE_S_MIN", 0.0)

    async def scenario() -> None:
        patience = Patience(10.0, is_stream=True)
        now[0] = 3600.0
        assert await patience.wait()
        now[0] += 10.1
        assert not await patience.wait()
        patience.renew()
        assert await patience.wait()

    asyncio.run(scenario())


def test_a_closed_client_refuses_and_closing_twice_is_no_error(agent: Agent, certificates: Path) -> None:
    client = Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client"))
    producer = client.producer()
    producer.send(b"kept")
    reading = client.follow(0)
    assert next(reading).value == b"kept"
    client.close()
    client.close()

    with pytest.raises(RuntimeError, match="the client is closed"):
        client.append(b"x")
    with pytest.raises(RuntimeError, match="the client is closed"):
        next(reading)
    with pytest.raises(ProducerClosed):
        producer.send(b"x")


def test_a_closed_asyncio_client_refuses(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            client = client_of(agent, certificates)
            await client.close()
            await client.close()
            with pytest.raises(RuntimeError, match="the client is closed"):
                await client.append(b"x")
            with pytest.raises(RuntimeError, match="the client is closed"):
                await anext(client.scan())

    run(scenario())


def test_a_client_without_its_certificate_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()

    with pytest.raises(TlsError, match="no such file"):
        Client("localhost:1", tls=TlsFiles.in_folder(tmp_path, "who"))

    assert threading.active_count() == before


def test_the_blocking_client_works_where_an_event_loop_runs(agent: Agent, certificates: Path) -> None:
    async def scenario() -> None:
        with Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client:
            assert client.append(b"a") == 0
            assert [record.value for record in client.scan()] == [b"a"]

    run(scenario())


# ── the producer ────────────────────────────────────────────────────────────────────────────────────

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
        server(tmp_path, certificates, record_bytes_max=1000) as agent,
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


def test_what_was_sent_behind_a_refused_batch_may_have_been_stored(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path, certificates, record_bytes_max=1000) as agent,
            client_of(agent, certificates) as client,
        ):
            producer = client.producer(ProducerConfig(linger_ms=0, batch_records_max=1))
            handles = [producer.send(bytes(size)) for size in (1, 1001, 2, 3)]  # all are on the way at once
            outcomes = await asyncio.gather(*(as_task(handle) for handle in handles), return_exceptions=True)

        assert outcomes[0] == 0
        told = [(one.code, one.is_unknown) for one in outcomes[1:] if isinstance(one, CallFailed)]
        refused = grpc.StatusCode.INVALID_ARGUMENT
        assert told == [(refused, False), (refused, True), (refused, True)]

    run(scenario())


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
    with server(tmp_path, certificates, sync="always") as agent, Client(agent.rpc_address, tls=tls) as client:
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


def test_a_lost_server_fails_what_is_on_the_way_as_unknown(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            client = client_of(agent, certificates)
            producer = client.producer(ProducerConfig(linger_ms=0))
            assert await producer.send(b"stored") == 0
        with pytest.raises(CallFailed) as caught:
            await producer.send(b"lost")
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
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
