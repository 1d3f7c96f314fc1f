"""What every source does with what it found: tells a handler of differences, and wakes who waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from raftlog.discovery.source import Candidate, Handler

log = logging.getLogger(__name__)


class Announcer:
    """Of one source."""

    def __init__(self, handler: Handler | None, *, own_name: str = "") -> None:
        """`own_name`: of this server, whose handler is not told of itself; "" where the source knows no names."""
        self._handler = handler
        self._own_name = own_name
        self._told: dict[str, str] = {}  # name -> address; a join was told, and no leave since
        self._changed = asyncio.Event()

    def announce(self, candidates: Sequence[Candidate]) -> None:
        """What is there now, whole: joins of servers that are alive and were not told, or have another address now;
        leaves of those that were told and left, failed, or are not there any more.
        """
        self._changed.set()
        there = {
            candidate.name or candidate.address: candidate.address
            for candidate in candidates
            if candidate.address
            and (candidate.is_there or candidate.status == "leaving")
            and not self._is_own(candidate)
        }
        for name in [name for name in self._told if name not in there]:
            del self._told[name]
            if self._handler is not None:
                try:
                    self._handler.leave(name)
                except Exception:
                    log.exception("a handler of members did not take a leave name=%s", name)
        for name, address in there.items():
            if self._told.get(name) == address:
                continue
            self._told[name] = address
            if self._handler is not None:
                try:
                    self._handler.join(name, address)
                except Exception:
                    log.exception(
                        "a handler of members did not take a join name=%s address=%s", name, address
                    )

    def _is_own(self, candidate: Candidate) -> bool:
        return bool(candidate.name) and candidate.name == self._own_name

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return once something was announced since the last return of this, or after the timeout.

        For one that waits at a time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
