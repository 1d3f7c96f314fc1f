"""What a service promises to be, as one machine that does one thing at a time: the checker's measure of histories."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol, assert_never


class NoState(Enum):
    """What stands in the place of a state."""

    ANY = "any"  # no particular one
    UNSEEN = "unseen"  # some state that no answer compares with, nor with anything it may grow into


ANY: Final = NoState.ANY
UNSEEN: Final = NoState.UNSEEN


class Model(Protocol):
    """A deterministic machine for each key, and what is known of its requests. States are hashable.

    `only_observes`, `compares`, `replaces` and `growth` only make the checker quick. What always is right: False, None,
    ANY and all of the states. Where `compares` never says None, UNSEEN is a state, too, for `apply` and `growth`.
    """

    @property
    def initial(self) -> Any:
        """The state of a key before anything was done to it."""

    def key(self, input: Any) -> Any:
        """What the request is about. Requests about different keys never affect one another."""

    def apply(self, state: Any, input: Any) -> tuple[Any, Any]:
        """(state afterwards, output)."""

    def only_observes(self, input: Any, output: Any) -> bool:
        """Whether a request that gives this output leaves every state as it is."""

    def compares(self, input: Any, output: Any) -> tuple[Any, ...] | None:
        """The states that this answer tells from all others and from each other; None if it may be any."""

    def replaces(self, input: Any) -> Any:
        """The state after the request if it changes anything, whatever it was before; ANY if that depends on it."""

    def growth(self, states: Sequence[Any]) -> Callable[[Any], Sequence[Any]]:
        """A function from a state to those of `states` that it is, or may become by requests that replace ANY."""


@dataclass(frozen=True, slots=True)
class Read:
    """Answers the value, or what the model says of an absent one."""

    key: str

    def __str__(self) -> str:
        return f"read {self.key}"


@dataclass(frozen=True, slots=True)
class Write:
    """Answers None."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"write {self.key} {self.value!r}"


@dataclass(frozen=True, slots=True)
class CompareAndSet:
    """Answers whether the value was the expected one and is now the new one."""

    key: str
    expected: str | None
    new: str

    def __str__(self) -> str:
        return f"compare-and-set {self.key} {self.expected!r} to {self.new!r}"


@dataclass(frozen=True, slots=True)
class Append:
    """Puts the suffix behind the value. Answers None."""

    key: str
    suffix: str

    def __str__(self) -> str:
        return f"append {self.key} {self.suffix!r}"


Request = Read | Write | CompareAndSet | Append


Value = str | Literal[NoState.UNSEEN] | None  # None: absent


@dataclass(frozen=True, slots=True)
class KeyValue:
    """Values under keys, with reads, writes, compare-and-set and appends."""

    initial: str | None = None  # what a read of a key answers before the first write

    def key(self, input: Request) -> str:
        return input.key

    def apply(self, state: Value, input: Request) -> tuple[Value, Value | bool]:
        match input:
            case Read():
                return state, state
            case Write():
                return input.value, None
            case CompareAndSet():
                return (input.new, True) if state == input.expected else (state, False)
            case Append():
                return (UNSEEN if state is UNSEEN else (state or "") + input.suffix), None
            case _:
                assert_never(input)

    def only_observes(self, input: Request, output: Any) -> bool:
        return isinstance(input, Read) or (isinstance(input, CompareAndSet) and output is False)

    def compares(self, input: Request, output: Any) -> tuple[Value, ...]:
        match input:
            case Read():
                return (output,)
            case CompareAndSet(expected=expected):
                return (expected,)
            case Write() | Append():
                return ()
            case _:
                assert_never(input)

    def replaces(self, input: Request) -> str | Literal[NoState.ANY]:
        match input:
            case Write(value=value) | CompareAndSet(new=value):
                return value
            case Read() | Append():
                return ANY
            case _:
                assert_never(input)

    def growth(self, states: Sequence[Value]) -> Callable[[Value], Sequence[Value]]:
        ordered = sorted(state for state in states if isinstance(state, str))

        def grown(state: Value) -> Sequence[Value]:
            if state is UNSEEN:
                return ()
            if state is None:
                return states
            start = bisect_left(ordered, state)
            return ordered[start : bisect_right(ordered, state, lo=start, key=lambda one: one[: len(state)])]

        return grown


# Names for the command line.
MODELS: Final[dict[str, Model]] = {
    "register": KeyValue(),  # of one key; absent at first
    "kv-append": KeyValue(initial=""),
}
