"""Waiting at the tail, in threads and in asyncio: who is woken, by what, and what is left of who gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from logstore import Config, Log, LogClosed, OffsetOutOfRange
from logstore.testing import CrashFileSystem
from tests.logstore.test_group_commit import DEADLINE_S, in_thread, until

pytestmark = pytest.mark.usefixtures("no_background")


@pytest.fixture(params=["always", "never"])
def log(request: pytest.FixtureRequest) -> Log:
    log = Log("data", Config(sync=request.param, segment_bytes_max=500), filesystem=CrashFileSystem())
    log.append_batch([b"a", b"b", b"c"])
    return log


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def waiting(log: Log) -> int:
    return len(log._writer._wakers)


async def follow(log: Log) -> None:
    async for _ in log.follow():
        pass


async def until_waiting(log: Log, count: int) -> None:
    while waiting(log) < count:
        await asyncio.sleep(0)


class ThreadThatFollows:
    def __init__(self, log: Log, start: int | None = None) -> None:
        self.offsets: list[int] = []
        self.error: Exception | None = None
        self._follower = log.follow(start)
        self.thread = in_thread(self._run)

    def _run(self) -> None:
        try:
            for record in self._follower:
                self.offsets.append(record.offset)
        except (LogClosed, OffsetOutOfRange) as error:
            self.error = error


def changes(log: Log) -> dict[str, Callable[[], object]]:
    return {
        "truncate_suffix": lambda: log.truncate_suffix(2),
        "truncate_entries": lambda: log.truncate_entries(1),
        "reset": log.reset,
    }


# ── threads ─────────────────────────────────────────────────────────────────────────────────────────


def test_threads_that_follow_are_all_woken_by_each_append(log: Log) -> None:
    everything, new = ThreadThatFollows(log, 0), ThreadThatFollows(log)

    for end in (4, 5, 6):
        until(lambda: waiting(log) == 2)
        log.append(b"x" * 150)
        until(lambda end=end: everything.offsets == list(range(end)) and new.offsets == list(range(3, end)))  # type: ignore[misc]

    log.close()


def test_closing_ends_every_wait_with_log_closed(log: Log) -> None:
    followers = [ThreadThatFollows(log) for _ in range(3)]
    errors: list[type[Exception]] = []

    def wait() -> None:
        with pytest.raises(LogClosed) as caught:
            log.wait(3)
        errors.append(caught.type)

    thread = in_thread(wait)
    until(lambda: waiting(log) == 4)

    log.close()

    for one in (thread, *(follower.thread for follower in followers)):
        one.join(DEADLINE_S)
    assert errors == [LogClosed]
    assert [type(follower.error) for follower in followers] == [LogClosed] * 3


@pytest.mark.parametrize("change", ["truncate_suffix", "truncate_entries", "reset"])
def test_waiting_thread_learns_that_its_next_record_was_taken_away(log: Log, change: str) -> None:
    follower = ThreadThatFollows(log)
    until(lambda: waiting(log) == 1)

    changes(log)[change]()

    follower.thread.join(DEADLINE_S)
    assert isinstance(follower.error, OffsetOutOfRange) and follower.error.offset == 3


@pytest.mark.parametrize("change", ["truncate_suffix", "truncate_entries", "reset"])
def test_cut_that_was_filled_up_again_before_the_wait_is_noticed(
    log: Log, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Log.wait

    def cut_and_fill(log: Log, *arguments: Any, **options: Any) -> int:
        changes(log)[change]()
        log.append_batch([b"another"] * (3 - log.end))
        assert log.end == 3
        return wait(log, *arguments, **options)

    monkeypatch.setattr(Log, "wait", cut_and_fill)
    follower = ThreadThatFollows(log)

    follower.thread.join(DEADLINE_S)

    assert isinstance(follower.error, OffsetOutOfRange)


def test_wait_returns_at_once_if_the_end_has_moved_and_unchanged_after_its_timeout(log: Log) -> None:
    assert (log.wait(2), log.wait(3, timeout_s=0)) == (3, 3)
    assert waiting(log) == 0


# ── asyncio ─────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_that_follow_are_woken_by_an_append_of_another_thread(log: Log) -> None:
    async def take(start: int, count: int) -> list[int]:
        offsets: list[int] = []
        async for record in log.follow(start):
            offsets.append(record.offset)
            if len(offsets) == count:
                return offsets
        raise AssertionError("following ends")

    async def main() -> None:
        tasks = [asyncio.create_task(take(start, 5 - start)) for start in (0, 3, 3)]
        await until_waiting(log, 3)
        await asyncio.to_thread(log.append_batch, [b"d", b"e"])
        assert await asyncio.gather(*tasks) == [[0, 1, 2, 3, 4], [3, 4], [3, 4]]

    run(main)


def test_cancelled_task_leaves_nothing_behind(log: Log) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(follow(log)), asyncio.create_task(log.wait_async(3))]
        await until_waiting(log, 2)
        for task in tasks:
            task.cancel()
        assert await asyncio.gather(*tasks, return_exceptions=True) != [None, None]
        assert [task.cancelled() for task in tasks] == [True, True]
        assert waiting(log) == 0
        assert await log.append_async(b"d") == 3

    run(main)


@pytest.mark.parametrize("change", ["truncate_suffix", "reset", "close"])
def test_waiting_task_learns_what_has_become_of_its_log(log: Log, change: str) -> None:
    async def main() -> None:
        task = asyncio.create_task(follow(log))
        await until_waiting(log, 1)
        await asyncio.to_thread(log.close if change == "close" else changes(log)[change])
        with pytest.raises(LogClosed if change == "close" else OffsetOutOfRange):
            await task

    run(main)
