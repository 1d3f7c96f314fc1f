"""Whatever is done to a log, in whatever order, it holds what a plain list would hold.

A segment takes two or three frames, so that nearly every step crosses from one to another. With LOGSTORE_SEARCH in the
environment chance is new in every run, and there are far more runs; a failure prints what makes it happen again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from logstore import (
    BatchTooLarge,
    Config,
    CorruptBatch,
    EmptyBatch,
    IndexOutOfRange,
    Kind,
    Log,
    OffsetOutOfRange,
    Record,
    RecordBatch,
    RecordCompacted,
    RecordTooLarge,
)
from logstore.record import Headers
from logstore.testing import CrashFileSystem
from logstore.transfer import read_frames
from tests.logstore.entries import append_other, append_records, records_entry

pytestmark = pytest.mark.usefixtures("no_background")

PATH = "data"
RECORD_BYTES_MAX = 400
BATCH_BYTES_MAX = 900
IS_SEARCH = "LOGSTORE_SEARCH" in os.environ
SETTINGS = settings(
    max_examples=5000 if IS_SEARCH else 300,
    stateful_step_count=60 if IS_SEARCH else 40,
    derandomize=not IS_SEARCH,
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

small = st.binary(max_size=12)
values = st.one_of(small, st.integers(0, 120).map(lambda size: b"v" * size))


def record(value: bytes, key: bytes, timestamp: int, headers: Headers) -> Record:
    return Record(value, key, timestamp, headers)


records = st.builds(
    record,
    values,
    st.sampled_from([b"", b"", b"a", b"b", b"c"]),
    st.sampled_from([0, 0, 1, -5, 1 << 60]),
    st.sampled_from([(), (), (("h", b"1"),), (("h", b""), ("h", b"2"), ("", b"x"))]),
)
tombstones = st.builds(record, st.just(b""), st.sampled_from([b"a", b"b", b"c"]), st.just(0), st.just(()))
batches = st.lists(st.one_of(values, records, records, tombstones), min_size=1, max_size=4)
chances = st.integers(0, 10_000)  # which of those there are


@dataclass
class Entry:
    index: int
    kind: Kind
    term: int
    first: int
    time: int
    records: list[Record | None] = field(default_factory=list)  # as they are read; None: compacted
    given_times: list[int] | None = None  # None: it was rewritten, with the time of the append in their place
    data: bytes = b""  # of an entry without records

    @property
    def end(self) -> int:
        return self.first + len(self.records)


class LogAgainstModel(RuleBasedStateMachine):
    """`entries` is the model; which segments they are in is the log's to choose."""

    @initialize(
        sync=st.sampled_from(["always", "never"]),
        compression=st.sampled_from(["none", "none", "zstd"]),
        segment_bytes_max=st.sampled_from([300, 500, 900]),
        retention_records_max=st.sampled_from([3, 8]),
        tombstone_age_ms_min=st.sampled_from([0, 1]),
        spare_segments_max=st.integers(0, 2),
    )
    def open(self, **limits: Any) -> None:
        self.config = Config(record_bytes_max=RECORD_BYTES_MAX, batch_bytes_max=BATCH_BYTES_MAX, **limits)
        self.fs = CrashFileSystem()
        self.now = 1_000_000
        self.entries: list[Entry] = []
        self.start = 0
        self.first_index = 1
        self.last_time = self.last_term = 0  # of the entry before the first
        self.compacted: dict[int, Record] = {}  # what was at these offsets, by offset
        self.configuration = self.configuration_before = (0, b"")
        self._open()

    def _open(self) -> None:
        self.log = Log(PATH, self.config, filesystem=self.fs, clock=lambda: self.now)
        self.followed: Iterator[RecordBatch] | None = None

    @property
    def end(self) -> int:
        return self.entries[-1].end if self.entries else self.start

    @property
    def next_index(self) -> int:
        return self.entries[-1].index + 1 if self.entries else self.first_index

    @property
    def present(self) -> dict[int, Record]:
        return {
            record.offset: record for entry in self.entries for record in entry.records if record is not None
        }

    def between(self, start: int, end: int) -> list[Record]:
        return [record for offset, record in self.present.items() if start <= offset < end]

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    @property
    def next_time(self) -> int:
        return max(self.now, self.entries[-1].time if self.entries else self.last_time)

    @property
    def term(self) -> int:
        return self.entries[-1].term if self.entries else self.last_term

    def _put(self, given: list[Record], *, term: int | None = None) -> None:
        first, time, term = self.end, self.next_time, self.term if term is None else term
        entry = Entry(self.next_index, Kind.RECORDS, term, first, time)
        entry.given_times = [one.timestamp for one in given]
        for offset, one in enumerate(given, first):
            entry.records.append(one._replace(offset=offset, timestamp=one.timestamp or time, term=term))
        self.entries.append(entry)

    @rule(step=st.integers(-3_000_000, 5_000_000))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(value=st.one_of(values, records))
    def append(self, value: bytes | Record) -> None:
        assert self.log.append(value) == self.end
        self._put([value if isinstance(value, Record) else Record(value)])

    @rule(batch=batches, how=st.sampled_from(["list", "iterator", "buffers", "batch", "zstd batch", "bytes"]))
    def append_batch(self, batch: list[bytes | Record], how: str) -> None:
        given = [one if isinstance(one, Record) else Record(one) for one in batch]
        handed: Any = batch
        match how:
            case "iterator":
                handed = iter(batch)
            case "buffers":
                handed = [one if isinstance(one, Record) else bytearray(one) for one in batch]
            case "batch":
                handed = RecordBatch.encode(batch)
            case "zstd batch":
                handed = RecordBatch.encode(batch, compression="zstd")
            case "bytes":
                handed = RecordBatch.encode(batch).to_bytes()

        assert self.log.append_batch(handed) == (self.end, self.end + len(given))

        self._put(given)

    @precondition(lambda self: self.present)
    @rule(chance=chances, is_part=st.booleans())
    def append_what_was_read(self, chance: int, is_part: bool) -> None:
        offset = sorted(self.present)[chance % len(self.present)]
        entry = next(entry for entry in self.entries if entry.first <= offset < entry.end)
        batch = next(self.log.batches(entry.first, offset + 1 if is_part else None))
        given = list(batch)
        if entry.given_times is not None and len(given) == len(entry.records):  # handed on as it is
            given = [one._replace(timestamp=time) for one, time in zip(given, entry.given_times, strict=True)]

        assert self.log.append_batch(batch) == (self.end, self.end + len(given))

        self._put(given)

    @rule(value=values, term=st.integers(0, 2), kind=st.sampled_from(list(Kind)))
    def append_entry(self, value: bytes, term: int, kind: Kind) -> None:
        index = self.next_index
        term += self.term

        for wrong in (index - 1, index + 1):
            with pytest.raises(IndexOutOfRange):
                self.log.append_raw([records_entry(wrong, term, [value])])
        if kind == Kind.RECORDS:
            append_records(self.log, [value], term=term, time=self.now)
            self._put([Record(value)], term=term)
        else:
            append_other(self.log, kind, value, term=term)
            time = self.entries[-1].time if self.entries else self.last_time
            self.entries.append(Entry(index, kind, term, self.end, time, data=value))
        if kind == Kind.CONFIGURATION:
            self.configuration = (index, value)

    @rule(value=values)
    def append_what_is_refused(self, value: bytes) -> None:
        damaged = bytearray(RecordBatch.encode([value]).to_bytes())
        damaged[-1] ^= 1
        refused: list[tuple[type[Exception], Callable[[], object]]] = [
            (EmptyBatch, lambda: self.log.append_batch([])),
            (RecordTooLarge, lambda: self.log.append(bytes(RECORD_BYTES_MAX + 1))),
            (RecordTooLarge, lambda: self.log.append_batch([value, bytes(RECORD_BYTES_MAX + 1)])),
            (BatchTooLarge, lambda: self.log.append_batch([bytes(RECORD_BYTES_MAX)] * 3)),
            (CorruptBatch, lambda: self.log.append_batch(bytes(damaged))),
        ]
        for error, call in refused:
            with pytest.raises(error):
                call()

    @rule()
    def sync(self) -> None:
        self.log.sync()
        assert self.log.durable_index == self.log.last_index

    # ── removing ────────────────────────────────────────────────────────────────────────────────────

    def _removed_before(self, start: int, first_index: int) -> None:
        gone = [entry for entry in self.entries if entry.index < first_index]
        assert all(entry.end <= start for entry in gone)
        if gone:
            self.last_time, self.last_term = gone[-1].time, gone[-1].term
        for entry in gone:
            if entry.kind == Kind.CONFIGURATION:
                self.configuration_before = (entry.index, entry.data)
        self.entries = [entry for entry in self.entries if entry.index >= first_index]
        self.start, self.first_index = start, first_index

    @rule(chance=chances)
    def truncate(self, chance: int) -> None:
        lowest = self.start + chance % (self.end - self.start + 2)
        segments = self.log.segments()
        kept = next(one for one in segments if one.end_offset > lowest or one is segments[-1])

        freed = self.log.truncate(lowest)

        assert freed == sum(one.bytes for one in segments[: segments.index(kept)])
        self._removed_before(kept.base_offset, kept.base_index)

    @rule()
    def retain(self) -> None:
        segments = self.log.segments()
        limit = self.config.retention_records_max
        assert limit is not None
        kept = next(one for one in segments if self.end - one.base_offset <= limit or one is segments[-1])

        decisions = self.log.apply_retention()

        assert [one.stays for one in decisions] == [one.base_index >= kept.base_index for one in segments]
        self._removed_before(kept.base_offset, kept.base_index)

    @rule(chance=chances)
    def truncate_suffix(self, chance: int) -> None:
        end = self.start + chance % (self.end - self.start + 1)
        for wrong in (self.start - 1, self.end + 1):
            with pytest.raises(OffsetOutOfRange):
                self.log.truncate_suffix(wrong)

        self.log.truncate_suffix(end)

        if end < self.end:
            self._cut(next(number for number, entry in enumerate(self.entries) if entry.end > end), end)

    @precondition(lambda self: self.entries)
    @rule(chance=chances)
    def truncate_entries(self, chance: int) -> None:
        number = chance % len(self.entries)

        self.log.truncate_entries(self.entries[number].index)

        self._cut(number, self.entries[number].first)

    def _cut(self, number: int, end: int) -> None:
        """Keep the entries before `number`, and of that one the records below `end`."""
        entry = self.entries[number]
        self.entries = self.entries[:number]
        if entry.first < end:
            self.entries.append(replace(entry, records=entry.records[: end - entry.first], given_times=None))
        if self.followed is not None and end < self.followed_to:
            self.is_overtaken = True
        if self.configuration[0] >= self.next_index:
            older = [one for one in self.entries if one.kind == Kind.CONFIGURATION]
            self.configuration = self.configuration_before
            if older:
                self.configuration = (older[-1].index, older[-1].data)

    @rule(chance=chances, is_dry=st.booleans())
    def compact(self, chance: int, is_dry: bool) -> None:
        end = None if chance % 3 == 0 else self.start + chance % (self.end - self.start + 1)
        active = self.log.segments()[-1]
        limit = self.end if end is None else end
        segment_ends = {
            offset: one.end_offset
            for one in self.log.segments()
            for offset in range(one.base_offset, one.end_offset)
        }
        lasts = {record.key: record.offset for record in self.between(self.start, limit) if record.key}
        oldest_tombstone = self.now - self.config.tombstone_age_ms_min * 1_000_000
        gone = set()
        for entry in self.entries:
            if entry.records and entry.index < active.base_index and segment_ends[entry.first] <= limit:
                for record in entry.records:
                    if record is not None and record.key:
                        is_expired = not record.value and entry.time < oldest_tombstone
                        if lasts[record.key] != record.offset or is_expired:
                            gone.add(record.offset)

        done = self.log.compact(end=end, dry_run=is_dry)

        assert done.records_removed == len(gone)
        for entry in self.entries if not is_dry else ():
            for number, record in enumerate(entry.records):
                if record is not None and record.offset in gone:
                    self.compacted[record.offset] = record
                    entry.given_times = None
                    entry.records[number] = None

    @rule(start=st.sampled_from([0, 0, 5]))
    def reset(self, start: int) -> None:
        self.log.reset(start)

        if self.followed is not None:
            self.is_overtaken = self.is_overtaken or self.followed_to != 0
        self.entries, self.start, self.first_index = [], start, 1
        self.last_time = self.last_term = 0
        self.configuration = self.configuration_before = (0, b"")

    # ── opening again ───────────────────────────────────────────────────────────────────────────────

    @rule()
    def seal(self) -> None:
        self.log._writer.seal_full_segments()

    @rule(how=st.sampled_from(["close", "kill", "power loss"]), seed=chances)
    def open_again(self, how: str, seed: int) -> None:
        if how == "close":
            self.log.close()
        elif how == "kill":
            self.fs = self.fs.crash_point().killed()
        elif self.config.sync == "always":
            self.fs = self.fs.random_crash_state(random.Random(seed))
        else:
            self.log.sync()
            self.fs = self.fs.random_crash_state(random.Random(seed))
        self._open()
        assert self.log.repairs == [] or how == "power loss"  # a segment that nothing was appended to yet

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def range_is_that_of_the_model(self) -> None:
        log = self.log
        assert (log.start, log.end, log.first_index, log.last_index) == (
            self.start, self.end, self.first_index, self.next_index - 1,
        )  # fmt: skip
        assert tuple(log.configuration) == self.configuration

    @rule(chance=chances, width=chances, bytes_max=st.sampled_from([1, 200, 1 << 20]))
    def read_a_range(self, chance: int, width: int, bytes_max: int) -> None:
        start = self.start + chance % (self.end - self.start + 1)
        end = start + width % (self.end - start + 2)
        expected = self.between(start, end)

        assert list(self.log.scan(start, end, bytes_max=bytes_max)) == expected
        assert list(self.log.scan(start, end, reverse=True, bytes_max=bytes_max)) == expected[::-1]
        found = list(self.log.batches(start, end, bytes_max=bytes_max))
        assert [record for batch in found for record in batch] == expected
        assert [value for batch in found for value in batch.to_pylist()] == [one.value for one in expected]
        arrived: list[Record] = []
        for frames in self.log.frames(start, end, bytes_max=bytes_max):
            for frame in read_frames(frames.data):
                arrived += frame.records(max(start, frames.first_offset), min(end, frames.end_offset))
        assert arrived == expected

    @rule()
    def read_everything_one_by_one(self) -> None:
        present = self.present
        for offset in range(self.start, self.end):
            if offset in present:
                assert self.log.read(offset) == present[offset]
            else:
                with pytest.raises(RecordCompacted):
                    self.log.read(offset)
        for offset in (self.start - 1, self.end):
            with pytest.raises(OffsetOutOfRange):
                self.log.read(offset)

    @rule(wanted=st.lists(chances, max_size=30))
    def read_many(self, wanted: list[int]) -> None:
        present = sorted(self.present)
        offsets = [present[chance % len(present)] for chance in wanted if present]
        assert self.log.read_many(offsets) == [self.present[offset].value for offset in offsets]

        gone = sorted(set(range(self.start, self.end)) - set(present))
        if gone:
            with pytest.raises(RecordCompacted):
                self.log.read_many([*offsets, gone[0]])
        for wrong in (self.start - 1, self.end):
            with pytest.raises(OffsetOutOfRange):
                self.log.read_many([*offsets, wrong])

    @rule()
    def look_up_times(self) -> None:
        times = {entry.time + step for entry in self.entries for step in (-1, 0, 1)}
        for time in times | {0, self.now}:
            later = [entry.first for entry in self.entries if entry.time >= time]
            assert self.log.offset_at(time) == (later[0] if later else self.end)

    @rule(chance=chances, bytes_max=st.sampled_from([1, 1 << 20]))
    def read_entries(self, chance: int, bytes_max: int) -> None:
        assert [self.log.term(entry.index) for entry in self.entries] == [
            entry.term for entry in self.entries
        ]
        for wrong in (self.first_index - 1, self.next_index):
            with pytest.raises(IndexOutOfRange):
                self.log.raw_entries(wrong, self.next_index)
            if wrong != self.next_index:
                with pytest.raises(IndexOutOfRange):
                    self.log.offset_of(wrong)
        if not self.entries:
            return
        number = chance % len(self.entries)
        expected = [(one.index, one.term, one.kind) for one in self.entries[number:]]

        found = self.log.raw_entries(self.entries[number].index, self.next_index, bytes_max=bytes_max)

        assert [one[:3] for one in found] == expected[: len(found)]
        assert all(
            one.data == self.entries[number + place].data
            for place, one in enumerate(found)
            if one.kind != Kind.RECORDS
        )
        assert len(found) == (1 if bytes_max == 1 else len(expected))
        assert [self.log.offset_of(one.index) for one in self.entries] == [one.first for one in self.entries]
        assert self.log.offset_of(self.next_index) == self.end
        holders = {offset: one.index for one in self.entries for offset in range(one.first, one.end)}
        assert {offset: self.log.index_of(offset) for offset in holders} == holders

    @rule()
    def look_on(self) -> None:
        with Log(PATH, self.config, read_only=True, filesystem=self.fs) as log:
            assert list(log.scan()) == self.between(self.start, self.end)

    # ── following ───────────────────────────────────────────────────────────────────────────────────

    @rule(chance=chances)
    def follow(self, chance: int) -> None:
        self.followed_to = self.start + chance % (self.end - self.start + 1)
        self.followed = self.log.follow(self.followed_to).batches()
        self.is_overtaken = False

    @precondition(lambda self: self.followed is not None)
    @rule()
    def follow_on(self) -> None:
        """Taking more than there is would wait; what was compacted meanwhile may still come."""
        assert self.followed is not None
        if self.is_overtaken or not self.start <= self.followed_to <= self.end:
            with pytest.raises(OffsetOutOfRange):
                next(self.followed)
            self.followed = None
            return
        expected = self.between(self.followed_to, self.end)
        found: list[Record] = []
        while not expected or not found or found[-1].offset < expected[-1].offset:
            if not expected:
                return
            found += next(self.followed)
        assert [one for one in found if one.offset in self.present] == expected
        assert all(one == self.compacted[one.offset] for one in found if one.offset not in self.present)
        self.followed_to = found[-1].offset + 1


def test_log_holds_what_a_list_would_hold() -> None:
    run_state_machine_as_test(LogAgainstModel, settings=SETTINGS)


# ── faults that were found by the above ─────────────────────────────────────────────────────────────

KEYED = Config(segment_bytes_max=300)


@pytest.fixture
def keyed() -> Log:
    """Two records of one key; the older one's segment is sealed."""
    log = Log(PATH, KEYED, filesystem=CrashFileSystem())
    log.append_batch([Record(b"old", key=b"a"), b"kept"])
    log.append_batch([b"between", Record(b"new", key=b"a")])
    log.append(bytes(200))
    return log


def test_batch_that_was_compacted_can_be_appended_again(keyed: Log) -> None:
    keyed.compact()
    (batch,) = keyed.batches(0, 2)

    first, end = keyed.append_batch(batch)

    assert [(one.offset, one.value) for one in keyed.scan(first)] == [(first, b"kept")] and end == first + 1


@pytest.mark.parametrize(("end", "removed"), [(3, 0), (4, 1)])
def test_compaction_takes_no_notice_of_a_later_record_of_the_same_batch(
    keyed: Log, end: int, removed: int
) -> None:
    done = keyed.compact(end=end)

    assert done.records_removed == removed


@pytest.mark.parametrize("sync", ["always", "never"])
def test_append_without_a_term_is_in_the_term_of_the_entry_before(sync: Literal["always", "never"]) -> None:
    log = Log(PATH, Config(sync=sync), filesystem=CrashFileSystem())
    append_records(log, [b"in term 3"], term=3)

    log.append(b"single")
    log.append_batch([b"batch"])

    assert [log.term(index) for index in (1, 2, 3)] == [3, 3, 3]
