"""Numbers worked out by hand from the formulas of SWIM, Lifeguard and memberlist."""

from __future__ import annotations

from math import inf, log

import pytest

from raftlog.serf.swim.awareness import Awareness
from raftlog.serf.swim.exchange import interval_s
from raftlog.serf.swim.rumours import times_told
from raftlog.serf.swim.suspicion import (
    Suspicion,
    Suspicions,
    confirmations_wanted,
    timeout_s,
    timeout_s_min,
)


@pytest.mark.parametrize(
    ("members", "seconds"), [(1, 4), (5, 4), (10, 4), (100, 8), (1000, 12), (50, 4 * 1.69897)]
)
def test_suspicion_lasts_longer_with_the_logarithm_of_members(members: int, seconds: float) -> None:
    assert timeout_s_min(4, members, 1.0) == pytest.approx(seconds)


@pytest.mark.parametrize(("members", "wanted"), [(1, 0), (2, 0), (3, 0), (4, 2), (5, 2), (100, 2)])
def test_confirmations_are_wanted_where_enough_others_are_there(members: int, wanted: int) -> None:
    assert confirmations_wanted(4, members) == wanted


def test_no_confirmation_is_wanted_with_a_small_multiplier() -> None:
    assert confirmations_wanted(2, 100) == 0


def test_suspicion_shrinks_from_most_to_least_with_each_confirmation() -> None:
    times = [timeout_s(n, 3, s_min=2.0, s_max=30.0) for n in range(5)]

    assert times == pytest.approx([30, 30 - 28 * log(2) / log(4), 30 - 28 * log(3) / log(4), 2, 2])


def test_suspicion_that_wants_no_confirmation_is_short_from_the_start() -> None:
    assert timeout_s(0, 0, s_min=2.0, s_max=30.0) == 2.0


@pytest.mark.parametrize(
    ("members", "times"), [(1, 4), (2, 4), (9, 4), (10, 8), (99, 8), (100, 12), (4096, 16)]
)
def test_rumour_is_told_a_multiple_of_the_logarithm_of_members_times(members: int, times: int) -> None:
    assert times_told(4, members) == times


@pytest.mark.parametrize(
    ("members", "factor"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (128, 3), (129, 4)]
)
def test_states_are_exchanged_less_often_above_32_members(members: int, factor: int) -> None:
    assert interval_s(30.0, members) == 30.0 * factor


def test_health_score_stays_within_its_bounds() -> None:
    awareness = Awareness(8)

    scores = []
    for by in (-1, 1, 1, 20, -1, -20):
        awareness.change(by)
        scores.append(awareness.score)

    assert scores == [0, 1, 2, 7, 6, 0]


def test_bad_health_makes_slower() -> None:
    awareness = Awareness(8)
    awareness.change(3)

    assert awareness.scaled(0.5) == 2.0


def test_awareness_without_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="score_end is 0"):
        Awareness(0)


def suspicion(now: float = 0.0) -> Suspicion:
    return Suspicion("a", wanted=2, s_min=4.0, s_max=24.0, now=now)


def test_same_accuser_confirms_once_and_the_first_never() -> None:
    held = suspicion()

    assert [held.confirm(name) for name in ("a", "b", "b", "c", "d")] == [False, True, False, True, False]
    assert held.confirmations == 2


def test_suspicions_are_over_in_the_order_of_their_deadlines() -> None:
    held = Suspicions()
    held.start("late", suspicion(1.0))
    held.start("early", suspicion(0.5))
    held.start("ended", suspicion(0.0))
    held.end("ended")

    assert list(held.over(24.0)) == []
    assert list(held.over(25.0)) == [("early", 0), ("late", 0)]
    assert held.deadline == inf
    assert len(held) == 0


def test_confirmation_brings_the_deadline_forward() -> None:
    held = Suspicions()
    held.start("n", suspicion())

    held.confirm("n", "b")
    held.confirm("n", "c")

    assert held.deadline == 4.0
    assert list(held.over(3.9)) == []
    assert list(held.over(4.0)) == [("n", 2)]


def test_suspicion_started_anew_forgets_the_former_deadline() -> None:
    held = Suspicions()
    held.start("n", suspicion(0.0))
    held.start("n", suspicion(10.0))

    assert list(held.over(30.0)) == []
    assert list(held.over(34.0)) == [("n", 0)]


def test_nobody_suspected_confirms_nothing() -> None:
    assert not Suspicions().confirm("n", "b")


def test_suspicions_begun_again_and_again_leave_few_deadlines_behind() -> None:
    held = Suspicions()
    for number in range(10_000):
        held.start("flapping", suspicion(number / 1000))
        held.start("other", suspicion(5.0))

    assert len(held._deadlines) < 100
    assert list(held.over(29.0)) == [("other", 0)]
    assert list(held.over(34.0)) == [("flapping", 0)]
