"""Who comes, goes and fails, as 2 to 5 nodes see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.serf.config import FAST
from raftlog.serf.events import (
    ChangeKeys,
    Join,
    KeyAction,
    Leave,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberReaped,
    MemberUpdated,
    RemoveFailed,
    SendQuery,
    SetTags,
    Status,
)
from raftlog.serf.messages import Address
from tests.raftlog.serf.post import Post

ALIVE, LEAVING, LEFT, FAILED = Status.ALIVE, Status.LEAVING, Status.LEFT, Status.FAILED


def test_a_node_alone_knows_itself() -> None:
    post = Post()

    alone = post.start("n1", {"role": "log"})

    assert [(m.name, m.status, m.tags) for m in alone.node.members()] == [("n1", ALIVE, {"role": "log"})]
    assert alone.node.local == alone.node.members()[0]
    assert alone.tells(MemberJoined) == [MemberJoined(alone.node.local)]
    assert not alone.node.has_left


def test_who_joins_is_seen_with_its_tags_and_sees_the_others() -> None:
    post = Post()
    n1 = post.start("n1", {"rpc_addr": "n1:8400"})
    n2 = post.start("n2", {"rpc_addr": "n2:8400"})
    n3 = post.start("n3", {"rpc_addr": "n3:8400"})

    assert post.join(n2, n1) == {post.address(n1): ""}
    assert post.join(n3, n2) == {post.address(n2): ""}

    everyone = {"n1": "n1:8400", "n2": "n2:8400", "n3": "n3:8400"}
    for node in (n1, n2, n3):
        post.until(lambda node=node: len(node.node.members()) == 3)  # type: ignore[misc]
        assert {member.name: member.tags["rpc_addr"] for member in node.node.members()} == everyone
        assert [joined.member.name for joined in node.tells(MemberJoined)].count("n3") == 1


def test_a_join_tells_for_each_address_whether_it_worked() -> None:
    post = Post()
    n1, n2 = post.start("n1"), post.start("n2")
    nowhere = Address("127.0.0.1:9")

    outcome = post.outcome(n2, Join(post.number(), (post.address(n1), nowhere)))

    assert outcome[post.address(n1)] == ""
    assert "nobody there" in outcome[nowhere]


def test_a_join_of_nobody_is_over_at_once() -> None:
    post = Post()
    n1 = post.start("n1")

    assert post.outcome(n1, Join(post.number(), ())) == {}


def test_new_tags_are_seen_by_all() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    assert post.outcome(n2, SetTags(post.number(), {"role": "leaving"})) is None

    post.until(lambda: all(post.member(node, "n2").tags == {"role": "leaving"} for node in (n1, n2, n3)))
    assert [updated.member.tags for updated in n1.tells(MemberUpdated)] == [{"role": "leaving"}]
    assert [updated.member.tags for updated in n2.tells(MemberUpdated)] == [{"role": "leaving"}]


def test_tags_that_are_too_large_are_refused_and_the_old_ones_stay() -> None:
    post = Post()
    n1 = post.start("n1", {"role": "log"})

    outcome = post.outcome(n1, SetTags(post.number(), {"role": "x" * 600}))

    assert isinstance(outcome, ValueError)
    assert n1.node.local.tags == {"role": "log"}
    assert n1.tells(MemberUpdated) == []


@pytest.mark.parametrize("name", ["", "n" * 129, "two\nlines"])
def test_a_name_that_others_would_refuse_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValueError, match="name of a node"):
        Post().start(name)


def test_who_leaves_has_left_and_did_not_fail() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    began = post.now
    assert post.outcome(n3, Leave(post.number())) is None

    assert n3.node.has_left
    assert n3.node.deadline() is None
    assert post.now - began <= 2 * FAST.broadcast_timeout_s + FAST.leave_propagate_s
    for node in (n1, n2):
        assert post.statuses(node) == {"n1": ALIVE, "n2": ALIVE, "n3": LEFT}
        assert [left.member.name for left in node.tells(MemberLeft)] == ["n3"]
        assert node.tells(MemberFailed) == []
    post.run(5.0)
    assert n1.tells(MemberFailed) == n2.tells(MemberFailed) == []


def test_others_hear_that_a_node_will_leave_before_it_is_gone() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    post.ask(n3, Leave(post.number()))

    assert n3.node.local.status is LEAVING
    post.until(lambda: all(post.statuses(node)["n3"] is LEAVING for node in (n1, n2)))
    post.until(lambda: n3.node.has_left)
    assert n3.noted("serf_leave_refuted") == []


def test_a_node_alone_leaves_without_waiting_for_anybody_to_hear_it() -> None:
    post = Post()
    n1 = post.start("n1")
    began = post.now

    post.outcome(n1, Leave(post.number()))

    assert post.now - began == pytest.approx(FAST.leave_propagate_s)


def test_after_leaving_requests_are_refused_and_packets_are_not_heard() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.outcome(n2, Leave(post.number()))

    assert isinstance(post.outcome(n2, SetTags(post.number(), {})), ValueError)
    assert isinstance(post.outcome(n2, RemoveFailed(post.number(), "n1")), ValueError)
    assert "has left" in post.join(n2, n1)[post.address(n1)]
    assert post.outcome(n2, Leave(post.number())) is None
    packets = post.packets["n2"]
    post.run(10.0)
    assert post.packets["n2"] == packets


def test_a_second_leave_ends_with_the_first() -> None:
    post = Post()
    _, n2 = post.cluster("n1", "n2")

    first = post.ask(n2, Leave(post.number()))
    second = post.ask(n2, Leave(post.number()))
    post.until(lambda: n2.node.has_left)

    assert {first, second} <= post.outcomes.keys()


def test_what_was_asked_for_ends_when_the_node_has_left() -> None:
    post = Post(config=replace(FAST, leave_propagate_s=0.01), keys=(bytes(32),))
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.crash(n3)
    nowhere = Address("127.0.0.1:9")

    join = post.ask(n2, Join(post.number(), (nowhere, post.address(n1))))
    query = post.ask(n2, SendQuery(post.number(), "load", b"", wants_ack=True, timeout_s=60.0))
    keys = post.ask(n2, ChangeKeys(post.number(), KeyAction.LIST))
    post.outcome(n2, Leave(post.number()))

    assert post.outcomes[join] == {nowhere: "this node has left the gossip", post.address(n1): ""}
    assert sorted(post.outcomes[query].acks) == ["n1", "n2"]
    assert post.outcomes[keys].answers == 2
    assert n2.node.deadline() is None


def test_who_left_and_comes_back_is_alive_for_all_and_stays_so() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.outcome(n3, Leave(post.number()))

    n3 = post.restart(n3, {"life": "second"})
    post.join(n3, n1)

    everyone = {"n1": ALIVE, "n2": ALIVE, "n3": ALIVE}
    post.until(lambda: all(post.statuses(node) == everyone for node in (n1, n2, n3)))
    assert post.member(n2, "n3").tags == {"life": "second"}
    post.run(10.0)
    assert all(post.statuses(node) == everyone for node in (n1, n2, n3))
    assert [joined.member.name for joined in n1.tells(MemberJoined)].count("n3") == 2


def test_who_crashes_fails_and_is_forgotten_after_a_time() -> None:
    post = Post(config=replace(FAST, reconnect_timeout_s=20.0))
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    post.crash(n3)
    took = post.until(lambda: all(post.statuses(node).get("n3") is FAILED for node in (n1, n2)))

    print(f"detected after {took:.2f} s")
    assert [failed.member.name for failed in n1.tells(MemberFailed)] == ["n3"]
    assert n1.tells(MemberLeft) == []
    post.until(lambda: all("n3" not in post.statuses(node) for node in (n1, n2)))
    assert [reaped.member.name for reaped in n1.tells(MemberReaped)] == ["n3"]
    assert n1.node.counts()["members_failed"] == 0


def test_who_left_is_forgotten_after_a_time() -> None:
    post = Post(config=replace(FAST, tombstone_timeout_s=5.0))
    n1, n2 = post.cluster("n1", "n2")
    post.outcome(n2, Leave(post.number()))

    post.until(lambda: post.statuses(n1) == {"n1": ALIVE})

    assert [reaped.member.name for reaped in n1.tells(MemberReaped)] == ["n2"]


def test_who_failed_and_starts_again_with_a_lower_incarnation_is_alive_without_joining() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.outcome(n3, SetTags(post.number(), {"life": "first"}))
    post.crash(n3)
    post.until(lambda: all(post.statuses(node)["n3"] is FAILED for node in (n1, n2)))

    n3 = post.restart(n3, {"life": "second"})

    everyone = {"n1": ALIVE, "n2": ALIVE, "n3": ALIVE}
    post.until(lambda: all(post.statuses(node) == everyone for node in (n1, n2, n3)))
    assert post.member(n1, "n3").tags == {"life": "second"}
    assert n1.noted("serf_reconnecting") or n2.noted("serf_reconnecting")


def test_who_starts_again_before_it_was_missed_is_alive_with_its_new_tags() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    for life in ("a", "b", "c"):
        post.outcome(n3, SetTags(post.number(), {"life": life}))
    post.crash(n3)

    n3 = post.restart(n3, {"life": "second"})
    post.join(n3, n1)

    post.until(lambda: all(post.member(node, "n3").tags == {"life": "second"} for node in (n1, n2)))
    assert post.statuses(n1)["n3"] is ALIVE
    assert n1.tells(MemberFailed) == []


def test_two_halves_find_together_after_a_partition() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3", "n4")
    n1, n2, n3, n4 = nodes
    post.cut_off(n1, n2)
    post.until(lambda: all(post.statuses(n1)[name] is FAILED for name in ("n3", "n4")))
    post.until(lambda: all(post.statuses(n3)[name] is FAILED for name in ("n1", "n2")))

    post.cut.clear()

    post.until(lambda: all(set(post.statuses(node).values()) == {ALIVE} for node in nodes))


def test_a_failed_member_can_be_declared_left_everywhere() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.crash(n3)
    post.until(lambda: all(post.statuses(node)["n3"] is FAILED for node in (n1, n2)))

    assert post.outcome(n1, RemoveFailed(post.number(), "n3")) is None

    post.until(lambda: all(post.statuses(node)["n3"] is LEFT for node in (n1, n2)))
    assert [left.member.name for left in n2.tells(MemberLeft)] == ["n3"]


def test_a_pruned_member_is_forgotten_everywhere_at_once() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.crash(n3)
    post.until(lambda: all(post.statuses(node)["n3"] is FAILED for node in (n1, n2)))

    post.ask(n1, RemoveFailed(post.number(), "n3", is_pruned=True))

    post.until(lambda: all("n3" not in post.statuses(node) for node in (n1, n2)))
    assert "n3" not in n1.node.swim.members
    post.run(10.0)
    assert "n3" not in post.statuses(n1)
    assert "n3" not in post.statuses(n2)


def test_a_living_member_that_is_declared_left_says_that_it_is_not_so() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    post.ask(n1, RemoveFailed(post.number(), "n3", is_pruned=True))
    assert post.statuses(n1)["n3"] is LEAVING

    post.until(lambda: all(post.statuses(node)["n3"] is ALIVE for node in (n1, n2, n3)))
    assert n3.noted("serf_leave_refuted")
    post.run(10.0)
    assert post.statuses(n1) == post.statuses(n2) == {"n1": ALIVE, "n2": ALIVE, "n3": ALIVE}
    assert n2.tells(MemberLeft) == []
    assert n2.tells(MemberFailed) == []


@pytest.mark.parametrize("node", ["n9", "n1"])
def test_a_stranger_and_the_node_itself_cannot_be_declared_left(node: str) -> None:
    post = Post()
    n1, _ = post.cluster("n1", "n2")

    assert isinstance(post.outcome(n1, RemoveFailed(post.number(), node)), KeyError)


@pytest.mark.parametrize("seed", range(5))
def test_leaving_is_seen_as_such_with_a_fifth_of_the_packets_lost(seed: int) -> None:
    post = Post(seed=seed)
    nodes = post.cluster("n1", "n2", "n3", "n4", "n5")
    post.loss = 0.2
    *others, last = nodes

    post.outcome(last, Leave(post.number()))

    post.until(lambda: all(post.statuses(node)["n5"] is LEFT for node in others))
    assert all(node.tells(MemberFailed) == [] for node in others)
