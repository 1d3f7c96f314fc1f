from __future__ import annotations

import pytest

from raftlog.sim.history import History, Operation
from raftlog.sim.models import Append, CompareAndSet, Read, Write


def test_operations_are_those_that_may_have_had_an_effect() -> None:
    history = History()
    write = history.invoke("c1", Write("k", "1"))
    failed = history.invoke("c2", Write("k", "2"))
    history.ok(write)
    history.fail(failed)
    given_up = history.invoke("c2", Append("k", "3"))
    read = history.invoke("c1", Read("k"))
    history.unknown(given_up)
    history.ok(read, "1")
    history.invoke("c1", Write("k", "4"))

    assert history.operations() == [
        Operation("c1", called=0, returned=2, input=Write("k", "1")),
        Operation("c2", called=4, returned=None, input=Append("k", "3")),
        Operation("c1", called=5, returned=7, input=Read("k"), output="1"),
        Operation("c1", called=8, returned=None, input=Write("k", "4")),
    ]
    assert len(history) == 9


def test_text_tells_every_event_on_a_line() -> None:
    history = History()
    swap = history.invoke("c1", CompareAndSet("k", None, "1"))
    read = history.invoke("c2", Read("k"))
    history.ok(swap, True)
    history.unknown(read)

    assert str(history).splitlines() == [
        "     0 c1       invoke   #0 compare-and-set k None to '1'",
        "     1 c2       invoke   #1 read k",
        "     2 c1       ok       #0 compare-and-set k None to '1' -> True",
        "     3 c2       unknown  #1 read k",
    ]


def test_an_operation_ends_once() -> None:
    history = History()
    number = history.invoke("c1", Read("k"))
    history.unknown(number)

    with pytest.raises(AssertionError, match="operation 0 had ended: unknown"):
        history.ok(number, "1")


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (Operation("c1", 3, 5, Write("k", "1")), "c1 3..5: write k '1' -> None"),
        (Operation("c1", 3, 5, Read("k"), "1"), "c1 3..5: read k -> '1'"),
        (Operation("c1", 3, None, Append("k", "1")), "c1 3..?: append k '1'"),
    ],
)
def test_operation_is_told_with_its_span_and_answer(operation: Operation, text: str) -> None:
    assert str(operation) == text
