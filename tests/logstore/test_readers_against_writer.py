"""Threads read in every way while one writes, cuts both ends, compacts, recycles and resets.

Each record's value is its own, so that it is known when a record was there. What a reader is given must have been there
at some time during the call, and what was there during all of it must not be missing.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from logstore import Config, Log, LogClosed, OffsetOutOfRange, Record, RecordCompacted
from logstore.config import SyncPolicy
from logstore.index import load_index, read_saved_header
from logstore.run import Run
from logstore.segment import Segment
from logstore.testing import CrashFileSystem
from logstore.truncation import cut_segment
from logstore.walk import Walk

SEED = int(os.environ.get("LOGSTORE_SEED", "1"))
STEPS = 400 if "LOGSTORE_SEARCH" not in os.environ else 20_000
DEADLINE_S = 60.0
NEVER: Final = 1 << 62


@dataclass
class Life:
    """Of one record, in ticks: each change of the log begins at one and ends at a later one."""

    value: bytes
    key: bytes
    born_from: int
    born_by: int = NEVER
    dead_from: int = NEVER
    dead_by: int = NEVER


class History:
    """Written by the one thread that changes the log, read by all others."""

    def __init__(self) -> None:
        self.now = 0
        self.lives: dict[int, list[Life]] = {}

    def could_be_there(self, record: Record, since: int) -> bool:
        now = self.now
        return any(
            life.value == record.value
            and life.key == record.key
            and life.born_from <= now
            and life.dead_by >= since
            for life in self.lives.get(record.offset, ())
        )

    def had_to_be_there(self, offset: int, since: int) -> bool:
        now = self.now
        return any(life.born_by < since and life.dead_from > now for life in list(self.lives.get(offset, ())))

    def living(self, start: int, end: int = NEVER) -> list[tuple[int, Life]]:
        return [
            (offset, lives[-1])
            for offset, lives in self.lives.items()
            if start <= offset < end and lives[-1].dead_by == NEVER
        ]


class Changes:
    """The thread that changes the log."""

    def __init__(self, log: Log, rng: random.Random) -> None:
        self.log = log
        self.rng = rng
        self.history = History()
        self.count = 0

    def step(self) -> None:
        act = self.rng.choices(
            (self.append, self.append_batch, self.truncate, self.truncate_suffix, self.compact, self.reset),
            (10, 10, 2, 2, 1, 0.2),
        )[0]
        act()
        self.history.now += 1

    def _new(self, count: int) -> list[Record]:
        records = []
        for _ in range(count):
            self.count += 1
            key = self.rng.choice((b"", b"a", b"b"))
            records.append(Record(b"%d %s" % (self.count, b"." * self.rng.randrange(80)), key))
        return records

    def append(self) -> None:
        self._put(self._new(1), lambda records: self.log.append(records[0]))

    def append_batch(self) -> None:
        self._put(self._new(self.rng.randint(1, 6)), self.log.append_batch)

    def _put(self, records: list[Record], append: Callable[[list[Record]], object]) -> None:
        history, first = self.history, self.log.end
        lives = [Life(record.value, record.key, history.now) for record in records]
        for offset, life in enumerate(lives, first):
            history.lives.setdefault(offset, []).append(life)
        append(records)
        history.now += 1
        for life in lives:
            life.born_by = history.now

    def _remove(
        self, doomed: list[tuple[int, Life]], act: Callable[[], object], is_gone: Callable[[int], bool]
    ) -> None:
        history = self.history
        for _, life in doomed:
            life.dead_from = history.now
        act()
        for offset, life in doomed:
            if is_gone(offset):
                life.dead_by = history.now
            else:
                life.dead_from = NEVER

    def truncate(self) -> None:
        log = self.log
        lowest = self.rng.randint(log.start, log.end)
        self._remove(
            self.history.living(0, lowest), lambda: log.truncate(lowest), lambda offset: offset < log.start
        )

    def truncate_suffix(self) -> None:
        log = self.log
        end = self.rng.randint(max(log.start, log.end - 20), log.end)
        self._remove(self.history.living(end), lambda: log.truncate_suffix(end), lambda _: True)

    def reset(self) -> None:
        self._remove(self.history.living(0), self.log.reset, lambda _: True)

    def compact(self) -> None:
        keyed = [(offset, life) for offset, life in self.history.living(0) if life.key]
        self._remove(keyed, self.log.compact, self._is_compacted)

    def _is_compacted(self, offset: int) -> bool:
        try:
            self.log.read(offset)
        except RecordCompacted:
            return True
        return False


class Reader:
    """A thread that reads in one way until the log is closed."""

    def __init__(self, log: Log, history: History, way: str, seed: int) -> None:
        self.log = log
        self.history = history
        self.rng = random.Random(seed)
        self.count = 0  # of records that were read
        self.failure: BaseException | None = None
        self._way: Callable[[], None] = getattr(self, way)
        self.thread = threading.Thread(target=self._run, name=way, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                self._way()
        except LogClosed:
            pass
        except BaseException as error:  # noqa: BLE001  # the test raises it in its own thread
            self.failure = error

    def _some_offset(self) -> int:
        start, end = self.log.start, self.log.end
        return self.rng.randint(start - 1, max(end, start) + 1)

    def _require(self, records: Iterable[Record], since: int) -> None:
        for record in records:
            self.count += 1
            assert self.history.could_be_there(record, since), f"{record} was not there since {since}"

    def read(self) -> None:
        since, offset = self.history.now, self._some_offset()
        try:
            record = self.log.read(offset)
        except (OffsetOutOfRange, RecordCompacted):
            assert not self.history.had_to_be_there(offset, since), f"{offset} was there since {since}"
        else:
            assert record.offset == offset
            self._require([record], since)

    def read_many(self) -> None:
        since, first = self.history.now, self._some_offset()
        offsets = [first + self.rng.randrange(30) for _ in range(self.rng.choice((1, 40)))]
        try:
            values = self.log.read_many(offsets)
        except (OffsetOutOfRange, RecordCompacted) as error:
            assert error.offset in offsets
            assert not self.history.had_to_be_there(error.offset, since), (
                f"{error.offset} was there since {since}"
            )
        else:
            for offset, value in zip(offsets, values, strict=True):
                lives = self.history.lives[offset]
                assert any(life.value == value and life.dead_by >= since for life in lives), (
                    offset,
                    value,
                    since,
                )
                self.count += 1

    def scan(self) -> None:
        self._range(lambda start, end: self.log.scan(start, end, bytes_max=300), is_reverse=False)

    def scan_backwards(self) -> None:
        self._range(
            lambda start, end: self.log.scan(start, end, reverse=True, bytes_max=300), is_reverse=True
        )

    def batches(self) -> None:
        def records(start: int, end: int) -> Iterator[Record]:
            for batch in self.log.batches(start, end):
                yield from batch

        self._range(records, is_reverse=False)

    def _range(self, read: Callable[[int, int], Iterator[Record]], *, is_reverse: bool) -> None:
        since, start = self.history.now, self._some_offset()
        end = min(start + self.rng.randrange(100), self.log.end)
        found: list[Record] = []
        try:
            for record in read(start, end):
                found.append(record)  # what came before an error counts
        except OffsetOutOfRange as error:
            assert not self.history.had_to_be_there(error.offset, since), (
                f"{error.offset} was there since {since}"
            )
            start, end = (
                (found[-1].offset, end)
                if is_reverse and found
                else (start, found[-1].offset if found else start)
            )
        self._require(found, since)
        offsets = [record.offset for record in found]
        assert offsets == sorted(set(offsets), reverse=is_reverse)
        assert all(start <= offset < end or offset == end for offset in offsets)
        missing = set(range(start, end)) - set(offsets)
        assert not [offset for offset in missing if self.history.had_to_be_there(offset, since)]

    def follow(self) -> None:
        since, next_offset = self.history.now, self.log.end
        try:
            for record in self.log.follow(next_offset):
                assert record.offset >= next_offset
                self._require([record], since)
                next_offset = record.offset + 1
        except OffsetOutOfRange:
            pass


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("sync", ["always", "never"])
def test_readers_see_only_what_was_there_and_miss_nothing_that_stayed(
    tmp_path: Path, sync: SyncPolicy
) -> None:
    print(f"LOGSTORE_SEED={SEED}")
    log = Log(tmp_path / "log", Config(sync=sync, segment_bytes_max=1500, tombstone_age_ms_min=0))
    changes = Changes(log, random.Random(SEED))
    ways = ("read", "read_many", "scan", "scan_backwards", "batches", "follow", "follow")
    readers = [Reader(log, changes.history, way, seed) for seed, way in enumerate(ways, SEED)]

    for _ in range(STEPS):
        changes.step()
        if any(reader.failure for reader in readers):
            break
    log.close()  # wakes those who follow, and ends all others

    for reader in readers:
        reader.thread.join(DEADLINE_S)
        assert not reader.thread.is_alive(), f"{reader.thread.name} hangs"
        if reader.failure is not None:
            raise AssertionError(f"{reader.thread.name}, seed {SEED}") from reader.failure
    assert all(reader.count for reader in readers), "nothing was read"


# ── faults that were found by the above, made to happen every time ──────────────────────────────────


class ViewThatChanges:
    """What readers see of a log, which is changed once, right after they have looked at `moment`."""

    def __init__(self, log: Log, moment: str, change: Callable[[], object]) -> None:
        self._view = log._view
        self._moment = moment
        self._changes = [change]

    def __getattr__(self, name: str) -> object:
        value = getattr(self._view, name)
        if name == self._moment and self._changes:
            self._changes.pop()()
        return value


@pytest.fixture
def log() -> Log:
    return Log("data", Config(sync="never", segment_bytes_max=600), filesystem=CrashFileSystem())


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize(
    "read",
    [lambda log: log.read(2), lambda log: log.read_many([2]), lambda log: list(log.scan(0, 3, reverse=True))],
    ids=["read", "read_many", "scan backwards"],
)
def test_record_that_is_cut_off_between_two_looks_is_out_of_range(
    log: Log, read: Callable[[Log], object], left: int
) -> None:
    log.append_batch([b"a", b"b", b"c"])
    log._view = ViewThatChanges(log, "end", lambda: log.truncate_suffix(left))  # type: ignore[assignment]

    with pytest.raises(OffsetOutOfRange):
        read(log)


@pytest.mark.usefixtures("no_background")
def test_record_below_a_truncation_that_is_being_done_is_read_right(log: Log) -> None:
    log.append_batch([b"aa", b"b", b"c"])
    found: list[object] = []

    def read_meanwhile(segment: Segment, row: int, end: int) -> Segment:
        found.extend((log.read(0).value, log.read_many([0])[0], [record.value for record in log.scan()]))
        return cut_segment(segment, row, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logstore.removing.cut_segment", read_meanwhile)
        log.truncate_suffix(1)

    assert found == [b"aa", b"aa", [b"aa"]]


@pytest.mark.usefixtures("no_background")
def test_follower_that_looks_during_a_truncation_is_overtaken_by_it(log: Log) -> None:
    log.append_batch([b"a", b"b", b"c"])
    batches = log.follow(0).batches()

    def follow_meanwhile(segment: Segment, row: int, end: int) -> Segment:
        assert [record.offset for record in next(batches)] == [0, 1, 2]
        return cut_segment(segment, row, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logstore.removing.cut_segment", follow_meanwhile)
        log.truncate_suffix(1)
    log.append_batch([b"B", b"C", b"D"])

    with pytest.raises(OffsetOutOfRange):
        next(batches)


@pytest.mark.usefixtures("no_background")
def test_follower_that_looks_again_while_somebody_appends_gets_nothing_twice(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (b"x" * 400, b"y", b"z"):
        log.append(value)
    batches = log.follow(0).batches()
    seen = [record.offset for _ in range(3) for record in next(batches)]
    log.truncate(1)
    changes = [lambda: log.append(b"meanwhile")]

    def walk(segment: Segment, index: int, **options: Any) -> Walk:
        if changes:
            changes.pop()()
        return whole_walk(segment, index, **options)

    whole_walk = Segment.walk
    monkeypatch.setattr(Segment, "walk", walk)
    seen += [record.offset for record in next(batches)]

    assert seen == [0, 1, 2, 3]


@pytest.mark.usefixtures("no_background")
def test_frames_in_hand_are_given_out_though_their_segment_goes_and_its_index_was_forgotten(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (b"x" * 400, b"y" * 400, b"z"):
        log.append(value)
    segments = log._view.layout.segments

    def go() -> None:
        for segment in segments:
            segment.forget_index()
        log.reset()

    def run(walk: Walk) -> Run | None:
        found = whole_run(walk)
        if changes:
            changes.pop()()
        return found

    whole_run, changes = Walk.run, [go]
    monkeypatch.setattr(Walk, "run", run)

    assert next(log.batches(0)).to_pylist() == [b"x" * 400]


def test_index_that_goes_while_it_is_loaded_is_not_there() -> None:
    log = Log("data", Config(segment_bytes_max=600), filesystem=(disk := CrashFileSystem()))
    log.append(b"x" * 400)
    log.append(b"y" * 400)
    path = log._view.layout.segments[0].index_path
    saved = read_saved_header(disk, path)
    assert saved is not None

    log.remove()

    assert load_index(disk, path, saved) is None
