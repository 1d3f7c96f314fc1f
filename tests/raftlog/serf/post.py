"""A few nodes of Serf and the post between them, in virtual time: packets and streams are bytes, nothing is real."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from raftlog.engine import Answered, Ask, Asked, Emit, Note, Receive, Reply, Send, Unanswered, Wake
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import FAST, SerfConfig
from raftlog.serf.events import Join, Member, Status, Told
from raftlog.serf.messages import Address
from raftlog.serf.node import SerfNode

T = TypeVar("T")
DELAY_S = 0.001
START = 100.0  # of the virtual clock


@dataclass
class Running:
    """A node and what it has told."""

    node: SerfNode
    name: str
    told: list[Told]
    notes: list[Note]
    is_up: bool = True

    def tells(self, kind: type[T]) -> list[T]:
        return [told for told in self.told if isinstance(told, kind)]

    def noted(self, event: str) -> list[Note]:
        return [note for note in self.notes if note.event == event]


class Post:
    """Delivers after `DELAY_S`, in an order that depends on the seed alone."""

    def __init__(self, *, seed: int = 1, config: SerfConfig = FAST, keys: tuple[bytes, ...] = ()) -> None:
        print(f"seed={seed}")
        self.now = START
        self.config = config
        self.nodes: dict[Address, Running] = {}
        self.outcomes: dict[int, Any] = {}  # of requests
        self.cut: set[frozenset[Address]] = set()  # pairs that do not hear each other
        self.loss = 0.0  # of packets; streams come through
        self.wakes: Counter[str] = Counter()
        self.packets: Counter[str] = Counter()
        # Packets on their way, if asked for
        self.recorded: list[tuple[Address, Receive[bytes]]] | None = None
        self._keys = keys
        self._random = Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._ports = itertools.count(1000)

    # ── nodes ──

    def start(
        self,
        name: str,
        tags: Mapping[str, str] | None = None,
        *,
        address: Address | None = None,
        keys: tuple[bytes, ...] | None = None,
        **config: Any,
    ) -> Running:
        address = address or Address(f"127.0.0.1:{next(self._ports)}")
        codec = Codec(Keyring(self._keys if keys is None else keys), nonce=self._random.randbytes)
        node = SerfNode(
            replace(self.config, **config),
            name=name,
            address=address,
            tags=tags or {},
            codec=codec,
            random=Random(self._random.getrandbits(32)),
            now=self.now,
        )
        running = self.nodes[address] = Running(node, name, [], [])
        self._carry_out(address)
        return running

    def cluster(self, *names: str, tags: Mapping[str, str] | None = None, **config: Any) -> list[Running]:
        """Nodes that know each other."""
        nodes = [self.start(name, tags, **config) for name in names]
        for node in nodes[1:]:
            self.join(node, nodes[0])
        self.until(lambda: all(self.statuses(node) == dict.fromkeys(names, Status.ALIVE) for node in nodes))
        return nodes

    def address(self, node: Running) -> Address:
        return node.node.local.address

    def crash(self, node: Running) -> None:
        node.is_up = False

    def restart(self, node: Running, tags: Mapping[str, str] | None = None) -> Running:
        """The same name at the same address, with nothing remembered."""
        return self.start(node.name, tags, address=self.address(node))

    def cut_off(self, *nodes: Running) -> None:
        """From all others."""
        inside = {self.address(node) for node in nodes}
        self.cut = {frozenset((one, other)) for one in inside for other in self.nodes if other not in inside}

    # ── asking nodes ──

    def number(self) -> int:
        return next(self._numbers)

    def ask(self, node: Running, event: Any) -> int:
        """Step a request; its number."""
        address = self.address(node)
        node.node.step(event, self.now)
        self._carry_out(address)
        return getattr(event, "request", 0)

    def outcome(self, node: Running, event: Any, *, within_s: float = 30.0) -> Any:
        request = self.ask(node, event)
        self.until(lambda: request in self.outcomes, within_s=within_s)
        return self.outcomes[request]

    def join(self, node: Running, other: Running) -> dict[Address, str]:
        return self.outcome(node, Join(self.number(), (self.address(other),)))  # type: ignore[no-any-return]

    @staticmethod
    def statuses(node: Running) -> dict[str, Status]:
        return {member.name: member.status for member in node.node.members()}

    @staticmethod
    def member(node: Running, name: str) -> Member:
        return {member.name: member for member in node.node.members()}[name]

    # ── time ──

    def until(self, condition: Callable[[], bool], *, within_s: float = 60.0) -> float:
        """Run until it is so; how long it took. AssertionError if it never came."""
        began = self.now
        while not condition():
            at = self._next_at()
            assert at - began <= within_s, f"not so within {within_s} s"
            self._run_to(at)
        return self.now - began

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self._next_at()) <= end:
            self._run_to(at)
        self.now = end

    def _next_at(self) -> float:
        deadlines = [running.node.deadline() for running in self.nodes.values() if running.is_up]
        waking = min((deadline for deadline in deadlines if deadline is not None), default=float("inf"))
        return max(self.now, min(waking, self._due[0][0] if self._due else float("inf")))

    def _run_to(self, at: float) -> None:
        assert at < float("inf"), "nothing will ever happen"
        self.now = at
        while self._due and self._due[0][0] <= at:
            heapq.heappop(self._due)[2]()
        for address, running in list(self.nodes.items()):
            deadline = running.node.deadline()
            if running.is_up and deadline is not None and deadline <= at:
                self.wakes[running.name] += 1
                self._step(address, Wake())

    # ── the post ──

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), act))

    def _step(self, address: Address, event: Any) -> None:
        running = self.nodes.get(address)
        if running is not None and running.is_up:
            running.node.step(event, self.now)
            self._carry_out(address)

    def _carry_out(self, address: Address) -> None:
        running = self.nodes[address]
        for effect in running.node.drain():
            match effect:
                case Send(to, message):
                    self.packets[running.name] += 1
                    self._send(address, to, message)
                case Ask():
                    self._ask(running, address, effect)
                case Reply(request, outcome):
                    self.outcomes[request] = outcome
                case Emit(event):
                    running.told.append(event)
                case Note():
                    running.notes.append(effect)
                case _:
                    raise AssertionError(f"unexpected: {effect}")

    def _hears(self, to: Address, sender: Address) -> bool:
        running = self.nodes.get(to)
        return running is not None and running.is_up and frozenset((to, sender)) not in self.cut

    def _send(self, sender: Address, to: Address, message: bytes) -> None:
        if self._random.random() >= self.loss and self._hears(to, sender):
            event = Receive(sender, message)
            if self.recorded is not None:
                self.recorded.append((to, event))
            self._later(DELAY_S, lambda: self._step(to, event))

    def _ask(self, asker: Running, sender: Address, ask: Ask[bytes]) -> None:
        """There and back; whoever started anew meanwhile gets no answer."""
        number = self.number()

        def back(event: Any) -> None:
            if self.nodes.get(sender) is asker:
                self._step(sender, event)

        def there() -> None:
            if not self._hears(ask.to, sender):
                self._later(ask.timeout_s, lambda: back(Unanswered(ask.request, "nobody there")))
                return
            self._step(ask.to, Asked(number, sender, ask.message))
            answer = self.outcomes.pop(number, b"")
            event = Answered(ask.request, answer) if answer else Unanswered(ask.request, "closed")
            self._later(DELAY_S, lambda: back(event))

        self._later(DELAY_S, there)
