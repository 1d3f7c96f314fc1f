"""Connections between servers: accepts and dials them, encrypted, both sides known by their certificates."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Collection
from functools import partial
from typing import Final

from raftlog.errors import RaftlogError
from raftlog.net.addresses import split_address
from raftlog.net.connection import Connection
from raftlog.net.handshake import refuse
from raftlog.net.listener import RAFT_BYTE, Accepted, Listener
from raftlog.net.peer_tls import TlsContext
from raftlog.net.quiet_log import QuietLog
from raftlog.net.sockets import let_go, prepare
from raftlog.net.tls import TlsFiles

log = logging.getLogger(__name__)

SHUTDOWN_S_MAX: Final = 1.0  # for the goodbye of TLS
UNACKNOWLEDGED_MS_MAX: Final = 5000  # then the connection is lost, and a new one is tried


class Unreachable(RaftlogError):
    """No connection to the other server, and why. It may work at the next attempt."""


class StreamLayer:
    """`accept` and `dial` give a Connection whose TLS is done. Both TLS arguments None: plain TCP, nobody is proved."""

    def __init__(
        self,
        listener: Listener,
        server_tls: TlsFiles | None,
        peer_tls: TlsFiles | None,
        *,
        peer_names: Collection[str] = ("peer",),
    ) -> None:
        """Begin to accept, up to TLS; TlsError if the files cannot be used.

        `peer_names`: common names of certificates that may connect to us.
        """
        assert (server_tls is None) == (peer_tls is None), "TLS on one side only"
        self._listener = listener
        self._server_tls = TlsContext(server_tls, is_server=True) if server_tls is not None else None
        self._peer_tls = TlsContext(peer_tls, is_server=False) if peer_tls is not None else None
        self._peer_names = tuple(peer_names)
        # None: closed; bounded by the listener
        self._ready: asyncio.Queue[Connection | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet = QuietLog(log, lambda: asyncio.get_running_loop().time())
        self._accepting = asyncio.get_running_loop().create_task(self._accept_all())

    @property
    def address(self) -> str:
        return self._listener.address

    async def accept(self) -> Connection:
        """The next connection from another server. ConnectionAbortedError once the listener or this is closed."""
        connection = await self._ready.get()
        if connection is None:
            self._ready.put_nowait(None)  # for whoever else waits
            raise ConnectionAbortedError("the stream layer is closed")
        return connection

    async def dial(self, address: str, timeout: float) -> Connection:
        """A connection to the server at host:port within so many seconds, else Unreachable."""
        answer_by = asyncio.get_running_loop().time() + timeout
        try:
            host, port = split_address(address)
            async with asyncio.timeout_at(answer_by):
                return await self._begin(host, port, address, answer_by)
        except TimeoutError as error:
            raise Unreachable(f"{address}: no answer within {timeout:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"{address}: its certificate is not trusted: {error.verify_message}") from error
        except (OSError, ValueError) as error:  # ValueError: not host:port, or no name of a host
            raise Unreachable(f"{address}: {_in_words(error)}") from error

    async def close(self) -> None:
        """End what is not yet accepted. The listener and the connections given out are their owners'."""
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        while not self._ready.empty():
            connection = self._ready.get_nowait()
            if connection is not None:
                connection.abort("this server is stopping")
        self._ready.put_nowait(None)

    async def _begin(self, host: str, port: int, address: str, answer_by: float) -> Connection:
        """Connect, say that this is a server, and begin TLS.

        The loop makes the socket itself: of one that it is given, uvloop forgets to take possession if the other side
        ends the connection at once. Then both close its descriptor, the second one when it is another connection's.
        """
        loop = asyncio.get_running_loop()
        tls = self._peer_tls
        connection = Connection(address, answer_by=answer_by)
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        try:
            info = transport.get_extra_info("socket")
            with socket.fromfd(
                info.fileno(), info.family, socket.SOCK_STREAM
            ) as same:  # another descriptor of it
                prepare(same, unacknowledged_ms_max=UNACKNOWLEDGED_MS_MAX)
            transport.write(RAFT_BYTE)
            if tls is None:
                transport.set_protocol(connection)
                connection.connection_made(transport)
                return connection
            secured = await loop.start_tls(
                transport,
                connection,
                tls.current(),
                server_hostname=host,
                ssl_shutdown_timeout=SHUTDOWN_S_MAX,
            )
            if secured is None or secured.is_closing():
                raise ConnectionResetError("the other side ended the connection")
            connection.connection_made(secured)
        except BaseException:
            transport.abort()
            raise
        return connection

    async def _accept_all(self) -> None:
        while True:
            try:
                accepted = await self._listener.accept()
            except ConnectionAbortedError:
                self._ready.put_nowait(None)
                return
            connection = Connection(accepted.address, answer_by=accepted.answer_by)
            task = asyncio.get_running_loop().create_task(self._admit(accepted, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(partial(_end_if_cancelled, accepted, connection))

    async def _admit(self, accepted: Accepted, connection: Connection) -> None:
        """Do TLS, and put the connection where `accept` finds it, or end it."""
        tls = self._server_tls
        try:
            prepare(accepted.socket, unacknowledged_ms_max=UNACKNOWLEDGED_MS_MAX)
            async with asyncio.timeout_at(accepted.answer_by):
                # (What uvloop returns here is its own protocol for TLS.)
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    accepted.socket,
                    ssl=tls.current() if tls is not None else None,
                    ssl_shutdown_timeout=SHUTDOWN_S_MAX if tls is not None else None,
                )
        except (OSError, TimeoutError) as error:
            let_go(accepted.socket)
            accepted.release()
            self._quiet.warning(
                accepted.address, "no TLS with one that connected as a server address=%s reason=%s",
                accepted.address, "too slow" if isinstance(error, TimeoutError) else _in_words(error),
            )  # fmt: skip
            return
        connection.on_proved = accepted.release
        connection.ended.add_done_callback(lambda _: accepted.release())
        if tls is None or connection.subject in self._peer_names:
            self._ready.put_nowait(connection)
        else:
            await self._refuse_subject(connection)

    async def _refuse_subject(self, connection: Connection) -> None:
        self._quiet.warning(
            f"subject {connection.subject}",
            "refused: this certificate may not speak for a server subject=%s address=%s allowed=%s",
            connection.subject, connection.peer_address, ",".join(self._peer_names),
        )  # fmt: skip
        reason = f"the certificate of {connection.subject!r} may not speak for a server"
        await refuse(connection, reason, after_hello=True)


def _end_if_cancelled(accepted: Accepted, connection: Connection, task: asyncio.Task[None]) -> None:
    """Also where the task had not begun yet."""
    if not task.cancelled():
        return
    accepted.release()
    if connection.is_open:
        connection.abort("this server is stopping")
    else:
        let_go(accepted.socket)


def _in_words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio puts in its own words what it did
    return str(error) or type(error).__name__
