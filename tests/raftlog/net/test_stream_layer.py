from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

import pytest

from raftlog.errors import TlsError
from raftlog.net import listener as listener_module
from raftlog.net.certificates import CertificatePlan, Role, init_folder, issue_into_folder
from raftlog.net.connection import Connection, ConnectionEnded, common_name
from raftlog.net.listener import Listener, ListenerLimits
from raftlog.net.peer_tls import TlsContext
from raftlog.net.stream_layer import StreamLayer, Unreachable
from raftlog.net.tls import TlsFiles
from raftlog.wire.frames import Frame

from .conftest import Run
from .nodes import stream_layer, until

DIAL_S = 10.0


@pytest.fixture
def folder(certificates: Path, tmp_path: Path) -> Path:
    """Certificates that a test may change."""
    return Path(shutil.copytree(certificates, tmp_path / "certs"))


async def pair(dialler: StreamLayer, acceptor: StreamLayer) -> tuple[Connection, Connection]:
    dialled = await dialler.dial(acceptor.address, DIAL_S)
    return dialled, await acceptor.accept()


def frame(of: Frame) -> tuple[int, bytes]:
    return of.type, bytes(of.payload)


@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_frames_pass_both_ways_and_both_sides_know_the_other(
    run: Run, certificates: Path, is_tls: bool
) -> None:
    async def scenario() -> None:
        async with stream_layer(certificates if is_tls else None) as layer:
            dialled, accepted = await pair(layer, layer)
            dialled.write_frame(1, b"question")
            assert frame(await accepted.next_frame()) == (1, b"question")
            accepted.write_frame(2, b"answer")
            assert frame(await dialled.next_frame()) == (2, b"answer")

            assert (accepted.subject, dialled.subject) == (("peer", "server") if is_tls else ("", ""))

            dialled.close("done")
            assert await accepted.ended == "the other side ended the connection"
            assert await dialled.ended == "done"

    run(scenario())


def test_large_and_small_frames_arrive_in_order(run: Run, certificates: Path) -> None:
    sent = [
        bytes([size % 251]) * size for size in (0, 1, 300_000, 5, 200_000, 131_072, 131_073, 7, 1_000_000)
    ]
    came: list[bytes] = []

    async def scenario() -> None:
        async with stream_layer(certificates) as layer:
            dialled, accepted = await pair(layer, layer)
            accepted.listen(lambda one: came.append(bytes(one.payload)), payload_bytes_max=1_000_000)

            for payload in sent:
                dialled.write_frame(4, payload)

            await until(lambda: len(came) == len(sent))
            dialled.close("done")
            await accepted.ended

    run(scenario())
    assert came == sent


def test_frames_that_came_before_anybody_listened_are_handed_over_first(run: Run) -> None:
    came: list[int] = []

    async def scenario() -> None:
        async with stream_layer(None) as layer:
            dialled, accepted = await pair(layer, layer)
            for type in range(10):
                dialled.write_frame(type, b"")
            assert (await accepted.next_frame()).type == 0
            accepted.listen(lambda one: came.append(one.type), payload_bytes_max=10)
            await until(lambda: len(came) == 9)
            dialled.abort("done")
            await accepted.ended

    run(scenario())
    assert came == list(range(1, 10))


def test_a_frame_that_is_too_long_ends_the_connection(run: Run) -> None:
    async def scenario() -> None:
        async with stream_layer(None) as layer:
            dialled, accepted = await pair(layer, layer)
            dialled.write_frame(1, b"x" * 5000)

            with pytest.raises(ConnectionEnded, match="a frame of 5000 bytes: at most 4096 are taken"):
                await accepted.next_frame()

            await dialled.ended

    run(scenario())


def test_a_paused_connection_makes_the_sender_wait(run: Run, certificates: Path) -> None:
    count = 0

    def counted(_: Frame) -> None:
        nonlocal count
        count += 1

    async def scenario() -> None:
        async with stream_layer(certificates) as layer:
            dialled, accepted = await pair(layer, layer)
            accepted.listen(counted, payload_bytes_max=100_000)
            accepted._transport.pause_reading()
            written = 0
            async with asyncio.timeout(DIAL_S):
                while dialled.is_writable or written < 300:  # until the system takes no more
                    dialled.write_frame(4, b"x" * 100_000)
                    written += 1
                    await asyncio.sleep(0)
            assert count < written
            writable = asyncio.Event()
            dialled.on_writable = writable.set

            accepted.resume_reading()

            await writable.wait()
            await until(lambda: count == written)
            dialled.close("done")
            await accepted.ended

    run(scenario())


# ── certificates ──


def test_a_clients_certificate_may_not_speak_for_a_server(
    run: Run, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with (
            stream_layer(certificates) as layer,
            stream_layer(certificates, dials_as="root-client") as client,
        ):
            accepting = asyncio.create_task(layer.accept())
            connection = await client.dial(layer.address, DIAL_S)
            connection.write_frame(1, b"hello")

            type, reason = frame(await connection.next_frame())

            assert (type, reason) == (3, b"the certificate of 'root' may not speak for a server")
            await connection.ended
            assert not accepting.done()
            accepting.cancel()

    run(scenario())
    assert "refused: this certificate may not speak for a server subject=root" in caplog.text


def test_a_certificate_of_another_authority_is_refused_by_both_sides(
    run: Run, certificates: Path, tmp_path: Path
) -> None:
    init_folder(tmp_path, CertificatePlan(authority_name="another CA"))

    async def scenario() -> None:
        async with stream_layer(certificates) as layer, stream_layer(tmp_path) as stranger:
            with pytest.raises(Unreachable, match="its certificate is not trusted"):
                await stranger.dial(layer.address, DIAL_S)

            shutil.copy(certificates / "ca.pem", tmp_path / "ca.pem")  # now it trusts, and is not trusted
            accepting = asyncio.create_task(layer.accept())
            try:
                connection = await stranger.dial(layer.address, DIAL_S)
            except Unreachable:  # TLS 1.2
                pass
            else:
                with pytest.raises(ConnectionEnded):
                    await connection.next_frame()
            assert not accepting.done()
            accepting.cancel()

    run(scenario())


def test_a_server_whose_certificate_is_for_another_host_is_not_trusted(run: Run, folder: Path) -> None:
    issue_into_folder(folder, "server", Role.SERVER, host_names=["elsewhere.example"], force=True)

    async def scenario() -> None:
        async with stream_layer(folder) as layer:
            accepting = asyncio.create_task(layer.accept())
            with pytest.raises(Unreachable, match=r"not trusted: .*127\.0\.0\.1"):
                await layer.dial(layer.address, DIAL_S)
            accepting.cancel()

    run(scenario())


def test_new_certificates_are_used_for_new_connections_without_a_restart(run: Run, folder: Path) -> None:
    async def scenario() -> None:
        async with stream_layer(folder) as layer:
            before = await pair(layer, layer)
            init_folder(folder, CertificatePlan(peer_name="peer"), force=True)  # also of a new authority

            after = await pair(layer, layer)

            for dialled, accepted in (before, after):
                dialled.write_frame(1, b"still there")
                assert (await accepted.next_frame()).type == 1
                dialled.close("done")
                await accepted.ended

    run(scenario())


def test_files_that_do_not_match_for_a_moment_leave_the_old_ones_in_use(run: Run, folder: Path) -> None:
    async def scenario() -> None:
        async with stream_layer(folder) as layer:
            shutil.copy(folder / "root-client-key.pem", folder / "server-key.pem")

            dialled, accepted = await pair(layer, layer)

            dialled.close("done")
            await accepted.ended

    run(scenario())


def test_files_that_cannot_be_used_are_told_at_once(folder: Path) -> None:
    (folder / "peer.pem").write_text("none")

    with pytest.raises(TlsError, match=r"peer\.pem: no certificate"):
        TlsContext(TlsFiles.in_folder(folder, "peer"), is_server=False)


def test_the_common_name_is_found() -> None:
    names = ((("organizationName", "one"),), (("commonName", "peer"),))

    assert common_name({"subject": names}) == "peer"
    assert common_name({"subject": ()}) == ""
    assert common_name(None) == ""


# ── hostile connections ──


def test_neither_silence_nor_half_a_hello_nor_nonsense_holds_up_a_server(
    run: Run, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "FIRST_BYTE_S_MAX", 2.0)

    async def scenario() -> None:
        async with stream_layer(certificates) as layer:
            streams = []
            for begin in (b"", b"\x01", b"\x01\x16\x03\x01\x02\x00\x01", b"\x01GET / HTTP/1.1\r\n\r\n"):
                host, port = layer.address.split(":")
                streams.append(await asyncio.open_connection(host, int(port)))
                streams[-1][1].write(begin)

            dialled, accepted = await pair(layer, layer)

            for reader, writer in streams:
                try:
                    await reader.read()
                except ConnectionError:
                    pass
                writer.close()
            dialled.close("done")
            await accepted.ended

    run(scenario())


def test_places_of_servers_become_free_when_they_are_gone_or_proved(run: Run) -> None:
    async def scenario() -> None:
        listener = Listener("127.0.0.1", 0, limits=ListenerLimits(raft_handshakes_max=1))
        async with stream_layer(None, listener=listener) as layer:
            gone, _ = await pair(layer, layer)
            gone.abort("gone")
            proved = []
            for _ in range(2):
                dialled, accepted = await eventually(layer)
                await accepted.next_frame()
                accepted.on_proved()
                proved.append((dialled, accepted))
            for dialled, accepted in proved:
                dialled.abort("done")
                await accepted.ended

    async def eventually(layer: StreamLayer) -> tuple[Connection, Connection]:
        while True:  # the place of the one that is gone becomes free soon
            accepting = asyncio.create_task(layer.accept())
            dialled = await layer.dial(layer.address, DIAL_S)
            dialled.write_frame(1, b"")
            await asyncio.wait((accepting, dialled.ended), return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                return dialled, accepting.result()
            accepting.cancel()

    run(scenario())


def test_connections_that_have_not_proved_anything_end_with_the_server(run: Run, certificates: Path) -> None:
    async def scenario() -> None:
        streams = []
        async with stream_layer(certificates) as layer:
            host, port = layer.address.split(":")
            for begin in (b"", b"\x01", b"\x01\x16\x03\x01\x02\x00\x01"):
                for _ in range(3):
                    streams.append(await asyncio.open_connection(host, int(port)))
                    streams[-1][1].write(begin)
        for reader, writer in streams:
            try:
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
            except ConnectionError:
                pass

    run(scenario())


# ── no connection ──


def test_a_port_where_nobody_listens_is_unreachable(run: Run) -> None:
    async def scenario() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            async with stream_layer(None) as layer:
                with pytest.raises(Unreachable, match=f"{address}: .*refused"):
                    await layer.dial(address, DIAL_S)

    run(scenario())


def test_a_server_that_does_not_answer_is_given_up_in_time(run: Run, certificates: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            async with stream_layer(certificates) as layer:
                with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
                    await layer.dial(address, 0.2)

    run(scenario())


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "host.invalid:1"])
def test_an_address_that_leads_nowhere_is_unreachable(run: Run, address: str) -> None:
    async def scenario() -> None:
        async with stream_layer(None) as layer:
            with pytest.raises(Unreachable, match=address):
                await layer.dial(address, DIAL_S)

    run(scenario())


def test_who_waits_for_a_connection_is_told_when_the_layer_is_closed(run: Run) -> None:
    async def scenario() -> None:
        async with stream_layer(None) as layer:
            waiting = [asyncio.create_task(layer.accept()) for _ in range(2)]
            await asyncio.sleep(0)
        for each in waiting:
            with pytest.raises(ConnectionAbortedError):
                await each
        with pytest.raises(ConnectionAbortedError):
            await layer.accept()

    run(scenario())
