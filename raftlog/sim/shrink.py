"""From a scenario that fails to a shorter one that fails in the same way.

What can be left out is tried in ever smaller parts (Zeller's delta debugging): faults, what clients do, kinds of weather,
steps at the end. Leaving something out shifts what the network draws afterwards, so a failure may be missed; what is left
does fail, and that is all that is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from raftlog.sim.faults import Planned
from raftlog.sim.network import Weather
from raftlog.sim.simulation import Result, Scenario, run
from raftlog.sim.subject import ProtocolUnderTest
from raftlog.sim.workload import Errand

RUNS_MAX: Final = 400  # some tens of seconds; what is found by then is shown

T = TypeVar("T")


class Shrunk(NamedTuple):
    scenario: Scenario
    result: Result
    runs: int  # how many it took


class _Search:
    def __init__(
        self, protocol: ProtocolUnderTest, scenario: Scenario, result: Result, runs_max: int
    ) -> None:
        assert result.failure is not None
        self.protocol = protocol
        self.kind = result.failure.kind
        self.best = scenario
        self.result = result
        self.runs = 0
        self.runs_max = runs_max

    def accept(self, scenario: Scenario) -> bool:
        """Whether it fails in the same way; then it is the best."""
        if self.runs >= self.runs_max:
            return False
        self.runs += 1
        result = run(self.protocol, scenario)
        if result.failure is None or result.failure.kind != self.kind:
            return False
        self.best, self.result = scenario, result
        return True

    def leave_out(self, items: Sequence[T], use: Callable[[Scenario, list[T]], Scenario]) -> None:
        """Leave out as many items as possible: halves, then quarters, down to single ones."""
        left = list(items)
        size = max(1, len(left) // 2)
        while left and self.runs < self.runs_max:
            was_shorter = False
            start = 0
            while start < len(left):
                shorter = left[:start] + left[start + size :]
                if self.accept(use(self.best, shorter)):
                    left, was_shorter = shorter, True
                else:
                    start += size
            if size == 1 and not was_shorter:
                return
            size = max(1, size // 2)


def shrink(
    protocol: ProtocolUnderTest, scenario: Scenario, result: Result, *, runs_max: int = RUNS_MAX
) -> Shrunk:
    """A shorter scenario, perhaps the same one, that fails with the same kind of failure as `result`."""
    search = _Search(protocol, scenario, result, runs_max)
    # The first phase is held to the time it took: with less to do, as many steps would take longer.
    search.accept(_ending_at(scenario, result.lived_us))
    search.accept(_with_errands(search.best, []))
    search.leave_out(search.best.plan.faults, _with_faults)
    search.leave_out(search.best.errands, _with_errands)
    while search.accept(_ending_at(search.best, search.best.horizon_us * 3 // 4)):
        pass
    for weather in _calmer(search.best.plan.weather):
        search.accept(search.best._replace(plan=search.best.plan._replace(weather=weather)))
    search.leave_out(search.best.plan.faults, _with_faults)
    return Shrunk(search.best, search.result, search.runs)


def _with_faults(scenario: Scenario, faults: list[Planned]) -> Scenario:
    return scenario._replace(plan=scenario.plan._replace(faults=faults))


def _with_errands(scenario: Scenario, errands: list[Errand]) -> Scenario:
    return scenario._replace(errands=errands)


def _ending_at(scenario: Scenario, end_us: int) -> Scenario:
    shorter = scenario._replace(horizon_us=end_us)
    shorter = _with_faults(shorter, [fault for fault in scenario.plan.faults if fault.time_us <= end_us])
    return _with_errands(shorter, [errand for errand in scenario.errands if errand.time_us <= end_us])


def _calmer(weather: Weather) -> list[Weather]:
    """Each as the one before, with one thing less."""
    found = [replace(weather, lost=0.0)]
    found.append(replace(found[-1], repeated=0.0))
    found.append(replace(found[-1], late=0.0))
    return found


def describe(scenario: Scenario) -> list[str]:
    """The scenario for a reader, a line for each thing that is planned, in the order of time."""
    planned = [(time_us, f"fault   {fault}") for time_us, fault in scenario.plan.faults]
    planned += [(errand.time_us, f"c{errand.client}      {errand.operation}") for errand in scenario.errands]
    planned.sort(key=lambda item: item[0])
    return [
        f"seed {scenario.seed}, {scenario.nodes} nodes",
        f"healed after {scenario.horizon_us / 1000:.3f} ms or {scenario.steps} events",
        f"{scenario.plan.weather}",
        f"{scenario.plan.disk_speed}",
        *(f"{time_us / 1000:>12.3f} ms  {what}" for time_us, what in planned),
    ]
