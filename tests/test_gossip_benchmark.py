"""How soon a crash is known, measured in virtual time: that what is measured is what is said."""

from __future__ import annotations

from math import e

import pytest

from bench.gossip import detect, formula, lose, percentile
from bench.report import gossip_table


def test_a_crash_is_known_within_the_time_of_the_formula_and_first_by_one_then_by_all() -> None:
    found = detect(5, 5, seed=3)

    print(found)
    least_s, most_s = formula(5)
    assert len(found) == 5
    assert all(0 < one.first <= one.last <= most_s for one in found)
    assert all(one.first > 4 for one in found), "suspicion lasts 4 s at least"
    assert least_s < most_s


def test_where_nothing_is_lost_nobody_is_suspected_and_where_much_is_some_are() -> None:
    assert lose(5, 0.0, 30, seed=1) == (0, 0, 0.0)

    assert lose(5, 0.3, 60, seed=1).suspicions > 0


def test_the_formula_is_that_of_swim_with_the_time_to_refute() -> None:
    detected_s = e / (e - 1) + 1

    assert formula(3) == pytest.approx((detected_s + 4, detected_s + 4)), "nobody can confirm among three"
    assert formula(100) == pytest.approx((detected_s + 8, detected_s + 48))


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]

    assert percentile(values, 99) == 99.0
    assert percentile([3.0], 99) == 3.0


def test_the_table_says_up_to_which_loss_nobody_died() -> None:
    def row(loss: float, deaths: int) -> dict[str, float]:
        return {
            "nodes": 5,
            "loss": loss,
            "node_hours": 1,
            "suspicions": 2,
            "deaths": deaths,
            "longest_s": 0.5 * deaths,
        }

    some = {"detection": [], "loss": [row(0.0, 0), row(0.1, 0), row(0.2, 3)]}
    all_die = {"detection": [], "loss": [row(0.0, 1)]}

    assert list(gossip_table(some))[-1] == (
        "Up to 10 % of packets lost nobody alive was taken for failed; above it, for 1.5 s at most."
    )
    assert "| 5 | 20 % | 1 | 2 | 3 | 1.5 s |" in list(gossip_table(some))
    assert list(gossip_table(all_die))[-1].startswith("Members were taken for failed")
