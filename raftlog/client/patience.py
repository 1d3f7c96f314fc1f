"""How long and how often something is tried again."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

PAUSE_S_MIN: Final = 0.05  # doubled after each failure, up to PAUSE_S_MAX
PAUSE_S_MAX: Final = 0.5  # a new leader is there within a second or two
JITTER: Final = 0.5  # share of a pause that is left to chance, so that clients do not come all at once


class Pause:
    """Pauses that grow until something succeeds."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Something succeeded."""
        self._pause_s = PAUSE_S_MIN

    def short_s(self) -> float:
        """How long to wait before going where one was sent; enough that two who send there and back do no harm."""
        return PAUSE_S_MIN * (1 - JITTER * random.random())

    def next_s(self, retry_after_ms: int | None = None) -> float:
        """How long to wait now; at least as long as the server asked for."""
        pause_s = max(self._pause_s * (1 - JITTER * random.random()), (retry_after_ms or 0) / 1000)
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        return pause_s


class Patience:
    """How long a call is tried again: with growing pauses, for `timeout_s`.

    Of a stream the time begins with the first failure after a success, because a tail may have been idle for long.
    """

    def __init__(self, timeout_s: float, *, is_stream: bool = False) -> None:
        self._timeout_s = timeout_s
        self._pause = Pause()
        self._deadline: float | None = None if is_stream else time.monotonic() + timeout_s

    def renew(self) -> None:
        """A stream had an answer."""
        self._pause.renew()
        self._deadline = None

    @property
    def left_s(self) -> float:
        return self._timeout_s if self._deadline is None else self._deadline - time.monotonic()

    async def wait(self, retry_after_ms: int | None = None) -> bool:
        """Pause; False, at once, if the time is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout_s
        pause_s = self._pause.next_s(retry_after_ms)
        if pause_s > self.left_s:
            return False
        await asyncio.sleep(pause_s)
        return True
