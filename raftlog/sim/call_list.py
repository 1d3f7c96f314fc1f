"""The calls and returns that a search for a linear order has still to explain."""

from __future__ import annotations

from collections.abc import Sequence

from raftlog.sim.history import Operation


class CallList:
    """Calls and returns of the operations that are not placed yet, in order: a doubly linked list.

    Entry 0 is its head, then come calls and returns in order, then its end. A call and a return at the same time
    overlap.
    """

    def __init__(self, ended: Sequence[Operation]) -> None:
        events = sorted(
            [(one.called, 0, number) for number, one in enumerate(ended)]
            + [(one.returned or 0, 1, number) for number, one in enumerate(ended)]
        )
        self.end = len(events) + 1
        self.next = list(range(1, self.end + 1))
        self.previous = list(range(-1, self.end))
        self.caller = [-1] * (self.end + 1)  # the operation, if the entry is a call
        self.time = [0] * (self.end + 1)
        self.entries = [(0, 0)] * len(ended)  # (call, return) of each operation
        for entry, (time, is_return, number) in enumerate(events, start=1):
            self.time[entry] = time
            if is_return:
                self.entries[number] = (self.entries[number][0], entry)
            else:
                self.caller[entry] = number
                self.entries[number] = (entry, 0)

    @property
    def is_empty(self) -> bool:
        return self.next[0] == self.end

    def first_to_return(self) -> int:
        entry = self.next[0]
        while self.caller[entry] >= 0:
            entry = self.next[entry]
        return next(number for number, (_, returned) in enumerate(self.entries) if returned == entry)

    def lift(self, operation: int) -> None:
        """Take it out. It keeps its own links, by which it finds back."""
        for entry in self.entries[operation]:
            self.next[self.previous[entry]] = self.next[entry]
            self.previous[self.next[entry]] = self.previous[entry]

    def unlift(self, operation: int) -> None:
        """Put it back. The one lifted last comes first."""
        for entry in reversed(self.entries[operation]):
            self.next[self.previous[entry]] = entry
            self.previous[self.next[entry]] = entry
