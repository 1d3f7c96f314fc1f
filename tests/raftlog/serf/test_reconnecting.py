"""Whom to try again, and how often nodes wake for it."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.serf.config import FAST, LAN
from raftlog.serf.events import Join, Leave, Status
from raftlog.serf.members import SerfMember
from raftlog.serf.messages import Address, Versions
from raftlog.serf.reconnecting import whom_to_try
from tests.raftlog.serf.post import Post


def failed(count: int) -> list[SerfMember]:
    return [SerfMember(f"n{n}", Address(f"10.0.0.{n}:1"), {}, Versions()) for n in range(count)]


def test_nobody_is_tried_when_nobody_failed() -> None:
    assert whom_to_try([], 3, Random(1)) is None


def test_when_as_many_failed_as_live_one_is_tried_each_time() -> None:
    random = Random(1)

    assert all(whom_to_try(failed(2), 2, random) for _ in range(100))
    assert all(whom_to_try(failed(1), 0, random) for _ in range(100))


def test_all_together_try_each_failed_member_about_once_in_an_interval() -> None:
    random = Random(1)
    tried = [whom_to_try(failed(2), 10, random) for _ in range(10 * 200)]  # ten nodes, 200 intervals

    counts = [sum(one is not None and one.name == name for one in tried) for name in ("n0", "n1")]

    assert all(150 < count < 250 for count in counts)


def test_nobody_who_left_is_tried() -> None:

    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.outcome(n2, Leave(post.number()))

    post.run(20 * FAST.reconnect_interval_s)

    assert n1.noted("serf_reconnecting") == []


def test_an_idle_cluster_wakes_for_probes_and_exchanges_only() -> None:
    post = Post(config=LAN)
    nodes = post.cluster("n1", "n2", "n3", "n4", "n5")
    post.run(60.0)
    wakes, packets = post.wakes.total(), post.packets.total()

    post.run(300.0)

    a_node_a_second = (post.wakes.total() - wakes) / 300 / 5
    print(f"{a_node_a_second:.2f} wakes, {(post.packets.total() - packets) / 300 / 5:.2f} packets")
    assert a_node_a_second < 3
    assert all(set(post.statuses(node).values()) == {Status.ALIVE} for node in nodes)


@pytest.mark.parametrize("is_cut", [False, True])
def test_leaving_ends_in_time_even_if_nobody_hears_it(is_cut: bool) -> None:

    post = Post()
    _, n2, _ = post.cluster("n1", "n2", "n3")
    if is_cut:
        post.cut_off(n2)
    began = post.now

    post.outcome(n2, Leave(post.number()))

    assert post.now - began <= 2 * FAST.broadcast_timeout_s + FAST.leave_propagate_s + 0.1
    if not is_cut:
        assert post.now - began < 1.0


def test_who_starts_again_at_another_address_is_taken_in_when_the_old_one_is_dead_for_long() -> None:

    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.crash(n3)
    moved = post.start("n3")
    assert post.address(moved) != post.address(n3)

    def is_there() -> bool:
        return all(
            (post.member(node, "n3").address, post.statuses(node)["n3"])
            == (post.address(moved), Status.ALIVE)
            for node in (n1, n2)
        )

    began = post.now
    while not is_there() and post.now - began < 60.0:
        post.outcome(moved, Join(post.number(), (post.address(n1),)))
        post.run(1.0)

    assert is_there()
    print(f"after {post.now - began:.1f} s")
