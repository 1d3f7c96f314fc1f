"""What runs beside the appends: sealing, retention, compaction, the timed sync. Each is held in the middle of its work."""

from __future__ import annotations

import errno
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from logstore import Config, Log, LogPoisoned, Record, RecordCompacted
from logstore.testing import CrashFileSystem, Operation
from tests.logstore.test_group_commit import DEADLINE_S, in_thread, until

SEGMENT = 500  # takes one record of 300 bytes


class HoldingDisk(CrashFileSystem):
    """Holds one operation, once it is named, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.before_operation = self._hold
        self.wanted: Callable[[Operation], bool] = lambda _: False
        self.is_held = threading.Event()
        self.let_go = threading.Event()

    def _hold(self, operation: Operation) -> None:
        if not self.let_go.is_set() and self.wanted(operation):
            self.is_held.set()
            assert self.let_go.wait(DEADLINE_S), "nobody let it go: whoever should is blocked by it"


@pytest.fixture
def disk() -> HoldingDisk:
    return HoldingDisk()


def open_log(disk: CrashFileSystem, **config: Any) -> Log:
    return Log(
        "data",
        Config(**({"segment_bytes_max": SEGMENT, "tombstone_age_ms_min": 0} | config)),
        filesystem=disk,
    )


def fill(log: Log, segments: int) -> None:
    """Keyed records, one to a segment."""
    for _ in range(segments):
        log.append_batch([Record(b"x" * 300, key=b"key")])


def states(log: Log) -> list[str]:
    return [segment.state for segment in log.segments()]


def is_sealed(log: Log) -> bool:
    return set(states(log)[:-1]) == {"sealed"}


@pytest.mark.parametrize("sync", ["always", "never"])
@pytest.mark.parametrize("held", ["create", "write", "sync", "rename", "sync_directory"])
def test_appends_and_reads_go_on_while_compaction_is_held(disk: HoldingDisk, held: str, sync: str) -> None:
    log = open_log(disk, sync=sync)
    fill(log, 3)
    until(lambda: is_sealed(log))
    has_begun: list[Operation] = []

    def is_wanted(operation: Operation) -> bool:
        has_begun.extend([operation] if operation.path.endswith(".store.tmp") else [])
        return bool(has_begun) and operation.kind == held and threading.current_thread() is compacting

    disk.wanted = is_wanted
    compacting = threading.Thread(target=log.compact, daemon=True)
    compacting.start()
    until(disk.is_held.is_set)
    fill(log, 5)  # rolls as well

    assert log.end == 8 and [record.offset for record in log.scan()] == list(range(8))
    assert log.read(0).value == b"x" * 300

    disk.let_go.set()
    compacting.join(DEADLINE_S)
    with pytest.raises(RecordCompacted):
        log.read(0)
    log.close()


@pytest.mark.parametrize("held", ["sync", "remove", "rename", "sync_directory"])
def test_appends_go_on_while_a_truncation_is_held(disk: HoldingDisk, held: str) -> None:
    log = open_log(disk, sync="never", spare_segments_max=1)
    fill(log, 3)
    until(lambda: is_sealed(log))
    removing = threading.Thread(target=lambda: log.truncate(2), daemon=True)
    disk.wanted = lambda operation: operation.kind == held and threading.current_thread() is removing
    removing.start()
    until(disk.is_held.is_set)

    fill(log, 4)

    assert log.end == 7
    disk.let_go.set()
    removing.join(DEADLINE_S)
    assert (log.start, len(list(log.scan()))) == (2, 5)
    log.close()


@pytest.mark.parametrize("held", ["remove", "rename"])
def test_appends_go_on_while_retention_is_held(disk: HoldingDisk, held: str) -> None:
    log = open_log(disk, retention_records_max=2, spare_segments_max=1)
    disk.wanted = lambda operation: operation.path.endswith(".store") and operation.kind == held
    fill(log, 4)
    until(disk.is_held.is_set)

    fill(log, 4)

    assert log.end == 8
    disk.let_go.set()
    until(lambda: log.start == 6)
    log.close()


def test_full_segments_are_sealed_and_retained_by_themselves(disk: HoldingDisk) -> None:
    log = open_log(disk, retention_records_max=3)

    fill(log, 8)

    until(lambda: is_sealed(log) and log.start == 5)
    assert states(log) == ["sealed", "sealed", "active"]
    log.close()


def test_appends_wait_once_so_many_full_segments_are_not_synced(disk: HoldingDisk) -> None:
    log = open_log(disk, sync="never", unsealed_segments_max=2)
    disk.wanted = lambda operation: operation.kind == "sync"
    ahead: list[int] = []

    def count_ahead() -> None:
        made = {one.file for one in disk.operations if one.kind == "create" and one.path.endswith(".store")}
        synced = {one.file for one in disk.operations if one.kind == "sync"}
        ahead.append(len(made - synced) - 1)  # the newest is not full

    def append() -> None:
        for _ in range(12):
            fill(log, 1)
            count_ahead()

    appending = in_thread(append)
    until(disk.is_held.is_set)
    until(lambda: len(ahead) == 3)  # the fourth would need another segment
    assert appending.is_alive() and log.end == 3
    disk.let_go.set()
    appending.join(DEADLINE_S)

    assert log.end == 12 and max(ahead) == 2
    log.close()


def test_index_that_cannot_be_saved_is_saved_with_the_next(
    disk: HoldingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(disk)
    failures = itertools.count()

    def fail_once(operation: Operation) -> None:
        if operation.path.endswith(".index.tmp") and operation.kind == "write" and next(failures) == 0:
            raise OSError(errno.EIO, "as the test wants it")

    disk.before_operation = fail_once
    with caplog.at_level(logging.WARNING, "logstore"):
        fill(log, 2)
        until(lambda: "housekeeping failed" in caplog.text)
    assert "full" in states(log)

    fill(log, 1)

    until(lambda: is_sealed(log))
    log.close()


def test_timed_sync_makes_durable_what_was_appended(disk: HoldingDisk) -> None:
    log = open_log(disk, sync="interval", sync_interval_ms=1)

    for end in (1, 2, 3):
        log.append(b"value")
        until(lambda end=end: log.durable_index == end)  # type: ignore[misc]

    log.close()


def test_failed_timed_sync_ends_the_work_and_is_reported_by_every_append(
    disk: HoldingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log("failing", Config(sync="interval", sync_interval_ms=1), filesystem=disk)
    disk.fail("sync")
    log.append(b"value")
    until(lambda: not is_working(log))

    messages = set()
    for _ in range(3):
        with pytest.raises(LogPoisoned) as caught:
            log.append(b"next")
        messages.add(str(caught.value))

    assert messages == {str(log.failure)} and log.read(0).value == b"value"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def is_working(log: Log) -> bool:
    return f"{log.path} housekeeping" in [thread.name for thread in threading.enumerate()]


def test_closing_waits_for_the_work_in_hand_and_ends_it(disk: HoldingDisk) -> None:
    log = Log("closing", Config(segment_bytes_max=SEGMENT), filesystem=disk)
    disk.wanted = lambda operation: operation.path.endswith(".index.tmp")
    fill(log, 2)
    until(disk.is_held.is_set)
    closing = in_thread(log.close)
    disk.let_go.set()

    closing.join(DEADLINE_S)

    assert not closing.is_alive() and not is_working(log)
