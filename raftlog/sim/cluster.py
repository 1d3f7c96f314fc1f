"""All that is in one run: the world, the network, the nodes with their disks, the protocol, and its clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftlog.engine import NodeId
from raftlog.sim.disk import Disk, DiskSpeed
from raftlog.sim.history import History
from raftlog.sim.network import Network, Weather
from raftlog.sim.process import Process
from raftlog.sim.subject import Answer, ProtocolUnderTest
from raftlog.sim.workload import Clients
from raftlog.sim.world import SECOND, World

RESTART_US_MAX = SECOND // 2  # after a failed sync


class Cluster:
    """Nodes are only added: one that left is a process that is down."""

    def __init__(
        self,
        world: World,
        protocol: ProtocolUnderTest,
        node_count: int,
        *,
        weather: Weather,
        disk_speed: DiskSpeed,
    ) -> None:
        self.world = world
        self.network = Network(world, weather, self._deliver)
        self.processes: dict[NodeId, Process] = {}  # in the order in which they came
        self.lost: list[NodeId] = []  # never to be started again
        self.serving: Sequence[NodeId] | None = None  # whom clients may ask; None: every node that is up
        self.history = History()
        self.clients = Clients(self, world, self.history)
        self._disk_speed = disk_speed
        self.subject = protocol.make(self, node_count, world.random("subject"))
        for node in self.subject.first_nodes():
            self.add(node)

    def add(self, node: NodeId) -> Process:
        """A node with a disk that never was used; it is not started."""
        assert node not in self.processes, f"{node} is there already"
        world = self.world
        disk = Disk(world, self.subject.make_image(node), self._disk_speed, world.random(f"disk {node}"))
        process = Process(node, world, self.network, disk, self.subject, world.random(f"process {node}"))
        process.on_crash = self._crashed
        process.on_failed_sync = self._sync_failed
        self.processes[node] = process
        return process

    def start(self, node: NodeId) -> None:
        """Start it, unless it is up or lost."""
        if node not in self.lost:
            self.processes[node].start()

    def lose(self, node: NodeId) -> None:
        """Its disk is gone for good, and so is the node."""
        if node not in self.lost:
            self.lost.append(node)
            self.processes[node].crash()

    def nodes_up(self) -> list[NodeId]:
        """Those that clients can reach."""
        up = [node for node, process in self.processes.items() if process.engine is not None]
        return up if self.serving is None else [node for node in up if node in self.serving]

    def answer(self, request: int, answer: Answer) -> None:
        """How a request of a client ended."""
        self.clients.answer(request, answer)

    def _deliver(self, source: NodeId, target: NodeId, message: Any) -> None:
        process = self.processes.get(target)
        if process is not None:
            process.receive(source, message)

    def _crashed(self, process: Process) -> None:
        self.clients.node_crashed(process.node)

    def _sync_failed(self, process: Process) -> None:
        delay_us = 1 + self.world.random(f"restart {process.node} {process.incarnation}").randrange(
            RESTART_US_MAX
        )
        self.world.after(delay_us, self.start, process.node)
