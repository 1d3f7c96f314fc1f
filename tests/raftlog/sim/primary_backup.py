"""A small protocol in the simulated world: the first node leads for ever, an entry counts once a majority has it.

It is the test of the world itself, and the example to begin from with a protocol of one's own: an engine
(raftlog/engine.py), and a subject (raftlog/sim/subject.py) that says what is on its disk, what clients may ask, and what
must never happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from raftlog.engine import (
    Applied,
    Apply,
    Effect,
    NodeId,
    Persist,
    Persisted,
    Receive,
    Reply,
    Send,
    Token,
    Wake,
)
from raftlog.sim.cluster import Cluster
from raftlog.sim.machine import Machine, decode, encode
from raftlog.sim.models import Request
from raftlog.sim.process import Process
from raftlog.sim.simulation import node_names
from raftlog.sim.subject import Claims, Done, NotDone, ProtocolUnderTest, Violation

RESEND_S = 0.05


class Entry(NamedTuple):
    number: int  # from 1
    data: bytes


@dataclass(frozen=True, slots=True)
class Propose:
    request: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    entries: Sequence[Entry]
    committed: int


@dataclass(frozen=True, slots=True)
class CopyReply:
    length: int  # of the sender's log, durably


class PrimaryBackup:
    """One node. Its whole log is in memory; `durable` says how much of it is on its disk."""

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], entries: Sequence[Entry], now: float) -> None:
        self.node = node
        self.others = [other for other in nodes if other != node]
        self.is_primary = node == nodes[0]
        self.log = list(entries)
        self.durable = len(self.log)
        self.committed = 0
        self.handed_out = 0  # to be applied
        self.known = dict.fromkeys(self.others, 0)  # how much of the log each of them has
        self.requests: dict[int, int] = {}  # index: the request that waits for it
        self.writes: dict[Token, int] = {}  # length of the log when it is durable
        self.token = Token(0)
        self.effects: list[Effect] = []
        self.resend_at = now

    def step(self, event: Any, now: float) -> None:
        match event:
            case Propose(request=request, data=data):
                self.requests[len(self.log) + 1] = request
                self.write([Entry(len(self.log) + 1, data)])
            case Receive(sender=sender, message=Copy(entries=entries, committed=committed)):
                self.committed = max(self.committed, committed)
                self.write([entry for entry in entries if entry.number > len(self.log)])
                self.effects.append(Send(sender, CopyReply(len(self.log)), after=self.token))
            case Receive(sender=sender, message=CopyReply(length=length)):
                self.known[sender] = max(self.known[sender], length)
            case Persisted(token=token):
                self.durable = self.writes.pop(token)
                self.copy()
            case Wake():
                self.resend_at = now + RESEND_S
                self.copy()
            case Applied():
                pass
            case _:
                raise AssertionError(event)
        self.advance()

    def write(self, entries: list[Entry]) -> None:
        if not entries or entries[0].number != len(self.log) + 1:
            return
        self.log += entries
        self.token = Token(self.token + 1)
        self.writes[self.token] = len(self.log)
        self.effects.append(Persist(self.token, entries))

    def copy(self) -> None:
        if self.is_primary:
            for other in self.others:
                entries = self.log[self.known[other] : self.durable]
                self.effects.append(Send(other, Copy(entries, self.committed)))

    def advance(self) -> None:
        if self.is_primary:
            lengths = sorted([self.durable, *self.known.values()], reverse=True)
            self.committed = max(self.committed, lengths[len(lengths) // 2])
        end = min(self.committed, self.durable)
        if end > self.handed_out:
            self.effects.append(Apply(self.log[self.handed_out : end]))
            for index in range(self.handed_out + 1, end + 1):
                if index in self.requests:
                    self.effects.append(Reply(self.requests.pop(index), index))
            self.handed_out = end

    def drain(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def deadline(self) -> float | None:
        return self.resend_at if self.is_primary else None


class Log:
    """What is on a disk."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, write: Sequence[Entry]) -> None:
        self.entries += write

    def write_torn(self, write: Sequence[Entry], random: Random) -> None:
        self.entries += write[: random.randrange(len(write))]


class Node:
    """What a process has beside its engine."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.waiting: dict[int, int] = {}  # index: the client's request that is answered when it is applied


class PrimaryBackupSubject:
    def __init__(self, cluster: Cluster, node_count: int, random: Random) -> None:
        self.cluster = cluster
        self.names = node_names(node_count)
        self.agreed: list[bytes] = []  # what some node has applied, from index 1

    def first_nodes(self) -> Sequence[NodeId]:
        return self.names

    def make_image(self, node: NodeId) -> Log:
        return Log()

    def start(self, process: Process, now: float, random: Random) -> PrimaryBackup:
        process.machine = Node()
        assert isinstance(process.disk.image, Log)
        return PrimaryBackup(process.node, self.names, process.disk.image.entries, now)

    def stopped(self, process: Process) -> None:
        pass

    def submit(self, process: Process, request: int, operation: Request) -> None:
        if process.node != self.names[0]:
            self.cluster.answer(request, NotDone(self.names[0]))
        else:
            process.happen(Propose(request, encode(operation, request)))

    def replied(self, process: Process, reply: Reply) -> None:
        self.check_durable(reply.outcome)
        process.machine.waiting[reply.outcome] = reply.request

    def emitted(self, process: Process, event: Any) -> None:
        raise AssertionError(event)

    def apply(self, process: Process, entries: Sequence[Entry]) -> int:
        for index, data in entries:
            if index > len(self.agreed):
                self.agreed.append(data)
            if self.agreed[index - 1] != data:
                raise Violation("two entries at one index", f"{process.node} at {index}: {data!r}")
            answer = process.machine.machine.apply(index, decode(data)[1])
            request = process.machine.waiting.pop(index, None)
            if request is not None:
                self.cluster.answer(request, Done(answer))
        return entries[-1].number

    def check_durable(self, index: int) -> None:
        images = [process.disk.image for process in self.cluster.processes.values()]
        holders = sum(isinstance(image, Log) and len(image.entries) >= index for image in images)
        if 2 * holders <= len(images):
            raise Violation("acknowledged without a majority", f"index {index} is on {holders} disks")

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        pass

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        pass

    def leader(self) -> NodeId | None:
        return self.names[0]

    def act(self, name: str, choice: int) -> None:
        raise AssertionError(name)

    def cores(self, random: Random) -> Sequence[NodeId]:
        backups = self.names[1:]
        random.shuffle(backups)
        return [self.names[0], *backups[: len(self.names) // 2]]

    def bears_the_deaf(self) -> bool:
        return True

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        states = [self.cluster.processes[node].machine.machine.to_bytes() for node in core]
        return all(state == states[0] for state in states)

    def may_have_happened(self, request: int) -> bool:
        return True

    def finish(self) -> None:
        pass


PRIMARY_BACKUP = ProtocolUnderTest(Claims(), PrimaryBackupSubject)
