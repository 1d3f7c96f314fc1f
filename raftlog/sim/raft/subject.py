"""Raft nodes in the simulated world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from raftlog.engine import NodeId, Persisted, Receive, Reply
from raftlog.raft import RaftNode, Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign, ForgetLeader, TransferLeadership, Unreachable
from raftlog.raft.messages import AppendReply, Entry, EntryKind, Snapshot
from raftlog.sim.cluster import Cluster
from raftlog.sim.machine import Machine, MachineMaker, StateMachine, decode
from raftlog.sim.models import Request
from raftlog.sim.process import Process
from raftlog.sim.raft.checks import Checks, Seen
from raftlog.sim.raft.disk import RaftDisk
from raftlog.sim.raft.log_witness import LogWitness
from raftlog.sim.raft.membership import Membership, has_quorums
from raftlog.sim.raft.requests import Requests
from raftlog.sim.raft.settings import draw_config
from raftlog.sim.simulation import node_names
from raftlog.sim.subject import Claims, ProtocolUnderTest, Violation

# What is done to a cluster beside faults, and about how often in 1,000 steps.
ACTS: Final = (
    ("transfer", 3.0),
    ("campaign", 1.0),
    ("forget leader", 1.0),
    ("unreachable", 2.0),
    ("compact", 8.0),
    ("compact all", 2.0),
    ("lose a disk", 0.5),
    ("change members", 6.0),
)


@dataclass(slots=True)
class Volatile:
    """What a process has beside its engine; gone with a crash."""

    requests: Requests
    seen: Seen
    configuration: Configuration  # in force after the last step

    @property
    def machine(self) -> StateMachine:
        return self.requests.machine


class RaftSubject:
    def __init__(
        self,
        cluster: Cluster,
        node_count: int,
        random: Random,
        *,
        make_machine: MachineMaker = Machine.from_bytes,
    ) -> None:
        self.cluster = cluster
        self._make_machine = make_machine
        self._random = random
        self._first = node_names(node_count)
        self._bootstrap = Configuration(voters=tuple(sorted(self._first)))
        self._config = draw_config(random, self._first[0])
        self.disks: dict[NodeId, RaftDisk] = {}
        self.checks = Checks(self._bootstrap, self.disks)
        self.witness = LogWitness()
        self.membership = Membership(self)

    def first_nodes(self) -> Sequence[NodeId]:
        return self._first

    def make_image(self, node: NodeId) -> RaftDisk:
        disk = self.disks[node] = RaftDisk(self._bootstrap)
        return disk

    # ── a node's life ───────────────────────────────────────────────────────────────────────────────

    def start(self, process: Process, now: float, random: Random) -> RaftNode:
        disk = self.disks[process.node]
        machine = self._make_machine(disk.snapshot_bytes)
        requests = Requests(self.checks, self.witness, machine, self.cluster.answer)
        self.witness.begins(process.node, disk.applied)
        seen = Seen(term=disk.hard_state().term, committed=disk.commit)
        process.machine = Volatile(requests, seen, disk.configuration())
        return RaftNode(process.node, self._config, disk, random, now)

    def stopped(self, process: Process) -> None:
        pass

    def submit(self, process: Process, request: int, operation: Request) -> None:
        process.happen(process.machine.requests.ask(request, operation))

    def replied(self, process: Process, reply: Reply) -> None:
        node = process.engine
        assert isinstance(node, RaftNode)
        process.machine.requests.ended(process.node, node.term, reply.request, reply.outcome)

    def emitted(self, process: Process, event: Any) -> None:
        raise AssertionError(event)

    def apply(self, process: Process, entries: Sequence[Entry]) -> int:
        volatile: Volatile = process.machine
        machine, requests = volatile.machine, volatile.requests
        for entry in entries:
            if entry.index <= machine.applied:
                continue  # a snapshot has it already
            request = decode(entry.data)[1] if entry.kind is EntryKind.COMMAND else None
            self.witness.applied(process.node, entry)
            requests.applied(entry.index, machine.apply(entry.index, request))
        requests.serve_reads()
        return machine.applied

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        node, volatile = process.engine, process.machine
        assert isinstance(node, RaftNode)
        if type(event) is Persisted and node.log.applied > volatile.machine.applied:
            self._installed(process, node)
        self.checks.stepped(node, volatile.seen, effects)
        if type(event) is Receive and type(event.message) is AppendReply:
            self.checks.acknowledged(node, event.sender)
        if node.configuration is not volatile.configuration:
            volatile.configuration = node.configuration
            # A snapshot from before a change would not bring a new member into the cluster.
            self.cluster.world.after(1, self._compact, process, process.incarnation)

    def _installed(self, process: Process, node: RaftNode) -> None:
        disk = self.disks[process.node]
        snapshot = disk.snapshot()
        if snapshot is None or snapshot.index != node.log.applied:
            return  # a later one is on the disk already, and its report on the way
        self.checks.snapshot_installed(process.node, snapshot, disk.snapshot_bytes)
        requests = process.machine.requests
        self.witness.begins(process.node, snapshot.index)
        requests.machine = self._make_machine(disk.snapshot_bytes)
        requests.skipped()

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        self.checks.sending(process.node, self.disks[process.node], target, message)

    # ── acts ────────────────────────────────────────────────────────────────────────────────────────

    def leader(self) -> NodeId | None:
        leaders = [node for node in self.nodes_up() if node.role.name is Role.LEADER]
        return max(leaders, key=lambda node: node.term).id if leaders else None

    def nodes_up(self) -> list[RaftNode]:
        engines = [process.engine for process in self.cluster.processes.values()]
        return [engine for engine in engines if isinstance(engine, RaftNode)]

    def act(self, name: str, choice: int) -> None:
        up = self.nodes_up()
        if not up:
            return
        node = up[choice % len(up)]
        process = self.cluster.processes[node.id]
        members = self.checks.configuration.members
        member = members[choice // 16 % len(members)]
        match name:
            case "transfer":
                process.happen(TransferLeadership(member))
            case "campaign":
                process.happen(Campaign())
            case "forget leader":
                process.happen(ForgetLeader())
            case "unreachable":
                process.happen(Unreachable(member))
            case "compact":
                self._compact(process, process.incarnation)
            case "compact all":
                for process in self.cluster.processes.values():
                    self._compact(process, process.incarnation)
            case "lose a disk":
                self.membership.lose_a_disk(choice)
            case "change members":
                self.membership.change(choice)
            case _:
                raise AssertionError(name)

    def _compact(self, process: Process, incarnation: int) -> None:
        """Take a snapshot of the machine, and forget most of the log below."""
        node, disk = process.engine, self.disks[process.node]
        if process.incarnation != incarnation or not isinstance(node, RaftNode):
            return
        index = node.log.applied
        if (
            node.log.installing is not None
            or index != process.machine.machine.applied
            or index <= disk.applied
        ):
            return
        data = process.machine.machine.to_bytes()
        term = node.log.term(index)
        assert term is not None
        snapshot = Snapshot(index, term, node.configuration, len(data))
        self.checks.snapshot_made(process.node, snapshot, data)
        self.witness.snapshot_made(process.node, index)
        disk.compact(snapshot, data, keep=self._random.choice((0, 1, 5, 1_000)))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    def cores(self, random: Random) -> Sequence[NodeId]:
        core = [node for node in self.cluster.processes if node not in self.cluster.lost]
        # Some node may still act on one that has lost its quorum since it was replaced: that one decides nothing any more.
        possible = self.membership.possible_configurations()
        configurations = [configuration for configuration in possible if has_quorums(configuration, core)]
        if random.random() < 0.5:
            for node in random.sample(core, len(core)):
                rest = [other for other in core if other != node]
                if all(has_quorums(configuration, rest) for configuration in configurations):
                    core = rest
        return core

    def bears_the_deaf(self) -> bool:
        """A deaf leader would lead for ever without the one, a deaf candidate disturb for ever without the other."""
        return self._config.check_quorum and self._config.pre_vote

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        members = [node for node in core if node in self.checks.configuration.members]
        for member in members:
            process = self.cluster.processes[member]
            if process.engine is None or process.machine.machine.applied != self.checks.committed:
                return False
        states = {self.cluster.processes[member].machine.machine.to_bytes() for member in members}
        if len(states) > 1:
            raise Violation(
                "state machine safety", f"different states at {self.checks.committed}: {sorted(states)}"
            )
        return not self.checks.configuration.auto_leave

    def may_have_happened(self, request: int) -> bool:
        return self.checks.is_committed(request)

    def finish(self) -> None:
        core = self.cluster.serving
        assert core is not None, "the end of a run that did not converge"
        self.witness.finish(next(node for node in core if node in self.checks.configuration.members))


def raft(make_machine: MachineMaker = Machine.from_bytes) -> ProtocolUnderTest:
    """Our Raft, with a state machine of one's own."""
    return ProtocolUnderTest(Claims(acts=ACTS), partial(RaftSubject, make_machine=make_machine))


RAFT = raft()
