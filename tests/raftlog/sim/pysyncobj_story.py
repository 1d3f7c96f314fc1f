"""A PySyncObj cluster by hand: links that are held or cut, timeouts that are chosen, crashes at a word."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from raftlog.engine import NodeId, Note, Receive, Reply, Send, Wake
from raftlog.sim.models import Append
from raftlog.sim.pysyncobj.disk import Disk
from raftlog.sim.pysyncobj.node import PySyncObjNode, Settings
from raftlog.sim.pysyncobj.requests import Command, Done, Outcome, Request
from raftlog.sim.pysyncobj.streams import Data, Fields, Packet
from raftlog.sim.pysyncobj.witness import Witness

STEP_S = 0.005  # every packet that is not held takes this long
LATE, SOON = 0.999, 0.0  # election timeouts of 1.4 s and 0.4 s

N1, N2, N3, N4, N5 = (NodeId(f"n{number}") for number in range(1, 6))


class Chosen(random.Random):
    """Draws what the story chose."""

    value = LATE

    def random(self) -> float:
        return self.value


class Story:
    def __init__(
        self, *names: NodeId, soon: NodeId | None = None, keeps: bool = True, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.now = 0.0
        self.nodes: dict[NodeId, PySyncObjNode] = {}
        self.disks = {name: Disk(keeps=keeps) for name in names}
        self.chances = {name: Chosen(name) for name in names}
        if soon is not None:
            self.chances[soon].value = SOON
        self.errors: list[str] = []  # what nodes logged
        self.outcomes: dict[int, Outcome] = {}
        self.witness = Witness()
        self._keeps = keeps
        self._wires: dict[tuple[NodeId, NodeId], deque[Packet]] = defaultdict(deque)
        self._held: set[tuple[NodeId, NodeId]] = set()
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self._requests = 0
        for name in names:
            self.start(name, names)

    def start(self, name: NodeId, members: Iterable[NodeId]) -> None:
        disk = self.disks.setdefault(name, Disk(keeps=self._keeps))
        rng = self.chances.setdefault(name, Chosen(name))
        node = PySyncObjNode(name, list(members), disk, settings=self.settings, rng=rng, now=self.now)
        self.nodes[name] = node
        self.witness.started(node)

    def crash(self, name: NodeId) -> None:
        for peer, packet in self.nodes.pop(name).streams.farewell():
            self._wires[(name, peer)].append(packet)
        self.disks[name].crash()

    def hold(self, source: NodeId, target: NodeId) -> None:
        """From now on packets wait, in order."""
        self._held.add((source, target))

    def release(self, source: NodeId, target: NodeId) -> None:
        self._held.discard((source, target))

    def cut(self, some: Iterable[NodeId], others: Iterable[NodeId]) -> None:
        """From now on packets between them are lost, both ways, with those on their way."""
        for pair in [pair for one in some for other in others for pair in ((one, other), (other, one))]:
            self._cut.add(pair)
            self._wires[pair].clear()

    def reset(self, one: NodeId, other: NodeId) -> None:
        """Their connection ends; what was under way is lost."""
        for source, target in ((one, other), (other, one)):
            self._wires[(source, target)].clear()
            for peer, packet in self.nodes[source].streams.farewell():
                if peer == target:
                    self._wires[(source, target)].append(packet)

    def waiting(self, source: NodeId, target: NodeId) -> int:
        """How many messages wait on a link that is held."""
        return sum(isinstance(packet, Data) for packet in self._wires[(source, target)])

    def pass_one(self, source: NodeId, target: NodeId) -> None:
        """Let one message pass on a link that is held, with what is before it."""
        packets = self._wires[(source, target)]
        is_message = False
        while not is_message:
            packet = packets.popleft()
            is_message = isinstance(packet, Data)
            self._step(target, Receive(source, packet))

    def garble(self, source: NodeId, target: NodeId, fields: Fields) -> None:
        """Put this in the place of the first message that waits on a link."""
        packets = self._wires[(source, target)]
        place, first = next((at, one) for at, one in enumerate(packets) if isinstance(one, Data))
        packets[place] = replace(first, fields=fields)

    def mend(self) -> None:
        self._cut.clear()

    def ask(self, name: NodeId, request: Callable[[int], Request]) -> int:
        self._requests += 1
        self._step(name, request(self._requests))
        return self._requests

    def append(self, name: NodeId, value: str) -> int:
        return self.ask(name, lambda request: Command(request, Append("key", f"{value} ")))

    def value(self, name: NodeId) -> list[str]:
        """All that was appended, as this node's copy has it."""
        return self.nodes[name].replica.values.get("key", "").split()

    def is_done(self, *requests: int) -> bool:
        """Whether SUCCESS was reported for all of them."""
        return all(isinstance(self.outcomes.get(request), Done) for request in requests)

    def leads(self, name: NodeId) -> bool:
        return bool(self.nodes[name].replica._isLeader())

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._tick()

    def run_until(self, condition: Callable[[], bool], seconds_max: float = 10.0) -> None:
        end = self.now + seconds_max
        while not condition():
            assert self.now < end, "it does not happen"
            self._tick()

    def _tick(self) -> None:
        self.now += STEP_S
        arrived = []
        for (source, target), packets in list(self._wires.items()):
            if (source, target) not in self._held:
                arrived += [(source, target, packet) for packet in packets]
                packets.clear()
        for source, target, packet in arrived:
            if target in self.nodes:
                self._step(target, Receive(source, packet))
        for name in list(self.nodes):
            deadline = self.nodes[name].deadline()
            if deadline is not None and deadline <= self.now:
                self._step(name, Wake())

    def _step(self, name: NodeId, event: Any) -> None:
        node = self.nodes[name]
        node.step(event, self.now)
        effects = node.drain()
        for effect in effects:
            if isinstance(effect, Send) and (name, effect.to) not in self._cut:
                self._wires[(name, effect.to)].append(effect.message)
            elif isinstance(effect, Reply):
                self.outcomes[effect.request] = effect.outcome
            elif isinstance(effect, Note):
                self.errors.append(f"{name} {effect.fields['message']}")
        self.witness.stepped(node, effects)
