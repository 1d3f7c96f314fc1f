"""What follows from what is known: one fact per test, and a table of who may be done without."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from raftlog.autopilot.actions import (
    Action,
    AddLearner,
    ChangeAddress,
    Promote,
    RemoveFailed,
    RemoveLeft,
    ReplaceDisk,
    describe,
)
from raftlog.autopilot.facts import Facts, MemberFacts, Remembered
from raftlog.autopilot.judgement import Judgement, judge
from raftlog.autopilot.settings import AutopilotSettings
from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId
from tests.raftlog.autopilot.cases import (
    DAY,
    LONG,
    NOW,
    candidate,
    dead,
    facts,
    judged,
    leader,
    learner,
    member,
    remembers,
)

N2, N3, N4 = NodeId("n2"), NodeId("n3"), NodeId("n4")
THREE = (leader(), member("n2"), member("n3"))


def kinds(judgement: Judgement) -> list[tuple[type[Action], str]]:
    return [(type(action), action.name) for action in judgement.actions]


def reason(judgement: Judgement, name: str) -> str:
    return next(server.reason for server in judgement.servers if server.name == name)


def held(judgement: Judgement) -> str:
    return "\n".join(map(str, judgement.held))


# ── health ──


@pytest.mark.parametrize(
    ("one", "is_healthy", "why"),
    [
        (member("n2"), True, "in contact and up to date"),
        (member("n2", last_contact_s=1.0, trailing_entries=250), True, "in contact"),
        (member("n2", last_contact_s=1.1), False, "silent for 1.1 s"),
        (member("n2", last_contact_s=None), False, "not heard of since this leader leads"),
        (member("n2", trailing_entries=251), False, "lacks 251 committed entries"),
        (member("n2", trailing_entries=None), False, "lacks an unknown number of committed entries"),
        (leader("n2"), True, "leads"),
    ],
)
def test_health_is_contact_and_being_up_to_date(one: MemberFacts, is_healthy: bool, why: str) -> None:
    found = judged(facts(one))

    (server,) = found.servers
    assert (server.is_healthy, found.is_healthy) == (is_healthy, is_healthy)
    assert why in server.reason


@pytest.mark.parametrize("status", ["leaving", "left", "failed"])
def test_a_member_that_goes_or_is_not_heard_by_gossip_is_not_healthy(status: str) -> None:
    found = judged(facts(*THREE, candidates=(candidate("n2", status=status),)))

    assert [server.is_healthy for server in found.servers] == [True, False, True]


def test_health_is_remembered_since_it_began() -> None:
    one = member("n2")
    memory = {N2: Remembered(True, NOW - 7, NOW - 9)}

    same = judged(facts(leader(), one), memory)
    changed = judged(facts(leader(), dead("n2")), memory)

    assert same.memory[N2] == Remembered(True, NOW - 7, NOW - 9)
    assert changed.memory[N2] == Remembered(False, NOW, NOW - 9)
    assert same.servers[1].healthy_since_s == 7
    assert same.memory[NodeId("n1")] == Remembered(True, NOW, NOW)


@pytest.mark.parametrize(("voters", "healthy", "tolerance"), [(1, 1, 0), (2, 2, 0), (3, 3, 1), (3, 2, 0), (3, 1, 0), (5, 5, 2), (5, 4, 1)])  # fmt: skip
def test_failure_tolerance_is_how_many_may_fail_now(voters: int, healthy: int, tolerance: int) -> None:
    others = [
        member(f"n{number}") if number <= healthy else dead(f"n{number}", 10.0)
        for number in range(2, voters + 1)
    ]

    assert judged(facts(leader(), *others)).failure_tolerance == tolerance


# ── learners become voters ──


def test_a_learner_votes_once_it_has_been_healthy_for_long_enough() -> None:
    found = facts(*THREE, learner("n4"))

    early = judged(found, remembers(*found.members, healthy_for_s=9.9))
    late = judged(found, remembers(*found.members, healthy_for_s=10.0))

    assert kinds(early) == [] and reason(early, "n4") == "healthy for 9.9 s; votes after 10 s"
    assert kinds(late) == [(Promote, "n4")]


@pytest.mark.parametrize(("leads_for_s", "is_waived"), [(0.0, True), (10.9, True), (11.1, False)])
def test_a_young_leader_asks_for_no_stabilisation(leads_for_s: float, is_waived: bool) -> None:
    found = facts(leader(), learner("n2"), leads_for_s=leads_for_s)

    assert bool(kinds(judged(found, {}))) is is_waived


@pytest.mark.parametrize(
    "one",
    [
        learner("n4", last_contact_s=1.5), learner("n4", last_contact_s=None), learner("n4", trailing_entries=300),
        learner("n4", trailing_entries=None),
    ],
)  # fmt: skip
def test_an_unhealthy_learner_never_votes(one: MemberFacts) -> None:
    found = facts(*THREE, one, leads_for_s=0.0)

    assert kinds(judged(found, remembers(*found.members, healthy_for_s=100))) == []


def test_a_learner_that_leaves_never_votes() -> None:
    leaving = candidate("n4", role="leaving")

    assert kinds(judged(facts(*THREE, learner("n4"), candidates=(leaving,)))) == []


def test_learners_beyond_the_wanted_voters_stay_learners_and_say_so() -> None:
    found = judged(facts(*THREE, learner("n4")), voters_max=3)

    assert kinds(found) == []
    assert reason(found, "n4") == "stays a learner: 3 voters are wanted, and as many are there"


def test_a_voter_that_has_failed_for_good_is_replaced_by_a_learner_before_it_goes() -> None:
    gone = (candidate("n3", status="failed"),)
    three = (leader(), member("n2"), dead("n3"), learner("n4"), learner("n5"))
    four = (leader(), member("n2"), dead("n3"), member("n4"), learner("n5"))

    assert kinds(judged(facts(*three, candidates=gone), voters_max=3)) == [(Promote, "n4")]
    assert kinds(judged(facts(*four, candidates=gone), voters_max=3)) == [(RemoveFailed, "n3")]
    assert kinds(judged(facts(leader(), member("n2"), dead("n3", 5.0), learner("n4")), voters_max=3)) == []


def test_the_most_up_to_date_learner_takes_the_free_place_then_the_longest_healthy() -> None:
    learners = [learner("n3", trailing_entries=5), learner("n4"), learner("n5")]
    found = facts(leader(), member("n2"), *learners)
    memory = {**remembers(*found.members), N4: Remembered(True, NOW - 50, 0.0)}

    assert kinds(judged(found, memory, voters_max=3)) == [(Promote, "n5")]
    assert kinds(judged(found, memory)) == [(Promote, "n5"), (Promote, "n4"), (Promote, "n3")]


def test_what_was_tried_in_vain_waits() -> None:
    found = judged(facts(*THREE, learner("n4"), postponed={"n4": "not caught up; tried again in 1 s"}))

    assert kinds(found) == []
    assert "does not make a voter of n4" in held(found) and "tried again in 1 s" in held(found)


# ── who goes ──


def test_a_voter_that_says_it_has_left_goes_once_it_is_silent() -> None:
    gone = (candidate("n3", status="left"),)
    silent = (leader(), member("n2"), dead("n3", 5.0))

    heard = judged(facts(*THREE, candidates=gone, is_authenticated=True))

    assert kinds(judged(facts(*silent, candidates=gone, is_authenticated=True))) == [(RemoveLeft, "n3")]
    assert kinds(heard) == []
    assert reason(heard, "n3") == "it said that it leaves, but Raft hears it; removed once it is silent"


@pytest.mark.parametrize(("left_for", "member_for"), [(4.9, LONG), (LONG, 4.9)])
def test_who_is_let_in_again_after_it_left_has_time_to_say_that_it_is_back(
    left_for: float, member_for: float
) -> None:
    gone = (candidate("n3", status="left", since=NOW - left_for),)
    found = facts(leader(), member("n2"), dead("n3", 5.0), candidates=gone, is_authenticated=True)
    memory = {**remembers(*THREE), N3: Remembered(True, NOW - member_for, NOW - member_for)}

    judgement = judge(found, AutopilotSettings(), memory, NOW, members_max=64)

    assert kinds(judgement) == []
    assert "removed after 5 s" in reason(judgement, "n3")


def test_where_anybody_may_have_said_so_a_voter_that_left_counts_as_failed() -> None:
    gone = (candidate("n3", status="left"),)

    silent = (leader(), member("n2"), dead("n3", 5.0))
    found = judged(facts(*silent, candidates=gone))
    later = judged(facts(*silent, candidates=gone), voters_min=2, remove_failed_after_s=4.0)

    assert kinds(found) == [] and "gossip is not encrypted" in held(found)
    assert kinds(later) == [(RemoveFailed, "n3")]


@pytest.mark.parametrize(("contact", "goes"), [(5.0, True), (0.1, False)])
def test_where_anybody_may_have_said_so_a_learner_that_left_goes_if_it_is_silent(
    contact: float, goes: bool
) -> None:
    found = facts(*THREE, learner("n4", last_contact_s=contact), candidates=(candidate("n4", status="left"),))

    assert (RemoveLeft, "n4") in kinds(judged(found)) or not goes
    assert goes or (RemoveLeft, "n4") not in kinds(judged(found))


def test_the_directory_that_left_must_be_the_members() -> None:
    gone = (candidate("n3", status="left", directory_id="an older one"),)

    assert kinds(judged(facts(*THREE, candidates=gone, is_authenticated=True))) == []


@pytest.mark.parametrize(
    ("left_for_s", "member_for_s", "goes"), [(5.0, 5.0, True), (4.9, 9.0, False), (9.0, 4.9, False)]
)
def test_who_left_is_a_member_again_for_as_long_as_it_needs_to_say_so(
    left_for_s: float, member_for_s: float, goes: bool
) -> None:
    gone = candidate("n3", status="left", since=NOW - left_for_s)
    found = facts(leader(), member("n2"), dead("n3", 5.0), candidates=(gone,), is_authenticated=True)
    memory = {**remembers(*found.members), N3: Remembered(True, NOW - member_for_s, NOW - member_for_s)}

    assert kinds(judged(found, memory)) == ([(RemoveLeft, "n3")] if goes else [])


def test_the_leader_is_never_removed() -> None:
    gone = (candidate("n1", status="left"),)

    found = judged(facts(*THREE, candidates=gone, is_authenticated=True))

    assert kinds(found) == [] and "hands over first" in held(found)


def test_one_that_left_stays_while_the_others_cannot_do_without_it() -> None:
    members = (leader(), dead("n2", 5.0), dead("n3", 5.0))

    found = judged(facts(*members, candidates=(candidate("n3", status="left"),), is_authenticated=True))

    assert kinds(found) == []
    assert "only 1 of the 2 other voters are healthy, and 2 must be" in held(found)


def test_a_failed_voter_is_removed_only_after_the_configured_time() -> None:
    def after(silent_s: float) -> Judgement:
        others = (member("n2"), member("n3"), dead("n4", silent_s))
        return judged(facts(leader(), *others, candidates=(candidate("n4", status="failed"),)))

    assert kinds(after(DAY - 1)) == []
    assert reason(after(5), "n4") == "silent for 5.0 s; removed after 24 h of silence"
    assert kinds(after(DAY)) == [(RemoveFailed, "n4")]


def test_without_a_time_a_failed_voter_is_never_removed() -> None:
    found = judged(facts(*THREE, dead("n4")), remove_failed_after_s=math.inf)

    assert kinds(found) == [] and reason(found, "n4") == "silent for 100000.0 s"


def test_one_that_was_never_heard_counts_from_when_this_leader_saw_it_first() -> None:
    found = facts(leader(), member("n2"), member("n3"), dead("n4", None))

    assert kinds(judged(found, remembers(*found.members, healthy_for_s=DAY - 1))) == []
    assert kinds(judged(found, remembers(*found.members, healthy_for_s=DAY))) == [(RemoveFailed, "n4")]
    assert kinds(judged(found, {})) == []


def test_a_failed_voter_stays_if_too_few_would_be_left() -> None:
    found = judged(facts(leader(), member("n2"), dead("n3")))

    assert kinds(found) == []
    assert "at least 3 voters are to remain; add a server first" in held(found)

    early = judged(facts(leader(), member("n2"), dead("n3", 5.0)))
    assert reason(early, "n3") == "silent for 5.0 s; not removed, for at least 3 voters are to remain"


def test_a_failed_voter_stays_if_the_rest_has_no_healthy_majority() -> None:
    members = (leader(), member("n2"), dead("n3", 5.0), dead("n4", 5.0), dead("n5"))

    found = judged(facts(*members))

    assert kinds(found) == []
    assert "only 2 of the 4 other voters are healthy, and 3 must be" in held(found)


def test_a_silent_voter_whose_process_is_alive_stays() -> None:
    members = (leader(), member("n2"), member("n3"), dead("n4"))

    found = judged(facts(*members, candidates=(candidate("n4"),)))

    assert kinds(found) == [] and "says that it is alive" in held(found)


def test_that_a_list_names_a_silent_voter_does_not_keep_it() -> None:
    members = (leader(), member("n2"), member("n3"), dead("n4"))

    found = judged(facts(*members, candidates=(candidate("n4", status="listed"),)))

    assert kinds(found) == [(RemoveFailed, "n4")]


def test_who_is_only_listed_becomes_a_learner() -> None:
    assert kinds(judged(facts(*THREE, candidates=(candidate("n4", status="listed"),)))) == [
        (AddLearner, "n4")
    ]


def test_gossip_alone_never_makes_a_voter_failed() -> None:
    members = (leader(), member("n2"), member("n3"), member("n4"))
    failed = candidate("n4", status="failed", since=NOW - LONG)

    assert kinds(judged(facts(*members, candidates=(failed,)))) == []


def test_a_failed_learner_goes_whatever_the_voters_are_like() -> None:
    found = facts(leader(), dead("n2", 5.0), dead("n3", 5.0), dead("n4", is_voter=False))

    assert kinds(judged(found)) == [(RemoveFailed, "n4")]


def test_a_learner_that_never_connected_goes_after_a_while() -> None:
    one = learner("n4", last_contact_s=None, trailing_entries=None)
    found = facts(*THREE, one)

    assert kinds(judged(found, remembers(*found.members, healthy_for_s=599))) == []
    assert kinds(judged(found, remembers(*found.members, healthy_for_s=600))) == [(RemoveFailed, "n4")]


# ── who comes ──


def test_a_newcomer_becomes_a_learner() -> None:
    found = judged(facts(*THREE, candidates=(candidate("n4", cluster_id="", role="joining"),)))

    assert found.actions == (AddLearner(N4, "n4:8400", "d-n4", "discovery found it"),)
    assert [server.is_member for server in found.servers] == [True, True, True, False]


@pytest.mark.parametrize(
    ("one", "more", "why"),
    [
        (candidate("n4", status="leaving"), {}, "leaving"),
        (candidate("n4", status="left"), {}, "left"),
        (candidate("n4", status="failed"), {}, "failed"),
        (candidate("n4", role="leaving"), {}, "leaving"),
        (candidate("n4", cluster_id="d"), {}, "it is of cluster d, this is c"),
        (candidate("n4"), {"barred": frozenset({"n4"})}, "removed on purpose"),
        (candidate("n4"), {"just_removed": frozenset({"n4"})}, "removed a moment ago"),
        (candidate("n4", address="n2:8400"), {}, "n2:8400 is the address of n2"),
        (candidate("n4"), {"refusals": {"n4": "no answer; tried again in 3 s"}}, "no answer"),
    ],
)
def test_who_is_not_to_come_does_not(one: Candidate, more: dict[str, Any], why: str) -> None:
    found = judged(facts(*THREE, candidates=(one,), **more))

    assert kinds(found) == [] and why in reason(found, "n4")


def test_there_are_never_too_many_members() -> None:
    found = judged(facts(*THREE, candidates=(candidate("n4"),)), members_max=3)

    assert kinds(found) == [] and reason(found, "n4") == "there are 3 members already"


def test_who_gossips_and_serves_no_log_is_left_alone() -> None:
    found = judged(facts(*THREE, candidates=(candidate("agent", address=""),)))

    assert (kinds(found), len(found.servers), found.held) == ([], 3, ())


def test_a_member_that_has_moved_gets_its_new_address() -> None:
    members = (leader(), member("n2"), dead("n3", 5.0))

    found = judged(facts(*members, candidates=(candidate("n3", address="elsewhere:1"),)))

    why = "it says that it is there now, and no longer at n3:8400"
    assert found.actions == (ChangeAddress(N3, "elsewhere:1", "d-n3", why),)


def test_a_replaced_disk_comes_back_as_a_learner() -> None:
    members = (leader(), member("n2"), dead("n3", 5.0))

    found = judged(facts(*members, candidates=(candidate("n3", directory_id="new"),)))

    assert found.actions == (ReplaceDisk(N3, "n3:8400", "new", "its directory is new, and was d-n3"),)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (THREE, "the server with the known one still answers"),
        ((leader(), dead("n2", 5.0), dead("n3", 5.0)), "only 1 of the 2 other voters are healthy"),
        ((leader("n3"), member("n1"), member("n2")), "another server has the name of the leader"),
    ],
)
def test_a_replaced_disk_waits(members: tuple[MemberFacts, ...], why: str) -> None:
    found = judged(facts(*members, candidates=(candidate("n3", directory_id="new"),)))

    assert kinds(found) == [] and why in held(found)


def test_members_that_are_as_the_source_says_need_nothing() -> None:
    found = judged(facts(*THREE, candidates=tuple(candidate(name) for name in ("n1", "n2", "n3"))))

    assert (found.actions, found.held, found.is_healthy) == ((), (), True)


# ── all of it ──


def test_actions_come_in_the_order_of_the_rules() -> None:
    members = (
        leader(), member("n2"), member("n3"), member("n4"), member("n10"), dead("n5", 5.0), dead("n6", 5.0),
        dead("n7", 5.0), dead("n8"), learner("n9"),
    )  # fmt: skip
    candidates = (
        candidate("a"), candidate("n5", status="left"), candidate("n6", directory_id="new"), candidate("n7", address="x:1"),
    )  # fmt: skip

    found = judged(facts(*members, candidates=candidates, is_authenticated=True), voters_min=1)

    assert [kind for kind, _ in kinds(found)] == [
        ChangeAddress, RemoveLeft, Promote, ReplaceDisk, AddLearner, RemoveFailed,
    ]  # fmt: skip
    assert found.held == ()


STATES: dict[str, dict[str, Any]] = {
    "healthy": {},
    "silent": {"last_contact_s": 5.0},
    "dead": {"last_contact_s": LONG},
    "unheard": {"last_contact_s": None, "trailing_entries": None},
}
HINTS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "alive": {},
    "failed": {"status": "failed"},
    "left": {"status": "left"},
    "moved": {"address": "x:1"},
    "other disk": {"directory_id": "new"},
}


@pytest.mark.parametrize("is_authenticated", [True, False])
@pytest.mark.parametrize("voters", [1, 2, 3, 4, 5])
def test_no_situation_leads_to_a_voter_that_cannot_be_spared(voters: int, is_authenticated: bool) -> None:
    """Every combination of two members' states and of what the source says of them, in every size of cluster."""
    has_removed = False
    for states in itertools.product(STATES, repeat=2):
        for hints in itertools.product(HINTS, repeat=2):
            found = _situation(voters, states, hints, is_authenticated)

            judgement = judge(found, AutopilotSettings(), remembers(*found.members), NOW, members_max=64)

            for action in judgement.actions:
                assert describe(action)
                has_removed |= _require_safe(found, judgement, action)

    assert has_removed == (voters > 1), "nothing was shown"


def _situation(voters: int, states: tuple[str, ...], hints: tuple[str, ...], is_authenticated: bool) -> Facts:
    names = [f"n{number}" for number in range(1, voters + 1)]
    members = [leader()]
    candidates = []
    for place, name in enumerate(names[1:]):
        members.append(member(name, **(STATES[states[place]] if place < 2 else {})))
    for name, hint in zip(names, hints, strict=False):
        details = HINTS[hint]
        if details is not None:
            candidates.append(candidate(name, **details))
    return facts(*members, candidates=tuple(candidates), is_authenticated=is_authenticated)


def _require_safe(found: Facts, judgement: Judgement, action: Action) -> bool:
    """Counted anew, and differently than in the judgement; whether the action takes a voter away."""
    if not isinstance(action, RemoveLeft | RemoveFailed | ReplaceDisk):
        return False
    assert action.name != "n1", "the leader"
    rest = [one for one in found.members if one.name != action.name]
    healthy = [
        one for one in judgement.servers if one.is_healthy and one.is_voter and one.name != action.name
    ]
    assert 2 * len(healthy) > len(rest)
    if isinstance(action, RemoveFailed):
        assert len(rest) >= 3
        (gone,) = [one for one in found.members if one.name == action.name]
        assert gone.last_contact_s is None or gone.last_contact_s >= DAY
    return True


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "maybe"}, {"last_contact_s_max": 0}, {"remove_failed_after_s": 0}, {"voters_max": 0}, {"voters_min": 0},
        {"trailing_entries_max": -1}, {"stabilisation_s": -1}, {"left_s": -1}, {"unheard_learner_s": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AutopilotSettings(**wrong)
