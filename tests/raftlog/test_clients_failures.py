"""What the clients say when a call fails, and of misuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import logstore
from logstore import Record
from logstore.config import Config
from logstore.filesystem import OsFile
from raftlog import Client, TlsFiles
from raftlog.agent import Agent
from raftlog.client.failures import CallFailed
from raftlog.client.patience import Patience
from raftlog.client.producer import ProducerClosed
from raftlog.errors import TlsError
from tests.raftlog.fake_cluster import client_of as client_of_fakes
from tests.raftlog.fake_cluster import fake_cluster
from tests.raftlog.serving import client_of, run, server_in_thread, serving

WAIT_S_MAX = 10.0


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
        server_in_thread(tmp_path, certificates, sync="always") as agent,
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


def test_a_record_that_compaction_removed_is_told_as_the_log_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path, Config(segment_bytes_max=1024)) as cluster:
            for record in (
                Record(bytes(900), key=b"k"),
                Record(b"y", key=b"k"),
                Record(bytes(900)),
                Record(b"z"),
            ):
                cluster.log.append(record)
            cluster.log.compact()
            with pytest.raises(logstore.RecordCompacted) as embedded:
                cluster.log.read(0)
            async with client_of_fakes(cluster) as client:
                with pytest.raises(logstore.RecordCompacted) as caught:
                    await client.read(0)

                assert (str(caught.value), caught.value.offset) == (str(embedded.value), 0)
                assert [record.offset async for record in client.scan()] == [1, 2, 3]

    run(scenario())
