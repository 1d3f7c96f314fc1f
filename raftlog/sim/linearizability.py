"""Whether a history could have come from one machine that did one thing at a time.

A history is linearizable if every operation can be given one moment between its call and its return so that, done in
the order of these moments, all of them answer what they answered (Herlihy and Wing, 1990). Operations with an unknown
outcome may be given any moment after their call, or none.

The search is Wing and Gong's (1993) with what Lowe added ("Testing for linearizability", 2017): keys are checked one
by one; the calls and returns that are not placed yet are a doubly linked list, from which an operation is lifted when
it is placed and to which it returns when that was wrong; and what was reached before, the same operations placed and
the same state, is not searched again. Any operation called before the first return that is still in the list may be
the next.

Most of the work is in operations that are unknown, since each may be anywhere or nowhere, and in values that are put
together in the wrong order, which may be seen late. Five facts keep it small.

1. An operation that never changes the state, and gives its answer in this one, may as well be placed at once: no other
   operation notices. There is nothing else to try in its stead.
2. An unknown operation that would not change the state is not placed: leaving it out is as good.
3. Of unknown operations with the same request, the one called first is placed first: they are interchangeable.
4. Where a search failed with some of the unknown operations placed, it fails with more of them placed as well, if the
   other operations placed and the state are the same: an unknown operation that is left can always be left out.
5. If an answer that is left proves a state, and neither can the present one grow into it nor does an operation that is
   left begin it anew, then there is no point in going on.

States that no answer can tell apart, now or after they have grown, count as one: UNSEEN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from raftlog.sim.call_list import CallList
from raftlog.sim.history import Operation
from raftlog.sim.models import Model
from raftlog.sim.needs import Needs

# Places tried for one key before the search gives up: about a minute, and 1 GB at worst.
STEPS_MAX: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Linearizable:
    steps: int  # places tried, over all keys

    def __str__(self) -> str:
        return "linearizable"


@dataclass(frozen=True, slots=True)
class NotLinearizable:
    """The operations of `key` have no order that explains their answers."""

    key: Any
    partial: tuple[Operation, ...]  # the longest order found, from the start, that explains all it holds
    state: Any  # of the key, after it
    stuck: Operation  # the next to return, which fits nowhere from there on
    steps: int

    def __str__(self) -> str:
        return "not linearizable"


@dataclass(frozen=True, slots=True)
class Undecided:
    """The search of `key` was given up; no other key was found wrong."""

    key: Any
    steps: int

    def __str__(self) -> str:
        return "undecided"


Verdict = Linearizable | NotLinearizable | Undecided


def check(model: Model, operations: Iterable[Operation], *, steps_max: int = STEPS_MAX) -> Verdict:
    """Whether the operations, in any order given, are linearizable; each key may cost `steps_max` steps."""
    parts: dict[Any, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(model.key(operation.input), []).append(operation)
    steps = 0
    undecided: Undecided | None = None
    for key, part in parts.items():
        verdict = _Search(model, key, part).run(steps_max)
        steps += verdict.steps
        if isinstance(verdict, NotLinearizable):
            return verdict
        if isinstance(verdict, Undecided) and undecided is None:
            undecided = verdict
    return undecided or Linearizable(steps)


class _Choice(NamedTuple):
    """A point at which several operations could be next."""

    placed_count: int  # of operations, when it was reached
    done: int
    used: int
    rest: list[tuple[int, int]]  # (operation, state after it) not tried yet; the next one to try is last


class _Search:
    """The search of one key.

    Operations are numbers: ended ones from 0, in order of calls, then unknown ones. States are numbers: looked up once,
    then compared and hashed quickly. Sets of either are the bits of an integer.
    """

    def __init__(self, model: Model, key: Any, operations: Sequence[Operation]) -> None:
        ordered = sorted(operations, key=lambda one: one.called)
        ended = [one for one in ordered if one.returned is not None]
        unknown = [
            one for one in ordered if one.returned is None and not model.only_observes(one.input, None)
        ]
        self.model = model
        self.key = key
        self.operations = ended + unknown
        self.ended_count = len(ended)
        self.observes = [model.only_observes(one.input, one.output) for one in ended]
        self.calls = CallList(ended)
        self.needs = Needs(model, self.operations)
        # unknown operations with equal requests, in order of their calls, and how many of them are placed
        groups: dict[Any, list[int]] = {}
        for number, one in enumerate(unknown, start=self.ended_count):
            groups.setdefault(one.input, []).append(number)
        self.queues = list(groups.values())
        self.taken = [0] * len(self.queues)
        self.queue_of = {number: place for place, queue in enumerate(self.queues) for number in queue}
        self.number_of: dict[Any, int] = {}  # state: its number
        self.states: list[Any] = []  # by number
        # per operation, state: state after it
        self.after: list[dict[int, int]] = [{} for _ in self.operations]
        self.placed: list[int] = []  # operations, in order
        # (ended ones placed, state): least sets of unknown ones
        self.reached: dict[tuple[int, int], list[int]] = {}

    def run(self, steps_max: int) -> Verdict:
        """Depth first, with choices on a stack of our own: histories are longer than Python's."""
        choices: list[_Choice] = []
        best: NotLinearizable | None = None
        best_count = -1
        done = used = steps = 0
        state = self._number(self.model.initial)
        while True:
            done, time = self._place_observations(done, state)
            if self.calls.is_empty:
                return Linearizable(steps)
            lost = self.needs.lost(self.states[state])
            is_open = not lost and self._is_new(done, used, state)
            rest = self._candidates(state, time) if is_open else []
            if not rest and (best is None or done.bit_count() > best_count):
                best, best_count = self._failure(lost), done.bit_count()
            choices.append(_Choice(len(self.placed), done, used, rest))
            while choices and not choices[-1].rest:
                choices.pop()
                self._take_back(choices[-1].placed_count if choices else 0)
            if not choices:
                assert best is not None, "a search that failed came to an end somewhere"
                return replace(best, state=self._state_after(best.partial), steps=steps)
            if steps == steps_max:
                return Undecided(self.key, steps)
            steps += 1
            _, done, used, rest = choices[-1]
            operation, state = rest.pop()
            self._place(operation)
            if operation < self.ended_count:
                done |= 1 << operation
            else:
                used |= 1 << operation

    def _place_observations(self, done: int, state: int) -> tuple[int, int]:
        """Place all that only observe this state (fact 1): (ended ones placed then, time of the first return left)."""
        calls = self.calls
        entry = calls.next[0]
        while (operation := calls.caller[entry]) >= 0:
            before = calls.previous[entry]
            if self.observes[operation] and self._step(operation, state) >= 0:
                self._place(operation)
                done |= 1 << operation
                entry = before  # not the lifted entry: the return that follows it may be lifted, too
            entry = calls.next[entry]
        return done, calls.time[entry]

    def _candidates(self, state: int, time: int) -> list[tuple[int, int]]:
        """What may be next, with the state after it; first the unknown, then the others, the first called last."""
        found: list[tuple[int, int]] = []
        for queue, taken in zip(self.queues, self.taken, strict=True):
            if taken < len(queue) and self.operations[queue[taken]].called <= time:  # fact 3
                after = self._step(queue[taken], state)
                if after != state:  # fact 2
                    found.append((queue[taken], after))
        count = len(found)
        calls = self.calls
        entry = calls.next[0]
        while (operation := calls.caller[entry]) >= 0:
            if not self.observes[operation] and (after := self._step(operation, state)) >= 0:
                found.insert(count, (operation, after))
            entry = calls.next[entry]
        return found

    def _is_new(self, done: int, used: int, state: int) -> bool:
        """Whether nothing as good was reached before (fact 4); remembers that this was."""
        earlier = self.reached.get((done, state))
        if earlier is None:
            self.reached[done, state] = [used]
            return True
        if any(one & ~used == 0 for one in earlier):
            return False
        earlier[:] = [one for one in earlier if used & ~one]
        earlier.append(used)
        return True

    def _step(self, operation: int, state: int) -> int:
        """The state after the operation; -1 if it could not have given its answer in this one."""
        known = self.after[operation].get(state)
        if known is None:
            one = self.operations[operation]
            after, output = self.model.apply(self.states[state], one.input)
            is_possible = one.returned is None or output == one.output
            known = self._number(after) if is_possible else -1
            self.after[operation][state] = known
        return known

    def _number(self, state: Any) -> int:
        number = self.number_of.get(state)
        if number is None:
            seen = self.needs.seen_as(state)
            number = self.number_of.setdefault(seen, len(self.states))
            self.number_of[state] = number
            if number == len(self.states):
                self.states.append(seen)
        return number

    def _place(self, operation: int) -> None:
        self.placed.append(operation)
        self.needs.place(operation)
        if operation < self.ended_count:
            self.calls.lift(operation)
        else:
            self.taken[self.queue_of[operation]] += 1

    def _take_back(self, placed_count: int) -> None:
        """Undo all but the first so many placed, last first."""
        while len(self.placed) > placed_count:
            operation = self.placed.pop()
            self.needs.take_back(operation)
            if operation < self.ended_count:
                self.calls.unlift(operation)
            else:
                self.taken[self.queue_of[operation]] -= 1

    def _failure(self, lost: int) -> NotLinearizable:
        """What to tell if there is nothing better than what is placed now."""
        stuck = self.needs.first_in_need(lost, self.placed) if lost else self.calls.first_to_return()
        partial = tuple(self.operations[number] for number in self.placed)
        return NotLinearizable(self.key, partial, state=None, stuck=self.operations[stuck], steps=0)

    def _state_after(self, partial: Sequence[Operation]) -> Any:
        """The state as a person would see it, not as UNSEEN."""
        state = self.model.initial
        for operation in partial:
            state, _ = self.model.apply(state, operation.input)
        return state
