"""What clients do: operations drawn up front, each client one at a time, as a history that can be judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from raftlog.engine import NodeId
from raftlog.sim.history import History, OperationNumber
from raftlog.sim.models import Append, CompareAndSet, Read, Request, Write
from raftlog.sim.subject import Answer, Done, NotDone, Unclear
from raftlog.sim.world import MILLISECOND, World

if TYPE_CHECKING:
    from raftlog.sim.cluster import Cluster

RETRY_US_MAX: Final = 10 * MILLISECOND  # doubled with each retry, some times: asking is not what is tested
DOUBLINGS_MAX: Final = 4
HOMES: Final = 0.5  # the share of clients that have one
RETRIES_MAX: Final = 40


class Errand(NamedTuple):
    """An operation that a client begins at this time, or when it has done the one before."""

    time_us: int
    client: int
    operation: Request


def draw_errands(random: Random, *, horizon_us: int) -> list[Errand]:
    """What the clients of a run will do, in the order of time."""
    clients = 2 + random.randrange(4)
    keys = [f"k{number}" for number in range(1 + random.randrange(4))]
    gap_us = random.choice((5, 20, 60, 120)) * MILLISECOND  # of each client, on average
    written = {key: [""] for key in keys}  # values that a cas may expect: some are there when it comes
    errands = []
    for client in range(clients):
        time_us = 0
        count = 0
        while True:
            time_us += 1 + int(2 * gap_us * random.random())
            if time_us >= horizon_us:
                break
            count += 1
            errands.append(
                Errand(time_us, client, _draw_operation(random, keys, written, f"{client}.{count}"))
            )
    errands.sort(key=lambda errand: (errand.time_us, errand.client))
    return errands


def _draw_operation(random: Random, keys: Sequence[str], written: dict[str, list[str]], mark: str) -> Request:
    key = random.choice(keys)
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            return Read(key)
        case 4 | 5 | 6:
            return Append(key, f"{mark},")
        case 7 | 8:
            written[key].append(f"{mark};")
            return Write(key, f"{mark};")
        case _:
            expected = random.choice(written[key][-3:])
            written[key].append(f"{mark}!")
            return CompareAndSet(key, expected, f"{mark}!")


@dataclass(slots=True)
class _Client:
    name: str
    queue: deque[Request] = field(default_factory=deque)
    operation: Request | None = None  # what it waits for
    request: int = 0  # the number of the latest try
    try_count: int = 0
    call: OperationNumber = OperationNumber(0)  # the history's number of it
    asked: NodeId | None = None  # who has the latest try
    leader: NodeId | None = None  # where it asks: where it succeeded last, or was sent to
    home: NodeId | None = None  # asked first, each time: this client would not notice that another leads
    has_succeeded: bool = False  # the last operation that ended


class Clients:
    """Each tries one operation at a time until it is told an outcome or runs out of patience."""

    def __init__(self, cluster: Cluster, world: World, history: History) -> None:
        self._cluster = cluster
        self._world = world
        self._history = history
        self._random = world.random("clients")
        # then a client counts an operation as unclear, and turns to another node
        self._patience_us = self._random.choice((100, 200, 1_000)) * MILLISECOND
        self._clients: dict[int, _Client] = {}
        self._open: dict[int, int] = {}  # request number -> client
        self._unclear: list[tuple[OperationNumber, int]] = []  # with the request of the last try
        self._requests = 0
        self._plan = 0  # which one counts
        self._homes = HOMES
        self.done_count = 0  # operations that took effect
        self.failed_count = 0
        self.unclear_count = 0

    def plan(self, errands: Sequence[Errand]) -> None:
        for errand in errands:
            delay_us = errand.time_us - self._world.now_us
            self._world.after(delay_us, self._begin, self._plan, errand.client, errand.operation)

    def is_idle(self) -> bool:
        return not any(client.queue or client.operation for client in self._clients.values())

    def last_succeeded(self, number: int) -> bool:
        """Whether the latest operation of this client took effect."""
        return number in self._clients and self._clients[number].has_succeeded

    def end(self) -> None:
        """Nobody begins what was not begun; what is planned from now on counts again."""
        self._plan += 1
        self._homes = 0.0  # a client that asks a node that was removed, and no other, is not served
        for client in self._clients.values():
            client.queue.clear()

    def next_request(self) -> int:
        """A number for a request that no client made."""
        self._requests += 1
        return self._requests

    def _begin(self, plan: int, number: int, operation: Request) -> None:
        if plan != self._plan:
            return
        client = self._clients.get(number)
        if client is None:
            nodes = list(self._cluster.processes)
            home = self._random.choice(nodes) if self._random.random() < self._homes else None
            client = self._clients[number] = _Client(f"c{number}", home=home)
        client.queue.append(operation)
        if client.operation is None:
            self._next(client, number)

    def _next(self, client: _Client, number: int) -> None:
        if client.operation is not None or not client.queue:
            return
        operation = client.operation = client.queue.popleft()
        client.try_count = 0
        self._world.record(client.name, operation)
        client.call = self._history.invoke(client.name, operation)
        self._world.after(self._patience_us, self._lose_patience, number, client.call)
        self._try(number, client.call)

    def _try(self, number: int, call: OperationNumber) -> None:
        client = self._clients[number]
        if client.call != call or client.operation is None:
            return
        up = self._cluster.nodes_up()
        node = client.leader if client.try_count or client.home is None else client.home
        if up and (node not in up or client.try_count % 4 == 3 or self._random.random() < 0.1):
            node = self._random.choice(up)
        client.try_count += 1
        if node is None or not up:
            self._retry(client, number)
            return
        request = client.request = self.next_request()
        client.asked = node
        self._open[request] = number
        process = self._cluster.processes[node]
        self._cluster.subject.submit(process, request, client.operation)

    def _retry(self, client: _Client, number: int) -> None:
        if client.try_count >= RETRIES_MAX:
            self._end(client, number, NotDone())
            return
        delay_us_max = RETRY_US_MAX << min(client.try_count, DOUBLINGS_MAX)
        delay_us = 1 + int(delay_us_max * self._random.random())
        self._world.after(delay_us, self._try, number, client.call)

    def answer(self, request: int, answer: Answer) -> None:
        """The subject tells how a request ended. Nothing happens if its client has given up."""
        number = self._open.pop(request, None)
        if number is None:
            return
        client = self._clients[number]
        if client.request != request or client.operation is None:
            return
        match answer:
            case NotDone(leader=leader):
                client.leader = leader
                self._retry(client, number)
            case Done():
                client.leader = client.asked
                self._end(client, number, answer)
            case Unclear():
                client.leader = None
                self._end(client, number, answer)

    def node_crashed(self, node: NodeId) -> None:
        """Whatever was asked of it ends without a reply."""
        lost = [request for request, number in self._open.items() if self._clients[number].asked == node]
        for request in lost:
            number = self._open[request]
            operation = self._clients[number].operation
            is_read = isinstance(operation, Read)
            self.answer(request, NotDone() if is_read else Unclear())

    def _lose_patience(self, number: int, call: OperationNumber) -> None:
        client = self._clients[number]
        if client.call == call and client.operation is not None:
            self._open.pop(client.request, None)
            client.leader = None
            self._end(client, number, Unclear())

    def settle(self) -> None:
        """At the end of the run: what became of those whose outcome was unclear, as far as the subject knows.

        Clients never learn of it, but what certainly never happened makes the history easier to judge, and stricter.
        """
        for call, request in self._unclear:
            if self._cluster.subject.may_have_happened(request):
                self._history.unknown(call)
            else:
                self._history.fail(call)
        self._unclear.clear()

    def _end(self, client: _Client, number: int, answer: Answer) -> None:
        self._world.record(client.name, answer)
        match answer:
            case Done(output=output):
                self._history.ok(client.call, output)
                self.done_count += 1
            case NotDone():
                self._history.fail(client.call)
                self.failed_count += 1
            case Unclear():
                self._unclear.append((client.call, client.request))
                self.unclear_count += 1
        client.has_succeeded = isinstance(answer, Done)
        client.operation = None
        self._world.after(1, self._next, client, number)
