"""Faults as values: which ones befall a run is drawn before it begins, so the list can be printed and made shorter.

Each fault ends by itself; taking one out of the list leaves the others as they were. Which kinds a seed has is drawn
first (swarm testing): a run in which everything breaks all the time never gets far enough to meet the rarer bugs, and a
run with one kind of fault only goes deep into that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from raftlog.engine import NodeId
from raftlog.sim.disk import DiskSpeed
from raftlog.sim.network import Weather
from raftlog.sim.subject import Claims
from raftlog.sim.world import MILLISECOND

LEADER: Final = NodeId("the leader")  # in place of a node: whoever leads when the fault comes


@dataclass(frozen=True, slots=True)
class Crash:
    """The processes end at once; each is started again after a while."""

    nodes: tuple[NodeId, ...]
    down_us: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The process stands still, as in a long collection of garbage; what reaches it waits."""

    node: NodeId
    duration_us: int


@dataclass(frozen=True, slots=True)
class Stall:
    """The disk completes no sync."""

    node: NodeId
    duration_us: int


@dataclass(frozen=True, slots=True)
class FailSync:
    """The next sync fails: the process ends, and is started again from what the disk has."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from any of `sources` to any of `targets`, nor back if `both_ways`."""

    sources: tuple[NodeId, ...]
    targets: tuple[NodeId, ...]  # empty: every other node
    both_ways: bool
    duration_us: int


@dataclass(frozen=True, slots=True)
class Bridge:
    """Two halves do not hear each other; one node hears both."""

    some: tuple[NodeId, ...]
    others: tuple[NodeId, ...]
    duration_us: int


@dataclass(frozen=True, slots=True)
class Drift:
    """From now on the node's clock runs at this rate."""

    node: NodeId
    rate: float


@dataclass(frozen=True, slots=True)
class Act:
    """Something that only the protocol knows how to do (Claims.acts)."""

    name: str
    choice: int  # which of what there is to choose from


Fault = Crash | Pause | Stall | FailSync | Cut | Bridge | Drift | Act


class Planned(NamedTuple):
    """A fault and when it comes."""

    time_us: int
    fault: Fault


class Plan(NamedTuple):
    """What a run's surroundings are like."""

    weather: Weather
    disk_speed: DiskSpeed
    faults: list[Planned]


# About how often each kind comes in a thousand steps of a run that has it.
CRASHES: Final = 6.0
POWER_FAILURES: Final = 3.0
PAUSES: Final = 3.0
STALLS: Final = 3.0
FAILED_SYNCS: Final = 2.0
CUTS: Final = 6.0
LONELY_LEADERS: Final = 6.0
PARTITIONS: Final = 6.0
DEPOSITIONS: Final = 3.0  # each is several, one after the other

DURATION_US_MIN: Final = 20 * MILLISECOND
DURATIONS_US_MAX: Final = (100 * MILLISECOND, 300 * MILLISECOND, 800 * MILLISECOND)  # to some elections long
STEP_US: Final = 1 * MILLISECOND  # about how much time a step of a run takes, to say when faults come


def draw_plan(random: Random, nodes: Sequence[NodeId], claims: Claims, *, steps: int) -> Plan:
    """The surroundings of one seed, for a run of so many steps."""
    drawn = _Draw(random, nodes, claims, steps)
    weather = drawn.weather()
    disk_speed = DiskSpeed(sync_us=random.choice((50, 200, 1_000)), jitter_us=random.choice((50, 500, 5_000)))
    drawn.all_kinds()
    drawn.faults.sort(key=lambda planned: planned.time_us)
    return Plan(weather, disk_speed, drawn.faults)


class _Draw:
    def __init__(self, random: Random, nodes: Sequence[NodeId], claims: Claims, steps: int) -> None:
        self.random = random
        self.nodes = list(nodes)
        self.claims = claims
        self.steps = steps
        self.faults: list[Planned] = []
        self.duration_us_max = random.choice(DURATIONS_US_MAX)
        # a share of the seeds meets nothing, and one of those with faults only a single kind
        self.share = random.choice((0.0, 0.2, 0.5, 0.5, 0.8))

    def is_on(self) -> bool:
        return self.random.random() < self.share

    def weather(self) -> Weather:
        random, claims = self.random, self.claims
        return Weather(
            delay_us=random.choice((100, 300, 1_000, 5_000)),
            jitter_us=random.choice((100, 1_000, 5_000, 20_000)) if claims.reorders_messages else 0,
            lost=random.choice((0.01, 0.05, 0.2)) if claims.loses_messages and self.is_on() else 0.0,
            repeated=random.choice((0.01, 0.1)) if claims.repeats_messages and self.is_on() else 0.0,
            late=random.choice((0.01, 0.1, 0.3)) if claims.reorders_messages and self.is_on() else 0.0,
            late_us=random.choice((50, 200, 600)) * MILLISECOND,
            kept=random.choice((0.2, 1.0)) if claims.reorders_messages and self.is_on() else 0.0,
        )

    def all_kinds(self) -> None:
        claims = self.claims
        if claims.clocks_drift and self.is_on():
            for node in self.nodes:
                self.faults.append(Planned(0, Drift(node, 0.9 + 0.2 * self.random.random())))
        if claims.crashes and self.is_on():
            self._some(CRASHES, lambda: Crash((self._node(),), self._duration_us()))
        if claims.crashes and self.is_on():
            self._some(POWER_FAILURES, lambda: Crash(self._nodes(), self._duration_us()))
        if self.is_on():
            self._some(PAUSES, lambda: Pause(self._node(), self._duration_us()))
        if claims.stalls and self.is_on():
            self._some(STALLS, lambda: Stall(self._node(), self._duration_us()))
        if claims.failed_syncs and self.is_on():
            self._some(FAILED_SYNCS, lambda: FailSync(self._node()))
        if claims.loses_messages and self.is_on():
            self._some(CUTS, self._cut)
        if claims.loses_messages and self.is_on():
            self._some(PARTITIONS, self._partition)
        if claims.loses_messages and self.is_on():
            self._some(LONELY_LEADERS, lambda: Cut((LEADER,), (), True, self._duration_us()))
        if claims.loses_messages and self.random.random() < 0.5:
            for _ in range(self._count(DEPOSITIONS)):
                self._depositions()
        for name, rate in claims.acts:
            if self.random.random() < 0.5:  # not faults, strictly: they are tried in calm runs too
                self._some(rate, lambda name=name: Act(name, self.random.getrandbits(32)))

    def _some(self, rate: float, make: object) -> None:
        assert callable(make)
        for _ in range(self._count(rate)):
            time_us = self.random.randrange(max(1, self.steps * STEP_US))
            self.faults.append(Planned(time_us, make()))

    def _count(self, rate: float) -> int:
        mean = rate * self.steps / 1_000 * self.random.choice((0.3, 1.0, 3.0))
        return int(2 * mean * self.random.random() + 0.5)

    def _duration_us(self) -> int:
        share = self.random.random()
        return DURATION_US_MIN + int((self.duration_us_max - DURATION_US_MIN) * share * share)

    def _node(self) -> NodeId:
        return LEADER if self.random.random() < 0.4 else self.random.choice(self.nodes)

    def _nodes(self) -> tuple[NodeId, ...]:
        if self.random.random() < 0.4:
            return tuple(self.nodes)
        return tuple(node for node in self.nodes if self.random.random() < 0.5)

    def _cut(self) -> Cut:
        random = self.random
        source = self._node()
        targets: tuple[NodeId, ...] = ()
        if random.random() < 0.6:
            targets = tuple(node for node in self.nodes if node != source and random.random() < 0.5)
        return Cut((source,), targets, random.random() < 0.5, self._duration_us())

    def _depositions(self) -> None:
        """Whoever leads is parted from all, or from all but one, or crashes; then whoever leads instead; and so on.

        So entries are left on few nodes, and elections decide which of them stay (figure 8 of the paper).
        """
        random = self.random
        gap_us = random.choice((40, 80, 160, 320)) * MILLISECOND
        time_us = random.randrange(max(1, self.steps * STEP_US))
        for _ in range(1 + random.randrange(6)):
            duration_us = int(gap_us * (0.5 + 2 * random.random()))
            friend = random.choice(self.nodes)
            targets = tuple(node for node in self.nodes if node != friend)
            match random.randrange(4):
                case 0 if self.claims.crashes:
                    fault: Fault = Crash((LEADER,), duration_us)
                case 1:
                    fault = Cut((LEADER,), (), random.random() < 0.7, duration_us)
                case _:
                    fault = Cut((LEADER,), targets, random.random() < 0.7, duration_us)
            self.faults.append(Planned(time_us, fault))
            time_us += int(gap_us * (0.5 + random.random()))

    def _partition(self) -> Cut | Bridge:
        random = self.random
        shuffled = list(self.nodes)
        random.shuffle(shuffled)
        middle = 1 + random.randrange(max(1, len(shuffled) - 1))
        if len(shuffled) > 2 and random.random() < 0.3:
            half = (len(shuffled) - 1) // 2
            return Bridge(tuple(shuffled[:half]), tuple(shuffled[half:-1]), self._duration_us())
        return Cut(tuple(shuffled[:middle]), tuple(shuffled[middle:]), True, self._duration_us())
