"""Claims about this node: what it refutes, what it says of itself, how it leaves. Source: SWIM 4.2."""

from __future__ import annotations

import pytest

from raftlog.engine import Note
from raftlog.serf.messages import Alive, Dead, State, Suspect
from raftlog.serf.swim.members import INCARNATION_MAX
from tests.raftlog.serf.swim.one import ME, One, alive


@pytest.fixture
def one() -> One:
    one = One()
    one.know("a", "b", "c", "d")
    return one


@pytest.mark.parametrize(
    ("claim", "incarnation"),
    [
        (Suspect(1, ME, accuser="a"), 2),
        (Suspect(7, ME, accuser="a"), 8),
        (Dead(1, ME, accuser="a"), 2),
        (Dead(7, ME, accuser=ME), 8),
        (alive(ME, 1, meta=b"of a former life"), 2),
        (alive(ME, 4), 5),
    ],
)
def test_node_refutes_what_is_not_so_and_thinks_worse_of_its_health(
    one: One, claim: Alive | Suspect | Dead, incarnation: int
) -> None:
    one.hear(claim)

    assert one.node.incarnation == incarnation
    assert one.rumours() == [alive(ME, incarnation)]
    assert one.node.health_score == 1
    assert one.known(ME) == (State.ALIVE, incarnation)


@pytest.mark.parametrize("claim", [Suspect(1, ME, accuser="a"), alive(ME, 1), alive(ME, 2)])
def test_node_does_not_refute_what_is_old_or_true(one: One, claim: Alive | Suspect | Dead) -> None:
    one.hear(Suspect(1, ME, accuser="a"))
    one.tell_all()

    one.hear(claim)

    assert one.node.incarnation == 2
    assert one.rumours() == []


def test_new_meta_is_told_at_a_newer_incarnation(one: One) -> None:
    one.node.set_meta(b"tags", one.now)

    assert one.node.incarnation == 2
    assert one.rumours() == [alive(ME, 2, meta=b"tags")]
    assert one.told.news == [("updated", ME)]


def test_too_much_meta_is_refused_and_changes_nothing(one: One) -> None:
    with pytest.raises(ValueError, match="meta has 513 bytes; a member can have 512 at most"):
        one.node.set_meta(b"x" * 513, one.now)

    assert one.node.incarnation == 1


def test_incarnations_end_at_the_last_one(one: One) -> None:
    for _ in range(3):
        one.hear(Suspect(INCARNATION_MAX, ME, accuser="a"))

    assert one.node.incarnation == INCARNATION_MAX
    assert one.rumours() == [alive(ME, INCARNATION_MAX)]


def test_leaving_is_told_as_own_death_until_it_has_been_told_often_enough(one: One) -> None:
    one.node.leave(one.now)

    assert one.told.news == [("left", ME)]
    told = []
    while not one.node.has_told_leave:
        told.append(one.rumours())
    assert told == [[Dead(1, ME, accuser=ME)]] * 4
    assert one.node.has_left


def test_who_left_refutes_nothing_and_stays_away(one: One) -> None:
    one.node.leave(one.now)
    one.tell_all()

    one.hear(Suspect(1, ME, accuser="a"), Dead(1, ME, accuser="a"), alive(ME, 5))
    one.node.set_meta(b"tags", one.now)
    one.node.leave(one.now)

    assert one.rumours() == []
    assert one.known(ME) == (State.LEFT, 1)


def test_leaving_with_nobody_there_is_told_at_once() -> None:
    one = One()

    one.node.leave(0.0)

    assert one.node.has_told_leave


def test_refutation_is_noted(one: One) -> None:
    one.hear(Suspect(1, ME, accuser="a"))

    assert Note("refuted", {"accused": 1, "incarnation": 2}) in one.node.drain()
