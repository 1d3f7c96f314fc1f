"""Lamport's clock: what happened before what, without clocks that tell the time.

Serf has three: for joins and leaves, for user events, for queries. They live as long as the process; a node that starts
again learns the times of the others with the first state that it exchanges.
"""

from __future__ import annotations

from typing import Final

# No honest clock comes there. A message that claims more is refused, lest one packet takes all clocks to the end of
# their 64 bits, where nothing can be newer than anything any more.
TIME_MAX: Final = 2**63 - 1


class LamportClock:
    """Never goes back. Starts at 1: 0 is older than anything that was ever said."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 1  # of what will be said next; moved by witness() and tick() only

    def witness(self, time: int) -> None:
        """Be later than this."""
        if self.time <= time <= TIME_MAX:
            self.time = min(time + 1, TIME_MAX)

    def tick(self) -> int:
        """The time of what is said now; what is said next is later."""
        said_at = self.time
        self.time = min(said_at + 1, TIME_MAX)
        return said_at
