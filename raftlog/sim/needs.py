"""A look ahead, for a search for a linear order: what must still come, and whether it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftlog.sim.history import Operation
from raftlog.sim.models import ANY, UNSEEN, Model


class Needs:
    """Which states must still come, because answers that are left prove them, and which can (fact 5).

    A state that is proved is a bit. It may come from the present state by growing, or begin anew with a request that
    replaces.
    """

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self.model = model
        self.operations = operations
        compared = [model.compares(one.input, one.output) for one in operations]
        self.is_blurred = None not in compared
        self.told_apart = model.growth(
            list(dict.fromkeys(state for states in compared for state in states or ()))
        )
        proved = [
            states[0]
            if one.returned is not None
            and states is not None
            and len(states) == 1
            and model.apply(states[0], one.input)[1] == one.output
            else ANY
            for one, states in zip(operations, compared, strict=True)
        ]
        self.states = list(dict.fromkeys(state for state in proved if state is not ANY))
        self.grown = model.growth(self.states)
        self.bit_of = {state: bit for bit, state in enumerate(self.states)}
        self.need = [-1 if state is ANY else self.bit_of[state] for state in proved]  # per operation
        self.begins = [self._begun_by(one) for one in operations]
        self.needs_left = [0] * len(self.states)  # operations left that prove it
        self.beginnings_left = [0] * len(self.states)  # operations left with which it may begin
        self.growing = 0  # those needed that cannot begin any more: the present state must grow into them
        self.grown_from: dict[Any, int] = {}  # state: what it may grow into
        for operation in range(len(operations)):
            self.take_back(operation)

    def _begun_by(self, operation: Operation) -> list[int]:
        if operation.returned is not None and self.model.only_observes(operation.input, operation.output):
            return []
        after = self.model.replaces(operation.input)
        return [] if after is ANY else [self.bit_of[one] for one in self.grown(after)]

    def seen_as(self, state: Any) -> Any:
        """The state, or UNSEEN if no answer can tell which one it is, now or after growing."""
        return state if not self.is_blurred or self.told_apart(state) else UNSEEN

    def lost(self, state: Any) -> int:
        """The states that must come, and cannot when this is the present one."""
        bits = self.grown_from.get(state)
        if bits is None:
            bits = sum(1 << self.bit_of[one] for one in self.grown(state))
            self.grown_from[state] = bits
        return self.growing & ~bits

    def first_in_need(self, lost: int, placed: Sequence[int]) -> int:
        gone = frozenset(placed)
        return next(
            number
            for number, need in enumerate(self.need)
            if need >= 0 and lost >> need & 1 and number not in gone
        )

    def place(self, operation: int) -> None:
        need = self.need[operation]
        if need >= 0:
            self.needs_left[need] -= 1
            if not self.needs_left[need]:
                self.growing &= ~(1 << need)
        for bit in self.begins[operation]:
            self.beginnings_left[bit] -= 1
            if not self.beginnings_left[bit] and self.needs_left[bit]:
                self.growing |= 1 << bit

    def take_back(self, operation: int) -> None:
        for bit in self.begins[operation]:
            self.beginnings_left[bit] += 1
            self.growing &= ~(1 << bit)
        need = self.need[operation]
        if need >= 0:
            self.needs_left[need] += 1
            if not self.beginnings_left[need]:
                self.growing |= 1 << need
