"""Three servers in processes of their own, mutual TLS, the defaults otherwise, and one Python client in this process.

Every acknowledgement comes after fdatasync on a quorum.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop

from bench import cluster_faults, cluster_idle, cluster_rates
from bench.cluster_case import Case, Cluster, Notes, Sizes
from logstore.benchmark.measure import Series, warm_memory
from raftlog.local_cluster import local_cluster

NODES: Final = 3
FULL: Final = Sizes(seconds=3.0, consumed=3_000_000, singles=2_000, idle_s=10.0, kills=30, gigabytes=10)
QUICK: Final = Sizes(seconds=0.5, consumed=100_000, singles=100, idle_s=1.0, kills=2, gigabytes=1)

CASES: Final[dict[str, Case]] = {
    "produce_100": cluster_rates.produce_100,
    "produce_1k": cluster_rates.produce_1k,
    "batches_100": cluster_rates.batches_100,
    "batches_1k": cluster_rates.batches_1k,
    "one_at_a_time": cluster_rates.one_at_a_time,
    "consume": cluster_rates.consume,
    "written": cluster_rates.written,
    "idle": cluster_idle.idle,
    "memory": cluster_idle.memory,
    "kills": cluster_faults.kills,
}
ONCE: Final = ("memory", "kills")  # take long, and have many values in one run

T = TypeVar("T")


def measure(
    folder: Path, names: Sequence[str], *, runs: int, sizes: Sizes, tell: Callable[[str], None]
) -> list[Series]:
    """All cases, or those in `names`; each time in a cluster that is new."""
    notes = Notes()
    for run in range(runs):
        for name in names or CASES:
            if name in ONCE and run:
                continue
            tell(f"run {run + 1} of {runs}: {name}")
            with running(folder, CASES[name].settings) as cluster:
                run_async(CASES[name].measure(cluster, sizes, notes))
    return notes.series()


@contextmanager
def running(folder: Path, settings: Mapping[str, object]) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-cluster-") as path:
        warm_memory(512)
        with local_cluster(Path(path), NODES, settings) as cluster:
            yield Cluster(cluster)


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """In the event loop that the servers have too."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
