"""Histories as clients of one machine would see them, some with lies; and what is linearizable by the definition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations
from random import Random

from raftlog.sim.history import History, Operation, OperationNumber
from raftlog.sim.models import Append, CompareAndSet, KeyValue, Read, Request, Write

VALUES = ("1", "2", "11")  # one of them the beginning of another


class Machine:
    """Requests take effect at moments of its choosing; some are given up, of which some take effect much later."""

    def __init__(
        self, random: Random, *, operations: int, clients: int, keys: int, unknown: float, lies: float
    ) -> None:
        self.random = random
        self.left = operations
        self.clients = [f"c{number}" for number in range(clients)]
        self.keys = [f"k{number}" for number in range(keys)]
        self.verbs = random.choice(("rw", "rwc", "rwca", "ra", "rac", "rrwca", "rc"))
        self.values = VALUES[: random.randint(1, len(VALUES))]
        self.unknown, self.lies = unknown, lies
        self.history = History()
        self.states: dict[str, object] = {}
        self.waiting: dict[str, tuple[OperationNumber, Request]] = {}  # by client
        self.answered: dict[str, tuple[OperationNumber, Request, object]] = {}
        self.late: list[Request] = []

    def run(self) -> list[Operation]:
        while self.left or self.waiting or self.answered:
            client = self.random.choice(self.clients)
            if client in self.answered:
                self._return(client)
            elif client in self.waiting:
                self._carry_out(client)
            elif self.left:
                self.left -= 1
                request = self._draw()
                self.waiting[client] = (self.history.invoke(client, request), request)
            if self.late and self.random.random() < 0.1:
                self._apply(self.late.pop())
        return self.history.operations()

    def _draw(self) -> Request:
        key, value = self.random.choice(self.keys), self.random.choice(self.values)
        match self.random.choice(self.verbs):
            case "r":
                return Read(key)
            case "w":
                return Write(key, value)
            case "a":
                return Append(key, value)
            case _:
                return CompareAndSet(key, self.random.choice((None, *self.values)), value)

    def _carry_out(self, client: str) -> None:
        number, request = self.waiting.pop(client)
        if self.random.random() < self.unknown:
            fate = self.random.choice(("now", "later", "never"))
            if fate == "now":
                self._apply(request)
            elif fate == "later":
                self.late.append(request)
            self.history.unknown(number)
        else:
            self.answered[client] = (number, request, self._apply(request))

    def _return(self, client: str) -> None:
        number, request, output = self.answered.pop(client)
        if self.random.random() < self.lies:
            if isinstance(output, bool):
                output = not output
            elif isinstance(request, Read):
                output = self.random.choice((None, *self.values))
        self.history.ok(number, output)

    def _apply(self, request: Request) -> object:
        model = KeyValue()
        state, output = model.apply(self.states.get(request.key), request)  # type: ignore[arg-type]
        self.states[request.key] = state
        return output


def is_linearizable_by_definition(operations: Sequence[Operation]) -> bool:
    """Try every subset of the unknown operations in every order; for at most seven operations or so."""
    ended = [one for one in operations if one.returned is not None]
    unknown = [one for one in operations if one.returned is None]
    return any(
        _explains_itself(order)
        for count in range(len(unknown) + 1)
        for some in combinations(unknown, count)
        for order in permutations((*ended, *some))
    )


def _explains_itself(order: Sequence[Operation]) -> bool:
    model = KeyValue()
    states: dict[str, object] = {}
    called_latest = -1  # of those before
    for one in order:
        if one.returned is not None and one.returned < called_latest:
            return False  # it had returned before something in front of it was called
        called_latest = max(called_latest, one.called)
        key = one.input.key
        states[key], output = model.apply(states.get(key), one.input)  # type: ignore[arg-type]
        if one.returned is not None and output != one.output:
            return False
    return True
