"""One PySyncObj node as an engine: events in, effects out, no thread, socket or file.

It runs as the package's own thread would run it: handlers when a message came in, then a tick; a tick after 50 ms
without any. An exception is logged and the node goes on, as that thread does.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

import pysyncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftlog.engine import Effect, NodeId, Note, Receive, Reply, Send, Wake
from raftlog.sim.machine import carry_out, decode, encode
from raftlog.sim.pysyncobj.disk import DUMP_FILE, Disk
from raftlog.sim.pysyncobj.requests import (
    AddMember,
    Command,
    Compact,
    Done,
    Failed,
    Outcome,
    RemoveMember,
    Request,
    TransferLeadership,
    Unknown,
)
from raftlog.sim.pysyncobj.streams import Fields, Packet, Streams
from raftlog.sim.pysyncobj.surroundings import Log, Surroundings

TICK_S = 0.05  # its default autoTickPeriod
SEND_S = 0.001  # what a send costs the sender; without it a loop of PySyncObj that waits for time to pass never ends

Event = Receive[Packet] | Request | Wake
Method = TypeVar("Method", bound=Callable[..., Any])

replicated: Callable[[Method], Method] = pysyncobj.replicated  # with a type


@dataclass(frozen=True, slots=True)
class Settings:
    """Those of PySyncObj's settings that a run chooses; the rest is as it comes."""

    retry_s: float = 0.5  # 5 by default: shorter, for more to happen in a run
    append_period_s: float = 0.1  # between two messages with entries, or heartbeats
    compaction_entries_min: int = 5000
    chunk_bytes: int = 2**16  # of a dump that is sent to another node
    batch_bytes: int = 2**16  # of entries in one message
    leader_fallback_s: float = 30.0


class Peer(Node):  # type: ignore[misc]
    """A node whose hash is the same in every process, and so the order of PySyncObj's sets."""

    @property
    def address(self) -> str:
        return str(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and self.id == other.id

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())


class Replica(SyncObj):  # type: ignore[misc]
    """One copy of the simulated clusters' machine (raftlog/sim/machine.py)."""

    def __init__(self, tell_applied: Callable[[int], None], *arguments: Any, **named: Any) -> None:
        self._tell_applied = tell_applied
        super().__init__(*arguments, **named)
        self.values: dict[str, str] = {}  # set after SyncObj's own attributes, and so part of its dumps

    @replicated
    def run(self, data: bytes) -> Any:
        """What the machine answers to an encoded request."""
        number, request = decode(data)
        self._tell_applied(number)
        return carry_out(self.values, request)


class SimulatedTransport(Transport):  # type: ignore[misc]
    """PySyncObj's side of `Streams`."""

    def __init__(self, node: PySyncObjNode, members: Sequence[NodeId]) -> None:
        super().__init__(None, None, [])
        self._node = node
        for member in members:
            node.streams.add(member)

    def addNode(self, node: Node) -> None:
        self._node.streams.add(node.id)

    def dropNode(self, node: Node) -> None:
        self._node.streams.drop(node.id)

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        return self._node.send(node.id, message)

    def destroy(self) -> None:
        pass

    # Streams calls these.

    def connected(self, peer: NodeId) -> None:
        self._onNodeConnected(Peer(peer))

    def disconnected(self, peer: NodeId) -> None:
        self._onNodeDisconnected(Peer(peer))

    def received(self, peer: NodeId, fields: Fields) -> None:
        self._onMessageReceived(Peer(peer), dict(fields))


class PySyncObjNode:
    """The engine. `members` are those it is started with, itself or not among them; the rest it learns.

    Notes: "error" with what PySyncObj logged.
    """

    def __init__(
        self,
        node_id: NodeId,
        members: Sequence[NodeId],
        disk: Disk,
        *,
        settings: Settings,
        rng: random.Random,
        now: float = 0.0,
    ) -> None:
        self.node_id = node_id
        self.disk = disk
        self.delivered: list[Fields] = []  # messages that PySyncObj got in the last step
        self.applied: list[int] = []  # requests that its machine carried out in the last step
        self._now = now  # its clock: what `step` was told, plus what its own sends cost
        self._tick_at = now
        self._effects: list[Effect] = []
        others = [member for member in members if member != node_id]
        conf = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=True,
            appendEntriesPeriod=settings.append_period_s,
            connectionRetryTime=settings.retry_s,
            logCompactionMinEntries=settings.compaction_entries_min,
            logCompactionBatchSize=settings.chunk_bytes,
            appendEntriesBatchSizeBytes=settings.batch_bytes,
            leaderFallbackTimeout=settings.leader_fallback_s,
            journalFile="journal" if disk.keeps else None,
            fullDumpFile=DUMP_FILE if disk.keeps else None,
            useFork=False,
        )
        self.streams = Streams(
            node_id,
            rng=rng,
            read_timeout_s=conf.connectionTimeout,
            retry_s=settings.retry_s,
            send=lambda peer, packet: self._effects.append(Send(peer, packet)),
            connected=lambda peer: self._transport.connected(peer),
            disconnected=lambda peer: self._transport.disconnected(peer),
        )
        self._transport = SimulatedTransport(self, others)
        self._surroundings = Surroundings(disk, rng=rng, clock=lambda: self._now, log=Log(self._tell_error))
        with self._surroundings:
            self.replica = Replica(
                lambda request: self.applied.append(request),
                Peer(node_id),
                [Peer(member) for member in others],
                conf,
                nodeClass=Peer,
                transport=self._transport,
            )

    def step(self, event: Event, now: float) -> None:
        """Take in what happened, then let PySyncObj tick."""
        self._now = max(self._now, now)
        self.delivered, self.applied = [], []
        with self._surroundings:
            self._handle(event)
            self.streams.tick(self._now)
            self._guarded(self.replica.doTick, 0)
        self._tick_at = now + TICK_S

    def drain(self) -> list[Effect]:
        """What is to be done, in order."""
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> float | None:
        """When its thread would tick again."""
        return self._tick_at

    def send(self, peer: NodeId, message: dict[str, Any]) -> bool:
        """A message of PySyncObj's, as a value."""
        self._now += SEND_S
        entries = message.get("entries")
        if entries is not None:
            message = {**message, "entries": tuple(entries)}
        return self.streams.send(peer, tuple(message.items()), self._now)

    def _handle(self, event: Event) -> None:
        match event:
            case Receive(sender, packet):
                for fields in self.streams.receive(sender, packet, self._now):
                    self.delivered.append(fields)
                    self._guarded(self._transport.received, sender, fields)
            case Wake():
                pass
            case Command(request, operation):
                run: Any = self.replica.run  # takes a callback beside its own arguments
                run(encode(operation, request), callback=self._callback(request))
            case AddMember(request, node):
                self.replica.addNodeToCluster(Peer(node), callback=self._callback(request))
            case RemoveMember(request, node):
                if node == self.node_id:  # as its admin port answers
                    self._effects.append(Reply(request, Failed("REQUEST_DENIED")))
                else:
                    self.replica.removeNodeFromCluster(Peer(node), callback=self._callback(request))
            case TransferLeadership(request, node):
                target = None if node is None else Peer(node)
                self.replica.transferLeadership(target, callback=self._callback(request))
            case Compact():
                self.replica.forceLogCompaction()
            case _:
                assert_never(event)

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  # its own thread logs whatever it is, and goes on
            self._tell_error(f"{type(error).__name__}: {error}")

    def _callback(self, request: int) -> Callable[[Any, int], None]:
        def callback(result: Any, reason: int) -> None:
            index: int = self.replica.raftLastApplied + 1  # counted only after the callback
            self._effects.append(Reply(request, outcome(result, reason, index)))

        return callback

    def _tell_error(self, message: str) -> None:
        self._effects.append(Note("error", {"message": message}))


_REASONS = {value: name for name, value in vars(FAIL_REASON).items() if name.isupper()}
_UNKNOWN = frozenset({"LEADER_CHANGED", "UNKNOWN_OUTCOME"})


def outcome(result: Any, reason: int, index: int) -> Outcome:
    """What a callback was told while an entry was applied."""
    name = _REASONS[reason]
    if name == "SUCCESS":
        return Done(result, index)
    return Unknown(name) if name in _UNKNOWN else Failed(name)
