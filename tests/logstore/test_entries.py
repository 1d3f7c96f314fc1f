"""Entries whose place a cluster has decided: what may be appended, what comes back, and where a log begins."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import (
    Base,
    BatchTooLarge,
    Config,
    CorruptBatch,
    CorruptLog,
    DiskFull,
    IndexOutOfRange,
    Kind,
    Log,
    OffsetOutOfRange,
    RawEntry,
    Record,
    RecordBatch,
    RecordTooLarge,
    UnsupportedFormat,
)
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.frame import CONFIGURATION_BYTES_MAX, FRAME_HEADER_BYTES
from logstore.fsck import examine
from logstore.opening import Configuration
from logstore.repair import repair
from logstore.testing import CrashFileSystem
from tests.logstore.entries import all_entries, append_other, append_records, records_entry

SMALL = Config(sync="never", segment_bytes_max=2000)
SYNCED = replace(SMALL, sync="always")
BASE = Base(index=7, term=3, offset=100, time=5000, chain=0xABCDEF01)
PATH = "log"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "log", SMALL, clock=count(1000).__next__) as log:
        yield log


def items_of(log: Log) -> list[bytes]:
    """Every frame of a log as it lies on disk, marks left out."""
    return [item.data() for segment in log._view.layout.segments for item in segment.walk(segment.base_index)]


def some_of_every_kind(first: int = 1, term: int = 1) -> list[RawEntry]:
    return [
        records_entry(first, term, [b"a", b"b"], time=2000),
        RawEntry(first + 1, term + 1, Kind.NOOP, b""),
        RawEntry(first + 2, term + 1, Kind.COMMAND, b"command"),
        RawEntry(first + 3, term + 1, Kind.CONFIGURATION, b"nodes"),
        records_entry(first + 4, term + 2, [b"c"], time=1500),
    ]


# ── appending ───────────────────────────────────────────────────────────────────────────────────────


def test_entries_of_every_kind_share_indexes_and_only_records_take_offsets(log: Log) -> None:
    log.append_raw(some_of_every_kind())

    assert [entry[:3] for entry in log.raw_entries(1, 6)] == [entry[:3] for entry in some_of_every_kind()]
    assert [entry.data for entry in log.raw_entries(2, 5)] == [b"", b"command", b"nodes"]
    assert [log.offset_of(index) for index in range(1, 7)] == [0, 2, 2, 2, 2, 3]
    assert [log.index_of(offset) for offset in range(3)] == [1, 1, 5]
    assert [tuple(record)[:2] + (record.term,) for record in log.scan()] == [
        (0, b"a", 1), (1, b"b", 1), (2, b"c", 3)
    ]  # fmt: skip
    assert [log.term(index) for index in range(6)] == [0, 1, 2, 2, 2, 3]
    assert (log.first_index, log.last_index, log.durable_index) == (1, 5, 0)
    assert log.configuration == Configuration(4, b"nodes")


def test_append_time_is_the_leaders_and_never_goes_back(log: Log) -> None:
    log.append_raw(some_of_every_kind())

    assert [record.timestamp for record in log.scan()] == [2000, 2000, 2000]


def test_no_entries_are_no_append(log: Log) -> None:
    log.append_raw([])

    assert log.last_index == 0


@pytest.mark.parametrize("index", [0, 1, 3])
def test_entry_that_is_not_the_next_is_refused_with_the_range(log: Log, index: int) -> None:
    log.append(b"first")

    with pytest.raises(IndexOutOfRange, match=f"entry {index} is outside .* entries 1 to 1") as error:
        log.append_raw([records_entry(index, 0, [b"x"])])

    assert (error.value.index, error.value.first, error.value.last) == (index, 1, 1)
    assert log.last_index == 1


def test_entry_with_a_lower_term_than_the_one_before_is_refused(log: Log) -> None:
    append_records(log, [b"first"], term=5)

    with pytest.raises(ValueError, match="entry 2 cannot have term 3: entry 1 has 5"):
        append_records(log, [b"second"], term=3)

    assert (log.last_index, log.failure) == (1, None)
    append_records(log, [b"second"], term=5)


@pytest.mark.parametrize(
    "entries",
    [
        [RawEntry(1, -1, Kind.NOOP, b"")],
        [RawEntry(1, 1 << 63, Kind.NOOP, b"")],
        [RawEntry(1, 1, 7, b"")],  # type: ignore[arg-type]
        [RawEntry(1, 1, Kind.NOOP, b""), RawEntry(3, 1, Kind.NOOP, b"")],
        [RawEntry(1, 2, Kind.NOOP, b""), RawEntry(2, 1, Kind.NOOP, b"")],
    ],
    ids=["negative term", "term too high", "unknown kind", "gap", "descending terms"],
)
def test_entries_that_have_no_place_in_the_format_are_refused(log: Log, entries: list[RawEntry]) -> None:
    with pytest.raises(ValueError):
        log.append_raw(entries)

    assert log.last_index == 0


@pytest.mark.parametrize("size", [10, 10_000])
@pytest.mark.parametrize(
    ("position", "message"),
    [
        (0, "a frame starts with"),
        (43, "kind 0"),
        (44, "and .* offsets"),
        (48, "says it has"),
        (52, "with checksum"),
        (90, "with checksum"),
        (-1, "with checksum"),
    ],
)
def test_damaged_frame_is_refused_and_nothing_of_its_group_is_there(
    log: Log, size: int, position: int, message: str
) -> None:
    data = bytearray(records_entry(2, 1, [bytes(size)]).data)
    data[position] ^= 1

    with pytest.raises(CorruptBatch, match=f"entry 2: .*{message}"):
        log.append_raw([records_entry(1, 1, [b"whole"]), RawEntry(2, 1, Kind.RECORDS, bytes(data))])

    assert log.last_index == 0


@pytest.mark.parametrize("size", [0, FRAME_HEADER_BYTES - 1, FRAME_HEADER_BYTES, 111, 120])
def test_frame_of_another_length_is_refused(log: Log, size: int) -> None:
    data = records_entry(1, 1, [b"8 bytes."]).data
    assert len(data) == 112

    with pytest.raises(CorruptBatch, match="entry 1: a frame"):
        log.append_raw([RawEntry(1, 1, Kind.RECORDS, data.ljust(size, b"\0")[:size])])


def test_frame_of_a_newer_version_is_refused(log: Log) -> None:
    data = bytearray(records_entry(1, 1, [b"x"]).data)
    data[42] = 2

    with pytest.raises(UnsupportedFormat, match="the frame of entry 1"):
        log.append_raw([RawEntry(1, 1, Kind.RECORDS, bytes(data))])


def test_data_over_what_the_format_can_hold_is_refused(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logstore.entry.BATCH_BYTES_LIMIT", 200)
    append_other(log, Kind.COMMAND, bytes(200 - FRAME_HEADER_BYTES))

    with pytest.raises(BatchTooLarge):
        append_other(log, Kind.COMMAND, bytes(201 - FRAME_HEADER_BYTES))


def test_configuration_of_exactly_its_limit_goes_into_the_header_of_the_next_segment(tmp_path: Path) -> None:
    config = Config(sync="never", segment_bytes_max=1)
    data = b"n" * CONFIGURATION_BYTES_MAX
    with Log(tmp_path, config) as log:
        append_other(log, Kind.CONFIGURATION, data, term=1)
        with pytest.raises(RecordTooLarge):
            append_other(log, Kind.CONFIGURATION, data + b"n", term=1)
        append_other(log, Kind.NOOP, term=1)
        log.append(b"record")
        log.truncate(1)

    with Log(tmp_path) as log:
        assert log.configuration == Configuration(1, data)


def test_entries_over_many_segments_are_one_append_with_one_sync_of_each() -> None:
    fs = CrashFileSystem()
    with Log(PATH, SYNCED, filesystem=fs) as log:
        before = len(fs.operations)

        log.append_raw([records_entry(index, 1, [b"x" * 400]) for index in range(1, 12)])

        syncs = [one.path for one in fs.operations[before:] if one.kind == "sync" and "store" in one.path]
        assert len(log.segments()) == 4
        assert sorted(syncs) == sorted(set(syncs)) and len(syncs) == 4
        assert (log.durable_index, log.end) == (11, 11)


def test_full_disk_keeps_the_entries_of_the_segments_before_and_says_so_by_last_index() -> None:
    fs = CrashFileSystem()
    log = Log(PATH, SYNCED, filesystem=fs)
    entries = [records_entry(index, 1, [b"x" * 400]) for index in range(1, 12)]
    log.append_raw(entries[:1])
    fs.fail("create", error=errno.ENOSPC)

    with pytest.raises(DiskFull):
        log.append_raw(entries[1:])

    assert (log.last_index, log.durable_index, log.end, log.failure) == (3, 3, 3, None)
    log.append_raw(entries[3:])
    assert log.durable_index == 11


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def test_entries_are_cut_by_the_byte_budget_but_never_to_none(log: Log) -> None:
    for _ in range(30):
        log.append(b"8 bytes.")  # frames of 112 bytes, 16 of them in a segment

    def found(first: int, end: int, bytes_max: int) -> list[int]:
        return [entry.index for entry in log.raw_entries(first, end, bytes_max=bytes_max)]

    assert found(1, 31, 1 << 20) == list(range(1, 31))
    assert found(5, 8, 1 << 20) == [5, 6, 7]
    assert found(5, 99, 3 * 112) == [5, 6, 7]
    assert found(5, 99, 3 * 112 - 1) == [5, 6]
    assert found(5, 99, 1) == [5]
    assert found(15, 20, 1 << 20) == [15, 16, 17, 18, 19]  # over a segment's end


@pytest.mark.parametrize(("first", "end"), [(0, 4), (4, 9), (2, 2), (2, 1)])
def test_entries_that_are_not_there_are_out_of_range(log: Log, first: int, end: int) -> None:
    for value in (b"a", b"b", b"c"):
        log.append(value)

    with pytest.raises(IndexOutOfRange):
        log.raw_entries(first, end)


@pytest.mark.parametrize("index", [0, 5])
def test_offset_of_an_entry_that_is_not_there_is_out_of_range(log: Log, index: int) -> None:
    log.append_raw(some_of_every_kind()[:3])

    with pytest.raises(IndexOutOfRange):
        log.offset_of(index)


@pytest.mark.parametrize("index", [-1, 2])
def test_term_of_an_entry_that_is_not_there_is_out_of_range(log: Log, index: int) -> None:
    log.append(b"a")

    with pytest.raises(IndexOutOfRange):
        log.term(index)


@pytest.mark.parametrize("offset", [-1, 2])
def test_entry_of_an_offset_that_is_not_there_is_out_of_range(log: Log, offset: int) -> None:
    log.append_raw(some_of_every_kind()[:3])

    with pytest.raises(OffsetOutOfRange):
        log.index_of(offset)


def test_reading_ends_in_front_of_a_damaged_entry_and_begins_behind_it(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        for value in (b"one", b"needle", b"three"):
            log.append(value)
        store = next(tmp_path.glob("*.store"))
        data = store.read_bytes()
        store.write_bytes(data.replace(b"needle", b"Needle"))

        assert [entry.index for entry in log.raw_entries(1, 4)] == [1]
        assert [entry.index for entry in log.raw_entries(3, 4)] == [3]
        with pytest.raises(CorruptLog) as error:
            log.raw_entries(2, 4)
        assert error.value.entry == 2


def test_entries_that_repair_gave_up_are_corrupt_and_those_around_them_are_read(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        for number in range(5):
            log.append(b"needle %d" % number)
    store = next(tmp_path.glob("*.store"))
    store.write_bytes(store.read_bytes().replace(b"needle 2", b"Needle 2").replace(b"needle 3", b"Needle 3"))
    directory = Directory(OsFileSystem(), str(tmp_path))
    repair(directory, examine(directory)[0])

    with Log(tmp_path, SMALL) as log:
        assert [entry.index for entry in log.raw_entries(1, 9)] == [1, 2]
        assert [entry.index for entry in log.raw_entries(5, 9)] == [5]
        for index in (3, 4):
            with pytest.raises(CorruptLog, match="given up by repair"):
                log.raw_entries(index, 9, bytes_max=1)
        assert log.damage(1, 6) == [(3, 5)]
        assert (
            log.replace_damaged([records_entry(3, 0, [b"needle 2"]), records_entry(4, 0, [b"needle 3"])]) == 0
        )


# ── replicas ────────────────────────────────────────────────────────────────────────────────────────

values = st.lists(st.binary(max_size=40), min_size=1, max_size=4)
kinds = st.sampled_from([Kind.RECORDS, Kind.RECORDS, *Kind])
Draft = tuple[Kind, list[bytes], int, int, bool]
drafts = st.lists(
    st.tuples(kinds, values, st.integers(0, 2), st.integers(-5, 5000), st.booleans()), min_size=1, max_size=25
)


def entries_of(drafted: list[Draft]) -> list[RawEntry]:
    entries = []
    term = BASE.term
    for index, (kind, some, step, time, is_compressed) in enumerate(drafted, BASE.index + 1):
        term += step
        if kind == Kind.RECORDS:
            batch = RecordBatch.encode(some * 9, compression="zstd" if is_compressed else "none")
            entries.append(records_entry(index, term, batch, time=time))
        else:
            entries.append(RawEntry(index, term, kind, some[0]))
    return entries


@settings(max_examples=60, deadline=None)
@given(drafted=drafts, group=st.integers(1, 7), cut=st.integers(0, 30), bytes_max=st.integers(1, 2000))
def test_replicas_have_equal_frames_however_the_entries_came(
    drafted: list[Draft], group: int, cut: int, bytes_max: int
) -> None:
    entries = entries_of(drafted)
    leader = Log(PATH, Config(segment_bytes_max=1500), filesystem=CrashFileSystem(), clock=lambda: 1)
    follower = Log(PATH, Config(segment_bytes_max=500, sync="never"), filesystem=CrashFileSystem())
    third = Log(PATH, Config(segment_bytes_max=4000), filesystem=CrashFileSystem(), clock=lambda: 5)
    for log in (leader, follower, third):
        log.begin_at(BASE)

    leader.append_raw(entries)
    for start in range(0, len(entries), group):
        follower.append_raw(entries[start : start + group])
    while third.last_index < leader.last_index:  # read from a replica, its suffix cut and sent again
        third.append_raw(
            follower.raw_entries(third.last_index + 1, leader.last_index + 1, bytes_max=bytes_max)
        )
    again = max(third.last_index - cut, third.first_index)
    third.truncate_entries(again)
    third.append_raw(leader.raw_entries(again, leader.last_index + 1, bytes_max=1 << 20))

    assert items_of(leader) == items_of(follower) == items_of(third)
    assert all_entries(leader) == all_entries(third)
    assert (leader.end, leader.configuration) == (third.end, third.configuration)
    for log in (leader, follower, third):
        log.close()


def test_compacted_entries_are_handed_on_as_they_are(tmp_path: Path) -> None:
    with Log(tmp_path / "n1", SYNCED) as leader, Log(tmp_path / "n2", SYNCED) as follower:
        for number in range(20):
            leader.append_batch([Record(b"%d" % number * 20, key=b"k%d" % (number % 3)), b"no key"])
        leader.compact()
        entries = all_entries(leader)

        follower.append_raw(entries)

        assert items_of(follower) == items_of(leader)
        assert list(follower.scan()) == list(leader.scan())
        assert any(entry.data.startswith(b"LcmP") for entry in entries)


@pytest.mark.parametrize("position", [4, 9, 16, 40, 100, 127, -1])
def test_damaged_compacted_entry_is_refused(tmp_path: Path, position: int) -> None:
    with Log(tmp_path / "n1", SYNCED) as leader, Log(tmp_path / "n2", SYNCED) as follower:
        for number in range(20):
            leader.append_batch([Record(b"%d" % number * 20, key=b"k"), b"no key"])
        leader.compact()
        data = bytearray(all_entries(leader)[0].data)
        data[position] ^= 1

        with pytest.raises(CorruptBatch, match="entry 1: a compacted frame"):
            follower.append_raw([RawEntry(1, 0, Kind.RECORDS, bytes(data))])


# ── where a log begins ──────────────────────────────────────────────────────────────────────────────


def test_log_that_begins_in_the_middle_knows_what_was_before(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        append_other(log, Kind.CONFIGURATION, b"old", term=9)

        log.begin_at(BASE)

        assert (log.base, log.first_index, log.last_index, log.durable_index) == (BASE, 8, 7, 7)
        assert (log.start, log.end, log.term(7), log.offset_of(8)) == (100, 100, 3, 100)
        assert log.configuration == Configuration(0, b"")
        log.append_raw(some_of_every_kind(8, term=3))

    with Log(tmp_path, SMALL) as log:
        assert (log.base, log.repairs, log.last_index) == (BASE, [], 12)
        assert [(record.offset, record.timestamp) for record in log.scan()] == [
            (100, 5000),
            (101, 5000),
            (102, 5000),
        ]
        assert log.durable_index == 12


def test_base_moves_with_truncation_of_the_front(tmp_path: Path) -> None:
    with Log(tmp_path / "n1", SMALL) as log, Log(tmp_path / "n2", SMALL) as other:
        for number in range(40):
            append_records(log, [b"x" * 100], term=number // 10, time=number)

        foreseen = log.base_after(20)
        log.truncate(20)

        base = log.base
        assert base == foreseen
        assert base.index > 1 and (base.term, base.offset, base.time) == (
            (base.index - 1) // 10,
            base.index,
            base.index - 1,
        )
        other.begin_at(base)
        other.append_raw(all_entries(log))
        assert items_of(other) == items_of(log)


@pytest.mark.parametrize(
    ("below_index", "first_index"), [(None, 25), (1, 1), (9, 9), (16, 9), (17, 17), (99, 25)]
)
def test_truncation_keeps_segments_with_an_entry_that_is_still_needed(
    log: Log, below_index: int | None, first_index: int
) -> None:
    for _ in range(30):
        append_records(log, [b"x" * 120])
    assert [one.base_index for one in log.segments()] == [1, 9, 17, 25]

    log.truncate(30, below_index=below_index)

    assert log.first_index == first_index


@pytest.mark.parametrize("field", Base._fields)
@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_place_that_cannot_be_changes_nothing(log: Log, field: str, value: int) -> None:
    log.append(b"value")

    with pytest.raises(ValueError, match="a log cannot start at"):
        log.begin_at(BASE._replace(**{field: value}))

    assert log.end == 1


def test_power_loss_in_a_new_beginning_leaves_a_prefix_nothing_or_the_new_log() -> None:
    fs = CrashFileSystem()
    with Log(PATH, SYNCED, filesystem=fs) as log:
        log.append_raw([records_entry(index, 1, [b"x" * 300]) for index in range(1, 20)])
        before = len(fs.operations)
        segments = {one.end_index - 1 for one in log.segments()}

        log.begin_at(BASE)

        after = len(fs.operations)
        log.append_raw(some_of_every_kind(8, term=3))
    seen = set()
    rng = random.Random(1)
    for point in fs.crash_points(before):
        for disk in (point.random_state(rng) for _ in range(6)):
            with Log(PATH, SYNCED, filesystem=disk) as log:
                seen.add(log.base)
                if point.operation_count >= after:
                    assert log.base == BASE
                if log.base == BASE:
                    assert 7 <= log.last_index <= 12
                else:
                    assert log.base == Base(0, 0, 0, 0, 0) and log.last_index in {0, *segments}
    assert len(seen) == 2


def test_power_loss_in_an_append_leaves_a_prefix_of_the_entries_and_all_that_were_acknowledged() -> None:
    fs = CrashFileSystem()
    log = Log(PATH, replace(SYNCED, segment_bytes_max=600), filesystem=fs)
    log.begin_at(BASE)
    acknowledged = [(len(fs.operations), 7)]
    sent = some_of_every_kind(8, term=3)
    sent += [records_entry(index, 5, [b"x" * 150, b""], time=9000 + index) for index in range(13, 17)]
    for start, stop in ((0, 3), (3, 9)):
        log.append_raw(sent[start:stop])
        acknowledged.append((len(fs.operations), log.last_index))
    whole = items_of(log)

    rng = random.Random(2)
    for point in fs.crash_points(acknowledged[0][0]):
        durable = max(index for operations, index in acknowledged if operations <= point.operation_count)
        for disk in (point.random_state(rng) for _ in range(20)):
            with Log(PATH, SYNCED, filesystem=disk) as again:
                assert again.base == BASE and durable <= again.last_index <= 16
                assert items_of(again) == whole[: again.last_index - 7]
