"""Who may have a log open, what closing and removing do, and looking on while another process writes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    Config,
    CorruptLog,
    IndexOutOfRange,
    Kind,
    Log,
    LogClosed,
    LogError,
    LogLocked,
    LogReadOnly,
    NoLog,
    OffsetOutOfRange,
    RawEntry,
    Record,
    RecordCompacted,
    UnsupportedFormat,
)
from logstore.checksum import crc32c
from logstore.filesystem import OsFileSystem
from logstore.opening import ASIDE_FILES_MAX
from tests.logstore.entries import append_other

SMALL = Config(segment_bytes_max=600)

HOLD = """
import sys, logstore
from tests.logstore.entries import append_other
from logstore import RawEntry
log = logstore.Log(sys.argv[1])
log.append(b"held")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has tmp_path/log open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "log"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    yield process
    process.communicate()


def test_second_opener_is_told_which_process_has_the_log(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(LogLocked, match=f"{tmp_path}/log is in use by process {holder.pid}; close") as error:
        Log(tmp_path / "log")

    assert (error.value.pid, error.value.path) == (holder.pid, str(tmp_path / "log"))


def test_log_of_a_process_that_was_killed_can_be_opened(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    holder.kill()
    holder.wait()

    with Log(tmp_path / "log") as log:
        assert [record.value for record in log.scan()] == [b"held"]


def test_lock_whose_holder_wrote_no_number_is_of_another_process(tmp_path: Path) -> None:
    with Log(tmp_path):
        (tmp_path / "LOCK").write_bytes(b"")

        with pytest.raises(LogLocked, match="is in use by another process") as error:
            Log(tmp_path)

    assert error.value.pid is None


def test_lock_of_a_log_that_is_removed_meanwhile_is_not_taken_for_that_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / "LOCK", fcntl.flock

    def remove_then_lock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    lock = OsFileSystem().lock(str(path))

    with pytest.raises(LogLocked):
        OsFileSystem().lock(str(path))

    lock.close()


@pytest.mark.parametrize("sync", ["always", "never"])
def test_forked_child_has_a_closed_log_and_its_parent_goes_on(tmp_path: Path, sync: Any) -> None:
    log = Log(tmp_path, Config(sync=sync))
    values = [b"%d" % number for number in range(100)]
    log.append(values[0])
    (said, to_parent), (from_parent, go_on) = os.pipe(), os.pipe()
    with log._writer._lock:  # as by a thread that the child has not
        child = os.fork()
    if not child:
        signal.alarm(10)
        os.write(to_parent, b".")
        os.read(from_parent, 1)
        os.write(to_parent, "\n".join(map(str, refusals(log))).encode())
        os._exit(0)

    os.read(said, 1)  # the child has let go of the lock
    with pytest.raises(LogLocked):
        Log(tmp_path)
    log.append_batch(values[1:50])
    log.close()
    log = Log(tmp_path, Config(sync=sync))  # though the child lives
    log.append_batch(values[50:])
    os.write(go_on, b".")
    os.waitpid(child, 0)

    reason = f"{tmp_path} was opened by process {os.getpid()}; open it again after a fork"
    assert os.read(said, 10_000).decode().split("\n") == [reason] * 6
    log.close()
    with Log(tmp_path) as log:
        assert ([record.value for record in log.scan()], log.repairs) == (values, [])


def refusals(log: Log) -> Iterator[LogClosed]:
    acts: list[Callable[[], object]] = [
        lambda: log.append(b"child"), lambda: log.append_batch([b"child", b"again"]), log.sync,
        lambda: log.truncate_suffix(0), lambda: log.read(0), lambda: asyncio.run(log.append_async(b"child" * 20_000)),
    ]  # fmt: skip
    for act in acts:
        try:
            act()
        except LogClosed as error:
            yield error
    log.close()


def test_failed_opening_lets_the_lock_go(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")
    store = next(tmp_path.glob("*.store"))
    whole = store.read_bytes()
    store.write_bytes(b"?" + whole[1:])

    for _ in range(2):  # the second time would say LogLocked
        with pytest.raises(CorruptLog):
            Log(tmp_path)

    store.write_bytes(whole)
    Log(tmp_path).close()


def test_segment_of_a_newer_version_is_refused_as_such(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")
    store = next(tmp_path.glob("*.store"))
    data = bytearray(store.read_bytes())
    data[16] = 2
    data[8:12] = crc32c(0, bytes(data[12:96])).to_bytes(4, "little")
    store.write_bytes(data)

    for read_only in (False, True):
        with pytest.raises(UnsupportedFormat, match=r"\.store: format version 2, this program reads 1"):
            Log(tmp_path, read_only=read_only)


def test_log_may_not_be_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError, match="file is a file, not a directory"):
        Log(tmp_path / "file")


def test_directories_on_the_way_are_made(tmp_path: Path) -> None:
    with Log(tmp_path / "a" / "b" / "c") as log:
        assert log.append(b"value") == 0


# ── closing ─────────────────────────────────────────────────────────────────────────────────────────

USES: dict[str, Callable[[Log], Any]] = {
    "append": lambda log: log.append(b"v"),
    "append Record": lambda log: log.append(Record(b"v")),
    "append_batch": lambda log: log.append_batch([b"v"]),
    "append_async": lambda log: asyncio.run(log.append_async(b"v")),
    "append_raw": lambda log: log.append_raw([RawEntry(2, 0, Kind.NOOP, b"")]),
    "sync": Log.sync,
    "truncate": lambda log: log.truncate(0),
    "truncate_suffix": lambda log: log.truncate_suffix(0),
    "truncate_entries": lambda log: log.truncate_entries(1),
    "apply_retention": Log.apply_retention,
    "compact": Log.compact,
    "reset": Log.reset,
    "remove": Log.remove,
}
LOOKS: dict[str, Callable[[Log], Any]] = {
    "read": lambda log: log.read(0),
    "read_many": lambda log: log.read_many([0]),
    "read_many nothing": lambda log: log.read_many([]),
    "scan": Log.scan,
    "reverse scan": lambda log: log.scan(reverse=True),
    "batches": Log.batches,
    "frames": Log.frames,
    "follow": Log.follow,
    "wait": lambda log: log.wait(1),
    "wait_async": lambda log: asyncio.run(log.wait_async(1)),
    "offset_at": lambda log: log.offset_at(0),
    "reader": Log.reader,
    "segments": Log.segments,
    "raw_entries": lambda log: log.raw_entries(1, 2),
    "offset_of": lambda log: log.offset_of(1),
    "index_of": lambda log: log.index_of(0),
    "term": lambda log: log.term(1),
    "retention dry run": lambda log: log.apply_retention(dry_run=True),
}


@pytest.mark.parametrize("use", [*USES, *LOOKS])
@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_every_use_of_a_closed_log_says_that_it_is_closed(tmp_path: Path, use: str, sync: Any) -> None:
    log = Log(tmp_path, Config(sync=sync))
    log.append(b"value")
    log.close()
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(LogClosed, match=f"{tmp_path} is closed"):
        {**USES, **LOOKS}[use](log)

    assert sorted(path.name for path in tmp_path.iterdir()) == before
    log.close()  # twice is no error
    assert repr(log) == f"<Log {tmp_path} offsets 0 to before 1, closed>"


@pytest.mark.parametrize("use", USES)
def test_read_only_log_refuses_everything_that_writes(tmp_path: Path, use: str) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with Log(tmp_path, read_only=True) as log:
        with pytest.raises(LogReadOnly, match=f"{tmp_path} was opened with read_only=True"):
            USES[use](log)

        assert [record.value for record in log.scan()] == [b"value"]

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("look", LOOKS)
def test_closed_read_only_log_says_that_it_is_closed(tmp_path: Path, look: str) -> None:
    Log(tmp_path).close()
    log = Log(tmp_path, read_only=True)
    log.close()

    with pytest.raises(LogClosed):
        LOOKS[look](log)


@pytest.mark.parametrize(
    ("sync", "state"), [("always", "always"), ("interval", "interval"), ("never", "never")]
)
def test_repr_says_where_the_log_is_what_it_holds_and_how_it_is_open(
    tmp_path: Path, sync: Any, state: str
) -> None:
    with Log(tmp_path, Config(sync=sync)) as log:
        log.append(b"v")
        assert repr(log) == f"<Log {tmp_path} offsets 0 to before 1, {state}>"
        assert log.failure is None
    with Log(tmp_path, read_only=True) as log:
        assert repr(log) == f"<Log {tmp_path} offsets 0 to before 1, read-only>"
    assert repr(log) == f"<Log {tmp_path} offsets 0 to before 1, closed>"


def test_log_closes_itself_when_its_block_raises(tmp_path: Path) -> None:
    def fail() -> None:
        with Log(tmp_path) as log:
            log.append(b"value")
            raise ValueError("the caller's")

    with pytest.raises(ValueError, match="the caller's"):
        fail()

    with Log(tmp_path) as log:
        assert len(log) == 1


# ── removing and resetting ──────────────────────────────────────────────────────────────────────────


def test_remove_deletes_the_log_and_its_directory(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", SMALL)
    for _ in range(20):
        log.append(b"x" * 100)
    log.truncate(10)

    log.remove()

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LogClosed):
        log.read(0)


def test_remove_leaves_files_that_are_not_the_logs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"mine")
    log = Log(tmp_path)
    log.append(b"value")

    log.remove()

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_remove_of_a_log_that_was_closed_does_not_delete_it(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(b"value")
    log.close()
    with Log(tmp_path) as other:
        with pytest.raises(LogClosed):
            log.remove()

        assert other.append(b"and on") == 1

    with Log(tmp_path) as other:
        assert len(other) == 2


@pytest.mark.parametrize("start", [0, 1, 1000, (1 << 63) - 10])
def test_reset_log_is_empty_and_starts_at_the_offset(tmp_path: Path, start: int) -> None:
    with Log(tmp_path, SMALL) as log:
        for _ in range(20):
            log.append(b"x" * 100)
        append_other(log, Kind.CONFIGURATION, b"nodes", term=3)

        log.reset(start)

        assert (log.start, log.end, log.first_index, log.last_index) == (start, start, 1, 0)
        assert log.configuration == (0, b"")
        assert log.append_batch([b"a", b"b"]) == (start, start + 2)
        assert log.read(start + 1).value == b"b" and log.read_many([start]) == [b"a"]

    with Log(tmp_path, SMALL) as log:
        assert [(one.offset, one.value) for one in log.scan()] == [(start, b"a"), (start + 1, b"b")]


@pytest.mark.parametrize("start", [-1, 1 << 63])
def test_reset_to_an_offset_that_cannot_be_changes_nothing(tmp_path: Path, start: int) -> None:
    with Log(tmp_path) as log:
        log.append(b"value")

        with pytest.raises(ValueError, match=f"a log cannot start at offset {start}"):
            log.reset(start)

        assert log.append(b"and on") == 1

    with Log(tmp_path) as log:
        assert len(log) == 2


# ── looking on ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("exists", [False, True], ids=["no directory", "empty directory"])
def test_read_only_log_that_is_not_there_is_not_made(tmp_path: Path, *, exists: bool) -> None:
    place = tmp_path / "log"
    if exists:
        place.mkdir()

    with pytest.raises(NoLog, match="log holds no log") as error:
        Log(place, read_only=True)

    assert error.value.path == str(place) and isinstance(error.value, FileNotFoundError)
    assert list(tmp_path.rglob("*")) == [place] * exists


def test_read_only_log_beside_a_writer_sees_what_comes_when_it_looks_again(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        log.append(b"before")
        with Log(tmp_path, read_only=True) as look:
            assert [record.value for record in look.scan()] == [b"before"]

            for number in range(20):  # over several segments
                log.append(b"%d" % number * 100)
            assert look.end == 1
            assert look.wait(1, timeout_s=20) == 21

            assert list(look.scan()) == list(log.scan())
            assert look.read(20) == log.read(20) and look.read_many([3, 20]) == log.read_many([3, 20])
            assert look.segments()[-1].state == "active"
            assert [look.term(1), look.first_index, look.last_index] == [0, 1, 21]


def test_follower_of_a_read_only_log_gets_what_another_appends(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        log.append(b"before")
        with Log(tmp_path, read_only=True) as look:
            records = iter(look.follow(0))
            assert next(records).value == b"before"
            log.append(b"behind")
            assert next(records).value == b"behind"

            async def first_new() -> bytes:
                following = look.follow()
                log.append(b"awaited")
                async for record in following:
                    return record.value
                raise AssertionError

            assert asyncio.run(first_new()) == b"awaited"


def test_waiting_for_nothing_ends_with_the_timeout(tmp_path: Path) -> None:
    with Log(tmp_path) as log, Log(tmp_path, read_only=True) as look:
        assert log.wait(0, timeout_s=0) == look.wait(0, timeout_s=0) == 0
        log.append(b"value")
        assert log.wait(0, timeout_s=None) == 1


def test_write_in_flight_is_the_end_for_who_only_looks(tmp_path: Path) -> None:
    with Log(tmp_path / "log", Config(sync="never")) as log:
        log.append(b"whole")
        log.append(b"being written")
        shutil.copytree(tmp_path / "log", tmp_path / "seen")
    store = next((tmp_path / "seen").glob("*.store"))
    before = store.read_bytes()[:-10]
    store.write_bytes(before)

    with Log(tmp_path / "seen", read_only=True) as look:
        assert [record.value for record in look.scan()] == [b"whole"]
        assert look.repairs == []
    assert store.read_bytes() == before


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────


def test_damage_says_where_it_is_and_what_was_there_if_that_is_known() -> None:
    assert str(CorruptLog("a.store", 5, "why")) == "a.store: damaged at byte 5: why"
    assert str(CorruptLog("a.store", 5, "why", entry=2, offset=1)) == (
        "a.store: damaged at byte 5 (entry 2, offset 1): why"
    )


@pytest.mark.parametrize("error", [OffsetOutOfRange, IndexOutOfRange, RecordCompacted])
def test_looking_for_what_is_not_there_is_a_lookup_error(error: type[Exception]) -> None:
    assert issubclass(error, LookupError) and issubclass(error, LogError)


def test_read_only_log_that_is_awaited_looks_again_until_something_came(tmp_path: Path) -> None:
    with Log(tmp_path) as log, Log(tmp_path, read_only=True) as look:

        async def wait_and_append() -> int:
            waiting = asyncio.create_task(look.wait_async(0))
            await asyncio.sleep(0)  # it has looked in vain
            log.append(b"value")
            return await waiting

        assert asyncio.run(wait_and_append()) == 1


def test_missing_segment_between_two_others_is_said_when_the_log_is_opened(tmp_path: Path) -> None:
    with Log(tmp_path, SMALL) as log:
        for _ in range(20):
            log.append(b"x" * 100)
        second = log.segments()[1]
    (tmp_path / f"{second.base_index:020d}.store").unlink()

    with pytest.raises(
        CorruptLog, match=f"the next segment starts with entry {second.end_index}: a file is missing"
    ):
        Log(tmp_path)


def test_what_recovery_cut_off_is_kept_aside_up_to_a_limit_and_goes_with_the_log(tmp_path: Path) -> None:
    place = tmp_path / "log"
    for number in range(ASIDE_FILES_MAX + 3):
        with Log(place, Config(sync="never")) as log:
            assert [repair.bytes for repair in log.repairs] == [11] * (number > 0)
            log.append(b"%d" % number)
        store = next(place.glob("*.store"))
        with store.open("ab") as file:
            file.write(b"torn apart!")

    kept = sorted((place / "aside").iterdir())
    assert len(kept) == ASIDE_FILES_MAX and {path.read_bytes()[-11:] for path in kept} == {b"torn apart!"}
    Log(place).remove()
    assert not place.exists()
