"""Which deliberate breaks of the consensus core, or of the gossip, the simulator finds, how soon, and by which check.

Each mutant (tests/raftlog/sim/mutants.toml, serf_mutants.toml) meets the same runs: seeds from 0 on, each with every number of nodes. First
without the invariants that the core checks itself, so that it is the simulator that finds; if that finds nothing, with
them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from logstore.benchmark.measure import machine
from tests.raftlog.sim.mutation import Case, Ended, Mutant, copy_package, load_mutants, run_cases

BATCH: Final = 50  # seeds in a process, when only the first that finds is looked for


class Search(NamedTuple):
    """What is tried on each mutant."""

    nodes: Sequence[int]
    steps: int
    rated: int  # seeds that all run, to know how many of them find it; so many are tried with invariants, too
    seeds: int  # as many at most until one finds it

    def cases(self, start: int, end: int) -> list[Case]:
        return [Case(seed, nodes, self.steps) for seed in range(start, end) for nodes in self.nodes]


class Found(NamedTuple):
    """How a mutant fared."""

    mutant: str
    breaks: str
    killed_by: Ended | None  # the first
    with_invariants: bool  # only with them
    kinds: list[str]  # of all failures of the rated runs, the most frequent first
    killing: int  # runs that found it
    tried: int  # of so many
    seconds: float

    def as_json(self) -> dict[str, Any]:
        ended = self.killed_by
        case = (
            {} if ended is None else {**ended.case._asdict(), "events": ended.events, "violation": ended.kind}
        )
        return {
            "name": self.mutant, "breaks": self.breaks, **case, "with_invariants": self.with_invariants,
            "violations": self.kinds, "killing": self.killing, "tried": self.tried, "seconds": round(self.seconds, 1),
        }  # fmt: skip


def measure(
    search: Search, names: Sequence[str], *, protocol: str, jobs: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Search all mutants, or those whose names contain one of `names`."""
    mutants = [
        mutant
        for mutant in load_mutants(protocol)
        if not mutant.test and (not names or any(name in mutant.name for name in names))
    ]
    with TemporaryDirectory() as folder:
        copy_package(Path(folder), None, checks_invariants=True)  # one state of the tree for all
        package = Path(folder) / "raftlog"
        for mutant in mutants:  # all at once, rather than some minutes later
            with _copied(package, mutant, checks_invariants=False):
                pass
        with ThreadPoolExecutor(jobs) as pool:
            found = []
            for one in pool.map(lambda mutant: _search(search, mutant, package), mutants):
                found.append(one)
                tell(_line(one))
    return {"machine": machine(), **search._asdict(), "mutants": [one.as_json() for one in found]}


def merged(recorded: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What was recorded of all mutants, with what was found of some in its place."""
    content: dict[str, Any] = json.loads(recorded.read_text())
    anew = {one["name"]: one for one in found["mutants"]}
    return {**content, "mutants": [anew.get(one["name"], one) for one in content["mutants"]]}


def _search(search: Search, mutant: Mutant, package: Path) -> Found:
    began = time.perf_counter()
    first: Ended | None = None
    with_invariants = False
    with _copied(package, mutant, checks_invariants=False) as folder:
        rated = list(run_cases(folder, search.cases(0, search.rated), mutant.protocol))
        kinds = Counter(ended.kind for ended in rated if ended.kind is not None)
        first = next((ended for ended in rated if ended.kind is not None), None)
        if first is None:
            first = _first(folder, mutant, search, search.rated, search.seeds)
    if first is None and mutant.protocol == "raft":  # the gossip has no checks of its own
        with _copied(package, mutant, checks_invariants=True) as folder:
            first = _first(folder, mutant, search, 0, search.rated)
        with_invariants = first is not None
    return Found(
        mutant.name, mutant.breaks, first, with_invariants, [kind for kind, _ in kinds.most_common()],
        kinds.total(), len(rated), time.perf_counter() - began,
    )  # fmt: skip


@contextmanager
def _copied(package: Path, mutant: Mutant, *, checks_invariants: bool) -> Iterator[Path]:
    with TemporaryDirectory() as name:
        copy_package(Path(name), mutant, checks_invariants=checks_invariants, package=package)
        yield Path(name)


def _first(folder: Path, mutant: Mutant, search: Search, start: int, end: int) -> Ended | None:
    for batch in range(start, end, BATCH):
        cases = search.cases(batch, min(batch + BATCH, end))
        with closing(run_cases(folder, cases, mutant.protocol)) as runs:
            for ended in runs:
                if ended.kind is not None:
                    return ended
    return None


def _line(one: Found) -> str:
    ended = one.killed_by
    if ended is None:
        return f"ALIVE  {one.mutant}  {one.seconds:.0f} s"
    return f"{one.killing}/{one.tried}  {one.mutant}: seed {ended.case.seed}, {ended.case.nodes} nodes: {ended.kind}"
