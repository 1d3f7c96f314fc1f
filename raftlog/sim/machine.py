"""The state machine of the simulated clusters: values under keys, as raftlog/sim/models.py judges them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from raftlog.sim.models import Append, CompareAndSet, KeyValue, Read, Request, Write

MODEL = KeyValue(initial="")  # a key that was never written is read as the empty text

_KINDS = {kind.__name__: kind for kind in (Read, Write, CompareAndSet, Append)}


def encode(request: Request, mark: int) -> bytes:
    """As an entry's data; `mark` makes every try of every operation a different entry."""
    fields = [getattr(request, name) for name in request.__dataclass_fields__]
    return json.dumps([mark, type(request).__name__, *fields]).encode()


def decode(data: bytes) -> tuple[int, Request]:
    """(mark, request)."""
    mark, kind, *fields = json.loads(data)
    return mark, _KINDS[kind](*fields)


def carry_out(values: dict[str, str], request: Request) -> Any:
    """The answer; `values` are then as the request leaves them."""
    before = values.get(request.key, "")
    after, answer = MODEL.apply(before, request)
    if after is not before:
        assert isinstance(after, str)
        values[request.key] = after
    return answer


class StateMachine(Protocol):
    """What entries are applied to. The same entries must make the same machine, on whatever node."""

    applied: int  # the index of the last entry that it contains

    def apply(self, index: int, request: Request | None) -> Any:
        """Move `applied` to this index; the answer to the request of this entry. None asks nothing of the machine."""

    def read(self, key: str) -> str:
        """The empty text if the key was never written."""

    def to_bytes(self) -> bytes:
        """A snapshot, `applied` included; the same bytes for the same state."""


MachineMaker = Callable[[bytes], StateMachine]  # from a snapshot; from no bytes, one that has applied nothing


class Machine:
    """Values under keys at an index of the log."""

    __slots__ = ("applied", "values")

    def __init__(self, applied: int = 0, values: dict[str, str] | None = None) -> None:
        self.applied = applied  # the last entry that it contains
        self.values = values or {}  # keys never written are absent

    def apply(self, index: int, request: Request | None) -> Any:
        """The answer to the request of this entry; None for an entry that asks nothing of the machine."""
        assert index == self.applied + 1, (index, self.applied)
        self.applied = index
        return None if request is None else carry_out(self.values, request)

    def read(self, key: str) -> str:
        return self.values.get(key, "")

    def to_bytes(self) -> bytes:
        """The same bytes for the same state."""
        return json.dumps([self.applied, sorted(self.values.items())]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Machine:
        applied, values = json.loads(data) if data else (0, ())
        return cls(applied, dict(values))
