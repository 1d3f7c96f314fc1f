"""What may be appended, in which shapes, and up to which sizes."""

from __future__ import annotations

import array
import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logstore import (
    BatchTooLarge,
    Config,
    CorruptBatch,
    EmptyBatch,
    Log,
    LogClosed,
    LogError,
    Record,
    RecordBatch,
    RecordTooLarge,
)

SMALL = Config(sync="never", record_bytes_max=100, batch_bytes_max=400, segment_bytes_max=2000)
SYNCED = replace(SMALL, sync="always")
LIMITED = [pytest.param(SMALL, id="never"), pytest.param(SYNCED, id="always")]
ONE_VALUE_BYTES = 96 + 8  # of a frame beside its value


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "log", SMALL, clock=count(1000).__next__) as log:
        yield log


Append = Callable[[Log, Any], object]


def append_async(log: Log, value: Any) -> object:
    return asyncio.run(log.append_async(value))


def append_batch_async(log: Log, values: Any) -> object:
    return asyncio.run(log.append_batch_async(values))


def begin_append(log: Log, values: Any) -> object:
    async def begin() -> int:
        return await log.begin_append(values)[1]

    return asyncio.run(begin())


SINGLES = [pytest.param(Log.append, id="append"), pytest.param(append_async, id="append_async")]
BATCHES = [
    pytest.param(Log.append_batch, id="append_batch"),
    pytest.param(append_batch_async, id="append_batch_async"),
    pytest.param(begin_append, id="begin_append"),
]

BYTES_LIKE = [
    pytest.param(bytearray(b"\1\0\2\0"), id="bytearray"),
    pytest.param(memoryview(b"\1\0\2\0"), id="memoryview"),
    pytest.param(memoryview(b"\1.\0.\2.\0")[::2], id="memoryview with gaps"),
    pytest.param(array.array("H", [1, 2]), id="array of wider items"),
    pytest.param(np.array([[1], [2]], np.uint16), id="matrix"),
]


@pytest.mark.parametrize("value", BYTES_LIKE)
def test_any_bytes_like_object_is_appended_as_its_bytes(log: Log, value: Any) -> None:
    log.append(value)
    log.append_batch([value])
    log.append_batch([b"x", value])
    log.append_batch([Record(b"k", key=b"k"), value])
    log.append(Record(b"h", headers=(("name", value),)))

    assert log.read_many([0, 1, 3, 5]) == [b"\1\0\2\0"] * 4
    assert log.read(6).headers == (("name", b"\1\0\2\0"),)


@pytest.mark.parametrize("value", [5, "text", None, [1]])
@pytest.mark.parametrize("append", SINGLES)
def test_value_that_is_not_bytes_like_is_refused(log: Log, append: Append, value: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        append(log, value)

    assert len(log) == 0


@pytest.mark.parametrize("values", ["text", [5], [b"a", "text"], [Record(b""), None], Record(b"value")])
def test_batch_with_something_else_than_values_is_refused_whole(log: Log, values: Any) -> None:
    with pytest.raises(TypeError, match="a value must be bytes-like or a Record, not"):
        log.append_batch(values)

    assert len(log) == 0


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (Record(b"", timestamp=1 << 63), OverflowError),
        (Record(b"", timestamp=1.5), TypeError),  # type: ignore[arg-type]
        (Record(b"", headers=(("n" * 0x10000, b""),)), ValueError),
        (Record(b"", headers=(("n", 5),)), TypeError),  # type: ignore[arg-type]
    ],
    ids=["time beyond 64 bits", "time in seconds", "name one over 65535 bytes", "header that is a number"],
)
def test_record_that_has_no_place_in_the_format_is_refused(
    log: Log, record: Record, error: type[Exception]
) -> None:
    with pytest.raises(error):
        log.append(record)

    assert len(log) == 0


def test_record_keeps_key_time_and_headers_and_gets_offset_and_append_time(log: Log) -> None:
    headers = (("", b""), ("näme", b"\xff"), ("näme", b"again"))
    log.append_batch([Record(b"a", b"k", -5, headers), b"b", Record(b"", timestamp=9)])

    log.append(Record(b"c", key=b"k"))

    assert list(log.scan()) == [
        Record(b"a", b"k", -5, headers, offset=0),
        Record(b"b", timestamp=1000, offset=1),
        Record(b"", timestamp=9, offset=2),
        Record(b"c", b"k", 1001, offset=3),
    ]


@pytest.mark.parametrize("append", SINGLES)
def test_empty_value_is_a_record(log: Log, append: Append) -> None:
    append(log, b"")

    assert list(log.scan()) == [Record(b"", timestamp=1000, offset=0)]


@pytest.mark.parametrize("empty", [[], (), iter([])], ids=["list", "tuple", "iterator"])
@pytest.mark.parametrize("append", BATCHES)
def test_empty_batch_is_an_error_that_says_so(log: Log, append: Append, empty: Any) -> None:
    with pytest.raises(EmptyBatch, match="a batch needs at least one record"):
        append(log, empty)

    assert len(log) == 0


def batch_of(*values: bytes) -> RecordBatch:
    return RecordBatch.encode(values)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"a", b"bb"], id="list"),
        pytest.param((value for value in (b"a", b"bb")), id="generator"),
        pytest.param({b"a": 1, b"bb": 2}, id="keys of a dict"),
        pytest.param(batch_of(b"a", b"bb"), id="RecordBatch"),
        pytest.param(batch_of(b".", b"a", b"bb", b".").between(1, 3), id="part of a RecordBatch"),
        pytest.param(batch_of(b"a", b"bb").to_bytes(), id="bytes"),
        pytest.param(bytearray(batch_of(b"a", b"bb").to_bytes()), id="bytearray"),
        pytest.param(memoryview(batch_of(b"a", b"bb").to_bytes()), id="memoryview"),
        pytest.param(RecordBatch.encode([b"a", b"bb"], compression="zstd"), id="compressed RecordBatch"),
    ],
)
def test_batch_may_come_in_any_of_these_shapes(log: Log, values: Any) -> None:
    log.append(b"before")

    assert log.append_batch(values) == (1, 3)

    assert log.read_many([1, 2]) == [b"a", b"bb"]
    assert log.last_index == 2  # one frame


def test_batch_that_was_read_can_be_appended_to_another_log(log: Log, tmp_path: Path) -> None:
    log.append_batch([Record(b"a", key=b"k", timestamp=5), Record(b"b", headers=(("h", b"x"),))])

    with Log(tmp_path / "copy", SMALL, clock=count(7000).__next__) as copy:
        copy.append(b"before")
        for batch in log.batches():
            copy.append_batch(batch)

        assert list(copy.scan(1)) == [
            Record(b"a", b"k", 5, offset=1),
            Record(
                b"b", b"", 7001, (("h", b"x"),), offset=2
            ),  # no time was given, so it is that of the append
        ]


@pytest.mark.parametrize("append", BATCHES)
def test_damaged_bytes_of_a_batch_are_refused(log: Log, append: Append) -> None:
    data = bytearray(batch_of(b"a", b"bb").to_bytes())
    data[-1] ^= 1

    with pytest.raises(CorruptBatch, match="a batch arrived damaged"):
        append(log, bytes(data))

    assert len(log) == 0


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("config", LIMITED)
@pytest.mark.parametrize("append", SINGLES)
def test_record_of_exactly_the_limit_fits_and_one_over_changes_nothing(
    tmp_path: Path, append: Append, config: Config
) -> None:
    with Log(tmp_path, config) as log:
        append(log, b"v" * 100)
        append(log, Record(b"v" * 50, key=b"k" * 50))

        with pytest.raises(
            RecordTooLarge, match=r"a record of 101 bytes is over record_bytes_max, 100"
        ) as error:
            append(log, b"v" * 101)
        with pytest.raises(RecordTooLarge, match="a record of 101 bytes"):
            append(log, Record(b"v" * 50, key=b"k" * 51))

        assert (error.value.size, error.value.limit) == (101, 100)
        assert (len(log), log.last_index) == (2, 2)


@pytest.mark.parametrize("append", BATCHES)
def test_one_record_over_the_limit_refuses_its_whole_batch(log: Log, append: Append) -> None:
    for batch in (
        [b"small", b"v" * 101],
        [b"small", Record(b"v", key=b"k" * 100)],
        [Record(b"v" * 90, headers=(("name", b"h"),))],  # 6 bytes of lengths, 4 of the name, 1
        RecordBatch.encode([b"small", b"v" * 101]),
        RecordBatch.encode([b"small", Record(b"v", key=b"k" * 100)]),
        RecordBatch.encode([b"small", b"v" * 101], compression="zstd"),
        RecordBatch.encode([b"cut off", b"small", b"v" * 101]).between(1, 3),
        RecordBatch.encode([b"small", b"v" * 101]).to_bytes(),
        RecordBatch.encode([b"small", Record(b"v", key=b"k" * 100)]).to_bytes(),
    ):
        with pytest.raises(RecordTooLarge, match="a record of 101 bytes"):
            append(log, batch)

    assert len(log) == 0


def test_many_small_records_may_be_over_the_limit_of_one_together(log: Log) -> None:
    log.append_batch([b"v" * 60] * 4)

    assert len(log) == 4


@pytest.mark.parametrize("config", LIMITED)
@pytest.mark.parametrize(
    "make",
    [list, RecordBatch.encode, lambda values: RecordBatch.encode(values).to_bytes()],
    ids=["values", "RecordBatch", "bytes"],
)
def test_batch_of_exactly_the_limit_fits_and_one_over_changes_nothing(
    tmp_path: Path, make: Callable[[list[bytes]], Any], config: Config
) -> None:
    fixed = 96 + 16  # the header, and a column of four u32
    with Log(tmp_path, config) as log:
        log.append_batch(make([b"v" * 96, b"v" * 96, b"v" * (400 - fixed - 192)]))

        with pytest.raises(BatchTooLarge, match="over batch_bytes_max, 400 bytes; split it") as error:
            log.append_batch(make([b"v" * 96, b"v" * 96, b"v" * (401 - fixed - 192)]))

        assert error.value.limit == 400 and error.value.size in (401, 408)  # with or without padding
        assert log.last_index == 1


@pytest.mark.parametrize("append", SINGLES)
def test_single_value_over_the_limit_of_a_batch_is_refused(tmp_path: Path, append: Append) -> None:
    with Log(tmp_path, Config(sync="never", batch_bytes_max=400)) as log:
        append(log, b"v" * (400 - ONE_VALUE_BYTES))

        with pytest.raises(BatchTooLarge):
            append(log, b"v" * (401 - ONE_VALUE_BYTES))

        assert len(log) == 1


def test_compressed_batch_is_limited_by_what_it_unpacks_to(log: Log) -> None:
    batch = RecordBatch.encode([b"v" * 100] * 4, compression="zstd")

    for same in (batch, batch.to_bytes()):
        with pytest.raises(BatchTooLarge):
            log.append_batch(same)

    assert len(batch.to_bytes()) < 400 and len(log) == 0


@pytest.mark.parametrize("sync", ["never", "always"])
def test_record_larger_than_a_segment_has_a_segment_of_its_own(tmp_path: Path, sync: Any) -> None:
    values = [b"small", b"x" * 5000, b"small too", b"y" * 5000]
    with Log(tmp_path, Config(sync=sync, segment_bytes_max=1000)) as log:
        for value in values:
            log.append(value)

        assert [record.value for record in log.scan()] == values
        assert log.read_many(range(4)) == values
        assert [(one.base_offset, one.end_offset) for one in log.segments()] == [
            (0, 1), (1, 2), (2, 3), (3, 4)
        ]  # fmt: skip

    with Log(tmp_path) as log:
        assert [record.value for record in log.scan()] == values


@pytest.mark.parametrize("sync", ["never", "always"])
def test_segment_is_filled_up_to_its_limit_and_never_past_it(tmp_path: Path, sync: Any) -> None:
    header, frame, mark = 96, 96 + 8 + 8, 24
    limit = header + 3 * frame + 3 * mark
    with Log(tmp_path, Config(sync=sync, segment_bytes_max=limit)) as log:
        for _ in range(30):
            log.append(b"8 bytes.")
        full = log.segments()[:-1]

    assert {one.end_offset - one.base_offset for one in full} == {3}
    with Log(tmp_path, read_only=True) as log:
        assert all(one.bytes <= limit for one in log.segments())


# ── time, and after closing ─────────────────────────────────────────────────────────────────────────


def test_append_time_never_goes_back_whatever_the_clock_does(tmp_path: Path) -> None:
    times = iter([50, 40, 60, 60, 10])
    with Log(tmp_path, SMALL, clock=times.__next__) as log:
        log.append(b"a")
        log.append(b"b")
        log.append_batch([b"c", b"d"])
        log.append(b"e")
        log.append(Record(b"f"))

        assert log.read_many([0]) == [b"a"]
        assert [record.timestamp for record in log.scan()] == [50, 50, 60, 60, 60, 60]


@pytest.mark.parametrize("append", [*SINGLES, *BATCHES])
def test_append_to_a_closed_log_says_so(tmp_path: Path, append: Append) -> None:
    log = Log(tmp_path, SMALL)
    log.close()

    with pytest.raises(LogClosed):
        append(log, b"v" if append in (Log.append, append_async) else [b"v"])

    assert isinstance(log.failure, LogError)
