"""One fault of the disk at every operation of a trace: what the call raises, and what is there afterwards.

Of an operation that fails nothing is done, except half of a write; a sync that fails leaves doubt for ever about what
it was for. After the fault the disk works again.
"""

from __future__ import annotations

import errno
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import count
from pathlib import Path

import pytest

from logstore import Config, CorruptLog, DiskFull, Kind, Log, LogError, LogPoisoned, RawEntry, Record
from logstore.encode import encode_value
from logstore.entry import check_entries
from logstore.testing import CrashFileSystem, Operation
from logstore.writer import _Entries
from tests.logstore.crash_trace import (
    PATH,
    Allowed,
    Done,
    Step,
    Trace,
    at_rest,
    in_flight,
    read_all,
    require_allowed,
)

pytestmark = pytest.mark.usefixtures("no_background")

ALWAYS = Config(segment_bytes_max=480, sync="always", spare_segments_max=1, tombstone_age_ms_min=0)
NEVER = Config(segment_bytes_max=480, sync="never", spare_segments_max=0, unsealed_segments_max=2)
RETAINING = Config(segment_bytes_max=480, sync="always", spare_segments_max=1, retention_records_max=3)

TRACES: dict[str, tuple[Config, list[Step]]] = {
    "append and roll": (ALWAYS, [("append",), ("batch", 8, 9), ("append", 200), ("append",), ("append", 300)]),
    "append and roll, unsynced": (NEVER, [("append",), ("append", 300), ("append", 300), ("append", 300), ("sync",)]),
    "batch that fills segments": (ALWAYS, [("append",), ("batch", 300, 300), ("append",)]),
    "truncate and recycle": (
        ALWAYS, [("append", 300), ("append", 300), ("append", 300), ("seal",), ("truncate", 2), ("append", 300), ("append", 20)],
    ),
    "truncate twice": (
        NEVER, [("append", 300), ("append", 300), ("append", 300), ("append", 300), ("truncate", 1), ("truncate", 3)],
    ),
    "retention": (
        RETAINING, [("append", 200), ("append", 200), ("append", 200), ("append", 200), ("append", 200), ("retain",), ("append",)],
    ),
    "truncate suffix at a frame": (ALWAYS, [("append",), ("append",), ("append",), ("truncate_suffix", 1), ("append",)]),
    "truncate suffix within a batch": (ALWAYS, [("append",), ("batch", 5, 6, 7), ("truncate_suffix", 2), ("append",)]),
    "truncate suffix over segments": (
        ALWAYS, [("append",), ("append", 300), ("append", 300), ("append", 300), ("seal",), ("truncate_suffix", 1), ("append",)],
    ),
    "reset": (ALWAYS, [("append", 300), ("append", 300), ("append", 300), ("seal",), ("truncate", 1), ("reset",), ("append",)]),
    "compact": (
        ALWAYS,
        [("keyed", "a", "b"), ("append", 250), ("keyed", "a", "B"), ("append", 250), ("keyed", "a"), ("seal",), ("compact",), ("append",)],
    ),
}  # fmt: skip

STATES = 2  # random ones of a power loss, of each moment that is looked at
GROWING = ("write", "map", "create", "make_directory")


class Faults:
    """Lets operations fail from number `first` on; the one at `first` decides which others do."""

    def __init__(self, fs: CrashFileSystem, first: int, error: int, *, is_lasting: bool) -> None:
        self.failed: list[Operation] = []
        self._numbers = count()
        self._first = first
        self.error = error
        self._is_lasting = is_lasting
        self._fs = fs
        fs.before_operation = self.meet

    def meet(self, operation: Operation) -> None:
        number = next(self._numbers)
        kinds = GROWING if self.error == errno.ENOSPC else (self.failed or [operation])[0].kind
        if number == self._first or (self.failed and self._is_lasting and operation.kind in kinds):
            self.failed.append(operation)
            raise OSError(self.error, "as the test wants it", operation.path)

    def end(self) -> None:
        self._fs.before_operation = None


class Trial:
    """One run of a trace in which operation `first` fails."""

    def __init__(self, name: str, first: int, error: int, *, is_lasting: bool) -> None:
        config, self.steps = TRACES[name]
        self.expected = clean_run(name)
        self.trace = Trace(config).run([("open",)])
        self.faults = Faults(self.trace.fs, first, error, is_lasting=is_lasting)
        self.rng = random.Random(first)
        self.error: Exception | None = None

    def run(self) -> bool:
        """Whether the fault was met."""
        for step, expected in zip(self.steps, self.expected, strict=True):
            try:
                self.trace.do(step)
            except (LogError, OSError) as error:
                self.error = error
                self.faults.end()
                self.require_as_documented(step, expected)
                if isinstance(error, LogPoisoned):
                    self.reopen_and_append(expected)
                    return True
                self.trace.do(step)
            if self.faults.failed:
                self.faults.end()
        self.require_content([at_rest(self.trace.content)])
        return bool(self.faults.failed)

    @property
    def log(self) -> Log:
        assert self.trace.log is not None
        return self.trace.log

    def require_as_documented(self, step: Step, expected: Done) -> None:
        failed = self.faults.failed[0]
        is_append = step[0] in ("append", "batch", "keyed")
        if isinstance(self.error, LogPoisoned):
            self.require_refusals()
            if step[0] == "reset" and self.log.start == self.log.end:
                return  # readers see it done already
            self.require_content(in_flight(expected))
        else:
            assert isinstance(self.error, DiskFull) or not is_append
            assert isinstance(self.error, DiskFull) == (self.faults.error == errno.ENOSPC)
            assert failed.kind != "sync" or not is_append
            assert self.log.failure is None
            live = [at_rest(expected.before)] if is_append else None
            self.require_content(in_flight(expected), live)

    def require_refusals(self) -> None:
        log = self.log
        assert isinstance(log.failure, LogPoisoned)
        refused: list[Callable[[], object]] = [
            lambda: log.append(b"refused"),
            lambda: log.append_batch([b"refused", b"too"]),
            lambda: log.truncate(log.start),
            lambda: log.truncate_suffix(log.start),
            log.apply_retention,
            log.reset,
        ]
        for call in refused:
            with pytest.raises(LogPoisoned):
                call()

    def require_content(self, allowed: list[Allowed], live: list[Allowed] | None = None) -> None:
        """Of the log, and of what a power loss would leave."""
        require_allowed(self.log, live or allowed)
        point = self.trace.fs.crash_point()
        for disk in (point.killed(), *(point.random_state(self.rng) for _ in range(STATES))):
            require_allowed(Log(PATH, self.trace.config, filesystem=disk), allowed)

    def reopen_and_append(self, expected: Done) -> None:
        """What is there after reopening stays, and what is appended then is acknowledged as ever."""
        fs, config = self.trace.fs, self.trace.config
        with pytest.raises(LogPoisoned):
            self.log.close()
        log = Log(PATH, config, filesystem=fs)
        found = require_allowed(log, in_flight(expected))
        assert log.append(b"after") == log.end - 1
        log.sync()
        found[log.end - 1] = b"after"
        if self.faults.failed[0].kind == "sync_directory":
            return  # whether a name is there stays in doubt for ever
        for _ in range(STATES):
            assert read_all(Log(PATH, config, filesystem=fs.random_crash_state(self.rng))) == found


@cache
def clean_run(name: str) -> list[Done]:
    config, steps = TRACES[name]
    return Trace(config).run([("open",), *steps]).done[1:]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", TRACES)
def test_fault_at_any_operation_is_reported_and_costs_nothing_that_was_there(name: str, error: int) -> None:
    errors: set[type[Exception] | None] = set()

    for is_lasting in (True,) if error == errno.ENOSPC else (False, True):
        for first in count():
            one = Trial(name, first, error, is_lasting=is_lasting)
            try:
                if not one.run():
                    break
            except Exception as failure:
                failure.add_note(f"{name}: operation {first}, {one.faults.failed}, raised {one.error!r}")
                raise
            errors.add(None if one.error is None else type(one.error))

    assert LogPoisoned in errors and (error != errno.ENOSPC or DiskFull in errors)


WIDE = replace(ALWAYS, segment_bytes_max=700)


def full_segments(fs: CrashFileSystem) -> Log:
    """A log of three segments with keys, the first two sealed."""
    log = Log(PATH, WIDE, filesystem=fs)
    log.append_batch([Record(b"old", key=b"a"), Record(b"kept", key=b"b")])
    log.append(b"x" * 250)
    log.append_batch([Record(b"new", key=b"a"), Record(b"also", key=b"c")])
    log.append(b"y" * 250)
    log.append(b"z" * 20)
    log._writer.seal_full_segments()
    assert len(log.segments()) == 3
    return log


def test_log_on_a_full_disk_goes_on_where_it_was_once_there_is_room() -> None:
    fs = CrashFileSystem()
    log = full_segments(fs)
    before = list(log.scan())
    fs.capacity_bytes = sum(map(len, fs.files().values()))

    for _ in range(3):
        with pytest.raises(DiskFull, match="nothing was appended"):
            log.append(b"v" * 500)
        assert list(log.scan()) == before and log.failure is None
    fs.capacity_bytes = None

    assert log.append(b"v" * 500) == before[-1].offset + 1
    assert [record.value for record in log.scan(before[-1].offset)] == [before[-1].value, b"v" * 500]


def test_opening_on_a_full_disk_raises_disk_full_and_works_once_there_is_room() -> None:
    new, old = CrashFileSystem(), CrashFileSystem()
    full_segments(old).close()
    for fs, values in ((new, 0), (old, 7)):
        fs.capacity_bytes = 10

        with pytest.raises(DiskFull):
            Log(PATH, WIDE, filesystem=fs)

        fs.capacity_bytes = None
        with Log(PATH, WIDE, filesystem=fs) as log:
            assert len(list(log.scan())) == values


def test_roll_without_a_free_file_descriptor_is_refused_and_can_be_repeated() -> None:
    fs = CrashFileSystem()
    log = Log(PATH, WIDE, filesystem=fs)
    log.append(b"x" * 500)
    fs.fail("create", error=errno.EMFILE)

    with pytest.raises(
        DiskFull, match="nothing was appended; each segment holds a file open: raise the limit"
    ):
        log.append(b"y" * 500)

    assert log.append(b"y" * 500) == 1


@pytest.mark.parametrize("free", range(8, 14))
def test_log_that_has_used_up_all_file_descriptors_goes_on_once_there_are_more(
    tmp_path: Path, no_background: None, free: int
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "probe").open("w") as probe:
        lowest = probe.fileno()  # descriptors are given out from the lowest free one on
    log = Log(tmp_path / "log", replace(WIDE, sync="never"))
    appended = 0
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
        with pytest.raises(DiskFull, match="raise the limit"):
            while True:
                log.append(b"x" * 500)
                appended += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert appended >= 1
    assert log.append(b"x" * 500) == appended
    log.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_opening_without_free_file_descriptors_says_what_to_do(*, read_only: bool) -> None:
    fs = CrashFileSystem()
    full_segments(fs).close()
    fs.fail("open", error=errno.EMFILE)

    with pytest.raises(DiskFull, match="each segment holds a file open: raise the limit"):
        Log(PATH, WIDE, read_only=read_only, filesystem=fs)

    with Log(PATH, WIDE, filesystem=fs) as log:
        assert len(list(log.scan())) == 7


def test_entry_behind_a_failed_append_of_the_same_group_is_refused_too() -> None:
    fs = CrashFileSystem()
    log = Log(PATH, WIDE, filesystem=fs)
    records = encode_value(b"records")
    entry = _Entries(check_entries([RawEntry(1, 1, Kind.COMMAND, b"entry")]), 1)
    fs.fail("write")

    outcomes = log._writer._commit([[records], entry, [records]])

    assert [type(outcome) for (outcome,) in outcomes] == [LogPoisoned] * 3
    assert log.last_index == 0


# ── interrupts ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("config", [ALWAYS, NEVER], ids=["always", "never"])
def test_interrupt_between_a_write_and_its_notes_is_the_end_of_writing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = CrashFileSystem()
    log = Log(PATH, config, filesystem=fs)
    log.append(b"before")
    with monkeypatch.context() as patched:
        patched.setattr("logstore.appender._new_tail", interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.append(b"interrupted")

    for act in (lambda: log.append(b"a" * 300), log.close):
        with pytest.raises(LogPoisoned, match="an append was interrupted by KeyboardInterrupt"):
            act()

    with Log(PATH, config, filesystem=fs) as log:
        assert [record.value for record in log.scan()] == [b"before", b"interrupted"]


@pytest.mark.parametrize("config", [ALWAYS, NEVER], ids=["always", "never"])
def test_interrupt_at_any_operation_costs_no_record_that_was_acknowledged(config: Config) -> None:
    for first in count():
        fs = CrashFileSystem()
        log = Log(PATH, config, filesystem=fs)
        fs.before_operation = partial(interrupt_at, first, count())
        acknowledged: dict[int, bytes] = {}
        interrupts = 0
        for number in range(12):
            value = b"%d" % number * 60
            try:
                acknowledged[log.append(value)] = value
                if number == 8:
                    acknowledged = {offset: one for offset, one in acknowledged.items() if 3 <= offset < 6}
                    log.truncate(3)
                    log.truncate_suffix(6)
            except KeyboardInterrupt:
                interrupts += 1
            except LogPoisoned:
                break
        fs.before_operation = None
        with suppress(LogPoisoned):
            log.close()
        with Log(PATH, config, filesystem=fs) as log:
            found = {record.offset: record.value for record in log.scan()}
            assert acknowledged.items() <= found.items()
        if not interrupts:
            return


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def interrupt_at(first: int, numbers: Iterator[int], _: Operation) -> None:
    if next(numbers) == first:
        raise KeyboardInterrupt


def test_compacted_segment_can_be_cut_though_its_index_could_not_be_saved() -> None:
    fs = CrashFileSystem()
    log = full_segments(fs)
    fs.fail("create", nth=2, error=errno.ENOSPC)  # the first is the store

    with pytest.raises(DiskFull):
        log.compact()
    log.truncate_suffix(2)  # used to cut the new file at a position of the old one
    log.close()

    with Log(PATH, WIDE, filesystem=fs) as log:
        assert log.repairs == [] and read_all(log) == {0: None, 1: b"kept"}


def test_truncation_within_a_damaged_batch_is_refused_before_anything_is_removed() -> None:
    fs = CrashFileSystem()
    full_segments(fs).close()
    path = f"/{PATH}/{1:020}.store"
    data = fs.files()[path]
    at = data.index(b"oldkept")
    damaged = CrashFileSystem({**fs.files(), path: data[:at] + b"OLD" + data[at + 3 :]})
    log = Log(PATH, WIDE, filesystem=damaged)

    with pytest.raises(CorruptLog):
        log.truncate_suffix(1)

    assert (log.end, log.append(b"next")) == (7, 7)
    log.close()
    with Log(PATH, WIDE, filesystem=damaged) as log:
        assert (log.end, log.read(7).value) == (8, b"next")
