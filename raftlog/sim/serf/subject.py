"""Nodes of Serf in the simulated world.

What is promised of the part that is healed at the end: all know all of them as alive, with the tags that they have now;
those who are away are known as failed or as left, by all alike; a user event reaches everybody, and a query is answered
by everybody. No death that was false has lasted then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from raftlog.engine import NodeId, Reply
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.events import (
    KeysChanged,
    Member,
    NameTaken,
    QueryCame,
    QueryResult,
    RemoveFailed,
    Respond,
    SendQuery,
    SendUserEvent,
    SetTags,
    Status,
)
from raftlog.serf.messages import State
from raftlog.serf.node import SerfNode
from raftlog.sim.cluster import Cluster
from raftlog.sim.models import Request as Operation
from raftlog.sim.process import Process
from raftlog.sim.serf.checks import Asked, Checks, answer_of
from raftlog.sim.serf.host import Joining, Leaving, Requests, Volatile
from raftlog.sim.serf.image import SerfImage
from raftlog.sim.serf.keys import Keys
from raftlog.sim.serf.node import Addresses, NamedNode, Packet
from raftlog.sim.serf.settings import draw_config
from raftlog.sim.simulation import node_names
from raftlog.sim.subject import Claims, ProtocolUnderTest
from raftlog.sim.world import MILLISECOND

NODES_MAX: Final = 9
LINGER_US_MAX: Final = 50 * MILLISECOND  # from a goodbye to the end of the process
DOWN_US_MAX: Final = 400 * MILLISECOND  # of a node that moves
RESTART_US: Final = 500 * MILLISECOND  # of a node that was told that its name is another's

# What is done to a cluster beside faults, and about how often in 1,000 steps.
ACTS: Final = (
    ("leave", 1.0),
    ("come back", 1.0),
    ("join", 1.0),
    ("set tags", 4.0),
    ("user event", 8.0),
    ("query", 4.0),
    ("rotate key", 1.0),
    ("remove failed", 1.0),
    ("move", 0.5),
)


class SerfSubject:
    def __init__(self, cluster: Cluster, node_count: int, random: Random) -> None:
        self.cluster = cluster
        self.config = draw_config(random)
        self.checks = Checks(self.config)
        self.addresses = Addresses()
        self._random = random
        self._first = node_names(node_count)
        self._requests = Requests(cluster.clients.next_request)
        self._joining = Joining(cluster.world, self._requests)
        self._leaving = Leaving(cluster.world, self._requests, self.checks.has_left)
        self.keys = Keys(self._requests, random, self._everybody, is_encrypted=random.random() < 0.5)
        self._left: list[NodeId] = []  # told to leave, and not begun anew since
        self._marks = 0  # payloads and values of tags made so far
        self._final: bytes | None = None  # payload of the event that the healed core has to hear
        self._is_asking = False  # the healed core
        self._answered: set[str] = set()  # who has answered it; never iterated

    def first_nodes(self) -> Sequence[NodeId]:
        return self._first

    def make_image(self, node: NodeId) -> SerfImage:
        return SerfImage(self.keys.handed_out())

    # ── a node's life ───────────────────────────────────────────────────────────────────────────────

    def start(self, process: Process, now: float, random: Random) -> NamedNode:
        name = process.node
        image = self._image(process)
        if name in self._left:
            self._left.remove(name)
            image.keys = self.keys.handed_out()  # its operator sees to that
        self.checks.began(name)
        nonces = Random(random.getrandbits(64))
        codec = Codec(
            Keyring(image.keys), nonce=lambda count: nonces.getrandbits(8 * count).to_bytes(count, "big")
        )
        node = SerfNode(
            self.config, name=name, address=self.addresses.of(name), tags=image.tags, codec=codec,
            random=random, now=now,
        )  # fmt: skip
        others = [self.addresses.of(other) for other in self.cluster.processes if other != name]
        process.machine = Volatile(node, codec, others)
        self._joining.begin(process)
        return NamedNode(node, codec, self.addresses)

    def stopped(self, process: Process) -> None:
        self._requests.stopped(process.node)
        self.keys.stopped(process.node)

    def submit(self, process: Process, request: int, operation: Operation) -> None:
        raise AssertionError(f"clients ask nothing of nodes of Serf: {operation}")

    def replied(self, process: Process, reply: Reply) -> None:
        self._requests.replied(reply)

    def emitted(self, process: Process, event: Any) -> None:
        volatile: Volatile = process.machine
        self.checks.told(process.node, volatile.seen, event)
        match event:
            case KeysChanged():
                self._image(process).keys = list(volatile.node.keyring.keys)
            case NameTaken():
                self.cluster.world.after(1, self._restart, process, process.incarnation)
            case QueryCame(id=id, time=time, payload=payload):
                self.cluster.world.after(1, self._respond, process, process.incarnation, id, time, payload)

    def _restart(self, process: Process, incarnation: int) -> None:
        if process.incarnation == incarnation:
            process.crash()
            self.cluster.world.after(RESTART_US, self._start, process.node)

    def _start(self, node: NodeId) -> None:
        """Unless the core is healed meanwhile without it."""
        if self.cluster.serving is None or node in self.cluster.serving:
            self.cluster.start(node)

    def _respond(self, process: Process, incarnation: int, id: int, time: int, payload: bytes) -> None:
        if process.incarnation == incarnation:
            process.happen(Respond(id, time, answer_of(process.node, payload)))

    def apply(self, process: Process, entries: Sequence[Any]) -> int:
        raise AssertionError(f"nothing is applied: {entries}")

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        volatile: Volatile = process.machine
        self.checks.stepped(process.node, volatile.node, volatile.seen)

    def sending(self, process: Process, target: NodeId, message: Packet) -> None:
        self.checks.sending(process.node, message.data)

    def _image(self, process: Process) -> SerfImage:
        image = process.disk.image
        assert isinstance(image, SerfImage)
        return image

    # ── acts ────────────────────────────────────────────────────────────────────────────────────────

    def leader(self) -> NodeId | None:
        """Nobody leads; faults that are meant for the leader befall the one that is up for longest."""
        return next((process.node for process in self._up()), None)

    def _up(self) -> list[Process]:
        """Those that run and were not told to leave."""
        processes = self.cluster.processes.values()
        return [one for one in processes if one.is_up and one.node not in self._left]

    def _everybody(self) -> list[Process] | None:
        """All that did not leave, if all of them run."""
        up = self._up()
        return up if len(up) + len(self._left) == len(self.cluster.processes) else None

    def _mark(self) -> str:
        self._marks += 1
        return f"mark {self._marks}"

    def act(self, name: str, choice: int) -> None:
        up = self._up()
        if name == "join":
            self._newcomer()
        elif name == "come back":
            if self._left:
                self.cluster.start(self._left[choice % len(self._left)])
        elif up:
            self._act_of(up[choice % len(up)], name, choice // 16)

    def _act_of(self, process: Process, name: str, choice: int) -> None:
        match name:
            case "leave" if len(self._up()) > 1:
                self._left.append(process.node)
                self._leaving.begin(process, linger_us=choice % LINGER_US_MAX)
            case "leave":
                pass  # somebody has to be there at the end
            case "set tags":
                tags = self._image(process).tags = {"role": "member", "mark": self._mark()}
                self._requests.ask(process, lambda request: SetTags(request, tags), _expect_none)
            case "user event":
                self._send_event(process, self._mark().encode())
            case "query":
                names = list(self.cluster.processes)  # of those drawn; if none is, all are asked
                nodes = tuple(name for place, name in enumerate(names) if choice >> place & 1)
                self._ask(
                    process,
                    self._mark().encode(),
                    nodes,
                    wants_ack=choice % 2 == 0,
                    relays=choice % 3,
                )
            case "rotate key":
                self.keys.rotate(process)
            case "move":
                process.crash()
                self.addresses.move(process.node)
                self.checks.moved(process.node)
                self.cluster.world.after(choice % DOWN_US_MAX, self._start, process.node)
            case "remove failed":
                failed = [member.name for member in process.machine.node.members() if self._is_away(member)]
                if failed:
                    node = failed[choice % len(failed)]
                    self._requests.ask(process, lambda request: RemoveFailed(request, node), _expect_none)
            case _:
                raise AssertionError(name)

    def _is_away(self, member: Member) -> bool:
        return member.status is Status.FAILED and not self.cluster.processes[NodeId(member.name)].is_up

    def _newcomer(self) -> None:
        if len(self.cluster.processes) < NODES_MAX:
            name = NodeId(f"n{len(self.cluster.processes) + 1}")
            self.cluster.add(name)
            self.cluster.start(name)

    def _send_event(self, process: Process, payload: bytes) -> None:
        self.checks.sends_event(process.node, payload)
        self._requests.ask(process, lambda request: SendUserEvent(request, "event", payload), _expect_none)

    def _ask(
        self,
        process: Process,
        payload: bytes,
        nodes: tuple[str, ...],
        *,
        wants_ack: bool,
        relays: int,
        on_result: Callable[[QueryResult], None] | None = None,
    ) -> None:
        self.checks.asks(payload, Asked(process.node, wants_ack, nodes))

        def ended(outcome: Any) -> None:
            assert isinstance(outcome, QueryResult), outcome
            self.checks.query_ended(payload, outcome)
            if on_result is not None:
                on_result(outcome)

        self._requests.ask(
            process,
            lambda request: SendQuery(
                request, "query", payload, nodes=nodes, wants_ack=wants_ack, relay_factor=relays
            ),
            ended,
        )

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    def cores(self, random: Random) -> Sequence[NodeId]:
        """Any but those that are leaving; at times those who left come back."""
        has_returning = random.random() < 0.2
        nodes = [
            name
            for name, process in self.cluster.processes.items()
            if name not in self._left or (has_returning and not process.is_up)
        ]
        return random.sample(nodes, 1 + random.randrange(len(nodes)))

    def bears_the_deaf(self) -> bool:
        """Whoever hears nobody says for ever that all others are dead, and they have to contradict."""
        return False

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        if not self._agree(core):
            return False
        if self._final is None or not self._answered.issuperset(core):
            self._ask_core(core)
            return False
        return all(self._final in self.cluster.processes[node].machine.seen.events for node in core)

    def _agree(self, core: Sequence[NodeId]) -> bool:
        statuses: dict[str, Status] = {}  # of those who are away: as the first of the core knows them
        for name in core:
            process = self.cluster.processes[name]
            if not process.is_up or process.machine.node.has_left:
                return False
            if any(self.addresses.of(other) in process.machine.to_join for other in core):
                return False  # what was sent before a join is not for whoever joins
            node: SerfNode = process.machine.node
            members = {member.name: member for member in node.members()}
            for other in core:
                member = members.get(other)
                if member is None or not self._is_known_as_it_is(node, member):
                    return False
            for member in members.values():
                if member.name not in core and (
                    member.status not in (Status.FAILED, Status.LEFT)
                    or statuses.setdefault(member.name, member.status) is not member.status
                ):
                    return False
        return True

    def _is_known_as_it_is(self, node: SerfNode, member: Member) -> bool:
        name = NodeId(member.name)
        return (
            member.status is Status.ALIVE
            and node.swim.members[name].state is State.ALIVE
            and member.address == self.addresses.of(name)
            and dict(member.tags) == self._image(self.cluster.processes[name]).tags
        )

    def _ask_core(self, core: Sequence[NodeId]) -> None:
        """Send an event, the first time; ask all, until each has answered once: rumours may miss somebody by chance."""
        process = self.cluster.processes[core[self._random.randrange(len(core))]]
        if self._final is None:
            self._final = self._mark().encode()
            self._send_event(process, self._final)
        if self._is_asking:
            return
        self._is_asking = True

        def ended(result: QueryResult) -> None:
            self._is_asking = False
            self._answered |= set(result.responses) & set(result.acks)

        self._ask(process, self._mark().encode(), (), wants_ack=True, relays=0, on_result=ended)

    def may_have_happened(self, request: int) -> bool:
        raise AssertionError("there are no clients")

    def finish(self) -> None:
        core = self.cluster.serving
        assert core is not None, "the end of a run that did not converge"
        for node in core:
            volatile: Volatile = self.cluster.processes[node].machine
            self.checks.has_told_all(node, volatile.node, volatile.seen)


def _expect_none(outcome: Any) -> None:
    assert outcome is None, outcome


SERF = ProtocolUnderTest(
    Claims(stalls=False, failed_syncs=False, serves_clients=False, acts=ACTS), SerfSubject
)
