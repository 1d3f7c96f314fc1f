from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftlog.serf.messages import State
from raftlog.serf.swim.members import INCARNATION_MAX, Members, SwimMember
from tests.raftlog.serf.swim.one import ELSEWHERE, ME, SPOKEN, at


def member(name: str, state: State = State.ALIVE, *, changed_at: float = 0.0) -> SwimMember:
    return SwimMember(
        name=name, address=at(name), meta=b"", incarnation=1, state=state, versions=SPOKEN,
        changed_at=changed_at,
    )  # fmt: skip


def table(*names: str, seed: int = 1, count_max: int = 100) -> Members:
    members = Members(Random(seed), name=ME, count_max=count_max, remember_s=30.0)
    for name in (ME, *names):
        members.put(member(name))
    return members


def round_of(members: Members, *, now: float = 0.0) -> str:
    """The names that come up until all living others did."""
    names = []
    for _ in range(members.others):
        found = members.next(now)
        assert found is not None
        names.append(found.name)
    return "".join(names)


def test_nobody_comes_up_where_there_is_nobody() -> None:
    members = table()

    assert members.next(0.0) is None
    assert (members.count, members.others, members.alive_count) == (1, 0, 1)


def test_who_is_gone_does_not_come_up() -> None:
    members = table("a", "b")
    members.put(member("a", State.DEAD))

    assert round_of(members) == "b"
    assert (members.count, members.others, members.alive_count) == (3, 1, 2)


@pytest.mark.parametrize("seed", range(20))
def test_forgetting_somebody_makes_nobody_miss_the_round(seed: int) -> None:
    members = table("a", "b", "c", "d", "e", seed=seed)
    round_of(members)
    seen = [found.name for found in (members.next(0.0), members.next(0.0)) if found]

    gone = seen[0]
    members.put(member(gone, State.LEFT))
    members.forget(gone)
    rest = [found.name for found in (members.next(0.0), members.next(0.0), members.next(0.0)) if found]

    assert sorted(seen + rest) == list("abcde")


def test_newcomer_comes_up_at_a_place_drawn_by_chance() -> None:
    places = set()
    for seed in range(50):
        members = table("a", "b", "c", seed=seed)
        round_of(members)
        members.put(member("n"))
        places.add((round_of(members) + round_of(members)).index("n"))

    assert len(places) >= 3


def test_between_two_times_of_a_member_lie_two_rounds_at_most() -> None:
    members = table(*"abcdefgh")

    names = "".join(round_of(members) for _ in range(50))

    for name in "abcdefgh":
        gaps = [len(gap) for gap in names.split(name)]
        assert max(gaps) <= 2 * 8 - 2


@pytest.mark.parametrize(("now", "count"), [(30.0, 3), (30.1, 2)])
def test_who_is_gone_for_long_counts_no_more_but_is_known(now: float, count: int) -> None:
    members = table("a", "b")
    members.put(member("a", State.DEAD))

    round_of(members, now=now)
    round_of(members, now=now)

    assert members.count == count
    assert members["a"].state is State.DEAD


def test_this_node_counts_even_if_it_left_long_ago() -> None:
    members = table("a")
    members.put(member(ME, State.LEFT))

    round_of(members, now=100.0)
    round_of(members, now=100.0)

    assert sorted(one.name for one in members.told()) == ["a", ME]


def test_who_comes_back_after_long_counts_again() -> None:
    members = table("a", "b")
    members.put(member("a", State.DEAD))
    round_of(members, now=100.0)
    round_of(members, now=100.0)

    members.put(member("a"))

    assert members.count == 3
    assert set(round_of(members, now=100.0) + round_of(members, now=100.0)) == {"a", "b"}


@pytest.mark.parametrize(("incarnation", "is_known"), [(INCARNATION_MAX - 1, True), (INCARNATION_MAX, False)])
def test_only_who_has_no_incarnation_left_is_forgotten_after_long(incarnation: int, is_known: bool) -> None:
    members = table("a", "b")
    members.put(replace(member("a", State.DEAD), incarnation=incarnation))

    round_of(members, now=100.0)
    round_of(members, now=100.0)

    assert ("a" in members.view) is is_known


def test_address_is_of_who_took_it_last_and_has_it_still() -> None:
    members = table("a", "b")
    assert members.at(at("a")) == member("a")

    members.put(replace(member("b"), address=at("a")))
    assert members.at(at("a")) == members["b"]
    assert members.at(at("b")) is None

    members.put(member("a", State.DEAD))
    members.forget("a")
    assert members.at(at("a")) is None
    assert members.at(ELSEWHERE) is None


def test_full_table_without_anybody_gone_takes_nobody_in() -> None:
    members = table("a", count_max=2)

    assert not members.put(member("b"))
    assert members.put(replace(member("a"), incarnation=2))
    assert (sorted(members.view), members["a"].incarnation, members.alive_count) == (["a", ME], 2, 2)


def test_full_table_does_not_forget_this_node() -> None:
    members = table("a", count_max=2)
    members.put(member(ME, State.LEFT))

    assert not members.put(member("b"))

    members.put(member("a", State.DEAD, changed_at=9.0))
    assert members.put(member("b"))
    assert sorted(members.view) == ["b", ME]


def test_others_are_picked_by_chance_each_once() -> None:
    members = table(*"abcdef")
    members.put(member("f", State.DEAD))

    picks = [members.pick(3, lambda one: not one.is_gone) for _ in range(50)]

    assert all(len({one.name for one in pick}) == 3 for pick in picks)
    assert {one.name for pick in picks for one in pick} == set("abcde")
    assert len(members.pick(9, lambda one: True)) == 6
