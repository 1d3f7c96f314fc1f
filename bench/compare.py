"""raftlog beside what else keeps a log on three servers: in turns within one run, on one machine, one Python client.

Each is used in the way that its makers recommend for speed, by a client that is as thin as it can be in Python. raftlog
alone uses TLS; for the others it would have to be set up, and would cost them something.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.cluster import run_async
from bench.cluster_case import Notes
from bench.cluster_rates import random_values
from bench.peers import etcd, nats, of_pysyncobj, of_raftlog, redis
from bench.peers.peer import QUORUM_POWER, QUORUM_PROCESS, ServerMissing, Store
from logstore.benchmark.measure import as_json, warm_memory
from raftlog.load import percentile

TASKS: Final = 64
OUTSTANDING: Final = 10_000  # records on the way to PySyncObj, of its fastest way

Measure = Callable[["Subject", Path, float, Notes], None]


class Subject(NamedTuple):
    name: str
    survives: str  # what an acknowledgement means
    way: str  # the fastest for many records, in words
    measure: Measure
    version: Callable[[], str]  # ServerMissing if it cannot be compared


def of_store(connect: Callable[[Path], AbstractAsyncContextManager[Store]]) -> Measure:
    def measure(subject: Subject, folder: Path, seconds: float, notes: Notes) -> None:
        async def run() -> None:
            async with connect(folder) as store:
                await measure_store(store, subject, seconds, notes)

        run_async(run())

    return measure


async def measure_store(store: Store, subject: Subject, seconds: float, notes: Notes) -> None:
    values = cycle(random_values(100))
    await store.append(next(values))
    times: list[float] = []
    start = time.perf_counter()
    while (began := time.perf_counter()) < start + seconds:
        await store.append(next(values))
        times.append(time.perf_counter() - began)
    _note_singles(times, subject, notes)

    deadline = time.perf_counter() + seconds
    notes.add("64_in_flight", subject.name, "records/s", survives=subject.survives,
              value=await _rate(TASKS, lambda: store.append(next(values)), deadline))  # fmt: skip

    groups = cycle([random_values(100, store.group) for _ in range(8)])
    deadline = time.perf_counter() + seconds
    rate = await _rate(store.groups_in_flight, lambda: store.append_group(next(groups)), deadline)
    notes.add("many", subject.name, "records/s", rate * store.group, survives=subject.survives)

    start = time.perf_counter()
    count = await store.read_all()
    notes.add("read_back", subject.name, "records/s", count / (time.perf_counter() - start))


async def _rate(tasks: int, act: Callable[[], Any], deadline: float) -> float:
    """How often per second this many tasks do it together, each again and again."""
    count, start = 0, time.perf_counter()

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            await act()
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(one())
    return count / (time.perf_counter() - start)


def of_pysyncobj_itself(mode: of_pysyncobj.Mode) -> Measure:
    def measure(subject: Subject, folder: Path, seconds: float, notes: Notes) -> None:
        with of_pysyncobj.leader_of_three(folder, mode) as leader:
            _note_singles(leader.ask("singles", seconds), subject, notes)
            for case, count in (("64_in_flight", TASKS), ("many", OUTSTANDING)):
                rate = leader.ask("in-flight", count, seconds)
                notes.add(case, subject.name, "records/s", rate, survives=subject.survives)

    return measure


def _note_singles(times: list[float], subject: Subject, notes: Notes) -> None:
    times = sorted(times)
    notes.add("one_at_a_time", subject.name, "records/s", len(times) / sum(times), survives=subject.survives)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        notes.add(f"one_at_a_time_{name}", subject.name, "ms", 1000 * percentile(times, share),
                  survives=subject.survives)  # fmt: skip


def _pysyncobj_engine_version() -> str:
    return f"{of_raftlog.version()}, {of_pysyncobj.version()}"


SUBJECTS: Final = (
    Subject("raftlog", of_raftlog.SURVIVES, "batches of 1,000, 16 in flight",
            of_store(of_raftlog.raft), of_raftlog.version),
    Subject("raftlog, engine pysyncobj", of_raftlog.SURVIVES, "batches of 1,000, 16 in flight",
            of_store(of_raftlog.pysyncobj_engine), _pysyncobj_engine_version),
    Subject("etcd", etcd.SURVIVES, "transactions of 100, 8 in flight", of_store(etcd.etcd), etcd.version),
    Subject("PySyncObj, made to sync", QUORUM_POWER, "10,000 in flight, its own batches",
            of_pysyncobj_itself("synced"), of_pysyncobj.version),
    Subject("PySyncObj", QUORUM_PROCESS, "10,000 in flight, its own batches",
            of_pysyncobj_itself("stock"), of_pysyncobj.version),
    Subject("NATS JetStream", nats.SURVIVES, "1,024 in flight", of_store(nats.jetstream), nats.version),
    Subject("Redis Streams", redis.SURVIVES, "pipelines of 1,000 and one WAIT, 4 in flight",
            of_store(redis.redis), redis.version),
)  # fmt: skip


def measure(
    folder: Path, names: Sequence[str], *, runs: int, seconds: float, tell: Callable[[str], None]
) -> dict[str, Any]:
    """What is installed, or of that what has one of `names` in its name; and what is not."""
    notes, subjects, skipped = Notes(), [], []
    for subject in SUBJECTS:
        if names and not any(name.lower() in subject.name.lower() for name in names):
            continue
        try:
            subjects.append((subject, subject.version()))
        except ServerMissing as missing:
            skipped.append({"name": subject.name, "why": str(missing)})
            tell(f"{subject.name} is left out: {missing}")
    for run in range(runs):
        for subject, _ in subjects:
            tell(f"run {run + 1} of {runs}: {subject.name}")
            warm_memory(512)
            with tempfile.TemporaryDirectory(dir=folder, prefix="bench-compare-") as path:
                subject.measure(subject, Path(path), seconds, notes)
    return {
        **as_json(notes.series()),
        "subjects": [
            {"name": subject.name, "version": its_version, "many": subject.way}
            for subject, its_version in subjects
        ],
        "skipped": skipped,
    }
