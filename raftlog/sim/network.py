"""Links between nodes: they delay, lose, repeat and overtake, and can be cut one way or both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple, NewType

from raftlog.engine import NodeId
from raftlog.sim.world import MILLISECOND, World

KEPT_MAX: Final = 100  # messages on a link that is cut; more are lost

CutId = NewType("CutId", int)
Pair = tuple[NodeId, NodeId]  # from, to


@dataclass(frozen=True, slots=True)
class Weather:
    """How the links of a run behave; shares are of all messages, from 0 to 1."""

    delay_us: int  # at least
    jitter_us: int  # at most, on top; mostly less
    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0  # of those that are overtaken by many others
    late_us: int = 100 * MILLISECOND  # at most
    # of those that meet a cut: they arrive once it is mended, as from a connection that was idle
    kept: float = 0.0


PERFECT: Final = Weather(delay_us=300, jitter_us=200)


class Lost(NamedTuple):
    """A message that does not arrive; for traces."""

    source: NodeId
    target: NodeId
    message: Any
    why: str


class Sent(NamedTuple):
    """A message on its way; for traces."""

    source: NodeId
    target: NodeId
    message: Any
    arrives_us: int


class Network:
    """Messages travel by reference: they are frozen."""

    def __init__(
        self, world: World, weather: Weather, deliver: Callable[[NodeId, NodeId, Any], None]
    ) -> None:
        self.weather = weather
        self._world = world
        self._random: Random = world.random("network")
        self._deliver = deliver  # (source, target, message)
        self._cuts: dict[CutId, tuple[Pair, ...]] = {}  # in force
        self._blocked: dict[Pair, int] = {}  # how many cuts block it; pairs that none blocks are absent
        self._kept: dict[Pair, list[Any]] = {}  # messages that wait until nothing blocks it
        self._cuts_made = 0

    def send(self, source: NodeId, target: NodeId, message: Any, *, may_repeat: bool = True) -> None:
        weather = self.weather
        draw = self._random.random
        if self._blocked and (source, target) in self._blocked:
            self._meet_cut(source, target, message, "cut")
            return
        if weather.lost and draw() < weather.lost:
            self._lose(source, target, message, "lost")
            return
        self._fly(source, target, message)
        if may_repeat and weather.repeated and draw() < weather.repeated:
            self._fly(source, target, message)

    def _fly(self, source: NodeId, target: NodeId, message: Any) -> None:
        weather = self.weather
        draw = self._random.random
        delay_us = weather.delay_us + int(weather.jitter_us * draw() * draw())
        if weather.late and draw() < weather.late:
            delay_us += int(weather.late_us * draw())
        world = self._world
        if world.is_watched:
            world.remark(source, Sent(source, target, message, world.now_us + delay_us))
        world.after(delay_us, self._arrive, source, target, message)

    def _arrive(self, source: NodeId, target: NodeId, message: Any) -> None:
        if self._blocked and (source, target) in self._blocked:
            self._meet_cut(source, target, message, "cut on the way")
            return
        self._deliver(source, target, message)

    def _meet_cut(self, source: NodeId, target: NodeId, message: Any, why: str) -> None:
        if self.weather.kept and self._random.random() < self.weather.kept:
            waiting = self._kept.setdefault((source, target), [])
            if len(waiting) < KEPT_MAX:
                waiting.append(message)
                return
        self._lose(source, target, message, why)

    def _release(self, pair: Pair) -> None:
        for message in self._kept.pop(pair, ()):
            self._fly(*pair, message)

    def _lose(self, source: NodeId, target: NodeId, message: Any, why: str) -> None:
        if self._world.is_watched:
            self._world.remark(source, Lost(source, target, message, why))

    def cut(self, pairs: Iterable[Pair]) -> CutId:
        """Nothing passes from the first to the second of each pair until `mend`, not even what is on its way."""
        self._cuts_made += 1
        cut = CutId(self._cuts_made)
        self._cuts[cut] = tuple(pairs)
        for pair in self._cuts[cut]:
            self._blocked[pair] = self._blocked.get(pair, 0) + 1
        return cut

    def mend(self, cut: CutId) -> None:
        """Take one cut back; others go on. Nothing happens if it has been taken back."""
        for pair in self._cuts.pop(cut, ()):
            self._blocked[pair] -= 1
            if self._blocked[pair] == 0:
                del self._blocked[pair]
                self._release(pair)

    def heal(self) -> None:
        """From now on all links are perfect."""
        self.weather = PERFECT
        self._cuts.clear()
        self._blocked.clear()
        for pair in list(self._kept):
            self._release(pair)


def both_ways(some: Iterable[NodeId], others: Iterable[NodeId]) -> list[Pair]:
    """Every link between one of the first and one of the second."""
    others = list(others)
    return [pair for one in some for other in others for pair in ((one, other), (other, one))]
