"""A bound on the bytes of responses that were read from the log and that clients have not taken yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from raftlog.errors import Overloaded

PATIENCE_S: Final = 10.0  # how long a stream waits for slower ones before it is refused


class ResponseBudget:
    """What all streams together hold. Belongs to one event loop."""

    def __init__(self, bytes_max: int, *, patience_s: float = PATIENCE_S) -> None:
        self._bytes_max = bytes_max
        self._patience_s = patience_s
        self._held = 0  # bytes; may be over the bound by what is read at the same time
        self._waiters: list[asyncio.Future[None]] = []

    async def room(self) -> None:
        """Return once less than the bound is held; Overloaded if that takes too long."""
        try:
            async with asyncio.timeout(self._patience_s):
                while self._held >= self._bytes_max:
                    released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.append(released)
                    await released
        except TimeoutError:
            raise Overloaded(f"{self._held} bytes wait for clients that read slowly; try again") from None

    @asynccontextmanager
    async def holding(self, size: int) -> AsyncIterator[None]:
        """Count so many bytes while the context lasts."""
        self._held += size
        try:
            yield
        finally:
            self._held -= size
            waiters, self._waiters = self._waiters, []
            for released in waiters:
                if not released.done():
                    released.set_result(None)
