"""Clients that produce and consume while something happens to a cluster, and the judgement of what they were told.

The checkers are the simulator's (raftlog/sim/log_checker.py): nothing that was acknowledged is lost, nothing is stored
twice, and all agree on offsets, which have no gaps. Events are numbered by one loop, in whose thread all clients run.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Self

from logstore import LogError
from raftlog import AsyncClient, TlsFiles
from raftlog.client.answers import Server
from raftlog.client.failures import CallFailed
from raftlog.errors import RaftlogError
from raftlog.sim.log_checker import Appended, Consumed, Outcome, Reading, check_log

CALL_S_MAX: Final = 30.0  # of a client's patience: more than any of the faults lasts
WAIT_S_MAX: Final = 45.0  # of a test's
APPENDS_PAUSE_S: Final = 0.005  # between two of one producer: there is more to do on two cores
PIPELINED: Final = 20  # records that the merging producer has on the way
LOOK_S: Final = 0.02


@dataclass(slots=True)
class _Reading:
    consumer: str
    start: int
    records: list[Consumed] = field(default_factory=list)


class Load:
    """Two producers that wait for each record, one that does not, two consumers, and one who asks for the end.

    `errors` are those that reached a caller, and answers that cannot be: with a quorum alive there are to be none.
    """

    def __init__(self, addresses: Sequence[str], tls: TlsFiles) -> None:
        self._addresses = list(addresses)
        self._tls = tls
        self._name = uuid.uuid4().hex[:8]  # of this load: values are unique in the whole log
        self._events = count()
        self._appends: list[Appended] = []
        self._readings: list[_Reading] = []
        self._is_stopping = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load")
        self._begun = threading.Event()
        self._running: asyncio.Task[None] | None = None
        self.start = 0  # offset at which it began
        self.known_end = 0  # behind the highest acknowledged offset
        self.acknowledged = 0
        self.consumed = 0
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._begin())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Return when all that was asked has been answered. Twice is no error."""
        if self._thread.is_alive():
            try:
                self._do(self._end())
            finally:
                self._end_loop()

    def wait_for_progress(self, records: int = 50) -> None:
        """Return when so many more records have been acknowledged, and consumed, after this call."""
        acknowledged, consumed = self.acknowledged + records, self.consumed + records
        deadline = time.monotonic() + WAIT_S_MAX
        while self.acknowledged < acknowledged or self.consumed < consumed:
            assert time.monotonic() < deadline, (
                f"no progress: {self.acknowledged} acknowledged, {self.errors}"
            )
            time.sleep(LOOK_S)

    # ── the clients ─────────────────────────────────────────────────────────────────────────────────

    def _client(self, **more: Any) -> AsyncClient:
        return AsyncClient(self._addresses, tls=self._tls, **{"timeout_s": CALL_S_MAX, **more})

    async def _begin(self) -> None:
        self._clients = [self._client() for _ in range(3)]
        self.start = self.known_end = (await self._clients[0].bounds(linearizable=True)).end
        one, another, third = self._clients
        self._producing = [
            asyncio.create_task(each)
            for each in (self._produce(one, "p1"), self._produce(another, "p2"), self._pipeline(third, "p3"))
        ]
        self._watching = [
            asyncio.create_task(each)
            for each in (self._consume(one, "c1"), self._consume(third, "c2"), self._ask_for_end(another))
        ]

    async def _end(self) -> None:
        self._is_stopping = True
        await asyncio.gather(*self._producing)
        for task in self._watching:
            task.cancel()
        ended = await asyncio.gather(*self._watching, return_exceptions=True)
        self.errors += [repr(each) for each in ended if not isinstance(each, asyncio.CancelledError)]
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _produce(self, client: AsyncClient, name: str) -> None:
        for number in count():
            if self._is_stopping:
                return
            value, called = f"{self._name} {name} {number}", next(self._events)
            await self._note(name, value, called, client.append(value.encode()))
            await asyncio.sleep(APPENDS_PAUSE_S)

    async def _pipeline(self, client: AsyncClient, name: str) -> None:
        producer = client.producer()
        for number in count():
            if self._is_stopping:
                return
            sent = []
            for place in range(PIPELINED):
                value, called = f"{self._name} {name} {number}.{place}", next(self._events)
                sent.append((value, called, producer.send(value.encode())))
            for value, called, handle in sent:
                await self._note(name, value, called, _outcome_of(handle))
            await asyncio.sleep(PIPELINED * APPENDS_PAUSE_S)

    async def _note(self, name: str, value: str, called: int, answer: Coroutine[Any, Any, int]) -> None:
        outcome, offset = Outcome.ACKNOWLEDGED, None
        try:
            offset = await answer
        except (RaftlogError, LogError) as error:
            is_failed = isinstance(error, CallFailed) and not error.is_unknown
            outcome = Outcome.FAILED if is_failed else Outcome.UNKNOWN
            self.errors.append(f"append of {value}: {error}")
        else:
            self.acknowledged += 1
            self.known_end = max(self.known_end, offset + 1)
        self._appends.append(Appended(name, value, called, next(self._events), outcome, offset))

    async def _consume(self, client: AsyncClient, name: str) -> None:
        start = self.start
        while True:
            reading = _Reading(name, start)
            self._readings.append(reading)
            try:
                async for record in client.follow(start):
                    reading.records.append(_consumed(record.offset, record.value, next(self._events)))
                    self.consumed += 1
                    start = record.offset + 1
            except (RaftlogError, LogError) as error:
                self.errors.append(f"{name} at {start}: {error}")

    async def _ask_for_end(self, client: AsyncClient) -> None:
        while True:
            known = self.known_end
            try:
                end = (await client.bounds(linearizable=True)).end
            except (RaftlogError, LogError) as error:
                self.errors.append(f"linearizable read: {error}")
            else:
                if end < known:
                    self.errors.append(
                        f"a linearizable read said {end}, and {known - 1} was acknowledged before"
                    )
            await asyncio.sleep(0.05)

    # ── the judgement ───────────────────────────────────────────────────────────────────────────────

    def findings(self, addresses: Sequence[str]) -> list[str]:
        """What is wrong, with what the servers at these addresses have in the end; after `stop`."""
        return asyncio.run(self._findings(addresses))

    async def _findings(self, addresses: Sequence[str]) -> list[str]:
        async with self._client() as client:
            end = (await client.bounds(linearizable=True)).end
        readings = [Reading(each.consumer, each.start, each.records) for each in self._readings]
        found = list(self.errors)
        for address in addresses:
            final = await self._read_all(address, end)
            found += [f"{address}: {each}" for each in check_log(self._appends, readings, final=final)]
        return found

    async def _read_all(self, address: str, end: int) -> Reading:
        def only(servers: Sequence[Server]) -> list[Server]:
            return [server for server in servers if server.address == address]

        async with AsyncClient(address, tls=self._tls, timeout_s=CALL_S_MAX, picker=only) as client:
            deadline = time.monotonic() + WAIT_S_MAX
            while (await client.bounds()).end < end:
                assert time.monotonic() < deadline, f"{address} does not catch up to {end}"
                await asyncio.sleep(LOOK_S)
            records = [
                _consumed(record.offset, record.value, next(self._events))
                async for record in client.scan(self.start, end)
            ]
        return Reading(address, self.start, records)

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S_MAX)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _outcome_of(handle: Any) -> int:
    offset: int = await handle
    return offset


def _consumed(offset: int, value: bytes, at: int) -> Consumed:
    return Consumed(offset, value.decode(), at)
