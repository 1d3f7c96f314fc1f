"""The table of members: every status meets everything that may be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.serf.config import FAST
from raftlog.serf.events import (
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberReaped,
    MemberUpdated,
    Status,
    Told,
)
from raftlog.serf.lamport import TIME_MAX, LamportClock
from raftlog.serf.members import Heard, MemberTable
from raftlog.serf.messages import Address, JoinIntent, LeaveIntent, Versions

HERE, THERE = Address("127.0.0.1:1"), Address("127.0.0.1:2")
ALIVE, LEAVING, LEFT, FAILED = Status.ALIVE, Status.LEAVING, Status.LEFT, Status.FAILED


def table(**config: object) -> MemberTable:
    members = MemberTable(replace(FAST, **config), "me")  # type: ignore[arg-type]
    members.joined("me", HERE, {}, Versions())
    members.take_news()
    return members


def with_member(status: Status) -> MemberTable:
    """`n1` at Lamport time 5 with this status; gone at 10 s."""
    members = table()
    members.joined("n1", THERE, {}, Versions())
    if status in (LEAVING, LEFT):
        members.hear_leave(LeaveIntent(5, "n1"), 9.0)
    else:
        members.hear_join(JoinIntent(5, "n1"), 9.0)
    if status in (LEFT, FAILED):
        members.gone("n1", said_so=False, now=10.0)
    assert status_of(members) is status
    members.take_news()
    return members


def status_of(members: MemberTable) -> Status | None:
    member = members.get("n1")
    return None if member is None else member.status


def kinds(members: MemberTable) -> list[type[Told]]:
    return [type(told) for told in members.take_news()]


@pytest.mark.parametrize("status", list(Status))
def test_who_is_there_again_is_alive(status: Status) -> None:
    members = with_member(status)

    members.joined("n1", THERE, {}, Versions())

    assert status_of(members) is ALIVE
    assert kinds(members) == ([] if status is ALIVE else [MemberJoined])
    assert not members.failed
    assert not members.left


@pytest.mark.parametrize(
    ("status", "after", "told"),
    [(ALIVE, FAILED, [MemberFailed]), (LEAVING, LEFT, [MemberLeft]), (LEFT, LEFT, []), (FAILED, FAILED, [])],
)
def test_who_is_gone_has_left_or_failed(status: Status, after: Status, told: list[type[Told]]) -> None:
    members = with_member(status)

    members.gone("n1", said_so=False, now=20.0)

    assert status_of(members) is after
    assert kinds(members) == told


@pytest.mark.parametrize("status", list(Status))
def test_who_told_memberlist_that_it_leaves_has_left(status: Status) -> None:
    members = with_member(status)

    members.gone("n1", said_so=True, now=20.0)

    assert status_of(members) is LEFT
    assert kinds(members) == ([] if status is LEFT else [MemberLeft])


@pytest.mark.parametrize(
    ("status", "after", "told"),
    [(ALIVE, LEAVING, []), (LEAVING, LEAVING, []), (LEFT, LEFT, []), (FAILED, LEFT, [MemberLeft])],
)
def test_a_later_intent_to_leave_counts(status: Status, after: Status, told: list[type[Told]]) -> None:
    members = with_member(status)

    assert members.hear_leave(LeaveIntent(6, "n1"), 20.0) is Heard.NEW

    assert status_of(members) is after
    assert kinds(members) == told
    assert members.status_times()["n1"] == 6
    assert members.hear_leave(LeaveIntent(6, "n1"), 20.0) is Heard.OLD


@pytest.mark.parametrize(
    ("status", "after"), [(ALIVE, ALIVE), (LEAVING, ALIVE), (LEFT, LEFT), (FAILED, FAILED)]
)
def test_a_later_intent_to_join_counts(status: Status, after: Status) -> None:
    members = with_member(status)

    assert members.hear_join(JoinIntent(6, "n1"), 20.0) is Heard.NEW

    assert status_of(members) is after
    assert kinds(members) == []
    assert members.hear_join(JoinIntent(6, "n1"), 20.0) is Heard.OLD


@pytest.mark.parametrize("status", list(Status))
def test_intents_that_are_not_later_change_nothing(status: Status) -> None:
    members = with_member(status)

    assert members.hear_leave(LeaveIntent(5, "n1", is_pruned=True), 20.0) is Heard.OLD
    assert members.hear_join(JoinIntent(5, "n1"), 20.0) is Heard.OLD

    assert status_of(members) is status
    assert kinds(members) == []


@pytest.mark.parametrize(("status", "told"), [(LEFT, [MemberReaped]), (FAILED, [MemberLeft, MemberReaped])])
def test_who_is_gone_and_pruned_is_forgotten(status: Status, told: list[type[Told]]) -> None:
    members = with_member(status)

    assert members.hear_leave(LeaveIntent(6, "n1", is_pruned=True), 20.0) is Heard.NEW

    assert status_of(members) is None
    assert kinds(members) == told


@pytest.mark.parametrize("status", [ALIVE, LEAVING])
def test_who_is_there_and_pruned_is_forgotten_when_it_is_gone(status: Status) -> None:
    members = with_member(status)
    members.hear_leave(LeaveIntent(6, "n1", is_pruned=True), 20.0)
    assert status_of(members) is LEAVING

    members.gone("n1", said_so=False, now=21.0)

    assert status_of(members) is None
    assert kinds(members) == [MemberLeft, MemberReaped]


def test_who_says_that_it_stays_is_not_pruned_when_it_fails_later() -> None:
    members = with_member(ALIVE)
    members.hear_leave(LeaveIntent(6, "n1", is_pruned=True), 20.0)
    members.hear_join(JoinIntent(7, "n1"), 20.0)

    members.gone("n1", said_so=False, now=21.0)

    assert status_of(members) is FAILED


def test_that_this_node_leaves_is_to_be_refuted_until_it_leaves() -> None:
    members = table()

    assert members.hear_leave(LeaveIntent(3, "me", is_pruned=True), 1.0) is Heard.REFUTE
    members.is_leaving = True
    assert members.hear_leave(LeaveIntent(3, "me"), 1.0) is Heard.NEW
    assert members.hear_join(JoinIntent(9, "me"), 1.0) is Heard.NEW

    assert members.public()[0].status is LEAVING


def test_an_intent_that_overtook_the_news_of_its_member_counts_when_that_comes() -> None:
    members = table()
    assert members.hear_leave(LeaveIntent(4, "n1"), 1.0) is Heard.NEW
    assert members.hear_leave(LeaveIntent(4, "n1"), 1.0) is Heard.OLD
    assert members.hear_join(JoinIntent(3, "n1"), 1.0) is Heard.OLD
    assert members.hear_leave(LeaveIntent(5, "n2"), 1.0) is Heard.NEW
    assert members.hear_join(JoinIntent(6, "n2"), 1.0) is Heard.NEW

    members.joined("n1", THERE, {}, Versions())
    members.joined("n2", HERE, {}, Versions())

    assert status_of(members) is LEAVING
    assert members.status_times() == {"me": 0, "n1": 4, "n2": 6}
    assert [member.status for member in members.here] == [ALIVE, LEAVING, ALIVE]


def test_an_intent_of_nobody_known_is_forgotten_after_a_time() -> None:
    members = table()
    members.hear_leave(LeaveIntent(4, "n1"), 1.0)
    assert members.has_anything_to_reap

    members.reap(1.0 + FAST.recent_intent_timeout_s + 1)

    members.joined("n1", THERE, {}, Versions())
    assert status_of(members) is ALIVE
    assert not members.has_anything_to_reap


def test_of_too_many_intents_the_first_is_forgotten() -> None:
    members = table(swim=replace(FAST.swim, members_max=3))
    for number in range(4):
        members.hear_leave(LeaveIntent(4, f"n{number}"), 1.0)

    for number in range(2):
        members.joined(f"n{number}", THERE, {}, Versions())

    assert [member.status for member in members.here] == [ALIVE, ALIVE, LEAVING]


def test_no_room_is_made_where_this_node_is_that_says_goodbye() -> None:
    """It is LEFT then, but for as long as it stays others may come."""
    members = table(swim=replace(FAST.swim, members_max=2))
    members.joined("n1", THERE, {}, Versions())
    members.gone("me", said_so=True, now=1.0)

    members.joined("n2", THERE, {}, Versions())

    assert members.get("me") is not None


def test_of_too_many_members_the_one_gone_longest_is_forgotten() -> None:
    members = table(swim=replace(FAST.swim, members_max=3))
    for number in range(2):
        members.joined(f"n{number}", THERE, {}, Versions())
    members.gone("n1", said_so=False, now=5.0)
    members.gone("n0", said_so=True, now=6.0)
    members.take_news()

    members.joined("n2", THERE, {}, Versions())

    assert kinds(members) == [MemberReaped, MemberJoined]
    assert [member.name for member in members.public()] == ["me", "n0", "n2"]


def test_the_failed_and_those_who_left_are_reaped_after_their_own_times() -> None:
    members = table(reconnect_timeout_s=10.0, tombstone_timeout_s=20.0)
    for name in ("failed", "left"):
        members.joined(name, THERE, {}, Versions())
        members.gone(name, said_so=name == "left", now=100.0)

    members.reap(110.0)
    assert len(members) == 3
    members.reap(110.1)
    assert [member.name for member in members.public()] == ["left", "me"]
    members.reap(120.1)
    assert [member.name for member in members.public()] == ["me"]


def test_who_would_leave_and_never_goes_is_alive_after_a_time() -> None:
    members = with_member(LEAVING)  # since 9 s
    last = 9.0 + 4 * FAST.broadcast_timeout_s

    members.reap(last)
    assert members.has_anything_to_reap and status_of(members) is LEAVING
    members.reap(last + 0.1)

    assert status_of(members) is ALIVE and not members.has_anything_to_reap
    members.gone("n1", said_so=False, now=last + 1)
    assert kinds(members) == [MemberFailed]


def test_this_node_is_leaving_for_as_long_as_it_takes() -> None:
    members = table()
    members.is_leaving = True
    members.hear_leave(LeaveIntent(5, "me"), 9.0)

    members.reap(1_000.0)

    own = members.get("me")
    assert own is not None and own.status is LEAVING


def test_only_a_change_is_an_update() -> None:
    members = with_member(ALIVE)

    members.updated("n1", THERE, {}, Versions())
    members.updated("n2", THERE, {}, Versions())
    assert kinds(members) == []
    members.updated("n1", THERE, {"role": "log"}, Versions())
    members.updated("n1", HERE, {"role": "log"}, Versions())
    members.joined("n1", HERE, {"role": "web"}, Versions())
    assert kinds(members) == [MemberUpdated] * 3


def test_a_clock_is_later_than_what_it_heard_and_never_goes_back() -> None:
    clock = LamportClock()
    assert clock.time == 1
    assert (clock.tick(), clock.time) == (1, 2)

    clock.witness(5)
    assert clock.time == 6
    clock.witness(6)
    assert clock.time == 7
    clock.witness(2)
    assert clock.time == 7


def test_a_clock_stops_at_its_end_and_does_not_hear_of_what_is_beyond() -> None:
    clock = LamportClock()

    clock.witness(TIME_MAX + 1)
    assert clock.time == 1
    clock.witness(TIME_MAX)
    assert clock.time == TIME_MAX
    assert (clock.tick(), clock.time) == (TIME_MAX, TIME_MAX)
