"""A network between servers that can be cut and slowed down: they know each other by the addresses of proxies.

A proxy finds out which server has called it by the process that the connection belongs to. So each direction between two
servers is a thing of its own. What is cut is held back without a word, as by a network that loses packets, and arrives
when the cut is healed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Self

CHUNK_BYTES: Final = 64 * 1024
START_S_MAX: Final = 10.0
CLIENT: Final = "client"  # whoever is none of the servers


class Proxies:
    """One in front of each server. `processes` gives the process of each server, by name."""

    def __init__(self, targets: Mapping[str, int], processes: Callable[[], Mapping[str, int]]) -> None:
        """`targets`: the port at which each server listens, by name."""
        self._targets = dict(targets)
        self._processes = processes
        self._cut: frozenset[tuple[str, str]] = frozenset()  # (from, to); replaced as a whole
        self._delays_s: Mapping[tuple[str, str], float] = {}
        self._healed = asyncio.Event()  # replaced by each heal
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies")
        self._servers: list[asyncio.Server] = []
        self._serving: set[asyncio.Task[Any]] = set()  # asyncio alone would forget them
        self.ports: dict[str, int] = {}  # of the proxies, by the name of the server behind each

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────

    def cut_off(self, name: str) -> None:
        """Neither side hears the other, clients excepted."""
        others = self._targets.keys() - {name}
        self.cut({(name, other) for other in others} | {(other, name) for other in others})

    def cut(self, directions: Collection[tuple[str, str]]) -> None:
        """From now on nothing passes in these directions, (from, to)."""
        self._cut = frozenset(directions)

    def slow_down(self, name: str, delay_s: float) -> None:
        """What goes to this server, from other servers, arrives so much later."""
        self._delays_s = {(other, name): delay_s for other in self._targets}

    def heal(self) -> None:
        """All passes at once, what was held back included."""
        self._cut, self._delays_s = frozenset(), {}
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    # ── connections ─────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        for name in self._targets:
            server = await asyncio.start_server(partial(self._begin, name), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0.1)  # for the transports that were aborted

    def _begin(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(name, reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            caller = self._caller(writer.get_extra_info("peername")[1], self.ports[name])
            await self._let_pass(caller, name)
            answers, there = await asyncio.open_connection("127.0.0.1", self._targets[name])
            await asyncio.gather(
                self._pass_on(caller, name, reader, there), self._pass_on(name, caller, answers, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass  # the end of a connection, or of the test
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()

    async def _pass_on(
        self, sender: str, receiver: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._let_pass(sender, receiver)
            writer.write(data)
            await writer.drain()
        await self._let_pass(sender, receiver)
        writer.write_eof()

    async def _let_pass(self, sender: str, receiver: str) -> None:
        delay_s = self._delays_s.get((sender, receiver))
        if delay_s is not None:
            await asyncio.sleep(delay_s)
        while (sender, receiver) in self._cut:
            await self._healed.wait()

    def _caller(self, port: int, proxy_port: int) -> str:
        """The server to whose process the other end of a connection belongs."""
        inode = _inode_of(port, proxy_port)
        for name, process in self._processes().items():
            if inode is not None and _has_open(process, f"socket:[{inode}]"):
                return name
        return CLIENT

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S_MAX)


def _inode_of(port: int, remote_port: int) -> str | None:
    """Of the socket on the loopback interface that has these two ports."""
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            ends = [int(end.rpartition(":")[2], 16) for end in fields[1:3]]
            if ends == [port, remote_port]:
                return fields[9]
    return None


def _has_open(process: int, link: str) -> bool:
    folder = f"/proc/{process}/fd"
    try:
        return any(_link_at(f"{folder}/{number}") == link for number in os.listdir(folder))
    except (FileNotFoundError, ProcessLookupError):
        return False


def _link_at(path: str) -> str:
    try:
        return os.readlink(path)
    except (FileNotFoundError, ProcessLookupError):
        return ""  # closed meanwhile
