"""One promise broken at a time, each found as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from raftlog.sim.log_checker import (
    THE_END,
    AbortedRead,
    Appended,
    Consumed,
    Disagreement,
    Duplicate,
    Finding,
    Gap,
    InventedRead,
    LostWrite,
    OrderReversal,
    Outcome,
    Reading,
    WentBack,
    check_log,
)


def acknowledged(value: str, offset: int, *, called: int, ended: int) -> Appended:
    return Appended("p", value, called, ended, Outcome.ACKNOWLEDGED, offset)


def failed(value: str, *, called: int, ended: int) -> Appended:
    return Appended("p", value, called, ended, Outcome.FAILED)


def unknown(value: str, *, called: int) -> Appended:
    return Appended("p", value, called, None, Outcome.UNKNOWN)


def reading(consumer: str, values: str, *, start: int = 0, at: int = 100) -> Reading:
    """One letter a record; a dot is an offset that is passed over."""
    return Reading(
        consumer,
        start,
        [Consumed(start + place, value, at + place) for place, value in enumerate(values) if value != "."],
    )


A = acknowledged("a", 0, called=0, ended=1)
B = acknowledged("b", 1, called=2, ended=3)
C = acknowledged("c", 2, called=4, ended=5)
ABC = (A, B, C)


@pytest.mark.parametrize(
    ("appends", "readings", "final"),
    [
        ((), (), None),
        ((), (), reading("", "")),
        (ABC, (), None),
        (ABC, (reading("x", "abc"), reading("y", "bc", start=1), reading("z", "a")), reading("", "abc")),
        (ABC, (reading("x", "a"), reading("x", "ab")), reading("", "c", start=2)),
        ((*ABC, failed("d", called=6, ended=7)), (), reading("", "abc")),
        ((*ABC, unknown("d", called=6)), (reading("x", "abc"),), reading("", "abcd")),
        ((*ABC, unknown("d", called=6)), (reading("x", "abc"),), reading("", "abc")),
        (
            (acknowledged("a", 1, called=0, ended=2), acknowledged("b", 0, called=1, ended=3)),
            (),
            reading("", "ba"),
        ),
    ],
    ids=[
        "nothing", "an empty log", "nobody read", "readers from anywhere", "a beginning that was removed",
        "a failed append that is not there", "an unknown append that is there", "one that is not",
        "concurrent appends in the other order",
    ],
)  # fmt: skip
def test_log_that_kept_its_promises(
    appends: Sequence[Appended], readings: Sequence[Reading], final: Reading | None
) -> None:
    assert check_log(appends, readings, final=final) == []


BROKEN: dict[str, tuple[Sequence[Appended], Sequence[Reading], Reading | None, list[Finding]]] = {
    "acknowledged, absent at the end": (
        ABC, [], reading("", "ab"), [LostWrite(2, "c", "p", THE_END)],
    ),
    "acknowledged, and the log is empty at the end": (
        [A], [], reading("", ""), [LostWrite(0, "a", "p", THE_END)],
    ),
    "read by one, absent at the end": (
        [A, unknown("u", called=2)], [reading("x", "au")], reading("", "a"), [LostWrite(1, "u", "x", THE_END)],
    ),
    "acknowledged, and passed over by a consumer": (
        ABC, [reading("x", "a.c")], None, [LostWrite(1, "b", "p", "x"), Gap("x", 1, 2)],
    ),
    "a consumer that was not given what it asked for first": (
        ABC, [reading("x", ".bc")], None, [LostWrite(0, "a", "p", "x"), Gap("x", 0, 1)],
    ),
    "a gap of offsets that nobody was told of": (
        [A, acknowledged("d", 3, called=6, ended=7)], [], reading("", "a..d"), [Gap(THE_END, 1, 3)],
    ),
    "one append, two records": (
        [*ABC, unknown("u", called=6)], [], reading("", "abcuu"), [Duplicate("u", (3, 4))],
    ),
    "acknowledged at one offset, found at another": (
        [A], [], reading("", ".a"),
        [LostWrite(0, "a", "p", THE_END), Duplicate("a", (0, 1)), Gap(THE_END, 0, 1)],
    ),
    "failed for certain, and read": (
        [A, failed("f", called=2, ended=3)], [reading("x", "af")], None,
        [AbortedRead(failed("f", called=2, ended=3), "x", 1)],
    ),
    "never appended, and read": (
        [A], [reading("x", "a?", at=50)], None, [InventedRead("x", Consumed(1, "?", 51))],
    ),
    "read before it was appended": (
        [unknown("u", called=60)], [reading("x", "u", at=50)], None, [InventedRead("x", Consumed(0, "u", 50))],
    ),
    "a consumer and an acknowledgement differ": (
        [A, acknowledged("b", 1, called=2, ended=9), unknown("u", called=3)], [reading("x", "au")], None,
        [Disagreement(1, (("b", "p"), ("u", "x")))],
    ),
    "two consumers differ": (
        [A, unknown("u", called=2), unknown("v", called=2)], [reading("x", "au"), reading("y", "av")], None,
        [Disagreement(1, (("u", "x"), ("v", "y")))],
    ),
    "two acknowledgements of one offset": (
        [acknowledged("a", 0, called=0, ended=2), acknowledged("b", 0, called=1, ended=3)], [], None,
        [Disagreement(0, (("a", "p"), ("b", "p")))],
    ),
    "a consumer is given a record again": (
        [A], [Reading("x", 0, [Consumed(0, "a", 50), Consumed(0, "a", 51)])], None, [WentBack("x", 0, 0)],
    ),
    "a consumer is given what lies before its start": (
        [A, B], [Reading("x", 1, [Consumed(0, "a", 50), Consumed(1, "b", 51)])], None, [WentBack("x", 0, 0)],
    ),
    "acknowledged before another began, and behind it": (
        [acknowledged("a", 1, called=0, ended=1), acknowledged("b", 0, called=2, ended=3)], [], None,
        [OrderReversal("a", 1, "b", 0)],
    ),
    "read before another began, and behind it": (
        [unknown("a", called=0), unknown("b", called=20)], [reading("x", "a", start=1, at=10)],
        reading("", "ba"), [OrderReversal("a", 1, "b", 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("appends", "readings", "final", "expected"), BROKEN.values(), ids=BROKEN)
def test_broken_promise_is_found_with_its_facts(
    appends: Sequence[Appended], readings: Sequence[Reading], final: Reading | None, expected: list[Finding]
) -> None:
    assert check_log(appends, readings, final=final) == expected


def test_a_value_is_appended_once() -> None:
    with pytest.raises(AssertionError, match="a value is appended once"):
        check_log([A, A], [])


@pytest.mark.parametrize("seed", range(50))
def test_random_log_is_clean_until_one_record_is_taken_out(seed: int) -> None:
    random = Random(seed)
    event = 0
    appends: list[Appended] = []
    log: list[str] = []
    for number in range(40):
        called, event = event, event + 2
        match random.choice((Outcome.ACKNOWLEDGED, Outcome.FAILED, Outcome.UNKNOWN)):
            case Outcome.ACKNOWLEDGED:
                appends.append(acknowledged(f"v{number}", len(log), called=called, ended=called + 1))
                log.append(f"v{number}")
            case Outcome.FAILED:
                appends.append(failed(f"v{number}", called=called, ended=called + 1))
            case Outcome.UNKNOWN:
                appends.append(unknown(f"v{number}", called=called))
                log += [f"v{number}"] * random.randrange(2)
    records = [Consumed(offset, value, 1000 + offset) for offset, value in enumerate(log)]
    starts = [random.randrange(len(log)) for _ in range(3)]
    readings = [
        Reading(f"c{start}", start, records[start : random.randint(start, len(log))]) for start in starts
    ]
    victim = random.choice([one for one in appends if one.offset is not None])
    without = [one for one in records if one.value != victim.value]

    clean = check_log(appends, readings, final=Reading("", 0, records))
    broken = check_log(appends, readings, final=Reading("", 0, without))

    assert clean == [], f"seed {seed}"
    (lost,) = [one for one in broken if isinstance(one, LostWrite)]
    assert (lost.value, lost.missed_by) == (victim.value, THE_END), f"seed {seed}"
