"""Long searches in the simulated world: our core, which must survive them, and PySyncObj, which must not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any, NamedTuple

from logstore.benchmark.measure import machine


class Search(NamedTuple):
    protocol: str
    nodes: int
    seeds: int
    steps: int


def of_raft(seeds: int) -> list[Search]:
    return [Search("raft", nodes, seeds, 2_000) for nodes in (3, 5)]


def of_pysyncobj(seeds: int) -> list[Search]:
    profiles = (("", 3), ("-in-memory", 3), ("-two-additions", 3), ("-held-answers", 5))
    return [Search(f"pysyncobj{profile}", nodes, seeds, 6_000) for profile, nodes in profiles]


def measure(searches: list[Search], *, jobs: int) -> dict[str, Any]:
    return {"machine": machine(), "results": [_result(search, jobs) for search in searches]}


def _result(search: Search, jobs: int) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "raftlog.sim", "run", "--json", "--protocol", search.protocol,
         "--nodes", str(search.nodes), "--seeds", f"0:{search.seeds}", "--steps", str(search.steps),
         "--jobs", str(jobs)],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return summary(json.loads(ended.stdout))


def summary(told: dict[str, Any]) -> dict[str, Any]:
    """What is kept of what a run tells."""
    kinds = Counter(failure["kind"] for failure in told["failures"])
    kept = {
        key: told[key]
        for key in ("protocol", "nodes", "steps", "seeds", "events", "events_per_second", "digest")
    }
    return {**kept, "failed": len(told["failures"]), "kinds": dict(kinds.most_common())}
