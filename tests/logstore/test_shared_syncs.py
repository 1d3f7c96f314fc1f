"""Many appends, few syncs: group commit of a whole log, for threads and for asyncio. No test waits for time to pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from logstore import Config, Log, LogClosed, LogPoisoned, QueueFull
from logstore.testing import CrashFileSystem, Operation
from tests.logstore.test_group_commit import DEADLINE_S, in_thread, until

pytestmark = pytest.mark.usefixtures("no_background")

CALLERS = 64


class SlowDisk(CrashFileSystem):
    """Each sync of a file waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.before_operation = self._hold
        self.is_held = threading.Event()
        self.let_go = threading.Event()

    def _hold(self, operation: Operation) -> None:
        if operation.kind == "sync":
            self.is_held.set()
            assert self.let_go.wait(DEADLINE_S), "nobody let the sync go: whoever should is blocked by it"

    @property
    def syncs(self) -> int:
        return sum(operation.kind == "sync" for operation in self.operations)


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def log(disk: SlowDisk) -> Log:
    return Log("data", Config(pending_bytes_max=2000), filesystem=disk)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


# ── threads ─────────────────────────────────────────────────────────────────────────────────────────


def test_threads_that_append_during_a_sync_share_the_next(disk: SlowDisk, log: Log) -> None:
    offsets: list[int] = []
    threads = [in_thread(lambda: offsets.append(log.append(b"first")))]
    until(disk.is_held.is_set)

    threads += [in_thread(lambda: offsets.append(log.append(b"more"))) for _ in range(CALLERS)]
    until(lambda: len(log._writer._commits._queue) == CALLERS + 1)
    disk.let_go.set()

    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(offsets) == list(range(CALLERS + 1))
    assert disk.syncs == 2


def test_readers_see_nothing_of_a_group_before_its_sync(disk: SlowDisk, log: Log) -> None:
    thread = in_thread(lambda: log.append(b"value"))
    until(disk.is_held.is_set)

    assert (log.end, log.last_index, log.durable_index, list(log.scan())) == (0, 1, 0, [])

    disk.let_go.set()
    thread.join(DEADLINE_S)
    assert (log.end, log.durable_index) == (1, 1)


def test_failed_sync_is_reported_to_everybody_in_the_group(disk: SlowDisk, log: Log) -> None:
    errors: list[Exception] = []

    def append() -> None:
        with pytest.raises(LogPoisoned) as caught:
            log.append(b"value")
        errors.append(caught.value)

    disk.fail("sync")
    threads = [in_thread(append)]
    until(disk.is_held.is_set)
    threads += [in_thread(append) for _ in range(3)]
    until(lambda: len(log._writer._commits._queue) == 4)
    disk.let_go.set()

    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(errors) == 4 and log.end == 0


# ── asyncio ─────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_that_append_during_a_sync_share_the_next_and_the_loop_goes_on(
    disk: SlowDisk, log: Log
) -> None:
    async def main() -> None:
        first = asyncio.create_task(log.append_async(b"first"))
        while not disk.is_held.is_set():
            await asyncio.sleep(0)
        more = [asyncio.create_task(log.append_batch_async([b"a", b"b"])) for _ in range(10)]
        await asyncio.sleep(0)
        disk.let_go.set()  # by the loop, which therefore was not held up

        assert await first == 0
        assert await asyncio.gather(*more) == [(offset, offset + 2) for offset in range(1, 21, 2)]

    run(main)

    assert disk.syncs == 2


def test_task_that_fills_a_segment_does_not_hold_up_the_loop_though_nothing_is_synced(disk: SlowDisk) -> None:
    log = Log("data", Config(sync="never", segment_bytes_max=1000, unsealed_segments_max=1), filesystem=disk)

    async def main() -> None:
        async def append() -> list[int]:
            return [await log.append_async(bytes(200)) for _ in range(20)]

        appends = asyncio.create_task(append())
        while not disk.is_held.is_set():
            await asyncio.sleep(0)
        disk.let_go.set()  # by the loop, which therefore was not held up
        assert await appends == list(range(20))

    run(main)


def test_batches_are_stored_in_the_order_in_which_they_were_begun(disk: SlowDisk, log: Log) -> None:
    disk.let_go.set()
    begun: list[bytes] = []

    async def main() -> None:
        futures = []
        while len(begun) < 300:
            batch = [b"%d.%d" % (len(begun), number) for number in range(1 + len(begun) % 3)]
            try:
                count, future = log.begin_append(batch)
            except QueueFull:
                await log.room()
            else:
                assert count == len(batch)
                futures.append((len(begun), future))
                begun.extend(batch)
        for first, future in futures:
            assert await future == first

    run(main)

    assert [record.value for record in log.scan()] == begun
    assert disk.syncs < 150


def test_full_queue_refuses_and_room_returns_once_something_is_done(disk: SlowDisk, log: Log) -> None:
    async def main() -> None:
        await log.room()  # nothing is on its way
        futures = [log.begin_append([bytes(900)])[1]]
        futures.append(log.begin_append([bytes(900)])[1])
        with pytest.raises(QueueFull) as caught:
            log.begin_append([bytes(900)])
        assert 1800 < caught.value.pending <= 2000
        room = asyncio.create_task(log.room())
        waits = asyncio.create_task(log.append_async(bytes(900)))
        cancelled = asyncio.create_task(log.room())
        await asyncio.sleep(0)
        assert not room.done() and not waits.done()
        cancelled.cancel()
        disk.let_go.set()

        await room
        assert [await future for future in futures] == [0, 1]
        assert await waits == 2

    run(main)

    assert log.end == 3


def test_batch_over_the_limit_of_the_queue_goes_through_alone(disk: SlowDisk, log: Log) -> None:
    disk.let_go.set()

    async def main() -> None:
        assert await log.append_async(bytes(5000)) == 0

    run(main)


def test_cancelled_append_leaves_the_others_and_the_log_as_they_are(disk: SlowDisk, log: Log) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(log.append_async(b"%d" % number)) for number in range(3)]
        while not disk.is_held.is_set():
            await asyncio.sleep(0)
        tasks[1].cancel()
        disk.let_go.set()

        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert [await tasks[0], await tasks[2], await log.append_async(b"after")] == [0, 2, 3]

    run(main)

    assert [record.value for record in log.scan()] == [b"0", b"1", b"2", b"after"]


def test_failed_sync_is_reported_to_every_task(disk: SlowDisk, log: Log) -> None:
    disk.fail("sync")
    disk.let_go.set()

    async def main() -> None:
        outcomes = await asyncio.gather(*(log.append_async(b"x") for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LogPoisoned] * 5

    run(main)


def test_closing_writes_what_was_begun_and_refuses_the_rest(disk: SlowDisk, log: Log) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(log.append_async(b"%d" % number)) for number in range(10)]
        while not disk.is_held.is_set():
            await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(log.close))
        disk.let_go.set()
        await closing

        assert await asyncio.gather(*tasks) == list(range(10))
        with pytest.raises(LogClosed):
            await log.append_async(b"late")

    run(main)

    with Log("data", filesystem=disk) as reopened:
        assert reopened.end == 10


def test_task_that_waits_for_room_learns_that_the_log_was_closed(disk: SlowDisk, log: Log) -> None:
    async def main() -> None:
        log.begin_append([bytes(1900)])
        waits = asyncio.create_task(log.append_async(bytes(1900)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(log.close))

        with pytest.raises(LogClosed):
            await waits  # though the sync is still held
        disk.let_go.set()
        await closing

    run(main)


def test_loop_that_was_closed_before_its_append_was_done_harms_nobody(disk: SlowDisk, log: Log) -> None:
    async def begin() -> None:
        log.begin_append([b"left alone"])

    async def append() -> None:
        assert await log.append_async(b"next") == 1

    run(begin)
    disk.let_go.set()
    run(append)

    assert log.end == 2
