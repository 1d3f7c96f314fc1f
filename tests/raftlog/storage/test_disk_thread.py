from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from logstore import DiskFull
from raftlog.engine import Token
from raftlog.raft.storage import HardState, Write
from raftlog.storage.disk_thread import DiskThread

DEADLINE_S = 20.0


class FakeDisk:
    """Notes what it is given; a test decides when a write ends, and how."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []  # terms of the writes
        self.failures: list[Exception] = []  # of the next calls
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self.may_go_on.set()

    def write(self, writes: Sequence[Write]) -> None:
        self.groups.append([write.hard_state.term for write in writes if write.hard_state])
        self.has_begun.set()
        assert self.may_go_on.wait(DEADLINE_S)
        if self.failures:
            raise self.failures.pop(0)


class Told:
    """What the thread told its owner, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.threads: set[int] = set()
        self._moved = asyncio.Event()

    def note(self, name: str) -> Callable[[object], None]:
        def call(what: object) -> None:
            self.calls.append((name, what))
            self.threads.add(threading.get_ident())
            self._moved.set()

        return call

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._moved.clear()
                await self._moved.wait()


def start(disk: FakeDisk) -> tuple[DiskThread, Told]:
    told = Told()
    thread = DiskThread(
        disk, asyncio.get_running_loop(), told.note("durable"), told.note("failed"), on_full=told.note("full")
    )
    return thread, told


def submit(thread: DiskThread, *terms: int) -> None:
    for term in terms:
        thread.submit(Token(term), Write(HardState(term)))


def test_writes_become_durable_in_their_order_and_the_loop_is_told() -> None:
    async def run() -> None:
        disk = FakeDisk()
        thread, told = start(disk)
        for token in (1, 2, 3):
            submit(thread, token)
            await told.until(lambda token=token: told.calls[-1:] == [("durable", token)])  # type: ignore[misc]
        thread.close()

        assert disk.groups == [[1], [2], [3]]
        assert told.calls == [("durable", 1), ("durable", 2), ("durable", 3)]
        assert told.threads == {threading.get_ident()}

    asyncio.run(run())


def test_what_arrives_during_a_write_is_written_together() -> None:
    async def run() -> None:
        disk = FakeDisk()
        disk.may_go_on.clear()
        thread, told = start(disk)
        submit(thread, 1)
        assert disk.has_begun.wait(DEADLINE_S)
        submit(thread, 2, 3, 4)
        disk.may_go_on.set()
        await told.until(lambda: len(told.calls) == 2)
        thread.close()

        assert disk.groups == [[1], [2, 3, 4]]
        assert told.calls == [("durable", 1), ("durable", 4)]

    asyncio.run(run())


def test_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room() -> None:
    async def run() -> None:
        disk = FakeDisk()
        disk.failures = [DiskFull("no room")] * 3
        thread, told = start(disk)
        submit(thread, 1)
        await told.until(lambda: ("durable", 1) in told.calls)
        thread.close()

        assert disk.groups == [[1]] * 4
        assert told.calls == [("full", True), ("full", False), ("durable", 1)]

    asyncio.run(run())


def test_after_a_failure_nothing_is_written_and_the_owner_is_told_once() -> None:
    async def run() -> None:
        disk = FakeDisk()
        failure = OSError("the cable")
        disk.failures = [failure]
        thread, told = start(disk)
        submit(thread, 1)
        await told.until(lambda: bool(told.calls))
        submit(thread, 2)
        thread.close()
        await asyncio.sleep(0)

        assert disk.groups == [[1]]
        assert told.calls == [("failed", failure)]

    asyncio.run(run())


def test_close_waits_for_what_was_submitted() -> None:
    async def run() -> None:
        disk = FakeDisk()
        disk.may_go_on.clear()
        thread, told = start(disk)
        submit(thread, 1)
        assert disk.has_begun.wait(DEADLINE_S)
        submit(thread, 2, 3)
        closing = asyncio.create_task(asyncio.to_thread(thread.close))
        disk.may_go_on.set()
        await closing
        await told.until(lambda: len(told.calls) == 2)
        thread.close()

        assert disk.groups == [[1], [2, 3]]

    asyncio.run(run())


def test_close_gives_up_what_a_full_disk_does_not_take() -> None:
    async def run() -> None:
        disk = FakeDisk()
        disk.failures = [DiskFull("no room")] * 1_000
        thread, told = start(disk)
        submit(thread, 1)
        await told.until(lambda: ("full", True) in told.calls)
        await asyncio.wait_for(asyncio.to_thread(thread.close), DEADLINE_S)

        assert told.calls == [("full", True)]

    asyncio.run(run())


def test_thread_ends_when_the_loop_has_gone() -> None:
    disk = FakeDisk()

    async def run() -> DiskThread:
        return start(disk)[0]

    thread = asyncio.run(run())
    submit(thread, 1)
    thread.close()

    assert disk.groups == [[1]]


def test_write_after_close_is_a_bug() -> None:
    async def run() -> None:
        thread, _ = start(FakeDisk())
        thread.close()

        with pytest.raises(AssertionError):
            submit(thread, 1)

    asyncio.run(run())
