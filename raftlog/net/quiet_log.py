"""Lines of the log that strangers can cause, so that they cannot fill a disk with them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

INTERVAL_S: Final = 10.0  # between two lines of one kind
KINDS_MAX: Final = 256  # remembered; beyond it all of them begin anew


class QuietLog:
    """Passes on one line of a kind per interval, with the number of those left out since the last."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        # Kind: when it was written last, how many were left out since.
        self._last: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, text: str, *values: Any) -> None:
        self._say(logging.WARNING, kind, text, *values)

    def info(self, kind: str, text: str, *values: Any) -> None:
        self._say(logging.INFO, kind, text, *values)

    def _say(self, level: int, kind: str, text: str, *values: Any) -> None:
        now = self._clock()
        written, left_out = self._last.get(kind, (now - INTERVAL_S, 0))
        if now - written < INTERVAL_S:
            self._last[kind] = (written, left_out + 1)
            return
        if len(self._last) >= KINDS_MAX:
            self._last.clear()
        self._last[kind] = (now, 0)
        if left_out:
            self._log.log(level, f"{text} left_out=%d", *values, left_out)
        else:
            self._log.log(level, text, *values)
