"""Feeds committed entries to the views, and knows which records can be read here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raftlog.machines.views import Views, span_of
from raftlog.raft.messages import Entry


class Applier:
    """Of one node. `end` is the high watermark: all records below it are committed and durable here."""

    views: Views
    applied: int  # the last entry that the core handed out; the views may be ahead of it after a snapshot
    end: int  # offset behind the records of the entries up to `applied`; goes back never, but by `start_at`

    def __init__(self, views: Views, *, applied: int, end: int) -> None:
        self.views = views
        self.applied = applied
        self.end = end
        self._offsets_wanted: dict[int, Callable[[int], None]] = {}  # by entry: to be told its first offset
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []  # of an applied index
        self._followers: list[asyncio.Future[None]] = []  # of a moved `end`
        self.on_applied: Callable[[Sequence[Entry]], None] | None = None

    def apply(self, entries: Sequence[Entry]) -> None:
        """Take in entries that follow those before."""
        before = end = self.end
        for entry in entries:
            wanted = self._offsets_wanted.pop(entry.index, None)
            first, end = end, end + span_of(entry)
            self.views.apply(entry)
            self.end = end
            if wanted is not None:
                wanted(first)
        self.applied = entries[-1].index
        if self._followers and end != before:
            self.wake()
        if self._waiters:
            self._tell_waiters()
        if self.on_applied is not None:
            self.on_applied(entries)

    def start_at(self, views: Views, *, applied: int, end: int) -> None:
        """A snapshot took the place of the log and the views."""
        if views.index > self.views.index:
            self.views = views
        self.applied, self.end = applied, end
        self._tell_waiters()
        self.wake()

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────────

    def tell_offset(self, index: int, tell: Callable[[int], None]) -> None:
        """Call `tell` with the first offset of an entry that is not applied yet, in the moment in which it is."""
        assert index > self.applied, (index, self.applied)
        self._offsets_wanted[index] = tell

    async def wait_for(self, index: int) -> None:
        """Return once entry `index` is applied here."""
        if self.applied < index:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((index, future))
            await future

    async def wait_for_end(self, seen_end: int) -> None:
        """Return once `end` differs."""
        if self.end == seen_end:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._followers.append(future)
            await future

    def wake(self) -> None:
        """Have those that wait for a moved end look again."""
        followers, self._followers = self._followers, []
        for future in followers:
            if not future.done():
                future.set_result(None)

    def _tell_waiters(self) -> None:
        left = []
        for index, future in self._waiters:
            if index > self.applied:
                left.append((index, future))
            elif not future.done():
                future.set_result(None)
        self._waiters = left

    def fail(self, error: Exception) -> None:
        """Nothing is applied any more: all that wait get the error."""
        for future in [*self._followers, *(future for _, future in self._waiters)]:
            if not future.done():
                future.set_exception(error)
        self._offsets_wanted.clear()
        self._waiters.clear()
        self._followers.clear()
