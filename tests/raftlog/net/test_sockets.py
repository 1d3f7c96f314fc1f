"""Who closes a socket that a loop may have taken."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

import pytest
import uvloop

from raftlog.net.sockets import let_go


def test_a_socket_that_no_loop_has_taken_is_closed() -> None:
    one, other = socket.socketpair()

    let_go(one)

    assert other.recv(1) == b""
    other.close()


def test_a_socket_that_a_transport_owns_is_left_to_it() -> None:
    """Else it closes, when it is forgotten, what has got the same number meanwhile."""
    one, other = socket.socketpair()
    descriptor = one.fileno()
    one._io_refs += 1  # type: ignore[attr-defined]  # as uvloop does

    let_go(one)
    del one

    os.fstat(descriptor)
    os.close(descriptor)
    other.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_socket_without_tls_is_closed_once(loop: object) -> None:
    """A second time would close whatever has got the same number meanwhile."""

    async def fail_at_tls() -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        connected = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        listener.close()
        accepted.sendall(b"no TLS")
        accepted.close()
        connected.setblocking(False)
        try:
            with pytest.raises(OSError):
                await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol,
                    sock=connected,
                    ssl=ssl.create_default_context(),
                    server_hostname="localhost",
                )
        finally:
            let_go(connected)
        return connected

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        connected = runner.run(fail_at_tls())
        assert connected.fileno() == -1
        again = os.open(os.devnull, os.O_RDONLY)
        del connected
        os.fstat(again)
        os.close(again)
