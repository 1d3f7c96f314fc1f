"""The state machine of the simulated clusters: values under keys, as raftlog/sim/models.py judges them."""

from __future__ import annotations

import json
from typing import Any

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
        if request is None:
            return None
        before = self.values.get(request.key, "")
        after, answer = MODEL.apply(before, request)
        if after is not before:
            assert isinstance(after, str)
            self.values[request.key] = after
        return answer

    def read(self, key: str) -> str:
        return self.values.get(key, "")

    def to_bytes(self) -> bytes:
        """The same bytes for the same state."""
        return json.dumps([self.applied, sorted(self.values.items())]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Machine:
        applied, values = json.loads(data)
        return cls(applied, dict(values))
