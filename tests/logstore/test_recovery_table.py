from __future__ import annotations

from itertools import product

import pytest

from logstore.recovery import TABLE, Facts, Verdict, decide

EVERY_COMBINATION = [Facts(*facts) for facts in product((False, True), repeat=len(Facts._fields))]


def rows_of(facts: Facts) -> list[str]:
    known = facts._asdict()
    return [
        name
        for name, (pattern, _) in TABLE.items()
        if all(known[fact] == value for fact, value in pattern.items())
    ]


def test_every_combination_of_facts_matches_exactly_one_row() -> None:
    assert len(EVERY_COMBINATION) == 16

    assert [rows_of(facts) for facts in EVERY_COMBINATION if len(rows_of(facts)) != 1] == []


def test_decide_gives_the_verdict_of_that_row() -> None:
    for facts in EVERY_COMBINATION:
        (row,) = rows_of(facts)
        assert decide(facts) is TABLE[row][1]


def test_every_row_is_matched_by_some_combination() -> None:
    assert {row for facts in EVERY_COMBINATION for row in rows_of(facts)} == set(TABLE)


def test_what_a_mark_vouches_for_is_never_dropped() -> None:
    for facts in EVERY_COMBINATION:
        if facts.vouched:
            assert decide(facts) is Verdict.CORRUPT


def test_what_no_mark_vouches_for_never_stops_an_opening() -> None:
    for facts in EVERY_COMBINATION:
        if not facts.vouched:
            assert decide(facts) is not Verdict.CORRUPT


def test_segment_is_kept_as_it_is_only_where_nothing_is_wrong() -> None:
    kept = [facts for facts in EVERY_COMBINATION if decide(facts) is Verdict.KEEP]

    assert kept == [Facts(header=True, linked=True, damaged=False, vouched=False)]


def test_patterns_name_facts_only() -> None:
    for pattern, _ in TABLE.values():
        assert set(pattern) <= set(Facts._fields)


@pytest.mark.parametrize("row", TABLE)
def test_without_a_row_some_combination_has_no_verdict(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, row)

    with pytest.raises(AssertionError):
        for facts in EVERY_COMBINATION:
            decide(facts)
