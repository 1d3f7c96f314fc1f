"""What was measured -> the tables of the documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench.aims import aims_table, beside_etcd
from logstore.cli.bench import shown
from tests.raftlog.sim.mutation import load_mutants

RESULTS: Final = Path(__file__).parent / "results"
_DOCS: Final = Path(__file__).parent.parent / "docs"
DOCUMENTS: Final = (
    _DOCS / "benchmarks.md",
    _DOCS / "gossip.md",
    _DOCS / "mutants.md",
    _DOCS / "simulator.md",
)
MARKED: Final = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled_in(document: str) -> str:
    """The document with each marked place holding the table of its results."""

    def table(found: re.Match[str]) -> str:
        return found[1] + "\n".join(lines_of(found[2])) + "\n" + found[3]

    return MARKED.sub(table, document)


def merged(recorded: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What was recorded, with the cases that were measured again in the place of what they were."""
    if not recorded.exists():
        return found
    content: dict[str, Any] = json.loads(recorded.read_text())
    cases = {one["case"] for one in found["results"]}
    kept = [one for one in content["results"] if one["case"] not in cases]
    again = {"time": found["machine"]["time"], "command": found["machine"]["command"]}
    return {**content, "again": [*content.get("again", ()), again], "results": [*kept, *found["results"]]}


def lines_of(name: str) -> Iterator[str]:
    measured = json.loads((RESULTS / f"{name}.json").read_text())
    machine = measured["machine"]
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, {machine['system']}, "
        f"Python {machine['python']}; {machine['time'][:10]}; `{machine['command']}`"
    )
    for again in measured.get("again", ()):
        yield f"Measured again: {again['time'][:10]}; `{again['command']}`"
    yield ""
    yield from _TABLES.get(name, _rates)(measured)


def _rates(measured: dict[str, Any]) -> Iterator[str]:
    yield "| case | subject | unit | survives | median | min | max | of the first |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    first: dict[str, Any] = {}
    for one in sorted(measured["results"], key=lambda one: one["case"]):
        if first.get("case") != one["case"]:
            first = one
        ratio = "" if one is first or not first["median"] else f"{one['median'] / first['median']:.2f}"
        numbers = " | ".join(shown(one[key]) for key in ("median", "min", "max"))
        yield f"| {one['case']} | {one['subject']} | {one['unit']} | {one['durability']} | {numbers} | {ratio} |"


def cluster_table(measured: dict[str, Any]) -> Iterator[str]:
    """In the order in which it was measured."""
    yield "| case | of what | unit | survives | values | median | min | max |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    for one in measured["results"]:
        numbers = " | ".join(shown(one[key]) for key in ("median", "min", "max"))
        yield (
            f"| {one['case']} | {one['subject']} | {one['unit']} | {one['durability']} | {len(one['runs'])} | {numbers} |"
        )


def compare_table(measured: dict[str, Any]) -> Iterator[str]:
    """By case; the ratio is to raftlog, which comes first."""
    yield from beside_etcd(measured["results"])
    yield from _rates(measured)
    yield ""
    yield "| subject | version | `many` is |"
    yield "|---|---|---|"
    for one in measured["subjects"]:
        yield f"| {one['name']} | {one['version']} | {one['many']} |"
    for one in measured["skipped"]:
        yield f"| {one['name']} | left out: {one['why']} | |"


def _cluster(measured: dict[str, Any]) -> Iterator[str]:
    yield from aims_table(measured["results"])
    yield ""
    yield from cluster_table(measured)


def chaos_table(measured: dict[str, Any]) -> Iterator[str]:
    yield "| fault | times | without an acknowledgement, median | longest |"
    yield "|---|---:|---:|---:|"
    for one in measured["faults"]:
        yield f"| {one['name']} | {one['times']} | {one['median_s']:.2f} s | {one['max_s']:.2f} s |"
    yield ""
    found = "; ".join(measured["findings"]) or "nothing"
    yield (
        f"Seed {measured['seed']}: {measured['acknowledged']:,} records acknowledged, {measured['consumed']:,} consumed "
        f"meanwhile. Found wrong: {found}."
    )


def _gossip_loss(measured: dict[str, Any]) -> Iterator[str]:
    yield "| watched | packets lost | streams lost | held for failed | for so long at most | killed, seen by all |"
    yield "|---:|---:|---:|---:|---:|---|"
    seen = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in measured["detected_s"].items())
    lost = measured["lost"]
    yield (
        f"| {measured['watched_s']:.0f} s | {lost['packets']:,} | {lost['streams']:,} | {measured['false_failures']} | "
        f"{measured['longest_false_s']:.1f} s | {seen} |"
    )


def _simulated(measured: dict[str, Any]) -> Iterator[str]:
    yield "| protocol | nodes | seeds | steps | events | events/s | failed | found first, in so many seeds |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for one in measured["results"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in one["kinds"].items())
        numbers = (
            f"{one['nodes']} | {one['seeds']:,} | {one['steps']:,} | {one['events']:,} | {one['failed']}"
        )
        yield f"| `{one['protocol']}` | {numbers} | {kinds} |"


def _mutants(measured: dict[str, Any]) -> Iterator[str]:
    yield from _simulated_mutants(measured)
    yield ""
    yield "Found by tests of the core, which meet at once what takes a simulator thousands of seeds:"
    yield ""
    yield "| true of the broken core | the rule that it breaks | found by |"
    yield "|---|---|---|"
    for mutant in load_mutants():
        if mutant.test:
            yield f"| {mutant.name} | {mutant.breaks} | `tests/raftlog/{mutant.test}` |"


def _simulated_mutants(measured: dict[str, Any]) -> Iterator[str]:
    mutants = measured["mutants"]
    runs = max(one["tried"] for one in mutants)
    nodes = " and ".join(map(str, measured["nodes"]))
    yield (
        f"Of {len(mutants)} mutants {sum('seed' in one for one in mutants)} are found by the simulator. All met the same "
        f"{runs} runs of {measured['steps']:,} steps, with {nodes} nodes; where none of these found it, more."
    )
    yield ""
    yield f"| true of the broken core | the rule that it breaks | found by | first seed, nodes | runs of {runs} |"
    yield "|---|---|---|---:|---:|"
    for one in mutants:
        found = one.get("violation", "nothing") + (" (invariants)" if one["with_invariants"] else "")
        first = f"{one['seed']}, {one['nodes']}" if "seed" in one else ""
        yield f"| {one['name']} | {one['breaks']} | {found} | {first} | {one['killing']} |"


def gossip_table(measured: dict[str, Any]) -> Iterator[str]:
    yield "| nodes | crashes | formula: all confirm | nobody does | first, median | p99 | all, median | p99 |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for one in measured["detection"]:
        seconds = " | ".join(
            f"{one[key]:.1f} s"
            for key in (
                "formula_least_s", "formula_most_s", "first_median_s", "first_p99_s", "all_median_s", "all_p99_s",
            )
        )  # fmt: skip
        yield f"| {one['nodes']} | {one['crashes']:,} | {seconds} |"
    yield ""
    yield "| nodes | packets lost | node hours | suspicions refuted | members taken for failed | for so long at most |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for one in measured["loss"]:
        longest = f"{one['longest_s']:.1f} s" if one["deaths"] else ""
        numbers = f"{one['node_hours']:g} | {one['suspicions']:,} | {one['deaths']:,} | {longest}"
        yield f"| {one['nodes']} | {100 * one['loss']:g} % | {numbers} |"
    yield ""
    safe = [loss for loss in _losses(measured) if not _deaths(measured, at_most=loss)]
    worst = max(one["longest_s"] for one in measured["loss"])
    yield (
        f"Up to {100 * max(safe):g} % of packets lost nobody alive was taken for failed; above it, for {worst:.1f} s at most."
        if safe
        else "Members were taken for failed while they lived even where nothing was lost."
    )


def _losses(measured: dict[str, Any]) -> list[float]:
    return sorted({one["loss"] for one in measured["loss"]})


def _deaths(measured: dict[str, Any], *, at_most: float) -> int:
    return sum(one["deaths"] for one in measured["loss"] if one["loss"] <= at_most)


_TABLES: Final[dict[str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    "chaos": chaos_table, "cluster": _cluster, "compare": compare_table, "gossip": gossip_table,
    "gossip_loss": _gossip_loss, "mutants": _mutants, "pysyncobj": _simulated, "serf_mutants": _simulated_mutants,
    "simulation": _simulated,
}  # fmt: skip
