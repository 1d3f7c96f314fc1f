"""The ways to read: one record, many, ranges in both directions, batches, frames, times, the raw bytes."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from logstore import (
    MIB,
    Config,
    CorruptBatch,
    CorruptLog,
    Kind,
    Log,
    LogClosed,
    LogError,
    OffsetOutOfRange,
    Record,
    RecordBatch,
    RecordCompacted,
    UnsupportedFormat,
)
from logstore.transfer import read_frames
from tests.logstore.entries import append_other

CONFIG = Config(sync="never", segment_bytes_max=800)
VALUES = [b"%d" % number * (number % 7) for number in range(100)]


def fill(log: Log) -> None:
    """VALUES in single appends and batches, with keys, compressed and plain, over several segments."""
    for first in range(0, 100, 10):
        part = VALUES[first : first + 10]
        if first % 40 == 0:
            for value in part:
                log.append(value)
        elif first % 40 == 10:
            log.append_batch(part)
        elif first % 40 == 20:
            log.append_batch([Record(value, key=b"k%d" % len(value)) for value in part])
        else:
            log.append_batch(RecordBatch.encode(part, compression="zstd"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "log", CONFIG, clock=count(1000, 10).__next__) as log:
        fill(log)
        assert len(log.segments()) > 5
        yield log


# ── one and many ────────────────────────────────────────────────────────────────────────────────────


def test_every_record_is_read_alone_as_in_a_scan(log: Log) -> None:
    scanned = list(log.scan())

    assert [record.value for record in scanned] == VALUES
    assert [log.read(offset) for offset in range(100)] == scanned
    assert [log.read(offset) for offset in reversed(range(100))] == scanned[::-1]


@pytest.mark.parametrize("offset", [-1, 100, 1 << 63])
def test_offset_outside_of_the_log_is_refused_with_the_range(log: Log, offset: int) -> None:
    with pytest.raises(OffsetOutOfRange, match=f"offset {offset} is outside .* 0 to before 100") as error:
        log.read(offset)

    assert (error.value.offset, error.value.start, error.value.end) == (offset, 0, 100)


@pytest.mark.parametrize(
    "offsets",
    [
        pytest.param([], id="none"),
        pytest.param([42], id="one"),
        pytest.param(range(100), id="all"),
        pytest.param(range(99, -1, -1), id="descending"),
        pytest.param([5, 99, 5, 0, 5], id="repeated and out of order"),
        pytest.param(np.arange(20, 60, dtype=np.uint64), id="u64"),
        pytest.param(np.arange(20, 60, dtype=np.int8), id="i8"),
        pytest.param(np.arange(60)[::3], id="with a stride"),
    ],
)
def test_values_come_in_the_order_of_the_offsets(log: Log, offsets: Any) -> None:
    assert log.read_many(offsets) == [VALUES[int(offset)] for offset in offsets]


def test_offsets_of_several_dimensions_are_read_row_by_row(log: Log) -> None:
    assert log.read_many([[1, 50], [99, 2]]) == [VALUES[1], VALUES[50], VALUES[99], VALUES[2]]
    assert log.read_many(7) == [VALUES[7]]


@pytest.mark.parametrize("offsets", [[True, False], [1.0], ["1"], [None]])
def test_offsets_that_are_no_integers_are_refused(log: Log, offsets: Any) -> None:
    with pytest.raises(TypeError, match="offsets are integers, not"):
        log.read_many(offsets)


@pytest.mark.parametrize("offsets", [[-1], [0, 100], [100, 0], np.array([1 << 63], np.uint64)])
def test_one_offset_outside_of_the_log_refuses_all(log: Log, offsets: Any) -> None:
    with pytest.raises(OffsetOutOfRange):
        log.read_many(offsets)


@pytest.mark.parametrize("near", [1, 5, 100])
def test_picked_values_are_the_same_whether_near_each_other_or_far_apart(tmp_path: Path, near: int) -> None:
    values = [b"%d" % number * (300 if number % near == 0 else 2000) for number in range(200)]
    with Log(tmp_path, Config(sync="never")) as log:
        log.append_batch(values[:150])
        for value in values[150:]:
            log.append(value)
        offsets = np.random.default_rng(near).permutation(200)[:120]

        assert log.read_many(offsets) == [values[offset] for offset in offsets.tolist()]


# ── ranges ──────────────────────────────────────────────────────────────────────────────────────────

RANGES = [
    (None, None), (0, 100), (0, 0), (0, 1), (99, 100), (100, 100), (5, 15), (9, 11), (10, 20), (33, 67), (50, None),
    (None, 50), (40, 30), (20, 1000), (20, -1),
]  # fmt: skip


@pytest.mark.parametrize("bytes_max", [1, 300, MIB])
@pytest.mark.parametrize(("start", "end"), RANGES)
def test_every_way_to_read_a_range_gives_the_same_records(
    log: Log, start: int | None, end: int | None, bytes_max: int
) -> None:
    expected = [log.read(offset) for offset in range(start or 0, min(100, 100 if end is None else end))]
    here = range(start or 0, min(100, 100 if end is None else end))

    scanned = list(log.scan(start, end, bytes_max=bytes_max))
    backwards = list(log.scan(start, end, reverse=True, bytes_max=bytes_max))
    batches = list(log.batches(start, end, bytes_max=bytes_max))
    frames = list(log.frames(start, end, bytes_max=bytes_max))

    assert scanned == expected
    assert backwards == expected[::-1]
    assert [record for batch in batches for record in batch] == expected
    assert [offset for batch in batches for offset in batch.offsets.tolist()] == list(here)
    received = [found for piece in frames for found in read_frames(piece.data)]
    assert [record for found in received for record in found.records(here.start, here.stop)] == expected
    assert [
        value for found in received for batch in found.batches(here.start, here.stop) for value in batch.to_pylist()
    ] == [record.value for record in expected]  # fmt: skip


@pytest.mark.parametrize("start", [-1, 101])
@pytest.mark.parametrize(
    "read",
    [Log.scan, lambda log, start: log.scan(start, reverse=True), Log.batches, Log.frames, Log.follow],
    ids=["scan", "reverse", "batches", "frames", "follow"],
)
def test_start_outside_of_the_log_is_refused_at_once(
    log: Log, read: Callable[[Log, int], object], start: int
) -> None:
    with pytest.raises(OffsetOutOfRange, match=f"offset {start} is outside"):
        read(log, start)


def test_empty_log_has_no_lowest_and_no_highest_offset(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        assert (log.start, log.end, log.lowest_offset, log.highest_offset, len(log)) == (0, 0, None, None, 0)
        assert [*log.scan(), *log.scan(reverse=True), *log.batches(), *log.frames()] == []
        with pytest.raises(OffsetOutOfRange):
            log.read(0)

        log.append(b"one")

        assert (log.start, log.end, log.lowest_offset, log.highest_offset, len(log)) == (0, 1, 0, 0, 1)


def test_scan_ends_where_the_log_ended_when_it_began(log: Log) -> None:
    records = log.scan(95)
    log.append(b"later")

    assert [record.value for record in records] == VALUES[95:]


def test_frames_come_in_pieces_of_the_size_that_was_asked_for(log: Log) -> None:
    pieces = list(log.frames(bytes_max=600))

    assert all(len(piece.data) <= 600 for piece in pieces)
    assert [piece.first_offset for piece in pieces[1:]] == [piece.end_offset for piece in pieces[:-1]]
    assert (pieces[0].first_offset, pieces[-1].end_offset) == (0, 100)


@pytest.mark.parametrize(("time", "offset"), [(-1, 0), (1000, 0), (1001, 1), (1010, 1), (1 << 62, 100)])
def test_offset_at_a_time_is_the_first_record_not_appended_before_it(
    log: Log, time: int, offset: int
) -> None:
    assert log.offset_at(time) == offset


def test_offset_at_finds_every_frame_by_its_append_time(log: Log) -> None:
    for batch in log.batches():
        assert log.offset_at(batch.append_time) == batch.first_offset
        assert log.offset_at(batch.append_time + 1) == batch.end_offset


def test_raw_reader_gives_the_bytes_of_all_stores_up_to_their_last_frame(log: Log, tmp_path: Path) -> None:
    stores = sorted((tmp_path / "log").glob("*.store"))
    expected = b"".join(path.read_bytes() for path in stores)

    reader = log.reader()
    log.append(b"later")

    assert reader.read(10) == expected[:10]
    assert reader.read() == expected[10:]
    assert reader.read() == b""


def test_raw_reader_does_not_go_on_over_a_segment_that_was_removed(log: Log) -> None:
    reader = log.reader()
    log.truncate(50)

    with pytest.raises(LogError, match="was removed while it was read; start the backup again"):
        reader.read()


def test_damaged_record_raises_where_it_lies_and_the_others_are_read(log: Log, tmp_path: Path) -> None:
    log.append(b"needle")
    log.append(b"behind")
    path = next(path for path in (tmp_path / "log").glob("*.store") if b"needle" in path.read_bytes())
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.index(b"needle"))
        file.write(b"N")

    reads: tuple[Callable[[], object], ...] = (
        lambda: log.read(100),
        lambda: log.read_many([100, 101]),
        lambda: list(log.scan(98)),
        lambda: list(log.scan(98, reverse=True)),
        lambda: list(log.batches(100)),
        lambda: list(log.frames(100)),
        lambda: log.raw_entries(log.last_index - 1, log.last_index + 1),
    )
    for read in reads:
        with pytest.raises(CorruptLog, match="a frame's body does not match its checksum") as error:
            read()
        assert (error.value.path, error.value.entry, error.value.offset) == (
            str(path), log.last_index - 1, 100
        )  # fmt: skip

    assert log.read(101).value == b"behind"
    assert list(log.scan(99, 100)) == [log.read(99)]


def test_iterator_over_a_log_that_was_closed_ends_with_an_error(log: Log) -> None:
    iterators: list[Iterator[Any]] = [
        log.scan(bytes_max=1),
        log.scan(reverse=True, bytes_max=1),
        log.batches(bytes_max=1),
        log.frames(bytes_max=1),
        iter(log.follow(0, bytes_max=1)),
    ]
    for iterator in iterators:
        next(iterator)

    log.close()

    for iterator in iterators:
        with pytest.raises(LogClosed):
            list(iterator)


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────


def test_batch_shows_its_columns(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG, clock=lambda: 1000) as log:
        log.append(b"before")
        log.append_batch([Record(b"a", key=b"k1", timestamp=5), Record(b"", headers=(("h", b"x"),)), b"ccc"])
        (batch,) = log.batches(1)

    assert repr(batch) == "<RecordBatch 3 records, offsets 1 to before 4>"
    assert (batch.first_offset, batch.end_offset, batch.entry_index, batch.append_time) == (1, 4, 2, 1000)
    assert batch.offsets.tolist() == [1, 2, 3] and batch.offsets.dtype == np.uint64
    assert batch.values.offsets.tolist() == [0, 1, 1, 4] and batch.values.offsets.dtype == np.uint32
    assert batch.values.data.tobytes() == b"accc" and not batch.values.data.flags.writeable
    assert batch.to_pylist() == [b"a", b"", b"ccc"] == [batch.values[i] for i in range(3)]
    assert batch.keys is not None and batch.keys.to_pylist() == [b"k1", b"", b""]
    assert batch.timestamps.tolist() == [5, 1000, 1000] and batch.timestamps.dtype == np.int64
    assert batch.headers == [(), (("h", b"x"),), ()]


@pytest.mark.parametrize("index", [-1, 3])
def test_column_has_no_string_outside_of_it(index: int) -> None:
    batch = RecordBatch.encode([b"a", b"b", b"c"])

    with pytest.raises(IndexError):
        batch.values[index]


@pytest.mark.parametrize(
    "values",
    [[b"a", b"", b"ccc"], [b"", b""], [b"same", b"size"], [b"one"]],
    ids=["mixed", "all empty", "of one size", "one"],
)
def test_arrow_array_and_numpy_columns_share_the_memory_of_the_batch(
    tmp_path: Path, values: list[bytes]
) -> None:
    with Log(tmp_path, CONFIG) as log:
        log.append_batch([b".", *values, b"."])
        (whole,) = log.batches()
    part = whole.between(1, 1 + len(values))
    array = part.to_arrow()

    array.validate(full=True)
    assert array.to_pylist() == part.to_pylist() == values
    assert array.type == pyarrow.binary()
    assert array.buffers()[1].address == part.values.offsets.ctypes.data
    assert array.buffers()[2].address == whole.values.data.ctypes.data
    assert np.shares_memory(part.values.offsets, whole.values.offsets)


def test_part_of_a_compacted_batch_keeps_its_gaps(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never", segment_bytes_max=1)) as log:
        log.append_batch([Record(b"%d" % n, key=b"k" if n in (1, 3) else b"", timestamp=n) for n in range(6)])
        log.append(Record(b"last", key=b"k"))
        log.append(b"active")
        log.compact()

        (batch,) = log.batches(2, 5)

        assert batch.offsets.tolist() == [2, 4]
        assert (batch.first_offset, batch.end_offset, len(batch)) == (2, 5, 2)
        assert [tuple(record)[:4] for record in batch] == [(2, b"2", b"", 2), (4, b"4", b"", 4)]
        assert [*log.batches(1, 2), *log.scan(3, 4)] == []
        assert [record.offset for record in log.scan(reverse=True)] == [7, 6, 5, 4, 2, 0]
        assert log.read_many([5, 0, 4]) == [b"5", b"0", b"4"]
        for offset in (1, 3):
            with pytest.raises(RecordCompacted, match=f"record {offset} is gone: compaction kept a later"):
                log.read(offset)
            with pytest.raises(RecordCompacted, match=f"record {offset} is gone"):
                log.read_many([0, offset, 5])


# ── frames as bytes, read again ─────────────────────────────────────────────────────────────────────


def received(data: bytes) -> list[Record]:
    return [record for found in read_frames(data) for record in found.records(0, 1 << 62)]


def test_compacted_frames_are_received_with_their_gaps(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never", segment_bytes_max=600)) as log:
        log.append_batch([Record(b"a", key=b"k"), Record(b"b", key=b"k"), b"c"])
        log.append_batch([Record(b"d", key=b"k")])
        log.append_batch([b"e" * 600])
        log.append(b"active")
        log.compact()
        (frames,) = log.frames()

        assert received(frames.data) == list(log.scan())
        assert [record.offset for record in log.scan()] == [2, 3, 4, 5]


def frames_of(log: Log) -> bytes:
    return b"".join(piece.data for piece in log.frames())


@pytest.mark.parametrize("compacted", [False, True])
def test_every_flipped_bit_behind_the_first_header_is_found_by_who_receives_frames(
    tmp_path: Path, *, compacted: bool
) -> None:
    with Log(tmp_path, Config(sync="never", segment_bytes_max=300)) as log:
        log.append(b"first")
        log.append_batch([Record(b"a", key=b"k", timestamp=1), Record(b"b", headers=(("h", b"v"),))])
        log.append(b"second")
        log.append(Record(b"c", key=b"k"))
        log.append(b"last")
        if compacted:
            log.compact()
        data, records = frames_of(log), list(log.scan())
    assert received(data) == records and len(records) == 6 - compacted

    for position in range(96, len(data) - 112):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises((CorruptBatch, UnsupportedFormat)):
            received(bytes(damaged))


@pytest.mark.parametrize("position", [40, 41, 42, 43, 44, 48, 52], ids=lambda at: f"byte {at}")
def test_header_of_the_only_frame_cannot_lie_about_what_is_in_it(log: Log, position: int) -> None:
    data = bytearray(next(log.frames(bytes_max=1)).data)
    data[position] ^= 1

    if position in (40, 41):  # the stream number, of which no use is made
        assert received(bytes(data)) == [log.read(0)]
    else:
        with pytest.raises((CorruptBatch, UnsupportedFormat)):
            received(bytes(data))


def test_frames_between_which_other_entries_lie_are_received(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG) as log:
        log.append(b"a")
        append_other(log, Kind.NOOP)
        log.append(b"b")
        append_other(log, Kind.COMMAND)
        append_other(log, Kind.COMMAND)
        log.append(b"c")

        assert received(frames_of(log)) == list(log.scan())


@pytest.mark.parametrize("cut", [1, 8, 95, 96, 97])
def test_frames_that_are_not_whole_are_refused(log: Log, cut: int) -> None:
    data = frames_of(log)

    with pytest.raises(CorruptBatch):
        received(data[:-cut])
    with pytest.raises(CorruptBatch):
        received(data[:cut])


def test_frames_of_a_newer_version_are_refused_as_such(log: Log) -> None:
    data = bytearray(frames_of(log))
    data[42] = 2

    with pytest.raises(UnsupportedFormat, match="a frame: format version 2, this program reads 1"):
        received(bytes(data))


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────

READ_ALL = """
import sys
import logstore

def high_water():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

with logstore.Log(sys.argv[1], read_only=True) as log:
    next(log.scan()), next(log.scan(reverse=True)), next(log.batches()), next(log.frames())
    before = high_water()
    read = [sum(1 for _ in log.scan()), sum(1 for _ in log.scan(reverse=True)),
            sum(map(len, log.batches())), sum(frames.end_offset - frames.first_offset for frames in log.frames())]
    print(read, high_water() - before)
"""


def test_memory_stays_flat_while_a_log_larger_than_it_is_read(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never", segment_bytes_max=8 * MIB)) as log:
        for _ in range(96):
            log.append_batch([b"x" * 1000] * 1000)

    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, tmp_path], capture_output=True, text=True, check=True
    )

    counts, grown_kib = done.stdout.rsplit(" ", 1)
    assert counts == str([96_000] * 4)
    assert int(grown_kib) < 24 * 1024, "KiB more than after the first records, for a log of 92 MiB"


def test_scan_holds_about_what_is_read_at_a_time(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never")) as log:
        for _ in range(40):
            log.append_batch([b"x" * 1000] * 100)
        list(log.batches())
        tracemalloc.start()

        for _ in log.batches(bytes_max=200_000):
            pass

        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


# ── what readers remember ───────────────────────────────────────────────────────────────────────────


def large_frames(path: Path) -> Log:
    """Plain frames over 4 KiB, whose value offsets are remembered once they were read, in several segments."""
    log = Log(path, Config(sync="never", segment_bytes_max=16_000))
    for first in range(0, 600, 100):
        log.append_batch([b"%d " % number * (number % 40) for number in range(first, first + 100)])
    return log


def test_records_of_large_frames_are_the_same_at_every_reading_and_while_the_log_grows(
    tmp_path: Path,
) -> None:
    with large_frames(tmp_path) as log:
        expected = list(log.scan())
        offsets = np.random.default_rng(0).permutation(600).tolist()

        for _ in range(2):
            assert [log.read(offset) for offset in offsets] == [expected[offset] for offset in offsets]
            log.append_batch([b"more"] * 500)
        log.truncate_suffix(550)

        assert [log.read(offset) for offset in range(550)] == expected[:550]
        with pytest.raises(OffsetOutOfRange):
            log.read(550)


@pytest.mark.parametrize("limit", ["INDEX_BYTES_MAX", "VIEW_BYTES_MAX"])
def test_reading_goes_on_when_what_is_remembered_has_reached_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    large_frames(tmp_path).close()
    monkeypatch.setattr(f"logstore.directory.{limit}", 1)

    with Log(tmp_path, read_only=True) as log:
        assert len(log.segments()) > 2
        expected = list(log.scan())
        for _ in range(2):
            assert [log.read(offset) for offset in range(0, 600, 7)] == expected[::7]
            assert log.read_many(range(0, 600, 7)) == [record.value for record in expected[::7]]


@pytest.mark.usefixtures("no_background")  # which forgets what was verified
def test_large_frame_that_is_cut_short_behind_our_back_is_damage(tmp_path: Path) -> None:
    with large_frames(tmp_path) as log:
        assert log.read(150).offset == 150 and len(log.read_many(range(100, 200))) == 100
        store = min(tmp_path.glob("*.store"))
        with store.open("r+b") as file:
            file.truncate(5000)

        with pytest.raises(CorruptLog):
            log.read(199)
        with pytest.raises(CorruptLog, match="the file is shorter than when it was verified"):
            log.read_many(range(100, 200))
        with pytest.raises(CorruptLog):
            list(log.scan())


@pytest.mark.parametrize("read", [Log.scan, Log.batches, Log.frames])
def test_iterator_whose_next_record_was_cut_off_is_told_even_if_others_came_in_its_place(
    tmp_path: Path, read: Callable[..., Iterator[Any]]
) -> None:
    with Log(tmp_path, CONFIG) as log:
        for number in range(20):
            log.append(b"%d" % number)
        ahead, behind = read(log, 15, bytes_max=1), read(log, 5, bytes_max=1)
        next(ahead), next(behind)

        for _ in range(70):  # more than are remembered one by one
            log.truncate_suffix(10)
            log.append_batch([b"in their place"] * 10)

        with pytest.raises(OffsetOutOfRange):
            list(ahead)
        assert log.end == 20

    with Log(tmp_path, CONFIG) as log:
        behind = read(log, 5, bytes_max=1)
        next(behind)
        log.truncate_suffix(10)
        assert len(list(behind)) in (3, 4)  # 6 to 9, or in pieces that were read ahead


def test_iterator_whose_next_record_was_retained_away_is_told(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never", segment_bytes_max=1)) as log:
        for _ in range(10):
            log.append(b"value")
        records = log.scan(bytes_max=1)
        next(records)

        log.truncate(5)

        with pytest.raises(OffsetOutOfRange, match="holds 5 to before 10"):
            list(records)


def test_follower_says_where_it_is(log: Log) -> None:
    follower = log.follow(97)

    assert [next(iter(follower.batches())).end_offset, follower.offset] == [100, 100]
