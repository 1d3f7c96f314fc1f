"""What is measured of each subject, and how often it is done."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logstore.benchmark.measure import MIB, Series, rate, warm_memory
from logstore.benchmark.subjects import Engine, PlainFile, Subject
from logstore.config import Config
from logstore.log import Log

VALUE = b"x" * 100
BATCH = [VALUE] * 1000
CHUNK = [b"y" * (MIB - 4096)]
READ_RECORDS = 1_000_000
THREADS = 16
TASKS = 64

Progress = Callable[[str], None]


class Bench:
    """Runs cases in turn, each for every subject, and collects the rates."""

    def __init__(
        self, directory: Path, subjects: Sequence[type[Subject]], *, runs: int, seconds: float
    ) -> None:
        self._directory = directory
        self._subjects = subjects
        self._runs = runs
        self._seconds = seconds
        self.series: dict[tuple[str, str], Series] = {}

    def run(self, names: Sequence[str], progress: Progress) -> list[Series]:
        for number in range(self._runs):
            for name, case in CASES.items():
                if not names or name in names:
                    progress(f"run {number + 1} of {self._runs}: {name}")
                    case(self)
        return list(self.series.values())

    def note(
        self, case: str, subject: str, value: float, *, unit: str = "records/s", durability: str
    ) -> None:
        key = (case, subject)
        self.series.setdefault(key, Series(case, subject, unit, durability)).rates.append(value)

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A directory that is gone afterwards."""
        warm_memory(512)
        path = tempfile.mkdtemp(dir=self._directory)
        try:
            yield f"{path}/data"
        finally:
            shutil.rmtree(path)

    def rate(self, step: Callable[[], int]) -> float:
        return rate(step, seconds=self._seconds)

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def append(self, case: str, *, durable: bool, batched: bool) -> None:
        for subject in self._subjects:
            with self.fresh() as path:
                store = subject(path, durable=durable)
                step = _batches(store, BATCH, 1) if batched else _singles(store, 20 if durable else 1000)
                self.note(case, subject.name, self.rate(step), durability="power" if durable else "process")
                store.close()

    def durable_megabytes(self) -> None:
        """1 MiB at a time: into a file that grows, and in steady state into segments that are used again."""
        for subject in (Engine, PlainFile):
            with self.fresh() as path:
                store = subject(path, durable=True)
                self.note("durable_1mib", subject.name, self.rate(_batches(store, CHUNK, 1)), unit="MiB/s",
                          durability="power")  # fmt: skip
                store.close()
        config = Config(retention_bytes_max=64 * MIB, spare_segments_max=2, segment_bytes_max=64 * MIB)
        with self.fresh() as path:
            store = Engine(path, durable=True, config=config)
            for _ in range(260):  # until the first segments come back to be overwritten
                store.append_batch(CHUNK)
            steady = self.rate(_batches(store, CHUNK, 1))
            self.note("durable_1mib", "logstore, recycled", steady, unit="MiB/s", durability="power")
            self.note("durable_batch_recycled", "logstore, recycled", self.rate(_batches(store, BATCH, 1)),
                      durability="power")  # fmt: skip
            store.close()
        with self.fresh() as path:
            plain = PlainFile(path, durable=True)
            self.note("durable_batch_recycled", PlainFile.name, self.rate(_batches(plain, BATCH, 1)),
                      durability="power")  # fmt: skip
            plain.close()

    def group_commit(self) -> None:
        """Single durable appends from one thread, from many threads, and from many tasks."""
        with self.fresh() as path:
            store = Engine(path, durable=True)
            note = partial(self.note, "group_commit", durability="power")
            note("one thread", self.rate(_singles(store, 20)))
            note(f"{THREADS} threads", _threads_rate(store, self._seconds))
            note(f"{TASKS} tasks", asyncio.run(_tasks_rate(store, self._seconds)))
            store.close()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def scan(self) -> None:
        """All values in order, from the page cache; frames of 1,000 records."""
        for subject in self._subjects:
            if subject.name == PlainFile.name:
                continue
            with self.filled(subject, 1000) as store:
                self.note("scan_values", subject.name, self.rate(partial(_values, store)), durability="-")
                if isinstance(store, Engine):
                    self._scan_engine(store.log)
        with self.filled(Engine, 1, READ_RECORDS // 4) as store:
            assert isinstance(store, Engine)
            self.note(
                "scan_single_frames", "logstore", self.rate(partial(_records, store.log)), durability="-"
            )

    def _scan_engine(self, log: Log) -> None:
        """The ways in which the engine gives out records, from columns to objects."""
        ways = {"scan_batches": _columns, "scan_lists": _lists, "scan_records": _records}
        for case, way in ways.items():
            self.note(case, "logstore", self.rate(partial(way, log)), durability="-")

    def random_read(self) -> None:
        """One record by number, in frames of 100 records; every frame was read before."""
        numbers = random.Random(7).choices(range(READ_RECORDS), k=50_000)
        offsets = np.random.default_rng(7).integers(0, READ_RECORDS, 300_000)
        for subject in self._subjects:
            if subject.name == PlainFile.name:
                continue
            with self.filled(subject, 100) as store:
                _values(store)
                step = partial(_read_all, store.read, numbers)
                step()
                self.note("random_read", subject.name, self.rate(step), durability="-")
                if isinstance(store, Engine):
                    for order, some in {"any order": offsets, "ascending": np.sort(offsets)}.items():
                        step = partial(_read_many, store.log, some)
                        self.note("read_many", f"logstore, {order}", self.rate(step), durability="-")

    @contextmanager
    def filled(self, subject: type[Subject], batch: int, count: int = READ_RECORDS) -> Iterator[Subject]:
        with self.fresh() as path:
            store = subject(path, durable=False)
            for _ in range(count // batch):
                store.append_batch([VALUE] * batch) if batch > 1 else store.append(VALUE)
            yield store
            store.close()


def _singles(store: Subject, count: int) -> Callable[[], int]:
    append = store.append

    def step() -> int:
        for _ in range(count):
            append(VALUE)
        return count

    return step


def _batches(store: Subject, batch: list[bytes], count: int) -> Callable[[], int]:
    append_batch = store.append_batch

    def step() -> int:
        for _ in range(count):
            append_batch(batch)
        return count * len(batch)

    return step


def _threads_rate(store: Engine, seconds: float) -> float:
    counts = [0] * THREADS
    deadline = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < deadline:
            store.append(VALUE)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


async def _tasks_rate(store: Engine, seconds: float) -> float:
    count = 0
    deadline = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            await store.log.append_async(VALUE)
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return count / (time.perf_counter() - start)


def _values(store: Subject) -> int:
    return sum(1 for _ in store.values())


def _columns(log: Log) -> int:
    return sum(len(batch) for batch in log.batches())


def _lists(log: Log) -> int:
    return sum(len(batch.to_pylist()) for batch in log.batches())


def _records(log: Log) -> int:
    count = 0
    for _ in log.scan():
        count += 1
    return count


def _read_many(log: Log, offsets: NDArray[np.int64]) -> int:
    return len(log.read_many(offsets))


def _read_all(read: Callable[[int], bytes], numbers: Sequence[int]) -> int:
    for number in numbers:
        read(number)
    return len(numbers)


CASES: dict[str, Callable[[Bench], None]] = {
    "durable_batch": lambda bench: bench.append("durable_batch", durable=True, batched=True),
    "durable_single": lambda bench: bench.append("durable_single", durable=True, batched=False),
    "unsynced_batch": lambda bench: bench.append("unsynced_batch", durable=False, batched=True),
    "unsynced_single": lambda bench: bench.append("unsynced_single", durable=False, batched=False),
    "durable_1mib": Bench.durable_megabytes,
    "group_commit": Bench.group_commit,
    "scan": Bench.scan,
    "random_read": Bench.random_read,
}
