"""Every byte of a small log flipped, and every file cut at every length: never wrong data, never a strange error.

With LOGSTORE_SEARCH in the environment every byte is flipped in sixteen ways instead of one.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple, TypeVar

import pytest

from logstore import Config, CorruptLog, Kind, Log, RawEntry, Record, RecordBatch, RecordCompacted
from logstore.frame import MARK_BYTES, MARK_MAGIC, parse_mark, parse_segment_header
from logstore.testing import CrashFileSystem
from tests.logstore.conftest import without_background
from tests.logstore.entries import all_entries, append_other

pytestmark = pytest.mark.usefixtures("no_background")

PATH = "data"
CONFIG = Config(segment_bytes_max=720, tombstone_age_ms_min=0, spare_segments_max=0)
TIME = 1_000_000_000
CASE_S_MAX = 20.0  # a case takes milliseconds
T = TypeVar("T")

FLIPS_PER_BYTE = 16 if "LOGSTORE_SEARCH" in os.environ else 1


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Turns a hang into a failure, at the place where it hangs; each case winds it up again."""

    def bite(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"hangs: no case takes {CASE_S_MAX} s")

    before = signal.signal(signal.SIGALRM, bite)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Original(NamedTuple):
    files: dict[str, bytes]
    records: dict[int, Record | None]  # None: compacted
    entries: list[RawEntry]
    times: list[int]
    vouched: dict[str, list[tuple[int, int]]]  # of each store: (end of a mark or header, what it vouches for)
    item_ends: dict[str, set[int]]  # of each store: a file cut there shows no damage

    def vouched_end(self, cut_path: str = "", cut_length: int = 0) -> int:
        """The offset below which nothing may be missing, if one file is cut."""
        return max(
            offset
            for path, vouches in self.vouched.items()
            for end, offset in vouches
            if path != cut_path or end <= cut_length
        )


def build(*, is_closed: bool) -> Original:
    """Sealed segments, compacted and compressed frames, every kind of entry, all columns, many marks."""
    fs = CrashFileSystem()
    clock = itertools.count(TIME, 1_000)
    log = Log(PATH, CONFIG, filesystem=fs, clock=lambda: next(clock))
    log.append_batch([Record(b"old", key=b"a"), Record(b"stays", key=b"b"), Record(b"", key=b"c"), b"no key"])
    log.append(b"single")
    log.append_batch([Record(b"x" * 30, key=b"a", timestamp=77, headers=(("name", b"header"),)), b"y"])
    append_other(log, Kind.CONFIGURATION, b"configuration", term=3)
    log.append(b"z" * 200)
    log._writer.seal_full_segments()
    log.compact()
    log.append_batch(RecordBatch.encode([b"compressed " * 30, b""], compression="zstd"))
    log.append_batch([b"kept", b"and cut off"])
    log.truncate_suffix(log.end - 1)
    append_other(log, Kind.COMMAND, b"command", term=4)
    log.append_batch([b"last", b"batch"])
    log.append(b"")
    log._writer.seal_full_segments()

    records: dict[int, Record | None] = dict.fromkeys(range(log.start, log.end))
    records.update({record.offset: record for record in log.scan()})
    entries = all_entries(log)
    times = [log.offset_at(time) for time in range(TIME, next(clock), 500)]
    ends = {
        index: end for segment in log._view.layout.segments for index, end in _ends(log, segment.base_index)
    }
    if is_closed:
        log.close()
    files = fs.crash_point().killed().files()
    vouched = {path: _vouched(data, ends) for path, data in files.items() if path.endswith(".store")}
    item_ends = {path: {end for end, _ in vouches} for path, vouches in vouched.items()}
    for segment in log._view.layout.segments:
        item_ends["/" + segment.store_path] |= {
            item.position + item.length for item in segment.walk(segment.base_index)
        }
    return Original(files, records, entries, times, vouched, item_ends)


def _ends(log: Log, base_index: int) -> Iterator[tuple[int, int]]:
    """(index, end offset) of each entry of a segment, and of the one before it."""
    segment = log._view.layout.at_index(base_index)
    yield base_index - 1, segment.base_offset
    for item in segment.walk(base_index):
        yield item.entry_index, item.end_offset


def _vouched(store: bytes, ends: dict[int, int]) -> list[tuple[int, int]]:
    header = parse_segment_header(store, "")
    assert header is not None
    found = [(header.size, ends[header.durable_index])]
    for at in range(0, len(store) - MARK_BYTES + 1, 8):
        mark = parse_mark(store, at)
        if mark is not None and mark.magic == MARK_MAGIC:
            found.append((at + MARK_BYTES, ends[mark.durable_index]))
    return found


@pytest.fixture(scope="module", params=["closed", "killed"])
def original(request: pytest.FixtureRequest) -> Original:
    with pytest.MonkeyPatch.context() as patch:
        without_background(patch)
        return build(is_closed=request.param == "closed")


# ── the checks ──────────────────────────────────────────────────────────────────────────────────────


def require_right_or_refused(original: Original, files: dict[str, bytes], vouched_end: int) -> str:
    """Open `files`, read everything in every way, and fail if anything is wrong; returns how it went."""
    signal.setitimer(signal.ITIMER_REAL, CASE_S_MAX)
    full_end = max(original.records) + 1
    _read_only(original, files)
    fs = CrashFileSystem(files)
    try:
        log = Log(PATH, CONFIG, filesystem=fs, clock=lambda: 2_000_000_000)
    except CorruptLog as error:
        _require_place(error, files)
        return "refused"
    assert log.start == 0 and vouched_end <= log.end <= full_end
    refusals = _read_in_every_way(log, original, files)
    if log.end == full_end:
        found = _refused(files, lambda: all_entries(log))
        assert found is None or found == original.entries
        times = _refused(
            files,
            lambda: [log.offset_at(time) for time in range(TIME, TIME + 500 * len(original.times), 500)],
        )
        assert times is None or times == original.times
        refusals += (found is None) + (times is None)
    went = "shorter" if log.end < full_end else "partly refused" if refusals else "right"
    if log.repairs:
        went += " with repairs"

    last = log.append(b"after")
    log.close()
    with Log(PATH, CONFIG, filesystem=fs) as log:
        assert log.repairs == [] and log.read(last).value == b"after" and log.end == last + 1
        is_all = _require_prefix(_until_refused(log.scan(0, last), files), list(_present(original, last)))
        assert is_all or refusals
    return went


def _read_only(original: Original, files: dict[str, bytes]) -> None:
    fs = CrashFileSystem(files)
    try:
        log = Log(PATH, read_only=True, filesystem=fs)
    except CorruptLog as error:
        _require_place(error, files)
    else:
        _require_prefix(_until_refused(log.scan(), files), list(_present(original, log.end)))
    assert fs.operations == []


def _read_in_every_way(log: Log, original: Original, files: dict[str, bytes]) -> int:
    """How many ways were refused."""
    end = log.end
    present = list(_present(original, end))
    refusals = 0
    for offset in range(end):
        try:
            assert log.read(offset) == original.records[offset]
        except RecordCompacted:
            assert original.records[offset] is None
        except CorruptLog as error:
            _require_place(error, files)
            refusals += 1
    for found, expected in (
        (log.scan(0, end), present),
        (log.scan(0, end, reverse=True), present[::-1]),
        (itertools.chain.from_iterable(log.batches(0, end)), present),
    ):
        refusals += not _require_prefix(_until_refused(found, files), expected)
    many = _refused(files, lambda: log.read_many([record.offset for record in present])) if present else []
    assert many is None or many == [record.value for record in present]
    return refusals + (many is None)


def _present(original: Original, end: int) -> Iterator[Record]:
    return (record for offset, record in original.records.items() if record is not None and offset < end)


def _until_refused(records: Iterator[Record], files: dict[str, bytes]) -> Iterator[Record | None]:
    """The records, and None at the end unless CorruptLog came before."""
    try:
        yield from records
    except CorruptLog as error:
        _require_place(error, files)
    else:
        yield None


def _require_prefix(found: Iterator[Record | None], expected: list[Record]) -> bool:
    """Fail unless these are the first of the expected records; whether they are all."""
    records = list(found)
    is_all = bool(records) and records[-1] is None
    if is_all:
        records.pop()
        assert records == expected
    assert records == expected[: len(records)]
    return is_all


def _refused(files: dict[str, bytes], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except CorruptLog as error:
        _require_place(error, files)
        return None


def _require_place(error: CorruptLog, files: dict[str, bytes]) -> None:
    assert f"/{error.path}" in files and error.path.endswith(".store")
    assert error.position >= 0 and error.path in str(error) and str(error.position) in str(error)


def stores(original: Original) -> list[str]:
    return [path for path in original.files if path.endswith(".store")]


def damageable(original: Original) -> list[str]:
    """The files that are read at an opening or after it: not the index of the active segment."""
    return [
        path for path, data in original.files.items() if data[:8] == b"LOGINDEX" or path.endswith(".store")
    ]


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes((data[position] ^ mask,)) + data[position + 1 :]


# ── the tests ───────────────────────────────────────────────────────────────────────────────────────

# Of a killed log only the active store, the last, differs: no mark vouches for its end.
CASES = [*(("closed", file) for file in range(5)), ("killed", 4)]


def test_what_is_damaged_below_holds_every_kind_of_item_and_file(original: Original) -> None:
    everything = b"".join(original.files.values())

    assert [len(stores(original)), len(damageable(original))] == [3, 5]
    assert all(magic in everything for magic in (b"LfrM", b"LcmP", b"LmrK"))
    assert {entry.kind for entry in original.entries} == {Kind.RECORDS, Kind.COMMAND, Kind.CONFIGURATION}
    assert require_right_or_refused(original, original.files, max(original.records)) == "right"


@pytest.mark.parametrize(("original", "file"), CASES, indirect=["original"])
def test_every_flipped_byte_is_refused_or_costs_nothing_below_the_last_mark(
    original: Original, file: int
) -> None:
    path = damageable(original)[file]
    data = original.files[path]
    rng = random.Random(file)

    for position in range(len(data)):
        for mask in rng.sample(range(1, 256), FLIPS_PER_BYTE):
            try:
                went = require_right_or_refused(
                    original, {**original.files, path: flipped(data, position, mask)}, original.vouched_end()
                )
                assert went != "shorter", "without repairs"
                assert path.endswith(".store") or went == "right"
            except Exception as error:
                error.add_note(f"{path}: byte {position} of {len(data)} flipped by {mask:#04x}")
                raise


@pytest.mark.parametrize(("original", "file"), CASES, indirect=["original"])
def test_every_shorter_file_is_refused_or_costs_nothing_below_the_last_mark(
    original: Original, file: int
) -> None:
    path = damageable(original)[file]
    data = original.files[path]

    for length in range(len(data)):
        try:
            went = require_right_or_refused(
                original, {**original.files, path: data[:length]}, original.vouched_end(path, length)
            )
            assert went != "shorter" or length in original.item_ends[path], "without repairs"
            assert path.endswith(".store") or went == "right"
        except Exception as error:
            error.add_note(f"{path}: cut to {length} of {len(data)} bytes")
            raise


def test_index_of_the_active_segment_does_not_matter(original: Original) -> None:
    (path,) = set(original.files) - set(damageable(original))

    for data in (b"", b"LOGINDEX" + bytes(100), random.Random(1).randbytes(5000)):
        assert require_right_or_refused(original, {**original.files, path: data}, 0) == "right"


def test_missing_store_in_the_middle_is_refused(original: Original) -> None:
    files = {path: data for path, data in original.files.items() if path != stores(original)[1]}

    assert require_right_or_refused(original, files, 0) == "refused"


def test_missing_indexes_are_made_again(original: Original) -> None:
    files = {path: data for path, data in original.files.items() if not path.endswith(".index")}

    assert require_right_or_refused(original, files, original.vouched_end()) == "right"
