"""Feeds committed entries to the views, and knows which records can be read here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raftlog.errors import OutcomeUnknown
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
        # By entry: to be told its first offset, or why it is not known.
        self._offsets_wanted: dict[int, Callable[[int | Exception], None]] = {}
        self._waiters: dict[asyncio.Future[None], int] = {}  # of an applied index
        self._followers: set[asyncio.Future[None]] = set()  # of a moved `end`
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
        hidden = [index for index in self._offsets_wanted if index <= applied]
        for index in hidden:
            self._offsets_wanted.pop(index)(
                OutcomeUnknown(
                    f"entry {index} is hidden in a snapshot; whether it was stored is not known here"
                )
            )
        self._tell_waiters()
        self.wake()

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────────

    def tell_offset(self, index: int, tell: Callable[[int | Exception], None]) -> None:
        """Call `tell` with the first offset of an entry that is not applied yet, in the moment in which it is, or with
        OutcomeUnknown if a snapshot takes its place.
        """
        assert index > self.applied, (index, self.applied)
        self._offsets_wanted[index] = tell

    async def wait_for(self, index: int) -> None:
        """Return once entry `index` is applied here."""
        if self.applied < index:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[future] = index
            try:
                await future
            finally:
                self._waiters.pop(future, None)  # who gives up leaves nothing behind

    async def wait_for_end(self, seen_end: int) -> None:
        """Return once `end` differs."""
        if self.end == seen_end:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._followers.add(future)
            try:
                await future
            finally:
                self._followers.discard(future)

    def wake(self) -> None:
        """Have those that wait for a moved end look again."""
        followers, self._followers = self._followers, set()
        for future in followers:
            if not future.done():
                future.set_result(None)

    def _tell_waiters(self) -> None:
        reached = [future for future, index in self._waiters.items() if index <= self.applied]
        for future in reached:
            del self._waiters[future]
            if not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nothing is applied any more: all that wait get the error."""
        for future in [*self._followers, *self._waiters]:
            if not future.done():
                future.set_exception(error)
        self._offsets_wanted.clear()
        self._waiters.clear()
        self._followers.clear()
