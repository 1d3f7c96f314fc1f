"""Which records go and which stay: retention, truncation of both ends, compaction by key, files used again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from logstore import (
    Config,
    CorruptLog,
    IndexOutOfRange,
    Kind,
    Log,
    LogError,
    OffsetOutOfRange,
    RawEntry,
    Record,
    RecordCompacted,
)
from logstore.compaction import Compaction, whole_items
from logstore.opening import Configuration
from logstore.retention import NS_PER_MS, decide_retention
from logstore.segment import write_store
from logstore.testing import CrashFileSystem, Operation
from logstore.testing.crash_file_system import CrashFile
from tests.logstore.conftest import NoHousekeeper
from tests.logstore.entries import all_entries, append_other, records_entry

MS = NS_PER_MS


@pytest.fixture(autouse=True)
def nothing_happens_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logstore.log.Housekeeper", NoHousekeeper)


class Clock:
    now = 1000 * MS

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


ONE_EACH = Config(segment_bytes_max=1)  # every frame has a segment of its own


# ── retention ───────────────────────────────────────────────────────────────────────────────────────


class Facts(NamedTuple):
    base_offset: int
    end_offset: int
    last_time: int
    store_bytes: int
    end_position: int = 0


SEGMENTS = [Facts(10 * n, 10 * n + 10, n * 1000 * MS, 100) for n in range(4)]  # newest at 3 s
NOW = 3500 * MS


def kept(segments: Sequence[Facts], config: Config, now: int = NOW) -> list[tuple[bool, str]]:
    return [(one.stays, one.reason) for one in decide_retention(segments, config, now=now)]


WITHIN = "it is within every limit"
OLDER = "an older segment stays"
ACTIVE = "it is the active segment"


@pytest.mark.parametrize(
    ("config", "gone", "reason", "stays"),
    [
        (Config(), 0, "", WITHIN),
        (Config(retention_bytes_max=400), 0, "", WITHIN),
        (Config(retention_bytes_max=399), 1, "with it the log has 400 bytes, retention_bytes_max is 399", WITHIN),
        (Config(retention_bytes_max=200), 2, "with it the log has 400 bytes, retention_bytes_max is 200", WITHIN),
        (Config(retention_bytes_max=0), 3, "with it the log has 400 bytes, retention_bytes_max is 0", ACTIVE),
        (Config(retention_records_max=40), 0, "", WITHIN),
        (Config(retention_records_max=39), 1, "with it the log has 40 records, retention_records_max is 39", WITHIN),
        (Config(retention_records_max=0), 3, "with it the log has 40 records, retention_records_max is 0", ACTIVE),
        (Config(retention_age_ms_max=3500), 0, "", WITHIN),
        (Config(retention_age_ms_max=3499), 1, "its newest record is 3500 ms old, retention_age_ms_max is 3499", WITHIN),
        (Config(retention_age_ms_max=0), 3, "its newest record is 3500 ms old, retention_age_ms_max is 0", ACTIVE),
    ],
)  # fmt: skip
def test_oldest_segments_go_until_every_limit_is_kept(
    config: Config, gone: int, reason: str, stays: str
) -> None:
    decisions = kept(SEGMENTS, config)

    assert [one for one, _ in decisions] == [False] * gone + [True] * (4 - gone)
    assert not gone or decisions[0][1] == reason
    assert [one for _, one in decisions[gone:]] == [stays] + [OLDER] * (3 - gone)


def test_room_that_a_store_takes_ahead_of_its_records_does_not_count() -> None:
    recycled = [*SEGMENTS[:3], SEGMENTS[3]._replace(store_bytes=100_000, end_position=100)]

    assert [stays for stays, _ in kept(recycled, Config(retention_bytes_max=400))] == [True] * 4
    assert [stays for stays, _ in kept(recycled, Config(retention_bytes_max=399))] == [False] + [True] * 3


def test_newest_segment_stays_whatever_the_limits(tmp_path: Path) -> None:
    strict = Config(retention_bytes_max=0, retention_records_max=0, retention_age_ms_max=0)

    assert kept(SEGMENTS[:1], strict) == [(True, ACTIVE)]


def test_segment_that_is_too_old_stays_behind_one_that_is_not() -> None:
    segments = [SEGMENTS[0]._replace(last_time=NOW), *SEGMENTS[1:]]

    assert kept(segments, Config(retention_age_ms_max=1000)) == [(True, WITHIN)] + [(True, OLDER)] * 3


def test_retention_removes_what_the_dry_run_named(tmp_path: Path, clock: Clock) -> None:
    config = replace(ONE_EACH, retention_age_ms_max=250, spare_segments_max=0)
    with Log(tmp_path, config, clock=clock) as log:
        for number in range(5):
            log.append(b"%d" % number)
            clock.now += 100 * MS

        dry = log.apply_retention(dry_run=True)
        before = len(log)
        done = log.apply_retention()

        assert dry == done and before == 5
        assert [(one.base_offset, one.end_offset, one.stays) for one in done] == [
            (0, 1, False), (1, 2, False), (2, 3, False), (3, 4, True), (4, 5, True)
        ]  # fmt: skip
        assert [record.value for record in log.scan()] == [b"3", b"4"]
        with pytest.raises(OffsetOutOfRange):
            log.read(2)

    assert len(list(tmp_path.glob("*.store"))) == 2
    with Log(tmp_path) as log:
        assert (log.start, log.end, log.first_index) == (3, 5, 4)


def test_limits_may_be_given_for_one_run(tmp_path: Path) -> None:
    with Log(tmp_path, ONE_EACH) as log:
        for _ in range(5):
            log.append(b"v")

        log.apply_retention(limits=Config(retention_records_max=2))

        assert (log.start, log.end) == (3, 5)


def test_full_segments_are_retained_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with Log(tmp_path, replace(ONE_EACH, retention_records_max=3)) as log:
        for number in range(50):
            log.append(b"%d" % number)

    with Log(tmp_path) as log:
        log.apply_retention(limits=Config(retention_records_max=3))
        assert [record.value for record in log.scan()] == [b"47", b"48", b"49"]


# ── truncation of the front ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lowest", "start"), [(-5, 0), (0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (99, 4)]
)
def test_truncate_removes_the_segments_that_end_at_or_below(tmp_path: Path, lowest: int, start: int) -> None:
    with Log(tmp_path, ONE_EACH) as log:
        for _ in range(3):
            log.append_batch([b"a", b"b"])

        log.truncate(lowest)

        assert (log.start, log.end, log.lowest_offset, log.highest_offset) == (start, 6, start, 5)
        assert [record.offset for record in log.scan()] == list(range(start, 6))


# ── truncation of the suffix ────────────────────────────────────────────────────────────────────────


def batches_of_three(log: Log) -> None:
    for number in range(4):
        log.append_batch(
            [Record(b"%d" % (3 * number + i), key=b"k", headers=(("h", b"x"),)) for i in range(3)]
        )


@pytest.mark.parametrize("segment_bytes_max", [1, 700, 1 << 20])
@pytest.mark.parametrize("end", range(13))
def test_log_cut_anywhere_holds_the_records_before_and_goes_on(
    tmp_path: Path, end: int, segment_bytes_max: int
) -> None:
    config = Config(segment_bytes_max=segment_bytes_max)
    with Log(tmp_path, config) as log:
        batches_of_three(log)
        records = list(log.scan())

        log.truncate_suffix(end)

        assert log.end == end and list(log.scan()) == records[:end]
        assert log.append(b"new") == end
        new = log.read(end)

    with Log(tmp_path, config) as log:
        assert log.repairs == []
        assert list(log.scan()) == [*records[:end], new]
        log.truncate_suffix(end)
        assert list(log.scan()) == records[:end]


@pytest.mark.parametrize("end", [-1, 2, 13])
def test_cut_outside_of_the_log_is_refused_and_changes_nothing(tmp_path: Path, end: int) -> None:
    with Log(tmp_path, ONE_EACH) as log:
        batches_of_three(log)
        log.truncate(3)

        with pytest.raises(OffsetOutOfRange) as error:
            log.truncate_suffix(end)

        assert (error.value.start, error.value.end) == (3, 12)
        assert [record.offset for record in log.scan()] == list(range(3, 12))


def test_cut_batch_keeps_its_entry_and_reads_as_a_shorter_one(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        batches_of_three(log)

        log.truncate_suffix(4)

        assert [log.offset_of(index) for index in (1, 2, 3)] == [0, 3, 4]
        assert [(batch.first_offset, batch.end_offset, len(batch)) for batch in log.batches()] == [
            (0, 3, 3), (3, 4, 1)
        ]  # fmt: skip
        assert log.read(3) == (3, b"3", b"k", log.read(3).timestamp, (("h", b"x"),), 0)
        assert log.read_many([3, 0]) == [b"3", b"0"]


@pytest.mark.parametrize("index", range(1, 8))
def test_entries_cut_anywhere_leave_the_ones_before_and_their_configuration(
    tmp_path: Path, index: int
) -> None:
    with Log(tmp_path, Config(segment_bytes_max=400)) as log:
        entries = [
            records_entry(1, 1, [b"a", b"b"]),
            RawEntry(2, 1, Kind.CONFIGURATION, b"one"),
            RawEntry(3, 2, Kind.NOOP, b""),
            records_entry(4, 2, [b"c"]),
            RawEntry(5, 2, Kind.CONFIGURATION, b"two"),
            RawEntry(6, 3, Kind.COMMAND, b"command"),
        ]
        log.append_raw(entries)
        entries = all_entries(log)

        log.truncate_entries(index)

        assert log.last_index == index - 1
        assert all_entries(log) == entries[: index - 1]
        known = (
            Configuration(5, b"two")
            if index > 5
            else Configuration(2, b"one")
            if index > 2
            else Configuration(0, b"")
        )
        assert log.configuration == known
        append_other(log, Kind.NOOP, term=9)

    with Log(tmp_path) as log:
        assert log.configuration == known
        assert all_entries(log)[:-1] == entries[: index - 1] and log.term(index) == 9


@pytest.mark.parametrize("index", [0, 4])
def test_cut_at_an_entry_that_is_not_there_is_refused(tmp_path: Path, index: int) -> None:
    with Log(tmp_path) as log:
        log.append(b"a")
        log.append(b"b")

        with pytest.raises(IndexOutOfRange):
            log.truncate_entries(index)

        assert len(log) == 2 and log.truncate_entries(3) == 0


# ── compaction ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keyed(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    with Log(tmp_path / "log", replace(ONE_EACH, tombstone_age_ms_min=100), clock=clock) as log:
        yield log


def keys_of(log: Log) -> list[tuple[int, bytes, bytes]]:
    return [(one.offset, one.key, one.value) for one in log.scan()]


def test_last_record_of_each_key_stays_and_every_one_without_a_key(keyed: Log) -> None:
    keyed.append_batch([Record(b"a1", key=b"a"), b"plain", Record(b"b1", key=b"b"), Record(b"a2", key=b"a")])
    keyed.append(Record(b"a3", key=b"a"))
    keyed.append_batch([Record(b"c1", key=b"c")])
    keyed.append_batch([b"active"])

    dry = keyed.compact(dry_run=True)
    unchanged = len(keys_of(keyed))
    done = keyed.compact()

    assert unchanged == 7 and done == replace(dry, bytes_freed=done.bytes_freed)
    assert (done.segments_rewritten, done.records_removed, done.has_more_keys) == (1, 2, False)
    assert keys_of(keyed) == [
        (1, b"", b"plain"), (2, b"b", b"b1"), (4, b"a", b"a3"), (5, b"c", b"c1"), (6, b"", b"active")
    ]  # fmt: skip
    assert (keyed.start, keyed.end, len(keyed)) == (0, 7, 7)
    for offset in (0, 3):
        with pytest.raises(RecordCompacted):
            keyed.read(offset)
    assert keyed.compact() == Compaction()  # nothing is left to do


def test_active_segment_is_not_compacted_but_its_keys_count(keyed: Log) -> None:
    keyed.append(Record(b"1", key=b"k"))
    keyed.append_batch([Record(b"2", key=b"k"), Record(b"3", key=b"k")])

    keyed.compact()

    assert keys_of(keyed) == [(1, b"k", b"2"), (2, b"k", b"3")]


def test_records_at_or_above_the_end_of_a_compaction_are_not_there_yet(keyed: Log) -> None:
    for number in range(4):
        keyed.append(Record(b"%d" % number, key=b"k"))
    keyed.append(b"active")

    keyed.compact(end=2)

    assert keys_of(keyed)[:-1] == [(1, b"k", b"1"), (2, b"k", b"2"), (3, b"k", b"3")]


def test_records_that_come_while_a_compaction_reads_are_left_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fs = CrashFileSystem()
    with Log("log", Config(segment_bytes_max=800), filesystem=fs) as log:
        log.append_batch([Record(b"1", key=b"k"), bytes(300)])
        log.append_batch([bytes(300), Record(b"2", key=b"k")])
        active = max(name for name in fs.files() if name.endswith(".store"))
        read = CrashFile.read

        def append_then_read(file: CrashFile, count: int, position: int, /) -> bytes:
            if active.endswith(file.path):
                monkeypatch.setattr(CrashFile, "read", read)
                log.append(Record(b"later", key=b"k"))
            return read(file, count, position)

        monkeypatch.setattr(CrashFile, "read", append_then_read)
        log.compact()

        assert [one for one in keys_of(log) if one[1]] == [(3, b"k", b"2"), (4, b"k", b"later")]
        assert len(log.segments()) == 2


def test_compaction_removes_no_record_because_of_one_that_a_crash_may_take() -> None:
    fs = CrashFileSystem()
    log = Log("log", replace(ONE_EACH, sync="never"), filesystem=fs)
    log.append(Record(b"1", key=b"k"))
    log.append(b"active")

    def append_behind_what_was_synced(operation: Operation) -> None:
        if operation.path.endswith(".index.tmp"):  # the first segment is being sealed
            fs.before_operation = None
            log.append(Record(b"2", key=b"k"))

    fs.before_operation = append_behind_what_was_synced
    log.compact()

    assert [value for _, key, value in keys_of(log) if key] == [b"1", b"2"]
    for disk in fs.crash_states(cut_bytes=4096):
        with Log("log", filesystem=disk) as survivor:
            assert keys_of(survivor)[:1] == [(0, b"k", b"1")]


def test_tombstone_goes_when_its_time_is_over_and_not_before(keyed: Log, clock: Clock) -> None:
    keyed.append(Record(b"value", key=b"k"))
    keyed.append(Record(b"", key=b"k"))
    keyed.append(b"active")

    keyed.compact()
    assert keys_of(keyed) == [(1, b"k", b""), (2, b"", b"active")]

    clock.now += 100 * MS
    keyed.compact()
    assert keys_of(keyed) == [(1, b"k", b""), (2, b"", b"active")]

    clock.now += 1
    keyed.compact()
    assert keys_of(keyed) == [(2, b"", b"active")]


def test_expired_tombstone_takes_what_is_older_with_it_and_nothing_newer(keyed: Log, clock: Clock) -> None:
    keyed.append(Record(b"old", key=b"k"))
    keyed.append(Record(b"", key=b"k"))
    keyed.append(Record(b"", key=b"other"))
    clock.now += 200 * MS
    keyed.append(Record(b"new", key=b"k"))
    keyed.append(b"active")

    keyed.compact()

    assert keys_of(keyed) == [(3, b"k", b"new"), (4, b"", b"active")]


def test_empty_value_without_a_key_is_no_tombstone(keyed: Log, clock: Clock) -> None:
    keyed.append_batch([Record(b"", headers=(("h", b"x"),)), Record(b"x", key=b"k")])
    keyed.append(b"active")
    clock.now += 10_000 * MS

    assert keyed.compact().records_removed == 0


def test_keys_beyond_the_limit_wait_for_another_run(tmp_path: Path) -> None:
    with Log(tmp_path, replace(ONE_EACH, compaction_keys_max=2)) as log:
        for key in (b"a", b"b", b"c", b"a", b"b", b"c"):
            log.append(Record(b"v", key=key))
        log.append(b"active")

        done = log.compact()

        assert (done.has_more_keys, done.records_removed) == (True, 2)
        assert [record.key for record in log.scan()] == [b"a", b"a", b"b", b"c", b""]


def test_compacted_log_is_the_same_after_reopening_and_keeps_entries_and_the_rest_of_each_record(
    tmp_path: Path, clock: Clock
) -> None:
    config = Config(segment_bytes_max=2000, compression="zstd")
    with Log(tmp_path, config, clock=clock) as log:
        for number in range(40):
            log.append_batch(
                [
                    Record(
                        b"%d " % number * 30,
                        key=b"%d" % (number % 5),
                        timestamp=number,
                        headers=(("h", b"x"),),
                    ),
                    Record(b"no key", timestamp=number),
                ]
            )
        before = {record.offset: record for record in log.scan()}
        places = [(index, log.term(index), log.offset_of(index)) for index in range(1, 41)]

        done = log.compact()

        after = list(log.scan())
        assert done.records_removed == 80 - len(after) > 20 and done.bytes_freed > 0
        assert after == [before[record.offset] for record in after]
        assert [(index, log.term(index), log.offset_of(index)) for index in range(1, 41)] == places
        assert len(log.segments()) > 2

    with Log(tmp_path, config) as log:
        assert list(log.scan()) == after
        assert list(log.scan(reverse=True)) == after[::-1]
        assert log.read_many([record.offset for record in after]) == [record.value for record in after]
        assert log.append(b"and on") == 80


def test_segment_that_compaction_emptied_still_has_its_offsets(keyed: Log) -> None:
    keyed.append_batch([Record(b"1", key=b"a"), Record(b"1", key=b"b")])
    keyed.append_batch([Record(b"2", key=b"a"), Record(b"2", key=b"b")])
    keyed.append(b"active")

    keyed.compact()

    assert keys_of(keyed) == [(2, b"a", b"2"), (3, b"b", b"2"), (4, b"", b"active")]
    assert [len(batch) for batch in keyed.batches()] == [2, 1]
    assert (keyed.start, keyed.offset_at(0)) == (0, 0)
    with pytest.raises(RecordCompacted):
        keyed.read_many([0])
    keyed.truncate_suffix(1)
    assert (keyed.end, keys_of(keyed), keyed.append(b"new")) == (1, [], 1)


def test_compaction_stops_at_damage_and_changes_nothing(tmp_path: Path) -> None:
    with Log(tmp_path, ONE_EACH) as log:
        for number in range(3):
            log.append(Record(b"needle %d" % number, key=b"k"))
        log.append(b"active")
        path = sorted(tmp_path.glob("*.store"))[1]
        path.write_bytes(path.read_bytes().replace(b"needle", b"NEEDLE"))
        before = {one.name: one.read_bytes() for one in tmp_path.glob("*.store")}

        with pytest.raises(CorruptLog):
            log.compact()

        assert {one.name: one.read_bytes() for one in tmp_path.glob("*.store")} == before


def test_rewritten_segment_that_would_not_hold_the_same_entries_is_not_put_in_place(tmp_path: Path) -> None:
    with Log(tmp_path, Config(segment_bytes_max=400)) as log:
        for _ in range(6):
            log.append(b"8 bytes.")
        segment = log._view.layout.segments[0]
        items = [item.data() for item in whole_items(segment)]
        before = {one.name: one.read_bytes() for one in tmp_path.glob("*.store")}

        with pytest.raises(LogError, match="rewriting it went wrong .* it stays as it was"):
            write_store(segment.directory, segment.header, items[:-1], segment.tail)

        assert {one.name: one.read_bytes() for one in tmp_path.glob("*.store")} == before


# ── spares ──────────────────────────────────────────────────────────────────────────────────────────


def stores(path: Path, suffix: str) -> dict[int, str]:
    """Name of each store or spare by its inode."""
    return {one.stat().st_ino: one.name for one in sorted(path.glob(f"*.{suffix}"))}


def test_removed_segments_are_kept_as_spares_and_used_again(tmp_path: Path) -> None:
    config = Config(segment_bytes_max=1000, spare_segments_max=2)
    with Log(tmp_path, config) as log:
        while len(log.segments()) < 6:
            log.append(b"x" * 200)
        oldest = list(stores(tmp_path, "store"))[:5]
        log.truncate(log.segments()[5].base_offset)
        spares = stores(tmp_path, "spare")
        assert [name in oldest for name in spares] == [True, True]
        first = log.end

        while len(log.segments()) < 3:
            log.append(b"y" * 200)

        assert stores(tmp_path, "spare") == {} and set(spares) < set(stores(tmp_path, "store"))
        assert [record.value[:1] for record in log.scan(first)] == [b"y"] * (log.end - first)
        records = list(log.scan())

    with Log(tmp_path, config) as log:
        assert log.repairs == [] and list(log.scan()) == records


@pytest.mark.parametrize(
    ("config", "kept"), [(Config(spare_segments_max=0), 0), (Config(spare_segments_max=3), 3)]
)
def test_no_more_spares_are_kept_than_asked_for_also_when_a_log_is_opened(
    tmp_path: Path, config: Config, kept: int
) -> None:
    with Log(tmp_path, Config(segment_bytes_max=1000, spare_segments_max=5)) as log:
        while len(log.segments()) < 6:
            log.append(b"x" * 200)
        log.truncate(log.segments()[5].base_offset)
    assert len(stores(tmp_path, "spare")) == 5

    Log(tmp_path, config).close()

    assert len(stores(tmp_path, "spare")) == kept


def test_reset_log_does_not_use_the_spares_of_its_older_life(tmp_path: Path) -> None:
    with Log(tmp_path, Config(segment_bytes_max=1000)) as log:
        while len(log.segments()) < 4:
            log.append(b"x" * 200)
        log.truncate(log.segments()[2].base_offset)
        assert stores(tmp_path, "spare")

        log.reset()

        assert stores(tmp_path, "spare") == {} and len(stores(tmp_path, "store")) == 1


def test_spare_that_may_hold_frames_of_this_log_is_removed_at_opening(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")
    (tmp_path / f"{5:020d}.spare").write_bytes(next(tmp_path.glob("*.store")).read_bytes())
    (tmp_path / f"{0:020d}.spare").write_bytes(b"older than the log")

    with Log(tmp_path) as log:
        assert [record.value for record in log.scan()] == [b"value"]

    assert list(stores(tmp_path, "spare").values()) == [f"{0:020d}.spare"]


def test_files_that_a_crash_left_half_made_are_removed_and_others_left_alone(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")
    half = [f"{1:020d}.store.tmp", f"{1:020d}.index.tmp", f"{9:020d}.index"]
    others = ["notes.txt", "1.store", f"{1:020d}.store.bak"]
    for name in (*half, *others):
        (tmp_path / name).write_bytes(b"?")

    with Log(tmp_path) as log:
        assert [record.value for record in log.scan()] == [b"value"]

    assert {path.name for path in tmp_path.iterdir()} == {
        *others,
        "LOCK",
        f"{1:020d}.store",
        f"{1:020d}.index",
    }
