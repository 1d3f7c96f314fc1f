"""What clients asked and were told, in the order in which it happened.

Order is by event number, not by time: of two events in a simulated world, or in one log file, one always came first,
and that is all that a checker needs. An operation ends in one of three ways:

- ok: it took effect, once, between its call and its return, and gave this output;
- fail: it certainly had no effect and never will, so it is left out of what is checked;
- unknown: it may take effect at any time after its call, however late, or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, NewType

OperationNumber = NewType("OperationNumber", int)  # from 0, in order of calls, within one history


class Operation(NamedTuple):
    """What a client asked once, and what came of it."""

    client: str
    called: int  # event number
    returned: int | None  # event number; None: the outcome is unknown
    input: Any  # a request that the model knows; hashable
    output: Any = None  # the answer; means nothing while `returned` is None

    def __str__(self) -> str:
        if self.returned is None:
            return f"{self.client} {self.called}..?: {self.input}"
        return f"{self.client} {self.called}..{self.returned}: {self.input} -> {self.output!r}"


class EventKind(StrEnum):
    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class _Call:
    client: str
    input: Any
    called: int
    ended: EventKind | None = None  # set once, when it ends
    returned: int | None = None  # set when it ends with ok
    output: Any = None


class History:
    """Records the operations of any number of clients; a client may have several open at once."""

    __slots__ = ("_calls", "_events")

    def __init__(self) -> None:
        self._calls: list[_Call] = []  # by operation number
        self._events: list[tuple[OperationNumber, EventKind]] = []  # by event number

    def __len__(self) -> int:
        """How many events there were; the next one has this number."""
        return len(self._events)

    def invoke(self, client: str, input: Any) -> OperationNumber:
        """The number by which to tell how this operation ended."""
        number = OperationNumber(len(self._calls))
        self._calls.append(_Call(client, input, called=len(self._events)))
        self._events.append((number, EventKind.INVOKE))
        return number

    def ok(self, number: OperationNumber, output: Any = None) -> None:
        """It took effect and gave this output. So does a compare-and-set that found another value: that is an answer
        about the state, which `fail` is not."""
        self._calls[number].returned = len(self._events)
        self._calls[number].output = output
        self._end(number, EventKind.OK)

    def fail(self, number: OperationNumber) -> None:
        self._end(number, EventKind.FAIL)

    def unknown(self, number: OperationNumber) -> None:
        """Nobody will tell. To the checkers the same as an operation that never ends; a reader sees when it was given
        up."""
        self._end(number, EventKind.UNKNOWN)

    def operations(self) -> list[Operation]:
        """All that took effect or may have, in order of their calls. What is open counts as unknown."""
        return [
            Operation(call.client, call.called, call.returned, call.input, call.output)
            for call in self._calls
            if call.ended is not EventKind.FAIL
        ]

    def __str__(self) -> str:
        """A line per event: its number, the client, what happened, to which operation, with which answer."""
        return "".join(f"{self._line(place)}\n" for place in range(len(self._events)))

    def _line(self, place: int) -> str:
        number, kind = self._events[place]
        call = self._calls[number]
        answer = f" -> {call.output!r}" if kind is EventKind.OK else ""
        return f"{place:>6} {call.client:<8} {kind:<8} #{number} {call.input}{answer}"

    def _end(self, number: OperationNumber, kind: EventKind) -> None:
        call = self._calls[number]
        assert call.ended is None, f"operation {number} had ended: {call.ended}"
        call.ended = kind
        self._events.append((number, kind))
