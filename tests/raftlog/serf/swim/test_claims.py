"""Claims about others: what is taken in, and what is told of it. Source: SWIM 4.2."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from raftlog.serf.codec.swim import PacketMessage
from raftlog.serf.messages import Alive, Dead, NodeState, PushPull, State, Suspect
from raftlog.serf.swim.members import INCARNATION_MAX
from tests.raftlog.serf.swim.one import ELSEWHERE, ME, QUIET, SPOKEN, One, alive, at


@pytest.fixture
def one() -> One:
    one = One()
    one.know("a", "b", "c", "d")
    return one


def kill(one: One, name: str, *, incarnation: int = 1) -> None:
    one.hear(Dead(incarnation, name, accuser="c"))
    one.tell_all()
    one.told.news.clear()


def test_newcomer_is_taken_in_and_told_of(one: One) -> None:
    one.hear(alive("e"))

    assert one.known("e") == (State.ALIVE, 1)
    assert one.told.news == [("joined", "e")]
    assert one.rumours() == [alive("e")]
    assert one.node.alive_count == 6


def test_newer_alive_with_the_same_meta_is_no_news_for_the_protocol_above(one: One) -> None:
    one.hear(alive("a", 2))

    assert one.known("a") == (State.ALIVE, 2)
    assert one.told.news == []
    assert one.rumours() == [alive("a", 2)]


def test_member_changed_when_its_state_did(one: One) -> None:
    claims: list[tuple[float, PacketMessage]] = [
        (1.0, alive("a", 2)),
        (2.0, Suspect(2, "a", accuser="c")),
        (3.0, alive("a", 3)),
        (4.0, alive("a", 4)),
        (5.0, Dead(4, "a", accuser="c")),
        (6.0, alive("a", 5)),
    ]
    times = []
    for now, claim in claims:
        one.now = now
        one.hear(claim)
        times.append(one.node.members["a"].changed_at)

    assert times == [0.0, 2.0, 3.0, 3.0, 5.0, 6.0]


def test_newer_alive_with_other_meta_is(one: One) -> None:
    one.hear(alive("a", 2, meta=b"tags"))

    assert one.node.members["a"].meta == b"tags"
    assert one.told.news == [("updated", "a")]


def test_suspicion_and_refutation_leave_the_member_alive(one: One) -> None:
    one.hear(Suspect(1, "a", accuser="c"))
    assert one.known("a") == (State.SUSPECT, 1)
    assert one.rumours() == [Suspect(1, "a", accuser="c")]
    assert one.node.alive_count == 5

    one.hear(alive("a", 2))

    assert one.known("a") == (State.ALIVE, 2)
    assert one.told.news == []
    one.wake(1000.0)
    assert "member did not refute" not in one.notes


def test_suspected_member_that_does_not_refute_is_dead(one: One) -> None:
    one.hear(Suspect(1, "a", accuser="c"))
    one.tell_all()

    one.wake(one.now + 23.9)
    assert one.known("a") == (State.SUSPECT, 1)
    one.wake(one.now + 0.1)

    assert one.known("a") == (State.DEAD, 1)
    assert one.told.news == [("dead", "a")]
    assert Dead(1, "a", accuser=ME) in one.rumours()
    assert "member did not refute" in one.notes


def test_confirmations_shorten_the_time_to_refute(one: One) -> None:
    for accuser in ("c", "d", "b", "e"):
        one.hear(Suspect(1, "a", accuser=accuser))
    assert one.rumours() == [Suspect(1, "a", accuser="b")]  # two more were wanted: that of e is not told

    one.wake(one.now + 4.0)

    assert one.known("a") == (State.DEAD, 1)


def test_second_suspicion_at_a_newer_incarnation_begins_anew(one: One) -> None:
    one.hear(Suspect(1, "a", accuser="c"))
    one.wake(20.0)

    one.hear(Suspect(2, "a", accuser="c"))
    one.wake(43.0)

    assert one.known("a") == (State.SUSPECT, 2)
    one.wake(44.0)
    assert one.known("a") == (State.DEAD, 2)


def test_suspicion_of_who_died_since_is_over(one: One) -> None:
    one.hear(Suspect(1, "a", accuser="c"), Dead(1, "a", accuser="d"))
    one.node.forget("a")

    one.wake(100.0)
    one.said()

    assert "member did not refute" not in one.notes
    assert one.told.news == [("dead", "a")]


def test_member_that_says_of_itself_that_it_is_dead_has_left(one: One) -> None:
    one.hear(Dead(1, "a", accuser="a"))

    assert one.known("a") == (State.LEFT, 1)
    assert one.told.news == [("left", "a")]
    assert one.rumours() == [Dead(1, "a", accuser="a")]


@pytest.mark.parametrize("claim", [Suspect(1, "x", accuser="c"), Dead(1, "x", accuser="c")])
def test_accusation_of_somebody_unknown_is_nothing(one: One, claim: Suspect | Dead) -> None:
    one.hear(claim)

    assert "x" not in one.node.members
    assert one.rumours() == []


@pytest.mark.parametrize(
    ("state", "kind", "incarnation"),
    [
        (state, kind, incarnation)
        for state, kind, incarnation in product(State, (Alive, Suspect, Dead), range(1, 3))
        if (state, kind) != (State.ALIVE, Dead)
    ],
)
def test_claims_of_old_incarnations_change_nothing_and_are_not_told(
    one: One, state: State, kind: type, incarnation: int
) -> None:
    before: dict[State, list[Suspect | Dead]] = {
        State.ALIVE: [],
        State.SUSPECT: [Suspect(3, "a", accuser="c")],
        State.DEAD: [Dead(3, "a", accuser="c")],
        State.LEFT: [Dead(3, "a", accuser="a")],
    }
    one.hear(alive("a", 3), *before[state])
    one.tell_all()
    one.told.news.clear()
    was = one.node.members["a"]

    one.hear(alive("a", incarnation) if kind is Alive else kind(incarnation, "a", accuser="d"))

    assert one.node.members["a"] == was
    assert one.told.news == []
    assert one.node.rumours_waiting == 0


@pytest.mark.parametrize("node", ["a", ME])
def test_who_is_alive_at_a_newer_incarnation_than_it_is_said_to_have_died_at_is_told_of_again(
    one: One, node: str
) -> None:
    """n1 suspects n2, n2 refutes, and n1 alone does not hear it: when it says that n2 is dead, it has to be told."""
    if node == ME:
        one.hear(Suspect(1, ME, accuser="c"))
    else:
        one.hear(alive("a", 2))
    one.tell_all()
    one.told.news.clear()
    was = one.node.members[node]

    one.hear(Dead(1, node, accuser="d"))

    assert one.rumours() == [Alive(2, node, was.address, was.meta, was.versions)]
    assert one.node.members[node] == was
    assert one.told.news == []


@pytest.mark.parametrize("accuser", ["c", "a"])
def test_who_is_gone_and_comes_back_at_an_old_incarnation_is_told_to_refute(one: One, accuser: str) -> None:
    one.hear(alive("a", 5), Dead(5, "a", accuser=accuser))
    one.tell_all()

    one.hear(alive("a", 1))

    assert one.said() == [(at("a"), Suspect(5, "a", accuser=ME))]
    one.hear(alive("a", 6))
    assert one.known("a") == (State.ALIVE, 6)
    assert one.told.news[-1] == ("joined", "a")


def test_name_of_a_member_that_left_may_have_another_address(one: One) -> None:
    one.hear(Dead(1, "a", accuser="a"))
    one.tell_all()

    one.hear(alive("a", 1, address=ELSEWHERE))
    assert one.said() == [(ELSEWHERE, Suspect(1, "a", accuser=ME))]
    one.hear(alive("a", 2, address=ELSEWHERE))

    assert one.node.members["a"].address == ELSEWHERE
    assert one.told.news == [("left", "a"), ("joined", "a")]


@pytest.mark.parametrize(("reclaim_s", "after_s"), [(0.0, 30.0), (5.0, 5.0), (60.0, 60.0)])
def test_name_of_a_dead_member_may_have_another_address_after_a_while(
    reclaim_s: float, after_s: float
) -> None:
    one = One(replace(QUIET, dead_reclaim_s=reclaim_s))
    one.know("a")
    kill(one, "a")

    one.now += after_s
    one.hear(alive("a", 2, address=ELSEWHERE))
    assert one.told.news == [("conflict", f"a {at('a')} {ELSEWHERE}")]
    one.now += 0.1
    one.hear(alive("a", 2, address=ELSEWHERE))

    assert one.told.news[1:] == [("joined", "a")]
    assert one.node.members["a"].address == ELSEWHERE


@pytest.mark.parametrize("name", ["a", ME])
def test_name_of_somebody_alive_is_not_given_away(one: One, name: str) -> None:
    one.hear(alive(name, 9, address=ELSEWHERE))

    assert one.node.members[name].address == at(name)
    assert one.told.news == [("conflict", f"{name} {at(name)} {ELSEWHERE}")]
    assert one.node.refused == {"name of another address": 1}
    assert one.node.incarnation == 1


def test_who_the_protocol_above_refuses_is_not_taken_in(one: One) -> None:
    one.told.refused_names = {"e"}

    one.hear(alive("e"))

    assert "e" not in one.node.members
    assert one.node.refused == {"refused by the application": 1}


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (alive("", address=ELSEWHERE), "name empty or too long"),
        (alive("e", versions=SPOKEN._replace(protocol_min=0)), "versions make no sense"),
        (alive("e", versions=SPOKEN._replace(protocol_min=3, protocol_max=2)), "versions make no sense"),
    ],
)
def test_claim_that_nobody_can_make_is_refused(one: One, claim: Alive, why: str) -> None:
    before = dict(one.node.members)

    one.hear(claim)

    assert dict(one.node.members) == before
    assert one.node.refused == {why: 1}


# ── forgetting ──


def test_only_who_is_gone_can_be_forgotten(one: One) -> None:
    kill(one, "a")
    one.node.leave(one.now)

    for name in ("a", "b", ME, "x"):
        one.node.forget(name)

    assert sorted(one.node.members) == ["b", "c", "d", ME]


def test_forgotten_member_may_begin_again(one: One) -> None:
    one.hear(alive("a", 5))
    kill(one, "a", incarnation=5)
    one.node.forget("a")

    one.hear(alive("a", 1))

    assert one.known("a") == (State.ALIVE, 1)


def test_dead_member_falls_out_of_what_is_told_but_stays_known(one: One) -> None:
    kill(one, "a")
    for second in range(40):
        one.wake(float(second))
        one.hear(*(alive(name, 10 + second) for name in "bcd"))
    one.said()

    one.ask(PushPull((), b"", False))
    [(_, state)] = one.said()

    assert [node.node for node in state.nodes if node.node == "a"] == []
    assert one.known("a") == (State.DEAD, 1)
    a = NodeState("a", at("a"), b"", 1, State.ALIVE, SPOKEN)
    one.ask(PushPull((a,), b"", True))
    assert NodeState("a", at("a"), b"", 1, State.DEAD, SPOKEN) in one.said()[0][1].nodes


def test_member_at_the_last_incarnation_is_back_once_it_has_been_forgotten() -> None:
    one = One()
    one.know("a", "b")
    one.hear(alive("a", INCARNATION_MAX), Dead(INCARNATION_MAX, "a", accuser="c"))
    one.tell_all()

    one.hear(alive("a", INCARNATION_MAX))
    assert one.known("a") == (State.DEAD, INCARNATION_MAX)
    for second in range(40):
        one.wake(float(second))
        one.hear(alive("b", 10 + second))
    one.hear(alive("a", INCARNATION_MAX))

    assert one.known("a") == (State.ALIVE, INCARNATION_MAX)
