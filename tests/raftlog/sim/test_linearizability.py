"""The checker against histories with known verdicts, against the definition, and against itself without its hints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from raftlog.sim.history import History, Operation
from raftlog.sim.linearizability import Linearizable, NotLinearizable, Undecided, check
from raftlog.sim.models import ANY, Append, CompareAndSet, KeyValue, Read, Write
from tests.raftlog.sim.random_histories import Machine, is_linearizable_by_definition

MODEL = KeyValue()
LATER = None  # in place of a return: the outcome is unknown


def ended(client: str, called: int, returned: int | None, input: Any, output: Any = None) -> Operation:
    return Operation(client, called, returned, input, output)


LINEARIZABLE = {
    "nothing at all": [],
    "a read before any write finds nothing": [ended("a", 0, 1, Read("k"), None)],
    "a read after a write finds it": [
        ended("a", 0, 1, Write("k", "1")),
        ended("a", 2, 3, Read("k"), "1"),
    ],
    "two concurrent writes, the one called last comes first": [
        ended("a", 0, 3, Write("k", "1")),
        ended("b", 1, 2, Write("k", "2")),
        ended("a", 4, 5, Read("k"), "1"),
    ],
    "two concurrent reads, of which the one that returns last is the older": [
        ended("a", 0, 5, Write("k", "1")),
        ended("b", 1, 4, Read("k"), None),
        ended("c", 2, 3, Read("k"), "1"),
    ],
    "a call and a return at the same time overlap": [
        ended("a", 0, 1, Write("k", "1")),
        ended("b", 1, 2, Read("k"), None),
    ],
    "an unknown write that took effect late": [
        ended("a", 0, LATER, Write("k", "1")),
        ended("b", 1, 2, Write("k", "2")),
        ended("b", 3, 4, Read("k"), "2"),
        ended("b", 5, 6, Read("k"), "1"),
    ],
    "an unknown write that never took effect": [
        ended("a", 0, LATER, Write("k", "1")),
        ended("b", 1, 2, Read("k"), None),
    ],
    "an unknown write that nobody saw, but that refused a compare-and-set": [
        ended("a", 0, 1, Write("k", "1")),
        ended("b", 2, LATER, Write("k", "2")),
        ended("a", 3, 4, CompareAndSet("k", "1", "3"), False),
    ],
    "an unknown compare-and-set upon an unknown write": [
        ended("a", 0, LATER, CompareAndSet("k", "1", "2")),
        ended("b", 1, LATER, Write("k", "1")),
        ended("c", 2, 3, Read("k"), "2"),
    ],
    "the same unknown write twice": [
        ended("a", 0, LATER, Write("k", "1")),
        ended("b", 1, LATER, Write("k", "1")),
        ended("c", 2, 3, Read("k"), "1"),
        ended("c", 4, 5, Write("k", "2")),
        ended("c", 6, 7, Read("k"), "1"),
    ],
    "concurrent appends, told apart by a read": [
        ended("a", 0, 5, Append("k", "x")),
        ended("b", 1, 4, Append("k", "y")),
        ended("c", 2, 3, Append("k", "z")),
        ended("c", 6, 7, Read("k"), "yxz"),
    ],
    "keys that each make sense alone": [
        ended("a", 0, 1, Write("k", "1")),
        ended("a", 2, 3, Write("l", "2")),
        ended("b", 4, 5, Read("l"), "2"),
        ended("b", 6, 7, Read("k"), "1"),
    ],
}

NOT_LINEARIZABLE = {
    "a stale read": [
        ended("a", 0, 1, Write("k", "1")),
        ended("a", 2, 3, Write("k", "2")),
        ended("b", 4, 5, Read("k"), "1"),
    ],
    "a lost write": [
        ended("a", 0, 1, Write("k", "1")),
        ended("b", 2, 3, Read("k"), None),
    ],
    "a value that nobody wrote": [ended("a", 0, 1, Read("k"), "1")],
    "a write that is seen before it is called": [
        ended("b", 0, 1, Read("k"), "1"),
        ended("a", 2, 3, Write("k", "1")),
    ],
    "an unknown write that is seen before it is called": [
        ended("b", 0, 1, Read("k"), "1"),
        ended("a", 2, LATER, Write("k", "1")),
    ],
    "an unknown write that took effect twice": [
        ended("a", 0, LATER, Write("k", "1")),
        ended("b", 1, 2, Read("k"), "1"),
        ended("b", 3, 4, Write("k", "2")),
        ended("b", 5, 6, Read("k"), "1"),
    ],
    "two reads that see two writes in different orders": [
        ended("a", 0, 1, Write("k", "1")),
        ended("b", 2, 7, Write("k", "2")),
        ended("c", 3, 4, Read("k"), "2"),
        ended("c", 5, 6, Read("k"), "1"),
    ],
    "two compare-and-set that both won": [
        ended("a", 0, 3, CompareAndSet("k", None, "1"), True),
        ended("b", 1, 2, CompareAndSet("k", None, "2"), True),
    ],
    "a compare-and-set that was refused although the value was there": [
        ended("a", 0, 1, Write("k", "1")),
        ended("b", 2, 3, CompareAndSet("k", "1", "2"), False),
    ],
    "an append that is there twice": [
        ended("a", 0, 1, Append("k", "x")),
        ended("b", 2, 3, Read("k"), "xx"),
    ],
    "an append that vanished from the middle": [
        ended("a", 0, 1, Append("k", "x")),
        ended("a", 2, 3, Append("k", "y")),
        ended("a", 4, 5, Append("k", "z")),
        ended("b", 6, 7, Read("k"), "xz"),
    ],
    "one key of two": [
        ended("a", 0, 1, Write("k", "1")),
        ended("a", 2, 3, Write("l", "2")),
        ended("b", 4, 5, Read("k"), "1"),
        ended("b", 6, 7, Read("l"), None),
    ],
}


@pytest.mark.parametrize("operations", LINEARIZABLE.values(), ids=LINEARIZABLE)
def test_linearizable(operations: list[Operation]) -> None:
    assert isinstance(check(MODEL, operations), Linearizable)
    assert isinstance(check(MODEL, operations[::-1]), Linearizable)
    assert is_linearizable_by_definition(operations)


@pytest.mark.parametrize("operations", NOT_LINEARIZABLE.values(), ids=NOT_LINEARIZABLE)
def test_not_linearizable(operations: list[Operation]) -> None:
    assert isinstance(check(MODEL, operations), NotLinearizable)
    assert isinstance(check(MODEL, operations[::-1]), NotLinearizable)


def test_verdict_shows_how_far_it_makes_sense_and_what_fits_nowhere() -> None:
    first = ended("a", 0, 1, Write("k", "1"))
    second = ended("a", 2, 3, Write("k", "2"))
    stale = ended("b", 4, 5, Read("k"), "1")

    verdict = check(MODEL, [first, second, stale, ended("b", 6, 7, Read("l"), None)])

    assert isinstance(verdict, NotLinearizable)
    assert (verdict.key, verdict.partial, verdict.state, verdict.stuck) == ("k", (first, second), "2", stale)


def test_search_that_is_given_up_is_undecided_and_another_key_is_still_found_wrong() -> None:
    history = History()
    calls = [history.invoke(f"c{number}", Append("k", f"{number}")) for number in range(6)]
    for number in calls:
        history.ok(number)
    history.ok(history.invoke("r", Read("k")), "543210")
    undecided = check(MODEL, history.operations(), steps_max=5)
    history.ok(history.invoke("r", Read("l")), "1")

    both = check(MODEL, history.operations(), steps_max=5)

    assert undecided == Undecided("k", steps=5)
    assert isinstance(both, NotLinearizable) and both.key == "l"
    assert isinstance(check(MODEL, history.operations()[:-1]), Linearizable)


def test_history_longer_than_the_stack_of_the_language() -> None:
    history = History()
    for number in range(3000):
        history.ok(history.invoke("c", Write("k", str(number))))
        history.ok(history.invoke("c", Read("k")), str(number))

    assert check(MODEL, history.operations()) == Linearizable(steps=3000)


def at_once(*inputs: Any) -> list[Operation]:
    """All called, then all returned."""
    return [ended(f"c{place}", place, 100 + place, one) for place, one in enumerate(inputs)]


def never_answered(*inputs: Any) -> list[Operation]:
    return [ended(f"c{place}", place, LATER, one) for place, one in enumerate(inputs)]


APPENDS = [Append("k", f"{number},") for number in range(20)]
WRITES = [Write("k", f"{number};") for number in range(20)]
REVERSED = ended("r", 200, 201, Read("k"), "".join(one.suffix for one in reversed(APPENDS)))
TWICE = ended("r", 200, 201, Read("k"), "7,7,")
READS = [ended(f"r{number}", 200 + number, 300 + number, Read("k"), f"{number};") for number in range(20)]


@pytest.mark.parametrize(
    ("operations", "is_good"),
    [
        ([*at_once(*APPENDS), REVERSED], True),
        ([*at_once(*APPENDS), TWICE], False),
        ([*never_answered(*APPENDS), REVERSED], True),
        ([*never_answered(*APPENDS), TWICE], False),
        ([*at_once(*APPENDS), ended("w", 150, 151, Write("k", "1")), ended("r", 200, 201, Read("k"), "2")], False),
        (
            [*at_once(*WRITES[:7]), *[ended("w", place, place + 1, Write("k", f"{place}")) for place in (200, 202)],
             ended("r", 204, 205, Read("k"), "200")],
            False,
        ),
        ([*never_answered(*[WRITES[0]] * 20, *[WRITES[1]] * 20), ended("r", 200, 201, Read("k"), "2")], False),
        ([*never_answered(*WRITES), *READS], True),
        ([*never_answered(*WRITES), *READS, ended("r", 400, 401, Read("k"), "5;")], True),
        ([*never_answered(*WRITES), *READS, ended("r", 400, 401, Read("k"), "20;")], False),
    ],
    ids=[
        "appends in an order that a read tells", "an append that is there twice",
        "unknown appends in an order that a read tells", "an unknown append that is there twice",
        "appends that nobody saw", "writes that nobody saw", "two unknown writes, many times each",
        "unknown writes that all were seen", "one of them last", "another one last",
    ],
)  # fmt: skip
def test_search_goes_not_through_all_orders(operations: list[Operation], is_good: bool) -> None:
    verdict = check(MODEL, operations, steps_max=1000)

    assert isinstance(verdict, Linearizable if is_good else NotLinearizable)


def draw(seed: int, *, operations: int) -> list[Operation]:
    random = Random(seed)
    return Machine(
        random,
        operations=random.randint(2, operations),
        clients=random.randint(2, 5),
        keys=random.randint(1, 2),
        unknown=random.choice((0, 0.3, 0.6)),
        lies=random.choice((0, 0.2, 0.5)),
    ).run()


def test_verdict_is_that_of_the_definition_for_small_histories() -> None:
    verdicts: Counter[bool] = Counter()
    for seed in range(4000):
        operations = draw(seed, operations=6)

        expected = is_linearizable_by_definition(operations)

        verdict = check(MODEL, operations)
        assert isinstance(verdict, Linearizable if expected else NotLinearizable), f"seed {seed}"
        verdicts[expected] += 1
    assert min(verdicts.values()) > 500, verdicts


class WithoutHints(KeyValue):
    """Says only what always is right."""

    def only_observes(self, input: Any, output: Any) -> bool:
        return False

    def compares(self, input: Any, output: Any) -> Any:
        return None

    def replaces(self, input: Any) -> Any:
        return ANY

    def growth(self, states: Sequence[Any]) -> Callable[[Any], Sequence[Any]]:
        return lambda state: states


def test_hints_of_the_model_change_no_verdict() -> None:
    verdicts: Counter[type] = Counter()
    for seed in range(600):
        operations = draw(seed, operations=24)

        expected = check(WithoutHints(), operations, steps_max=20_000)

        if not isinstance(expected, Undecided):
            assert type(check(MODEL, operations)) is type(expected), f"seed {seed}"
        verdicts[type(expected)] += 1
    assert min(verdicts[Linearizable], verdicts[NotLinearizable]) > 100, verdicts


def test_partial_order_of_a_verdict_explains_all_that_it_holds() -> None:
    count = 0
    for seed in range(400):
        operations = draw(seed, operations=12)

        verdict = check(MODEL, operations)

        if isinstance(verdict, NotLinearizable):
            count += 1
            state: Any = MODEL.initial
            for one in verdict.partial:
                state, output = MODEL.apply(state, one.input)
                assert one.returned is None or output == one.output, f"seed {seed}"
            assert verdict.stuck not in verdict.partial and state == verdict.state, f"seed {seed}"
    assert count > 50
