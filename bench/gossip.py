"""Gossip in virtual time: how soon a crash is known, beside SWIM's formula, and what lost packets do to those who live.

Nodes of Serf with the LAN profile, encoded messages and all, in the simulated world (raftlog/sim): so 200 of them fit into
one process, and nothing that was measured hangs on how fast the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import ceil, e, log10
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

from logstore.benchmark.measure import machine
from raftlog.engine import NodeId, Note, Reply
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import LAN
from raftlog.serf.events import Join, MemberFailed, MemberJoined
from raftlog.serf.node import SerfNode
from raftlog.sim.cluster import Cluster
from raftlog.sim.disk import DiskSpeed
from raftlog.sim.models import Request
from raftlog.sim.network import Weather
from raftlog.sim.process import Process
from raftlog.sim.serf.image import SerfImage
from raftlog.sim.serf.node import Addresses, NamedNode
from raftlog.sim.simulation import node_names
from raftlog.sim.subject import Claims, ProtocolUnderTest
from raftlog.sim.world import SECOND, World

LAN_WEATHER: Final = Weather(delay_us=200, jitter_us=300)
JOIN_RETRY_US: Final = SECOND
SETTLED_S_MAX: Final = 300  # until all know all; a round of exchanges among 200 is 90 s
DETECTED_S_MAX: Final = 300
SAMPLES: Final = {
    3: 300,
    5: 300,
    10: 300,
    20: 200,
    50: 100,
    100: 60,
    200: 40,
}  # crashes, by the number of nodes
LOSSES: Final = (0.0, 0.05, 0.1, 0.2, 0.3)
LOSSY_SIZES: Final = {5: 7_200, 20: 1_800}  # virtual seconds, by the number of nodes


class Gossip:
    """A subject: nodes that join the first of them, and tell here whom they find failed or back."""

    def __init__(self, cluster: Cluster, node_count: int, random: Random) -> None:
        self.cluster = cluster
        self._names = node_names(node_count)
        self._addresses = Addresses()
        self.on_failed: Callable[[NodeId, NodeId], None] = lambda observer, member: None
        self.on_joined: Callable[[NodeId, NodeId], None] = lambda observer, member: None

    def first_nodes(self) -> Sequence[NodeId]:
        return self._names

    def make_image(self, node: NodeId) -> SerfImage:
        return SerfImage([])

    def start(self, process: Process, now: float, random: Random) -> NamedNode:
        codec = Codec(
            Keyring(), nonce=lambda count: b"", compression=False
        )  # these cost time, and change nothing
        address = self._addresses.of(process.node)
        node = SerfNode(
            LAN,
            name=process.node,
            address=address,
            tags={"role": "member"},
            codec=codec,
            random=random,
            now=now,
        )
        process.machine = node
        self.cluster.world.after(1, self._join, process, process.incarnation)
        return NamedNode(node, codec, self._addresses)

    def _join(self, process: Process, incarnation: int) -> None:
        up = [name for name in self._names if name != process.node and self.cluster.processes[name].is_up]
        if up and process.is_up and process.incarnation == incarnation:
            process.happen(Join(self.cluster.clients.next_request(), (self._addresses.of(up[0]),)))

    def replied(self, process: Process, reply: Reply) -> None:
        if "" not in reply.outcome.values():
            self.cluster.world.after(JOIN_RETRY_US, self._join, process, process.incarnation)

    def emitted(self, process: Process, event: Any) -> None:
        match event:
            case MemberFailed(member=member):
                self.on_failed(process.node, NodeId(member.name))
            case MemberJoined(member=member):
                self.on_joined(process.node, NodeId(member.name))

    def all_know_all(self) -> bool:
        count = len(self._names)
        return all(
            process.machine.counts()["members_alive"] == count for process in self.cluster.processes.values()
        )

    def stopped(self, process: Process) -> None:
        pass

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        pass

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        pass

    def submit(self, process: Process, request: int, operation: Request) -> None:
        raise AssertionError(operation)

    def apply(self, process: Process, entries: Sequence[Any]) -> int:
        raise AssertionError(entries)

    def leader(self) -> NodeId | None:
        return None

    def act(self, name: str, choice: int) -> None:
        raise AssertionError(name)

    def cores(self, random: Random) -> Sequence[NodeId]:
        return self._names

    def bears_the_deaf(self) -> bool:
        return False

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        return True

    def may_have_happened(self, request: int) -> bool:
        return False

    def finish(self) -> None:
        pass


class Field:
    """So many nodes that all know each other."""

    def __init__(self, nodes: int, seed: int, watch: Callable[[int, str, Any], None] | None = None) -> None:
        self.world = World(f"gossip/{nodes}/{seed}", watch=watch)
        protocol = ProtocolUnderTest(Claims(serves_clients=False), Gossip)
        speed = DiskSpeed(sync_us=1, jitter_us=1)
        self.cluster = Cluster(self.world, protocol, nodes, weather=LAN_WEATHER, disk_speed=speed)
        assert isinstance(self.cluster.subject, Gossip)
        self.subject = self.cluster.subject
        for node in self.cluster.processes:
            self.cluster.start(node)
        self.settle()

    def settle(self) -> None:
        deadline_us = self.world.now_us + SETTLED_S_MAX * SECOND
        while not self.subject.all_know_all():
            assert self.world.now_us < deadline_us, f"after {SETTLED_S_MAX} s not all know all"
            self.run(0.5)

    def run(self, seconds: float) -> None:
        self.world.run(until_us=self.world.now_us + int(seconds * SECOND))


# ── how soon a crash is known ──


class Detected(NamedTuple):
    """Seconds from a crash."""

    first: float  # until the first of those who live said so
    last: float  # until all of them had


def detect(nodes: int, crashes: int, seed: int) -> list[Detected]:
    """One node after the other crashes, at any time, and comes back when all know of it."""
    field = Field(nodes, seed)
    random = field.world.random("crashes")
    return [_crash(field, random) for _ in range(crashes)]


def _crash(field: Field, random: Random) -> Detected:
    world, cluster = field.world, field.cluster
    field.run(2 + 2 * random.random())  # also the rumours of the last one are gone then
    victim = random.choice(list(cluster.processes))
    told: list[int] = []

    def failed(observer: NodeId, member: NodeId) -> None:
        assert member == victim, f"{observer} takes {member} for failed, which lives"
        told.append(world.now_us)
        if len(told) == len(cluster.processes) - 1:
            world.stop()

    field.subject.on_failed = failed
    crashed_us = world.now_us
    cluster.processes[victim].crash()
    field.run(DETECTED_S_MAX)
    assert len(told) == len(cluster.processes) - 1, f"after {DETECTED_S_MAX} s only {len(told)} knew of it"
    cluster.start(victim)
    field.settle()
    return Detected((told[0] - crashed_us) / SECOND, (told[-1] - crashed_us) / SECOND)


def formula(nodes: int) -> tuple[float, float]:
    """Seconds until the first knows, by SWIM 3.1 and Lifeguard IV-B: all confirm at once, or nobody does.

    Somebody begins to probe a member every e / (e - 1) periods, the probe fails a period later, and then suspicion lasts
    its least or its most.
    """
    config = LAN.swim
    period_s = config.probe_interval_s
    suspected_s = period_s * e / (e - 1) + period_s
    least_s = config.suspicion_mult * max(1.0, log10(nodes)) * period_s
    has_confirmations = nodes - 2 >= config.suspicion_mult - 2
    most_s = least_s * (config.suspicion_max_timeout_mult if has_confirmations else 1)
    return suspected_s + least_s, suspected_s + most_s


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of them do not exceed."""
    return sorted(values)[max(0, ceil(percent / 100 * len(values)) - 1)]


def _detection_row(nodes: int, crashes: int) -> dict[str, Any]:
    found = detect(nodes, crashes, seed=1)
    first, last = [one.first for one in found], [one.last for one in found]
    least_s, most_s = formula(nodes)
    figures = {
        "formula_least_s": least_s, "formula_most_s": most_s,
        "first_median_s": median(first), "first_p99_s": percentile(first, 99),
        "all_median_s": median(last), "all_p99_s": percentile(last, 99),
    }  # fmt: skip
    return {"nodes": nodes, "crashes": crashes, **{name: round(value, 2) for name, value in figures.items()}}


# ── what lost packets do to those who live ──


class Lossy(NamedTuple):
    suspicions: int  # that had to be refuted
    deaths: int  # members that somebody took for failed while they lived; until all knew better, it is one
    longest_s: float  # that such a death lasted, for whoever thought so longest


def lose(nodes: int, loss: float, seconds: int, seed: int) -> Lossy:
    """So many virtual seconds in which this share of packets is lost, and of streams' halves; nobody crashes."""
    suspicions = 0

    def watch(time_us: int, who: str, what: Any) -> None:
        nonlocal suspicions
        if isinstance(what, Note) and what.event == "refuted":
            suspicions += 1

    field = Field(nodes, seed, watch)
    suspicions = 0
    world = field.world
    failed_us: dict[NodeId, dict[NodeId, int]] = {}  # member: who takes it for failed, since when
    deaths = 0
    longest_us = 0

    def failed(observer: NodeId, member: NodeId) -> None:
        nonlocal deaths
        believers = failed_us.setdefault(member, {})
        deaths += not believers
        believers[observer] = world.now_us

    def joined(observer: NodeId, member: NodeId) -> None:
        nonlocal longest_us
        longest_us = max(longest_us, world.now_us - failed_us[member].pop(observer))

    field.subject.on_failed, field.subject.on_joined = failed, joined
    field.cluster.network.weather = Weather(LAN_WEATHER.delay_us, LAN_WEATHER.jitter_us, lost=loss)
    field.run(seconds)
    for believers in failed_us.values():
        for since_us in believers.values():
            longest_us = max(longest_us, world.now_us - since_us)
    return Lossy(suspicions, deaths, longest_us / SECOND)


def _loss_row(nodes: int, loss: float, seconds: int) -> dict[str, Any]:
    found = lose(nodes, loss, seconds, seed=1)
    return {
        "nodes": nodes, "loss": loss, "node_hours": round(nodes * seconds / 3600, 2),
        "suspicions": found.suspicions, "deaths": found.deaths, "longest_s": round(found.longest_s, 2),
    }  # fmt: skip


def measure(*, jobs: int, share: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything, or a share of the crashes and the time."""
    tasks = [partial(_detection_row, nodes, max(1, int(share * count))) for nodes, count in SAMPLES.items()]
    tasks += [
        partial(_loss_row, nodes, loss, max(60, int(share * seconds)))
        for nodes, seconds in LOSSY_SIZES.items()
        for loss in LOSSES
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(jobs) as pool:
        for row in pool.map(_call, tasks):
            tell(", ".join(f"{name} {value}" for name, value in row.items()))
            rows.append(row)
    return {
        "machine": machine(),
        "detection": [row for row in rows if "crashes" in row],
        "loss": [row for row in rows if "loss" in row],
    }


def _call(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return task()
