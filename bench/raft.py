"""How fast the consensus core is by itself: three nodes in one process, with storage in memory.

No network, disk or codec: what is left is what the protocol costs. One thread does the work of all three nodes.
"""

from __future__ import annotations

import random
from typing import Any

from logstore.benchmark.measure import Series, rate
from raftlog.engine import Applied, Apply, NodeId, Persist, Persisted, Receive, Reply, Send, Wake
from raftlog.raft import RaftConfig, RaftNode, Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Committed, Propose
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Snapshot

NAMES = (NodeId("n1"), NodeId("n2"), NodeId("n3"))
CASES = (  # name, entries of one proposal, proposals at a time
    ("single", 1, 1),
    ("single, 32 at a time", 1, 32),
    ("batch of 64", 64, 1),
    ("batch of 64, 16 at a time", 64, 16),
)
ROUNDS = 20  # between two looks at the clock


class Cluster:
    """Each node takes all that has arrived for it, then hands out what is to be done: as an actor with an inbox."""

    def __init__(self, *, check_invariants: bool) -> None:
        config = RaftConfig(first_leader=NAMES[0], check_invariants=check_invariants)
        self._storage = {name: MemoryStorage(Configuration(NAMES)) for name in NAMES}
        self.nodes = {
            name: RaftNode(name, config, self._storage[name], random.Random(seed))
            for seed, name in enumerate(NAMES)
        }
        self._inboxes: dict[NodeId, list[Any]] = {name: [] for name in NAMES}
        self.committed = 0  # entries of proposals
        self._inboxes[NAMES[0]].append(Wake())
        self._run()
        assert self.nodes[NAMES[0]].status().role is Role.LEADER

    def commit(self, payloads: list[bytes], proposals: int) -> None:
        self._inboxes[NAMES[0]] += [Propose(request, payloads) for request in range(proposals)]
        before = self.committed
        self._run()
        assert self.committed == before + proposals * len(payloads)

    def compact(self) -> None:
        """Forget what is applied, as one who runs a node does: else it is the collector of garbage that is measured."""
        for name, node in self.nodes.items():
            index = node.log.applied
            snapshot = Snapshot(index, node.term, node.configuration, 0)
            self._storage[name].compact(snapshot, b"")

    def _run(self) -> None:
        inboxes, is_busy = self._inboxes, True
        while is_busy:
            is_busy = False
            for name, node in self.nodes.items():
                if inboxes[name]:
                    is_busy = True
                    events, inboxes[name] = inboxes[name], []
                    for event in events:
                        node.step(event, 0.0)
                    self._carry_out(name, node)

    def _carry_out(self, name: NodeId, node: RaftNode) -> None:
        inbox = self._inboxes[name]
        for effect in node.drain():
            if isinstance(effect, Send):
                self._inboxes[effect.to].append(Receive(name, effect.message))
            elif isinstance(effect, Persist):
                self._storage[name].write(effect.write)
                inbox.append(Persisted(effect.token))
            elif isinstance(effect, Apply):
                inbox.append(Applied(effect.entries[-1].index))
            elif isinstance(effect, Reply) and isinstance(effect.outcome, Committed):
                self.committed += effect.outcome.last - effect.outcome.first + 1


def measure(*, runs: int, seconds: float) -> list[Series]:
    """Entries per second that are committed and applied on all three."""
    found = []
    for case, batch, proposals in CASES:
        plain = Series(case, "raftlog.raft", "entries/s", "-")
        checked = Series(case, "raftlog.raft, invariants checked", "entries/s", "-")
        for _ in range(runs):
            for series in (plain, checked):
                series.rates.append(_rate(batch, proposals, seconds, check_invariants=series is checked))
        found += [plain, checked]
    return found


def _rate(batch: int, proposals: int, seconds: float, *, check_invariants: bool) -> float:
    payloads = [b"x" * 100] * batch
    cluster = Cluster(check_invariants=check_invariants)

    def step() -> int:
        before = cluster.committed
        for _ in range(ROUNDS):
            cluster.commit(payloads, proposals)
        cluster.compact()
        return cluster.committed - before

    return rate(step, seconds=seconds)
