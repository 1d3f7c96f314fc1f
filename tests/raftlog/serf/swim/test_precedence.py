from __future__ import annotations

from itertools import product

import pytest

from raftlog.serf.messages import State
from raftlog.serf.swim.precedence import PRECEDENCE, Verdict, verdict

ALIVE, SUSPECT, DEAD, LEFT = State


def test_table_has_a_verdict_for_every_claim_about_every_state() -> None:
    assert set(PRECEDENCE) == set(product(State, State))


@pytest.mark.parametrize(("claim", "known"), list(product(State, State)))
def test_verdicts_are_what_memberlist_decides(claim: State, known: State) -> None:
    for claimed, incarnation in product((0, 1, 2, 3, 2**32 - 1), repeat=2):
        found = verdict(claim, claimed, known=known, incarnation=incarnation)

        assert found is dumb_verdict(claim, claimed, known, incarnation), (claimed, incarnation)


def dumb_verdict(claim: State, claimed: int, known: State, incarnation: int) -> Verdict:
    """As memberlist's three functions go through it, step by step."""
    if claim is ALIVE:
        return Verdict.IGNORE if claimed <= incarnation else Verdict.TAKE
    if claimed < incarnation:
        return Verdict.IGNORE
    if claim is SUSPECT and known is SUSPECT:
        return Verdict.CONFIRM if claimed == incarnation else Verdict.TAKE  # TAKE: ours, as SWIM has it
    if claim is SUSPECT:
        return Verdict.TAKE if known is ALIVE else Verdict.IGNORE
    return Verdict.IGNORE if known in (DEAD, LEFT) else Verdict.TAKE


@pytest.mark.parametrize(("claim", "known"), list(product(State, State)))
def test_taking_a_claim_never_lowers_an_incarnation(claim: State, known: State) -> None:
    assert PRECEDENCE[claim, known][0] is Verdict.IGNORE


@pytest.mark.parametrize("known", State)
def test_member_can_always_come_back_with_a_newer_incarnation(known: State) -> None:
    assert verdict(ALIVE, 2, known=known, incarnation=1) is Verdict.TAKE


@pytest.mark.parametrize(("claim", "known"), list(product(State, State)))
def test_claim_taken_once_is_not_taken_again(claim: State, known: State) -> None:
    """A replay says nothing new."""
    for incarnation in (1, 2):
        if verdict(claim, incarnation, known=known, incarnation=1) is Verdict.TAKE:
            assert verdict(claim, incarnation, known=claim, incarnation=incarnation) is not Verdict.TAKE
