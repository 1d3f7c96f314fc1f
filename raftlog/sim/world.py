"""Virtual time and all that depends on it: what happens next, chance, and the record of what happened.

Time is in whole microseconds: sums are exact, the order of events never hangs on rounding, and a time that is printed is
the time. Events of the same microsecond happen in the order in which they were planned.

Chance comes from named streams, each its own generator made from the seed and the name: drawing more in one (a longer
schedule of faults, say) moves nothing in another. Only `random()` and what is built on `getrandbits` is used, so no
result hangs on a machine's logarithm.

The digest is over the text of every event. Such a text must not hang on the order of a set or on an address.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import Any, Final, NewType

Microseconds = NewType("Microseconds", int)  # since the world began, or a span

MILLISECOND: Final = 1_000
SECOND: Final = 1_000_000

LINES_PER_DIGEST_UPDATE: Final = 256  # many at once: an update per line would cost as much as its text

# Told of everything that is recorded or remarked: time in microseconds, who, what.
Watch = Callable[[int, str, Any], None]


class World:
    """A queue of what will happen, and the hand of its clock."""

    __slots__ = (
        "_events_planned", "_hash", "_is_stopped", "_lines", "_queue", "_seed", "_watch", "events", "now_us",
    )  # fmt: skip

    def __init__(self, seed: int | str, *, watch: Watch | None = None) -> None:
        self.now_us = 0  # never goes back
        self.events = 0  # recorded so far
        self._seed = seed
        self._watch = watch
        # (time, number, act, arguments); the number ascends, so neither acts nor arguments are ever compared
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._events_planned = 0
        self._is_stopped = False
        self._hash = hashlib.blake2b(digest_size=16)
        self._lines: list[str] = []  # recorded, not yet in the hash

    def random(self, name: str) -> Random:
        """A generator of its own for this name; the same for the same seed and name."""
        return Random(f"{self._seed}/{name}")  # from a text it is made by SHA-512, never by hash()

    def after(self, delay_us: int, act: Callable[..., None], *arguments: Any) -> None:
        """Plan `act(*arguments)`; a delay of 0 means after all that is planned for this microsecond already."""
        self._events_planned += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._events_planned, act, arguments))

    def record(self, who: str, what: Any) -> None:
        """Something happened: it is counted and goes into the digest by its text."""
        self.events += 1
        lines = self._lines
        lines.append(f"{self.now_us} {who} {what!r}\n")
        if len(lines) >= LINES_PER_DIGEST_UPDATE:
            self._hash.update("".join(lines).encode())
            lines.clear()
        if self._watch is not None:
            self._watch(self.now_us, who, what)

    def remark(self, who: str, what: Any) -> None:
        """Something that only a reader of the trace wants to know: it follows from what is recorded."""
        if self._watch is not None:
            self._watch(self.now_us, who, what)

    @property
    def is_watched(self) -> bool:
        return self._watch is not None

    def run(self, *, until_us: int, events_max: int | None = None) -> None:
        """Let happen what is planned, until that time, so many recorded events in all, or `stop()`."""
        queue = self._queue
        events_end = self.events + (1 << 62) if events_max is None else events_max
        self._is_stopped = False
        while queue and self.events < events_end and not self._is_stopped:
            if queue[0][0] > until_us:
                break
            self.now_us, _, act, arguments = heapq.heappop(queue)
            act(*arguments)
        else:
            return
        self.now_us = until_us

    def stop(self) -> None:
        """End `run` after what is happening now."""
        self._is_stopped = True

    def digest(self) -> str:
        """Of everything recorded so far, in hexadecimal."""
        self._hash.update("".join(self._lines).encode())
        self._lines.clear()
        return self._hash.hexdigest()
