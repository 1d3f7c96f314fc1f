"""How far a group has consumed, kept in the log while its records are gone through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

COMMIT_INTERVAL_S: Final = 1.0  # after a crash at most so much is consumed again

Commit = Callable[[int], Awaitable[None]]


class GroupPlace:
    """Commits the place of a group, every `interval_s` if it has moved, and at the end."""

    def __init__(self, offset: int, commit: Commit, *, interval_s: float = COMMIT_INTERVAL_S) -> None:
        self.next = offset  # of the record to consume next; whoever consumes moves it, from any thread
        self._committed = offset
        self._commit = commit
        self._task = asyncio.get_running_loop().create_task(self._commit_regularly(interval_s))

    def require_kept(self) -> None:
        """Raise what has gone wrong with a commit."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def finish(self) -> None:
        """Commit what was consumed; no more is."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._commit_if_moved()

    async def _commit_regularly(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await self._commit_if_moved()

    async def _commit_if_moved(self) -> None:
        offset = self.next
        if offset != self._committed:
            await self._commit(offset)
            self._committed = offset
