"""User events: told to everybody once, and remembered so that they are not told again.

Serf keeps the events of the last `event_buffer` Lamport times. What is older is taken for known. Two events with equal
name and payload at one time are one event, for nothing tells them apart.
"""

from __future__ import annotations

from typing import Final

from raftlog.serf.lamport import LamportClock
from raftlog.serf.messages import EventRecord, EventsAt, UserEvent

EVENT_BYTES_MAX: Final = 9 * 1024  # name and payload, of others too: real Serf's largest
# All remembered events are part of each exchange of states. Beyond this the oldest time is forgotten, and what comes
# of it or before it is ignored from then on.
BUFFER_BYTES_MAX: Final = 1 << 20


RECORD_OVERHEAD_BYTES: Final = 64  # counted for each, so that empty ones cost something, too


def size(event: UserEvent | EventRecord) -> int:
    return len(event.name.encode()) + len(event.payload)


class UserEvents:
    """Which events this node has seen."""

    def __init__(self, times: int) -> None:
        self.clock = LamportClock()
        self._times = times
        self._seen: dict[int, dict[EventRecord, None]] = {}  # by Lamport time, in the order of coming
        self._time_min = 0  # what is older is ignored; ascends
        self._bytes = 0  # of all that are remembered

    def ignore_before(self, time: int) -> None:
        self._time_min = max(self._time_min, time)

    def take(self, event: UserEvent) -> bool:
        """True if it is new here: to be told to the application and passed on."""
        self.clock.witness(event.time)
        if event.time < self._time_min or event.time < self.clock.time - self._times:
            return False
        if size(event) > EVENT_BYTES_MAX:
            return False
        record = EventRecord(event.name, event.payload)
        seen = self._seen.setdefault(event.time, {})
        if record in seen:
            return False
        seen[record] = None
        self._bytes += size(record) + RECORD_OVERHEAD_BYTES
        self._forget_old()
        return True

    def _forget_old(self) -> None:
        oldest_kept = self.clock.time - self._times
        if len(self._seen) > self._times:
            for time in sorted(self._seen):
                if time < oldest_kept:
                    self._forget(time)
        while self._bytes > BUFFER_BYTES_MAX:
            oldest = min(self._seen)
            self._forget(oldest)
            self.ignore_before(oldest + 1)

    def _forget(self, time: int) -> None:
        self._bytes -= sum(size(record) + RECORD_OVERHEAD_BYTES for record in self._seen.pop(time))

    def remembered(self) -> tuple[EventsAt, ...]:
        """For the exchange of states, oldest first."""
        return tuple(EventsAt(time, tuple(self._seen[time])) for time in sorted(self._seen))
