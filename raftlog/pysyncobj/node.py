"""One PySyncObj node that runs: what callers may wait for, and what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from logstore import LogClosed
from raftlog.engine import NodeId
from raftlog.errors import NodeFailed, NotLeader, OutcomeUnknown
from raftlog.net.handshake import Identity
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj.driver import Driver
from raftlog.pysyncobj.journal import Journal, Members
from raftlog.pysyncobj.replica import Outcome, Replica
from raftlog.pysyncobj.requests import Requests


class Node:
    """Started when made. All calls are made in the event loop's thread."""

    end: int  # the high watermark: the offset behind the last record that is applied; moved after each turn

    def __init__(
        self, journal: Journal, replica: Replica, stream_layer: StreamLayer, identity: Identity
    ) -> None:
        self.journal = journal
        self.replica = replica
        self.requests = Requests(journal.log.offset_of, self.not_leader)
        self.end = journal.log.offset_of(journal.applied + 1)
        # What callers may wait for, as of the last turn; first: the term it leads.
        self._seen: tuple[Any, ...] = (False,)
        self._changed = asyncio.Event()  # a new one after each change
        self._is_closed = False
        self._driver = Driver(replica, identity, stream_layer, on_turn=self._look)

    async def close(self) -> None:
        """Take part no more, and close the journal. Twice is no error."""
        if self._is_closed:
            return
        self._is_closed = True
        self.requests.fail_all(
            OutcomeUnknown("the server stopped before a quorum had it; it may be stored later, or never")
        )
        self._wake()
        await self._driver.close()

    @property
    def id(self) -> NodeId:
        return self.journal.node

    @property
    def members(self) -> Members:
        return self.journal.members

    @property
    def failure(self) -> NodeFailed | None:
        """Why it takes part no more; what was applied can still be read."""
        return self._driver.failure

    def _require_open(self) -> None:
        if self._is_closed:
            raise LogClosed("the log is closed")
        if self.failure is not None:
            raise self.failure

    # ── after each turn ─────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        replica, failure = self.replica, self.failure
        applied: int = replica.raftLastApplied
        term = replica.raftCurrentTerm if replica._isLeader() else False
        if failure is not None:
            self.requests.fail_all(failure)
        else:
            self.end = self.journal.log.offset_of(applied + 1)
        if self._seen[0] not in (False, term):
            self.requests.fail_all(
                OutcomeUnknown(
                    "leadership was lost before a quorum had it; whether it was stored is not known"
                )
            )
        seen = (term, replica.is_ready, replica.leader, applied, len(self.requests), failure)
        if seen != self._seen:
            self._seen = seen
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds; it is looked at after each turn that changed something. NodeFailed, LogClosed."""
        while not condition():
            self._require_open()
            await self._changed.wait()

    async def wait_for_change(self, timeout_s: float | None) -> None:
        """Return after the next turn that changed something, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    # ── who leads ───────────────────────────────────────────────────────────────────────────────────

    @property
    def leader(self) -> NodeId | None:
        return None if self._is_closed or self.failure is not None else self.replica.leader

    @property
    def is_leader(self) -> bool:
        """It leads, and has applied all that was appended before: it can take appends."""
        return self.leader == self.id and self.replica.is_ready

    def require_leader(self) -> None:
        self._require_open()
        if not self.is_leader:
            raise self.not_leader()

    def not_leader(self) -> NotLeader:
        """Says who leads, as far as this node knows."""
        leader = self.leader
        if leader is None or leader == self.id or leader not in self.members:
            return NotLeader()
        return NotLeader(leader, self.members[leader].address)

    async def wait_for_leader(self) -> NodeId:
        """Who leads, once that is known and, if it is this node, it can take appends."""
        await self.until(lambda: self.leader not in (None, self.id) or self.is_leader)
        leader = self.leader
        assert leader is not None
        return leader

    # ── what it is asked ────────────────────────────────────────────────────────────────────────────

    def begin(
        self, ask: Callable[[Outcome], None], *, size: int = 0, records: int = 0
    ) -> asyncio.Future[int]:
        """As Requests.begin, and have a turn soon."""
        future = self.requests.begin(ask, size=size, records=records)
        self._driver.soon()
        return future

    def soon(self) -> None:
        self._driver.soon()
