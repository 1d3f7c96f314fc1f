"""NATS JetStream: a stream of three replicas in files, through the leader's server.

What is acknowledged is in the page cache of a quorum: this version syncs every two minutes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from bench.peers.peer import LOOK_S, QUORUM_PROCESS, START_S_MAX, program, started, version_of
from raftlog.local_cluster import free_ports

SURVIVES: Final = QUORUM_PROCESS
NAMES: Final = ("j1", "j2", "j3")
STREAM: Final = "BENCH"
SUBJECT: Final = b"records"
READ_S_MAX: Final = 60.0
NS_PER_S: Final = 1_000_000_000

CONFIG: Final = """
server_name: {name}
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "data" }}
cluster {{ name: bench, listen: "127.0.0.1:{own}", routes: [{routes}] }}
"""


class Group:
    """Acknowledgements that somebody waits for."""

    __slots__ = ("answer", "done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: Exception | None) -> None:
        if self.done.done():
            return  # nobody waits any more
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Connection(asyncio.Protocol):
    """The text protocol of NATS, as far as it is needed here."""

    def __init__(self) -> None:
        self._data = b""
        self._numbers = count()
        self._groups: dict[bytes, Group] = {}
        self.values: list[bytes] = []  # that were delivered
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        data, place = self._data + data, 0
        while (end := data.find(b"\r\n", place)) >= 0:
            words = data[place:end].split(b" ")
            kind, place_after = words[0], end + 2
            if kind in (b"MSG", b"HMSG"):
                size = int(words[-1])
                if len(data) < place_after + size + 2:
                    break
                self._take(kind, words, data[place_after : place_after + size])
                place_after += size + 2
            elif kind == b"PING":
                self.transport.write(b"PONG\r\n")
            elif kind == b"INFO":
                self.transport.write(
                    b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\nSUB inbox.* 1\r\nSUB deliver 2\r\n'
                )
                self.ready.set_result(None)
            elif kind == b"-ERR":
                self._fail(data[place:end].decode())
            place = place_after
        self._data = data[place:]

    def _take(self, kind: bytes, words: list[bytes], payload: bytes) -> None:
        subject, number = words[1], words[2]
        if number == b"2":
            if kind == b"MSG":
                self.values.append(payload)
            elif len(words) == 6:  # with an address for an answer: the server waits for it (flow control)
                self.transport.write(b"PUB %s 0\r\n\r\n" % words[3])
            return
        group = self._groups.get(subject)
        if group is None:
            return
        group.answer = payload
        group.left -= 1
        if not group.left or b'"error"' in payload:
            del self._groups[subject]
            group.end(None)

    def _fail(self, text: str) -> None:
        for group in self._groups.values():
            group.end(RuntimeError(text))
        self._groups.clear()

    async def publish(self, subject: bytes, values: Sequence[bytes]) -> Any:
        """Return when each is answered: the last answer, or the first error."""
        inbox = b"inbox.%d" % next(self._numbers)
        group = self._groups[inbox] = Group(len(values))
        self.transport.write(
            b"".join(b"PUB %s %s %d\r\n%s\r\n" % (subject, inbox, len(value), value) for value in values)
        )
        await group.done
        return json.loads(group.answer)

    async def ask(self, what: str, **request: object) -> Any:
        return await self.publish(f"$JS.API.{what}".encode(), [json.dumps(request).encode()])


class JetStreamStore:
    group = 256
    groups_in_flight = 4  # 1,024 records

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0

    async def append(self, value: bytes) -> None:
        await self.append_group([value])

    async def append_group(self, values: Sequence[bytes]) -> None:
        _checked(await self._connection.publish(SUBJECT, values))
        self._count += len(values)

    async def read_all(self) -> int:
        config = {
            "deliver_subject": "deliver", "ack_policy": "none", "deliver_policy": "all", "flow_control": True,
            "idle_heartbeat": 5 * NS_PER_S,
        }  # fmt: skip
        values = self._connection.values
        values.clear()
        asked = self._connection.ask(f"CONSUMER.CREATE.{STREAM}", stream_name=STREAM, config=config)
        _checked(await asked)
        async with asyncio.timeout(READ_S_MAX):
            while len(values) < self._count:
                await asyncio.sleep(0.001)
        return len(values)


def _checked(answer: Any) -> Any:
    if "error" in answer:
        raise RuntimeError(f"JetStream: {answer['error']}")
    return answer


@asynccontextmanager
async def jetstream(folder: Path) -> AsyncIterator[JetStreamStore]:
    command = program("nats-server", "nats-server")
    ports = free_ports(2 * len(NAMES))
    clients = dict(zip(NAMES, ports[:3], strict=True))
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
    for name, own in zip(NAMES, ports[3:], strict=True):
        (folder / name).mkdir()
        config = CONFIG.format(name=name, port=clients[name], own=own, routes=routes)
        (folder / name / "nats.conf").write_text(config)
    with started({name: [command, "-c", "nats.conf"] for name in NAMES}, folder):
        async with AsyncExitStack() as stack, asyncio.timeout(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + START_S_MAX)
            first = await _connected(clients[NAMES[0]], stack)
            leader = await _create_stream(first)
            connection = await _connected(clients[leader], stack)
            limit.reschedule(None)
            yield JetStreamStore(connection)


async def _connected(port: int, stack: AsyncExitStack) -> Connection:
    loop = asyncio.get_running_loop()
    while True:
        try:
            transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(LOOK_S)
    stack.callback(transport.close)
    await connection.ready
    return connection


async def _create_stream(connection: Connection) -> str:
    """The name of the server that leads it."""
    config = {"name": STREAM, "subjects": [SUBJECT.decode()], "num_replicas": 3, "storage": "file",
              "retention": "limits"}  # fmt: skip
    while True:
        try:
            async with asyncio.timeout(2.0):
                answer = await connection.ask(f"STREAM.CREATE.{STREAM}", **config)
                if "error" not in answer:
                    break
        except TimeoutError:
            pass  # they have not agreed yet on who answers
        await asyncio.sleep(LOOK_S)
    while True:
        info = _checked(await connection.ask(f"STREAM.INFO.{STREAM}"))
        if leader := info["cluster"].get("leader"):
            return str(leader)
        await asyncio.sleep(LOOK_S)


def version() -> str:
    return version_of("nats-server", [program("nats-server", "nats-server"), "--version"])
