"""The clients for asyncio and for threads have the interface of a log, against a real server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Record, RecordBatch
from logstore.config import MIB
from logstore.encode import encode_batch
from logstore.frame import wire_frame
from raftlog import Client
from raftlog.agent import Agent
from raftlog.client.answers import Bounds, Server
from tests.raftlog.serving import client_of, run, serving

WAIT_S_MAX = 10.0


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
    """What both tell, times of appends and terms left out."""

    def shown(record: Record) -> tuple[Any, ...]:
        return (record.offset, record.value, record.key, record.headers)

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
