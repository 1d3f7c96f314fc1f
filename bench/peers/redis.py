"""Redis Streams: a primary that syncs its file after each write, two replicas, WAIT for one of them.

There is no consensus: a replica that takes over may lack what another has acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.peers.peer import LOOK_S, START_S_MAX, program, started, version_of
from raftlog.local_cluster import free_ports

SURVIVES: Final = "power, primary; process, one replica"
NAMES: Final = ("r1", "r2", "r3")
CONNECTIONS: Final = 64  # WAIT holds the one on which it comes
READ_AT_ONCE: Final = 10_000
READ_BYTES: Final = 1024**2
LINE_END: Final = b"\r\n"
PING: Final = b"*1\r\n$4\r\nPING\r\n"
PONG: Final = b"+PONG\r\n"
WAIT_FOR_ONE: Final = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n"


def encoded(*words: bytes) -> bytes:
    """A command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def decoded(data: bytes, place: int) -> tuple[Any, int]:
    """(an answer that is whole, where the next begins)."""
    end = data.index(LINE_END, place)
    kind, number, place = data[place : place + 1], data[place + 1 : end], end + 2
    if kind == b"*":
        items = []
        for _ in range(int(number)):
            item, place = decoded(data, place)
            items.append(item)
        return items, place
    if kind == b"$":
        end = place + int(number)
        return data[place:end], end + 2
    if kind == b"-":
        raise RuntimeError(f"redis: {number.decode(errors='replace')}")
    return (int(number) if kind == b":" else number), place


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes, answers: int) -> list[Any]:
        """What is answered to so many commands. A PING behind them shows where the answers end."""
        self._writer.write(request + PING)
        parts = bytearray()
        while not parts.endswith(PONG):
            part = await self._reader.read(READ_BYTES)
            if not part:
                raise ConnectionError("redis closed the connection")
            parts += part
        data, found, place = bytes(parts), [], 0
        for _ in range(answers):
            one, place = decoded(data, place)
            found.append(one)
        return found


class RedisStore:
    group = 1_000
    groups_in_flight = 4

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            self._idle.put_nowait(connection)
        self._count = 0

    async def append(self, value: bytes) -> None:
        await self.append_group([value])

    async def append_group(self, values: Sequence[bytes]) -> None:
        request = b"".join(encoded(b"XADD", b"log", b"*", b"v", value) for value in values) + WAIT_FOR_ONE
        connection = await self._idle.get()
        answers = await connection.ask(request, len(values) + 1)
        self._idle.put_nowait(connection)
        if answers[-1] < 1:
            raise RuntimeError("no replica has acknowledged")
        self._count += len(values)

    async def read_all(self) -> int:
        connection = await self._idle.get()
        found, last = 0, b"-"
        while found < self._count:
            at_once = min(READ_AT_ONCE, self._count - found)
            request = encoded(b"XRANGE", b"log", last, b"+", b"COUNT", b"%d" % at_once)
            (entries,) = await connection.ask(request, 1)
            values = [fields[1] for _, fields in entries]
            found += len(values)
            last = b"(" + entries[-1][0]
        self._idle.put_nowait(connection)
        return found


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[RedisStore]:
    command = program("redis-server", "redis-server")
    ports = free_ports(len(NAMES))
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1"]
    commands = {
        name: [command, "--port", str(port), *durable] for name, port in zip(NAMES, ports, strict=True)
    }
    for name in NAMES[1:]:
        commands[name] += ["--replicaof", "127.0.0.1", str(ports[0])]
    with started(commands, folder):
        async with AsyncExitStack() as stack:
            connections = [await _connected(ports[0], stack) for _ in range(CONNECTIONS)]
            await _replicas_are_there(connections[0])
            yield RedisStore(connections)


async def _connected(port: int, stack: AsyncExitStack) -> Connection:
    async with asyncio.timeout(START_S_MAX):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 * READ_BYTES)
                break
            except OSError:
                await asyncio.sleep(LOOK_S)
    stack.callback(writer.close)
    return Connection(reader, writer)


async def _replicas_are_there(connection: Connection) -> None:
    async with asyncio.timeout(START_S_MAX):
        while (await connection.ask(encoded(b"WAIT", b"2", b"100"), 1))[0] < 2:
            pass


def version() -> str:
    return version_of("Redis", [program("redis-server", "redis-server"), "--version"])
