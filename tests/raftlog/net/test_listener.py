from __future__ import annotations

import asyncio
import asyncio.selector_events
import errno
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftlog.errors import ListenError
from raftlog.net import listener as listener_module
from raftlog.net.listener import Listener, ListenerLimits
from raftlog.net.tls import TlsFiles, channel_credentials, server_credentials

from .conftest import Run
from .nodes import until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(**more: Any) -> AsyncIterator[Listener]:
    listener = Listener("127.0.0.1", 0, **more)
    listener.start()
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def backend(listener: Listener, serve: Any) -> AsyncIterator[None]:
    """Something in gRPC's place."""
    server = await asyncio.start_unix_server(serve, listener.grpc_target.removeprefix("unix:"))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()
    await writer.wait_closed()


async def connect(listener: Listener) -> Streams:
    return await asyncio.open_connection("127.0.0.1", listener.port)


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        return not await reader.read(1)
    except ConnectionError:
        return True


async def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


# ── to whom a connection goes ──


@pytest.mark.parametrize("delay_turns", [0, 50])
def test_a_connection_that_begins_with_1_is_for_raft(run: Run, delay_turns: int) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            reader, writer = await connect(listener)
            for _ in range(delay_turns):  # so that the byte comes when it is waited for already
                await asyncio.sleep(0.001)
            writer.write(b"\x01rest")

            accepted = await listener.accept()

            accepted.socket.setblocking(True)
            assert accepted.socket.recv(4) == b"rest"
            assert accepted.address == "127.0.0.1"
            accepted.socket.close()
            await close(writer)

    run(scenario())


def test_any_other_connection_reaches_grpc_with_its_first_byte(run: Run) -> None:
    async def scenario() -> None:
        async with listening() as listener, backend(listener, echo):
            reader, writer = await connect(listener)
            writer.write(b"PRI * HTTP/2.0")

            assert await reader.readexactly(14) == b"PRI * HTTP/2.0"

            await close(writer)

    run(scenario())


def test_the_end_of_one_direction_is_passed_on_alone(run: Run) -> None:
    async def scenario() -> None:
        async with listening() as listener, backend(listener, echo):
            reader, writer = await connect(listener)
            writer.write(b"question")
            writer.write_eof()

            assert await reader.read() == b"questionend"

            await close(writer)
            await until(lambda: listener.connections == 0)

    run(scenario())


def test_what_the_backend_says_first_reaches_the_client(run: Run) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"settings")
        await reader.read(1)
        writer.close()

    async def scenario() -> None:
        async with listening() as listener, backend(listener, greet):
            reader, writer = await connect(listener)
            writer.write(b"P")

            assert await reader.read() == b"settings"

            await close(writer)

    run(scenario())


def test_megabytes_pass_both_ways_unchanged(run: Run) -> None:
    data = bytes(range(256)) * 16384

    async def scenario() -> None:
        async with listening() as listener, backend(listener, echo):
            reader, writer = await connect(listener)
            writer.write(data)
            writer.write_eof()

            assert await reader.read() == data + b"end"

            await close(writer)

    run(scenario())


def test_a_backend_that_does_not_read_stops_the_client_and_fills_no_memory(run: Run) -> None:
    taken: list[bytes] = []
    reading = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reading.wait()
        while data := await reader.read(1 << 20):
            taken.append(data)
        writer.close()

    async def scenario() -> None:
        async with listening() as listener, backend(listener, wait):
            client = socket.create_connection(("127.0.0.1", listener.port))
            client.setblocking(False)
            sent = client.send(b"P")
            for _ in range(200):  # until nothing moves: every buffer on the way is full
                try:
                    sent += client.send(b"x" * 1_000_000)
                except BlockingIOError:
                    pass
                await asyncio.sleep(0.001)

            assert sent < 100_000_000, "200 MB were offered"

            reading.set()
            client.shutdown(socket.SHUT_WR)
            await until(lambda: sum(map(len, taken)) == sent)
            client.close()
            await until(lambda: listener.connections == 0)

    run(scenario())


def test_a_client_is_let_go_where_grpc_does_not_listen(run: Run) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            reader, writer = await connect(listener)
            writer.write(b"P")

            assert await is_ended(reader)
            assert listener.connections == 0
            await close(writer)

    run(scenario())


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_real_grpc_server_answers_and_sees_the_clients_certificate(
    run: Run, certificates: Path, tls: bool
) -> None:
    async def name(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return b"".join(context.auth_context().get("x509_common_name", [b"nobody"]))

    async def scenario() -> None:
        async with listening() as listener:
            server = grpc.aio.server()
            handler = grpc.unary_unary_rpc_method_handler(name)
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("test.Service", {"Name": handler}),)
            )
            if tls:
                files = TlsFiles.in_folder(certificates, "server")
                server.add_secure_port(listener.grpc_target, server_credentials(files))
                credentials = channel_credentials(TlsFiles.in_folder(certificates, "root-client"))
                channel = grpc.aio.secure_channel(f"localhost:{listener.port}", credentials)
            else:
                server.add_insecure_port(listener.grpc_target)
                channel = grpc.aio.insecure_channel(f"localhost:{listener.port}")
            await server.start()
            async with channel:
                answer = await channel.unary_unary("/test.Service/Name", None, None)(b"", timeout=20)
            await server.stop(None)

        assert answer == (b"root" if tls else b"nobody")

    run(scenario())


# ── limits ──


def test_a_silent_connection_is_closed_and_holds_up_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "FIRST_BYTE_S_MAX", 1.0)

    async def scenario() -> None:
        async with listening() as listener, backend(listener, echo):
            silent = [await connect(listener) for _ in range(20)]
            reader, writer = await connect(listener)
            writer.write(b"P")
            assert await reader.readexactly(1) == b"P"

            for each, _ in silent:
                assert await is_ended(each)

            assert listener.connections == 1
            await close(writer, *(each for _, each in silent))

    run(scenario())


def test_connections_beyond_the_limit_are_closed_at_once_and_places_become_free(run: Run) -> None:
    async def scenario() -> None:
        async with listening(limits=ListenerLimits(connections_max=2)) as listener, backend(listener, echo):
            first, second = await connect(listener), await connect(listener)
            await until(lambda: listener.connections == 2)

            refused = await connect(listener)
            assert await is_ended(refused[0])

            await close(first[1])
            await until(lambda: listener.connections == 1)
            reader, writer = await connect(listener)
            writer.write(b"P")
            assert await reader.readexactly(1) == b"P"
            await close(writer, second[1], refused[1])

    run(scenario())


def test_one_address_gets_no_more_than_its_share(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with listening(limits=ListenerLimits(connections_per_address_max=1)) as listener:
            first = await connect(listener)
            await until(lambda: listener.connections == 1)

            refused = await connect(listener)

            assert await is_ended(refused[0])
            await close(first[1], refused[1])

    run(scenario())
    assert "what=connections of one address limit=1 address=127.0.0.1" in caplog.text


def test_strangers_that_begin_as_servers_do_not_take_the_place_of_clients(run: Run) -> None:
    limits = ListenerLimits(connections_max=1, raft_handshakes_max=2)

    async def scenario() -> None:
        async with listening(limits=limits) as listener, backend(listener, echo):
            strangers, accepted = [], []
            for _ in range(2):
                strangers.append(await connect(listener))
                strangers[-1][1].write(b"\x01")
                accepted.append(await listener.accept())
            third = await connect(listener)
            third[1].write(b"\x01")
            assert await is_ended(third[0])

            reader, writer = await connect(listener)
            writer.write(b"P")

            assert await reader.readexactly(1) == b"P"
            for each in accepted:
                each.socket.close()
            await close(writer, third[1], *(stream for _, stream in strangers))

    run(scenario())


def test_warnings_that_strangers_cause_are_few(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with listening(limits=ListenerLimits(connections_max=0)) as listener:
            for _ in range(20):
                reader, writer = await connect(listener)
                assert await is_ended(reader)
                await close(writer)

    with caplog.at_level(logging.WARNING, "raftlog.net.listener"):
        run(scenario())
    assert len(caplog.records) == 1


def test_connections_wait_while_there_are_no_more_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [errno.ECONNABORTED, errno.EMFILE]

    class Failing:
        """A listening socket that has its troubles."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real

        def accept(self) -> Any:
            if failures:
                raise OSError(failures[0], os.strerror(failures.pop(0)))
            return self._real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    make = listener_module._listen
    monkeypatch.setattr(listener_module, "_listen", lambda host, port: Failing(make(host, port)))

    async def scenario() -> None:
        async with listening() as listener, backend(listener, echo):
            reader, writer = await connect(listener)
            writer.write(b"P")

            assert await reader.readexactly(1) == b"P"

            writer.write_eof()
            assert await reader.read() == b"end"
            await close(writer)

    asyncio.run(scenario())
    assert failures == []
    assert "connection not accepted reason=Software caused connection abort" in caplog.text


# ── its place ──


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ListenError, match="cannot listen on 127.0.0.1:.*in use"):
            Listener("127.0.0.1", other.getsockname()[1])


def test_only_this_user_may_enter_the_folder_of_grpcs_socket_and_it_goes_with_the_listener(run: Run) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            folder = Path(listener.grpc_target.removeprefix("unix:")).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

        assert not folder.exists()

    run(scenario())


def test_the_socket_of_a_process_that_was_killed_is_replaced(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "run"
        folder.mkdir(mode=0o755)
        (folder / listener_module.SOCKET_NAME).write_bytes(b"")
        async with listening(socket_folder=str(folder)) as listener, backend(listener, echo):
            assert listener.grpc_target == f"unix:{folder}/{listener_module.SOCKET_NAME}"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    run(scenario())


def test_a_folder_whose_path_is_too_long_for_a_socket_is_not_used(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(socket_folder=str(tmp_path / ("long" * 40))) as listener:
            assert "long" not in listener.grpc_target

    run(scenario())


def test_who_waits_for_a_connection_is_told_when_the_listener_is_closed(run: Run) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            waiting = [asyncio.create_task(listener.accept()) for _ in range(2)]
            await asyncio.sleep(0)
        for each in waiting:
            with pytest.raises(ConnectionAbortedError):
                await each

    run(scenario())
