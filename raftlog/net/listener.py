"""The one port of a server: looks at the first byte of each connection and gives it to whom it is for.

    0x01      another server: Raft, after TLS, by whoever calls `accept`
    others    a client: passed on to gRPC as it is, the first byte included (0x16 begins TLS, "P" plain HTTP/2)

No connection waits for another one. One that says nothing is closed after FIRST_BYTE_S_MAX. gRPC listens on a socket
in a folder that only this user may enter; it sees no addresses, so limits by address are kept here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from raftlog.errors import ListenError
from raftlog.net.addresses import host_and_port
from raftlog.net.quiet_log import QuietLog
from raftlog.net.relay import Relay
from raftlog.net.sockets import let_go, prepare

log = logging.getLogger(__name__)

RAFT_BYTE: Final = b"\x01"
FIRST_BYTE_S_MAX: Final = 5.0
UNACKNOWLEDGED_MS_MAX: Final = 60_000  # of a client; then it is gone, or has not read for so long
BACKLOG: Final = 1024  # connections that the system keeps until they are accepted
SOCKET_NAME: Final = "grpc.socket"
SOCKET_PATH_BYTES_MAX: Final = 107  # of an address of the Unix family, without the zero at its end
NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPTED_AT_ONCE_MAX: Final = 64  # then others get their turn
RETRY_S: Final = 0.1  # until one is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """Beyond these a new connection is closed at once. Servers that have proved who they are do not count."""

    connections_max: int = 1024  # of clients, and of those of whom nothing is known yet
    connections_per_address_max: int = 512
    raft_handshakes_max: int = 64  # that begin as another server does, and have not proved to be one


class Accepted(NamedTuple):
    """The connection of another server, or of somebody who begins as one: nothing is proved."""

    socket: socket.socket
    address: str
    answer_by: float  # loop time until which it must have proved who it is
    release: Callable[[], None]  # call it once that is decided; more calls do nothing


class Listener:
    """Listens from the start; takes connections after `start`."""

    def __init__(
        self, host: str, port: int, *, limits: ListenerLimits | None = None, socket_folder: str | None = None
    ) -> None:
        """ListenError if the address cannot be used. Port 0: any that is free.

        gRPC's socket is made in `socket_folder` if its path is short enough, else in a new folder for temporary files.
        """
        self._limits = limits or ListenerLimits()
        self._socket = _listen(host, port)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        self._folder, self._is_folder_ours = _make_folder(socket_folder)
        self._relay = Relay(os.path.join(self._folder, SOCKET_NAME))
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None  # of accepting, when there were no more files
        self._count = 0  # connections under connections_max
        self._by_address: Counter[str] = Counter()
        self._handshakes = 0
        # None: closed. raft_handshakes_max at most.
        self._raft: asyncio.Queue[Accepted | None] = asyncio.Queue()
        self._quiet = QuietLog(log, lambda: asyncio.get_running_loop().time())
        self._is_closed = False

    @property
    def address(self) -> str:
        return host_and_port(self.host, self.port)

    @property
    def grpc_target(self) -> str:
        """What gRPC is to listen on."""
        return f"unix:{os.path.join(self._folder, SOCKET_NAME)}"

    @property
    def connections(self) -> int:
        """Of clients, and of those of whom nothing is known yet."""
        return self._count

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._accept_ready)

    async def accept(self) -> Accepted:
        """The next connection that begins as another server's; ConnectionAbortedError once this is closed."""
        if self._is_closed:
            raise ConnectionAbortedError("the listener is closed")
        accepted = await self._raft.get()
        if accepted is None:
            self._raft.put_nowait(None)  # for whoever else waits
            raise ConnectionAbortedError("the listener is closed")
        return accepted

    async def close(self) -> None:
        """Take no more connections and end those of clients. Those that `accept` gave out are their owners'."""
        if self._is_closed:
            return
        self._is_closed = True
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._retry is not None:
            self._retry.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._socket.close()
        self._relay.close()
        await asyncio.sleep(0)  # connections that were aborted end in the next turn
        while not self._raft.empty():
            accepted = self._raft.get_nowait()
            if accepted is not None:
                accepted.socket.close()
                accepted.release()
        self._raft.put_nowait(None)
        _remove(os.path.join(self._folder, SOCKET_NAME), is_folder=False)
        if self._is_folder_ours:
            _remove(self._folder, is_folder=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept_ready(self) -> None:
        """Take the connections that are there. (A task that waits for one and is cancelled may lose it.)"""
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Of one connection (it went away before it was accepted), or no more files: others may work again.
                self._quiet.warning("accept", "connection not accepted reason=%s", error.strerror)
                if error.errno in NO_MORE_FILES:
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(self._socket)
                    self._retry = loop.call_later(RETRY_S, self.start)
                    return
                continue
            connection.setblocking(False)
            self._admit(connection, str(address[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        limits = self._limits
        if self._count >= limits.connections_max:
            self._refuse(connection, address, "connections", limits.connections_max)
        elif self._by_address[address] >= limits.connections_per_address_max:
            self._refuse(
                connection, address, "connections of one address", limits.connections_per_address_max
            )
        else:
            self._count += 1
            self._by_address[address] += 1
            sorting = self._spawn(self._sort(connection, address, _once(lambda: self._release(address))))
            sorting.add_done_callback(partial(_close_if_cancelled, connection))

    def _release(self, address: str) -> None:
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _refuse(self, connection: socket.socket, address: str, what: str, limit: int) -> None:
        connection.close()
        text = "connection refused: as many as are allowed what=%s limit=%d address=%s"
        self._quiet.warning(what, text, what, limit, address)

    async def _sort(self, connection: socket.socket, address: str, release: Callable[[], None]) -> None:
        """Read one byte, and give the connection away or close it."""
        loop = asyncio.get_running_loop()
        answer_by = loop.time() + FIRST_BYTE_S_MAX
        is_given_away = False
        try:
            prepare(connection, unacknowledged_ms_max=UNACKNOWLEDGED_MS_MAX)
            # From the socket itself: what a stream had read ahead would be missing in the TLS handshake, which then
            # waits for ever.
            async with asyncio.timeout_at(answer_by):
                first = await loop.sock_recv(connection, 1)
            if first == RAFT_BYTE:
                release()
                is_given_away = self._queue_for_raft(connection, address, answer_by)
            elif first:
                await self._relay.begin(connection, first, release)
                is_given_away = True
        except TimeoutError:
            self._quiet.warning(
                "silent", "connection closed: it said nothing, or gRPC did not take it address=%s", address
            )
        except FileNotFoundError:
            # gRPC does not listen while this server starts or stops. Who called comes again.
            log.debug("connection closed: gRPC does not listen address=%s", address)
        except OSError as error:
            text = "connection closed: it broke, or gRPC did not take it reason=%s address=%s"
            self._quiet.warning("broken", text, error.strerror or error, address)
        finally:
            if not is_given_away:
                let_go(connection)
                release()

    def _queue_for_raft(self, connection: socket.socket, address: str, answer_by: float) -> bool:
        if self._handshakes >= self._limits.raft_handshakes_max:
            self._refuse(connection, address, "handshakes of servers", self._limits.raft_handshakes_max)
            return False
        self._handshakes += 1
        self._raft.put_nowait(Accepted(connection, address, answer_by, _once(self._release_handshake)))
        return True

    def _release_handshake(self) -> None:
        self._handshakes -= 1


def _close_if_cancelled(connection: socket.socket, task: asyncio.Task[None]) -> None:
    """Also where the task had not begun yet."""
    if task.cancelled():
        let_go(connection)


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """The first call of it is passed on."""
    calls = iter((call,))
    return lambda: next(calls, _nothing)()


def _nothing() -> None:
    pass


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ListenError("rpc-port", host_and_port(host, port), error.strerror or str(error)) from error
    return listener


def _make_folder(wanted: str | None) -> tuple[str, bool]:
    """A folder that only this user may enter, and whether it was made for this alone."""
    if wanted is not None and len(os.fsencode(os.path.join(wanted, SOCKET_NAME))) <= SOCKET_PATH_BYTES_MAX:
        os.makedirs(wanted, mode=0o700, exist_ok=True)
        os.chmod(wanted, 0o700)
        _remove(os.path.join(wanted, SOCKET_NAME), is_folder=False)  # of a process that was killed
        return wanted, False
    return tempfile.mkdtemp(prefix="raftlog-"), True  # its mode is 0700


def _remove(path: str, *, is_folder: bool) -> None:
    try:
        if is_folder:
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
