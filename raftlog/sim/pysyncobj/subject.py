"""PySyncObj in the simulated world, as four protocols.

- `pysyncobj` has a journal and a dump on disk, so any number of nodes may crash;
- `pysyncobj-in-memory` has neither, as by default, so one node at a time restarts, while all others are up;
- `pysyncobj-held-answers` and `pysyncobj-two-additions` have a journal, no crashes, and faults biased on purpose
  towards one bug each.

What they are asked to survive is what PySyncObj says that it survives. Lost, repeated and late packets are TCP's task
(streams.py); a crash is the end of a process whose files stay whole (disk.py). Beside that they meet what operators do
(members are added and removed, the leadership handed over, logs compacted) and what networks do to TCP: connections that
are reset, or stand still for a while in one direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final

from raftlog.engine import NodeId, Reply
from raftlog.sim.cluster import Cluster
from raftlog.sim.models import Append, Read
from raftlog.sim.models import Request as Operation
from raftlog.sim.network import both_ways
from raftlog.sim.process import Process
from raftlog.sim.pysyncobj.disk import Disk
from raftlog.sim.pysyncobj.node import PySyncObjNode, Settings
from raftlog.sim.pysyncobj.requests import (
    AddMember,
    Command,
    Compact,
    Done,
    Failed,
    RemoveMember,
    Request,
    TransferLeadership,
    Unknown,
)
from raftlog.sim.pysyncobj.witness import Witness
from raftlog.sim.simulation import node_names
from raftlog.sim.subject import Claims, NotDone, ProtocolUnderTest, Unclear, Violation
from raftlog.sim.subject import Done as DoneAnswer
from raftlog.sim.world import MILLISECOND, SECOND

NODES_MAX: Final = 9
HOLD_US: Final = (200 * MILLISECOND, 2 * SECOND)  # shorter than its read timeout of 3.5 s
ISOLATION_US: Final = (500 * MILLISECOND, 6 * SECOND)  # longer than that, at times
DOWN_US: Final = (20 * MILLISECOND, 400 * MILLISECOND)
BURST: Final = 400  # writes at once, by nobody who waits for them
POLL_US: Final = 5 * MILLISECOND
TRIES: Final = 400  # of them: some elections long

ACTS: Final = (
    ("add", 0.2),
    ("add two", 0.2),
    ("remove", 0.2),
    ("transfer", 0.5),
    ("compact", 1.0),
    ("reset", 1.0),
    ("hold", 1.0),
    ("isolate", 0.3),
)


class PySyncObjSubject:
    """All its nodes in one run.

    `settings` are drawn if not given. If `is_patient`, the findings are in `witness`, and the run goes on to its end.
    """

    def __init__(
        self,
        cluster: Cluster,
        node_count: int,
        random: Random,
        *,
        keeps: bool,
        settings: Settings | None = None,
        is_patient: bool = False,
    ) -> None:
        self.witness = Witness()
        self.settings = settings or Settings(
            append_period_s=random.choice((0.02, 0.05, 0.1)),
            compaction_entries_min=random.choice((10, 50, 5000)),
            chunk_bytes=random.choice((64, 2**16)),
            batch_bytes=random.choice((300, 2000, 2**16)),
            leader_fallback_s=random.choice((2.0, 30.0)),
        )
        self._cluster = cluster
        self._keeps = keeps
        self._is_patient = is_patient
        self._first_nodes = node_names(node_count)
        self._nodes: dict[NodeId, PySyncObjNode] = {}  # those that run
        self._members: dict[NodeId, Sequence[NodeId]] = {}  # whom each was configured with by its operator
        self._is_holding_answers = False  # one at a time
        self._happened: set[int] = set()  # requests that some node carried out
        self._writes: dict[int, Operation] = {}  # by request, until they end
        self._acknowledged: dict[tuple[int, int], str] = {}  # writes by index and term

    def first_nodes(self) -> Sequence[NodeId]:
        return self._first_nodes

    def make_image(self, node: NodeId) -> Disk:
        return Disk(keeps=self._keeps)

    def start(self, process: Process, now: float, random: Random) -> PySyncObjNode:
        image = process.disk.image
        assert isinstance(image, Disk)
        members = self._members.setdefault(process.node, self._first_nodes)
        node = PySyncObjNode(process.node, members, image, settings=self.settings, rng=random, now=now)
        self._nodes[process.node] = node
        self.witness.started(node)
        return node

    def stopped(self, process: Process) -> None:
        node = self._nodes.pop(process.node)
        node.disk.crash()
        for peer, packet in node.streams.farewell():
            self._cluster.network.send(process.node, peer, packet)

    def submit(self, process: Process, request: int, operation: Operation) -> None:
        if not isinstance(operation, Read):
            self._writes[request] = operation
        process.happen(Command(request, operation))

    def replied(self, process: Process, reply: Reply) -> None:
        node = self._nodes[process.node]
        write = self._writes.pop(reply.request, None)
        match reply.outcome:
            case Done(result=result, index=index):
                entry = node.disk.entry(index)
                if write is not None and entry is not None:
                    self._acknowledged[(index, entry[2])] = f"{write}, told to {process.node},"
                self._cluster.answer(reply.request, DoneAnswer(result))
            case Failed():
                leader = node.replica._getLeader()
                self._cluster.answer(reply.request, NotDone(None if leader is None else leader.id))
            case Unknown():
                self._cluster.answer(reply.request, Unclear())
            case _:
                raise AssertionError(reply)

    def emitted(self, process: Process, event: Any) -> None:
        raise AssertionError(event)

    def apply(self, process: Process, entries: Sequence[Any]) -> int:
        raise AssertionError("PySyncObj applies by itself")

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        node = self._nodes[process.node]
        self._happened.update(node.applied)
        self.witness.stepped(node, effects)
        self._raise_first()

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        pass

    def leader(self) -> NodeId | None:
        leaders = [
            (n.replica.raftCurrentTerm, name) for name, n in self._nodes.items() if n.replica._isLeader()
        ]
        return max(leaders)[1] if leaders else None

    def act(self, name: str, choice: int) -> None:
        random = Random(choice)
        leader = self.leader()
        match name:
            case "add":
                self._add(leader, count=1)
            case "add two":
                self._add(leader, count=2)
            case "remove":
                others = [node for node in self._others(leader) if len(self._others(leader)) > 1]
                if others:
                    self._ask(leader, lambda request: RemoveMember(request, random.choice(others)))
            case "transfer":
                self._ask(leader, lambda request: TransferLeadership(request, None))
            case "compact":
                self._ask(random.choice(list(self._cluster.processes)), lambda _: Compact())
            case "reset" | "hold" if len(self._cluster.processes) < 2:
                pass  # one node alone has no connection
            case "reset":
                self._reset(*random.sample(list(self._cluster.processes), 2))
            case "hold":
                pair = random.sample(list(self._cluster.processes), 2)
                self._cut([(pair[0], pair[1])], _between(random, HOLD_US))
            case "isolate":
                some = [leader] if leader is not None else []
                others = [node for node in self._cluster.processes if node != leader]
                if some and random.random() < 0.5:
                    some.append(others.pop(random.randrange(len(others))))
                self._cut(both_ways(some, others), _between(random, ISOLATION_US))
            case "hold answers":
                if leader is not None and len(self._others(leader)) > 1:
                    self._hold_answers(leader, random)
            case "restart":
                self._restart(random)
            case _:
                raise AssertionError(name)

    def cores(self, random: Random) -> Sequence[NodeId]:
        """All members, as the newest leader or else anybody knows them."""
        if not self._nodes:
            return self._first_nodes
        node = self._nodes[self.leader() or max(self._nodes)]
        return [node.node_id, *sorted(other.id for other in node.replica.otherNodes)]

    def bears_the_deaf(self) -> bool:
        return False  # it has no pre-vote: a node that hears nobody raises its term, and deposes the leader

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        nodes = [self._nodes[name] for name in core if name in self._nodes]
        states = [
            (node.replica.values, node.replica.raftLastApplied, node.disk.entries[-1][1:]) for node in nodes
        ]
        return len(nodes) == len(core) and all(state == states[0] for state in states)

    def may_have_happened(self, request: int) -> bool:
        return request in self._happened

    def finish(self) -> None:
        leader = self.leader()
        if leader is not None:
            self.witness.finish(leader, self._acknowledged)
            self._raise_first()

    def _raise_first(self) -> None:
        if self.witness.findings and not self._is_patient:
            finding = self.witness.findings[0]
            raise Violation(finding.broken, f"{finding.bug}: {finding.detail}")

    def _add(self, leader: NodeId | None, *, count: int) -> None:
        if leader is None or len(self._cluster.processes) + count > NODES_MAX:
            return
        members = [leader, *sorted(self._others(leader))]
        for _ in range(count):
            name = NodeId(f"n{len(self._cluster.processes) + 1}")
            self._members[name] = [*members, name]
            self._cluster.add(name)
            self._cluster.start(name)
            self._ask(leader, partial(AddMember, node=name))

    def _others(self, node: NodeId | None) -> list[NodeId]:
        return [] if node is None else [other.id for other in self._nodes[node].replica.otherNodes]

    def _ask(self, node: NodeId | None, request: Callable[[int], Request]) -> None:
        if node is not None:
            self._cluster.processes[node].happen(request(self._cluster.clients.next_request()))

    def _reset(self, one: NodeId, other: NodeId) -> None:
        """Something on the way ends their connection."""
        for source, target in ((one, other), (other, one)):
            packets = self._nodes[source].streams.farewell() if source in self._nodes else []
            for peer, packet in packets:
                if peer == target:
                    self._cluster.network.send(source, target, packet)

    def _cut(self, pairs: Sequence[tuple[NodeId, NodeId]], duration_us: int) -> None:
        network = self._cluster.network
        self._cluster.world.after(duration_us, network.mend, network.cut(pairs))

    def _hold_answers(self, leader: NodeId, random: Random) -> None:
        """What a stale acknowledgement needs, but for who is elected, and when.

        1. The leader is heard by one node only, whose answers stand still, until it has a successor.
        2. All hear each other but for those answers, until the successor has handed the leadership back.
        3. The leader is heard by another node only, while the answers come.
        """
        if self._is_holding_answers:
            return
        self._is_holding_answers = True
        network = self._cluster.network
        others = self._others(leader)
        hearer = others.pop(random.randrange(len(others)))
        answers = network.cut([(hearer, leader)])
        unheard = network.cut(both_ways([leader], others))
        for number in range(BURST):
            self._ask(leader, partial(Command, operation=Append("burst", f"{number},")))

        def succeeded() -> None:
            network.mend(unheard)
            self._when(lambda: self._hand_over(leader), led_again)

        def led_again() -> None:
            network.mend(answers)
            self._cut([(leader, hearer), *both_ways([leader], others[1:])], HOLD_US[1])
            self._is_holding_answers = False

        self._when(lambda: self.leader() not in (None, leader), succeeded)

    def _hand_over(self, target: NodeId) -> bool:
        """Whether it leads; if not, whoever does is asked to make it the leader, and may refuse."""
        leader = self.leader()
        if leader is not None and leader != target:
            self._ask(leader, partial(TransferLeadership, node=target))
        return leader == target

    def _when(self, condition: Callable[[], bool], act: Callable[[], None], tries: int = TRIES) -> None:
        """Act when it is so, or when it did not come to be so."""
        if tries == 0 or condition():
            act()
        else:
            self._cluster.world.after(POLL_US, self._when, condition, act, tries - 1)

    def _restart(self, random: Random) -> None:
        """One node, if all others are up."""
        if len(self._nodes) < len(self._cluster.processes):
            return
        name = random.choice(list(self._nodes))
        self._cluster.processes[name].crash()
        self._cluster.world.after(_between(random, DOWN_US), self._cluster.start, name)


def _between(random: Random, bounds: tuple[int, int]) -> int:
    return bounds[0] + int((bounds[1] - bounds[0]) * random.random())


def _journal(cluster: Cluster, node_count: int, random: Random) -> PySyncObjSubject:
    return PySyncObjSubject(cluster, node_count, random, keeps=True)


def _in_memory(cluster: Cluster, node_count: int, random: Random) -> PySyncObjSubject:
    return PySyncObjSubject(cluster, node_count, random, keeps=False)


def _quick(cluster: Cluster, node_count: int, random: Random) -> PySyncObjSubject:
    return PySyncObjSubject(cluster, node_count, random, keeps=True, settings=Settings(append_period_s=0.02))


CLAIMS: Final = Claims(stalls=False, failed_syncs=False, acts=ACTS)
CALM: Final = replace(CLAIMS, crashes=False)

PYSYNCOBJ: Final = ProtocolUnderTest(CLAIMS, _journal)
PYSYNCOBJ_IN_MEMORY: Final = ProtocolUnderTest(replace(CALM, acts=(*ACTS, ("restart", 1.0))), _in_memory)
PYSYNCOBJ_HELD_ANSWERS: Final = ProtocolUnderTest(replace(CALM, acts=(("hold answers", 2.0),)), _quick)
PYSYNCOBJ_TWO_ADDITIONS: Final = ProtocolUnderTest(
    replace(CALM, acts=(("add two", 0.5), ("isolate", 1.0))), _quick
)
