"""Carries out the faults of a plan, and takes all of them back at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from raftlog.engine import NodeId
from raftlog.sim.cluster import Cluster
from raftlog.sim.faults import LEADER, Act, Bridge, Crash, Cut, Drift, FailSync, Fault, Pause, Planned, Stall
from raftlog.sim.network import CutId, both_ways
from raftlog.sim.process import Process


class Injector:
    def __init__(self, cluster: Cluster, faults: Sequence[Planned]) -> None:
        self._cluster = cluster
        self._is_over = False
        for planned in faults:
            cluster.world.after(planned.time_us, self._befall, planned.fault)

    def end(self) -> None:
        """No fault comes any more; what is broken stays so."""
        self._is_over = True

    def _befall(self, fault: Fault) -> None:
        if self._is_over:
            return
        cluster, world = self._cluster, self._cluster.world
        world.record("fault", fault)
        match fault:
            case Crash(nodes=nodes, down_us=down_us):
                for process in self._processes(nodes):
                    process.crash()
                    world.after(down_us, self._restart, process.node)
            case Pause(node=node, duration_us=duration_us):
                for process in self._processes((node,)):
                    process.pause()
                    world.after(duration_us, process.resume)
            case Stall(node=node, duration_us=duration_us):
                for process in self._processes((node,)):
                    process.disk.stall(duration_us)
            case FailSync(node=node):
                for process in self._processes((node,)):
                    process.disk.fail_next_sync()
            case Cut(sources=sources, targets=targets):
                self._cut(fault, self._names(sources), self._names(targets))
            case Bridge(some=some, others=others, duration_us=duration_us):
                cut = cluster.network.cut(both_ways(some, others))
                world.after(duration_us, self._mend, cut)
            case Drift(node=node, rate=rate):
                for process in self._processes((node,)):
                    process.set_clock_rate(rate)
            case Act(name=name, choice=choice):
                cluster.subject.act(name, choice)
            case _:
                assert_never(fault)

    def _cut(self, fault: Cut, sources: Sequence[NodeId], targets: Sequence[NodeId]) -> None:
        if not fault.targets:
            targets = [node for node in self._cluster.processes if node not in sources]
        pairs = [(source, target) for source in sources for target in targets if source != target]
        if fault.both_ways:
            pairs += [(target, source) for source, target in pairs]
        self._cluster.world.after(fault.duration_us, self._mend, self._cluster.network.cut(pairs))

    def _mend(self, cut: CutId) -> None:
        self._cluster.network.mend(cut)

    def _restart(self, node: NodeId) -> None:
        if not self._is_over:
            self._cluster.start(node)

    def _names(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """The nodes meant; none for the leader if there is none."""
        found = [self._cluster.subject.leader() if node == LEADER else node for node in nodes]
        return [node for node in found if node is not None]

    def _processes(self, nodes: Sequence[NodeId]) -> list[Process]:
        return [self._cluster.processes[node] for node in self._names(nodes)]
