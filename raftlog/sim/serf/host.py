"""What an application does around a node of Serf, and its operators: it joins others, and asks for things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from raftlog.engine import NodeId, Reply
from raftlog.serf.codec.packets import Codec
from raftlog.serf.events import Join, Leave, Request
from raftlog.serf.messages import Address
from raftlog.serf.node import SerfNode
from raftlog.sim.process import Process
from raftlog.sim.serf.checks import Seen
from raftlog.sim.world import MILLISECOND, World

JOIN_RETRY_US: Final = 200 * MILLISECOND


@dataclass(slots=True)
class Volatile:
    """What a process has beside its engine; gone with a crash."""

    node: SerfNode
    codec: Codec
    to_join: list[Address]  # those that have not answered yet
    seen: Seen = field(default_factory=Seen)


Outcome = Callable[[Any], None]


class Requests:
    """What was asked of nodes, each by a number of its own, and who waits for the outcome."""

    def __init__(self, next_request: Callable[[], int]) -> None:
        self._next_request = next_request
        self._open: dict[int, tuple[NodeId, Outcome]] = {}  # whose process ended are not in it

    def ask(self, process: Process, make: Callable[[int], Request], on_outcome: Outcome) -> None:
        """Ask a node that is up. It may end without an outcome."""
        number = self._next_request()
        self._open[number] = (process.node, on_outcome)
        process.happen(make(number))

    def replied(self, reply: Reply) -> None:
        node, on_outcome = self._open.pop(reply.request)  # a KeyError is a reply to no request
        on_outcome(reply.outcome)

    def stopped(self, node: NodeId) -> None:
        for number in [number for number, (asked, _) in self._open.items() if asked == node]:
            del self._open[number]


class Joining:
    """Each node asks all others that it was told of until each has answered once in this life."""

    def __init__(self, world: World, requests: Requests) -> None:
        self._world = world
        self._requests = requests

    def begin(self, process: Process) -> None:
        self._world.after(1, self._join, process, process.incarnation)

    def _join(self, process: Process, incarnation: int) -> None:
        if process.incarnation != incarnation or process.machine is None or process.machine.node.has_left:
            return
        volatile: Volatile = process.machine
        if not volatile.to_join:
            return

        def ended(outcomes: dict[Address, str]) -> None:
            volatile.to_join = [one for one in volatile.to_join if outcomes.get(one, "unasked") != ""]
            self._world.after(JOIN_RETRY_US, self._join, process, incarnation)

        addresses = tuple(volatile.to_join)
        self._requests.ask(process, lambda request: Join(request, addresses), ended)


class Leaving:
    """A node says goodbye; its process ends soon after."""

    def __init__(self, world: World, requests: Requests, has_left: Callable[[NodeId], None]) -> None:
        self._world = world
        self._requests = requests
        self._has_left = has_left

    def begin(self, process: Process, *, linger_us: int) -> None:
        incarnation = process.incarnation

        def ended(outcome: Any) -> None:
            self._has_left(process.node)
            self._world.after(linger_us, self._end, process, incarnation)

        self._requests.ask(process, Leave, ended)

    def _end(self, process: Process, incarnation: int) -> None:
        if process.incarnation == incarnation:
            process.crash()
