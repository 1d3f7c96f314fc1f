"""The one shape of every protocol: events in, effects out.

A protocol is a value. It is told what happened (`step`), hands out what is to be done (`drain`), and says until when
it can wait (`deadline`). It has no socket, disk, thread, clock or randomness of its own, so one actor can run any
protocol on real ones, and the simulator (raftlog/sim) on ones that fail.

What the one that runs an engine owes it:

1. After each `step` (or several), `drain`, and carry out every effect. A write may run while the engine goes on; writes
   are carried out in the order of their tokens.
2. Let a `Send` with `after=token` leave only once the write with that token is durable. A message that vouches for
   something on this disk is always such an effect: the rule is data, not discipline.
3. Report `Persisted(token)` for each write that became durable, in order, and `Applied(index)` for what was applied.
   After a write that failed nothing is known: stop the engine, and make it anew from what is on the disk.
4. Step `Wake()` when `deadline()` has come. `now` is in seconds of any clock that never goes back.

5. Carry an `Ask` to its end: `Answered` or `Unanswered`, once. Give what was asked of this node as `Asked`, and take its
   `Reply` back to whoever asked.

Messages may be lost, repeated, delayed and reordered by the network, never changed. Questions and their answers are not
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NewType, Protocol, TypeVar

NodeId = NewType("NodeId", str)  # a server's name
Token = NewType("Token", int)  # of one write; ascends from 1

M = TypeVar("M")
W = TypeVar("W")
E = TypeVar("E")
V = TypeVar("V")


# ── events that every protocol knows ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Receive(Generic[M]):
    """A message arrived. The sender has been authenticated, unless the protocol does that itself."""

    sender: NodeId
    message: M


@dataclass(frozen=True, slots=True)
class Persisted:
    """The write with this token, and all before it, is durable."""

    token: Token


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything up to this index has been applied by the views."""

    index: int


@dataclass(frozen=True, slots=True)
class Asked(Generic[M]):
    """Somebody opened a stream and asked this; a `Reply` with this number answers. Without one the stream ends."""

    request: int
    sender: NodeId
    message: M


@dataclass(frozen=True, slots=True)
class Answered(Generic[M]):
    """The answer to an `Ask`."""

    request: int
    message: M


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An `Ask` came to nothing; whether it was heard is not known. `reason` is for a person."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Time has passed; the deadline may have come."""


# ── effects ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Persist(Generic[W]):
    """Write this, in the order of tokens, and report `Persisted(token)` when it is durable."""

    token: Token
    write: W


@dataclass(frozen=True, slots=True)
class Send(Generic[M]):
    """Send this; if `after` is given, once the write with that token is durable."""

    to: NodeId
    message: M
    after: Token | None = None


@dataclass(frozen=True, slots=True)
class Ask(Generic[M]):
    """Send this by a stream and report the one answer, or that there is none after so long."""

    request: int
    to: NodeId
    message: M
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Apply(Generic[E]):
    """Apply these, in order, and report `Applied` with the index of the last."""

    entries: Sequence[E]


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a request that came in with an event. Each request gets one."""

    request: int
    outcome: Any


@dataclass(frozen=True, slots=True)
class Emit(Generic[V]):
    """Tell the application of this, in order; nothing is reported back."""

    event: V


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person or a metric wants to know of; constant text first, as in a log."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


Effect = Persist[Any] | Send[Any] | Ask[Any] | Apply[Any] | Reply | Emit[Any] | Note


class Engine(Protocol):
    """What every protocol offers."""

    def step(self, event: Any, now: float) -> None:
        """Take in what happened. `now` never goes back."""

    def drain(self) -> list[Effect]:
        """What is to be done, in order; each effect is handed out once."""

    def deadline(self) -> float | None:
        """When to step `Wake()` at the latest; None if nothing is waited for. It may change with every step."""
