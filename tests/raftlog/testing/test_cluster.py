"""The cluster in this process: what can be done to it, and what becomes of it then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from raftlog.client.failures import CallFailed
from raftlog.errors import ConfigError
from raftlog.testing import Cluster, ClusterError


def others(cluster: Cluster, node: str) -> list[str]:
    return [each for each in cluster.nodes if each != node]


def test_three_servers_run_and_one_leads(cluster: Cluster) -> None:
    leader = cluster.leader()

    assert cluster.nodes == cluster.running == ("n1", "n2", "n3")
    assert leader in cluster.nodes
    assert [(each.name, each.is_leader, each.is_voter) for each in cluster.servers()] == [
        (node, node == leader, True) for node in cluster.nodes
    ]
    assert {each.name: each.address for each in cluster.servers()} == cluster.addresses


def test_another_engine_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="run on raft alone"),
        Cluster(tmp_path, settings={"engine": "pysyncobj"}),
    ):
        pass


def test_a_record_is_stored_on_all(cluster: Cluster) -> None:
    assert cluster.client().append(b"value") == 0

    assert cluster.wait_until_equal() == 1
    assert cluster.ends() == {"n1": 1, "n2": 1, "n3": 1}


def test_coroutines_use_it_as_well(cluster: Cluster) -> None:
    async def produce() -> int:
        async with cluster.async_client("n2") as client:
            return await client.append(b"value")

    assert asyncio.run(produce()) == 0


def test_a_killed_leader_is_replaced_and_comes_back_with_its_data(cluster: Cluster) -> None:
    client = cluster.client()
    client.append(b"before")
    leader = cluster.wait_for_leader()

    cluster.kill(leader)
    client.append(b"after")
    assert cluster.wait_for_leader() != leader
    cluster.restart(leader)

    assert cluster.wait_until_equal() == 2
    client = cluster.client(leader)
    assert [record.value for record in client.scan()] == [b"before", b"after"]


def test_what_was_acknowledged_outlives_the_death_of_all(cluster: Cluster) -> None:
    values = [b"%d" % number for number in range(20)]
    with cluster.client() as client:
        for value in values:
            client.append(value)

    for node in cluster.nodes:
        cluster.kill(node)
    for node in cluster.nodes:
        cluster.restart(node)
    cluster.wait_for_leader()

    assert [record.value for record in cluster.client().scan()] == values


def test_a_leader_that_is_cut_off_acknowledges_nothing(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    rest = others(cluster, leader)
    lonely = cluster.client(leader, timeout_s=0.5)
    lonely.append(b"before")

    cluster.partition([leader], rest)
    cluster.wait_until(lambda: cluster.leader() in rest, "the others have no leader")
    assert cluster.client(*rest).append(b"of the others") == 1
    assert cluster.ends()[leader] == 1
    cluster.heal()

    assert cluster.wait_until_equal() == 2


def test_without_a_majority_nobody_leads(cluster: Cluster) -> None:
    cluster.partition(["n1"], ["n2"], ["n3"])
    cluster.wait_until(lambda: cluster.leader() is None, "somebody leads alone")

    with pytest.raises(CallFailed):
        cluster.client(timeout_s=0.3).append(b"value")
    with pytest.raises(ClusterError, match=r"nobody leads.*n1 follows nobody in term \d+ and has 0 records"):
        cluster.servers()
    cluster.heal()

    cluster.wait_for_leader()


def test_a_paused_leader_is_replaced_and_follows_when_it_goes_on(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()

    cluster.pause(leader)
    cluster.client(*others(cluster, leader)).append(b"meanwhile")
    assert f"{leader} is paused" in str(cluster)
    assert cluster.ends()[leader] == 0
    cluster.resume(leader)

    assert cluster.wait_until_equal() == 1
    assert cluster.wait_for_leader() != leader


def test_a_paused_follower_does_not_hold_up_others(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    follower = others(cluster, leader)[0]

    cluster.pause(follower)
    client = cluster.client(leader)
    assert [client.append(b"%d" % number) for number in range(10)] == list(range(10))
    assert cluster.leader() == leader
    cluster.resume(follower)

    assert cluster.wait_until_equal() == 10


@pytest.mark.raftlog_cluster(settings={"persist_timeout_ms": 300})
def test_a_leader_whose_disk_stalls_hands_over(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    client = cluster.client()

    cluster.slow_down_disk(leader, 2.0)
    client.append(b"value")
    cluster.wait_until(lambda: cluster.leader() in others(cluster, leader), "it leads still")
    cluster.slow_down_disk(leader, 0.0)

    assert cluster.wait_until_equal() == 1


def test_a_follower_with_a_slow_disk_holds_nobody_up(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    cluster.slow_down_disk(others(cluster, leader)[0], 5.0)

    client = cluster.client()
    assert [client.append(b"%d" % number) for number in range(10)] == list(range(10))
    assert cluster.leader() == leader


def test_a_server_that_is_stopped_hands_over(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()

    cluster.stop(leader)

    assert leader not in cluster.running
    assert cluster.wait_for_leader() in others(cluster, leader)


def test_errors_say_what_to_do(cluster: Cluster) -> None:
    cluster.kill("n2")

    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: cluster.kill("n4"), "no server 'n4'; there are n1, n2, n3"),
        (lambda: cluster.kill("n2"), r"n2 does not run: .*`restart\('n2'\)` starts it"),
        (lambda: cluster.pause("n2"), "n2 does not run"),
        (lambda: cluster.partition(["n1"], ["n1", "n3"]), "n1: a server is on one side"),
        (lambda: cluster.partition("n1"), "partition takes groups of servers"),
        (
            lambda: cluster.wait_until(lambda: False, "no news", 0.01),
            "no news after 0.01 s: .*n2 does not run",
        ),
    ]

    for act, text in acts:
        with pytest.raises(ClusterError, match=text):
            act()


@pytest.mark.raftlog_cluster(nodes=1, tls=True, settings={"message_bytes_max": 2**26})
def test_a_marker_says_what_the_fixture_is(cluster: Cluster) -> None:
    assert cluster.nodes == ("n1",)
    assert cluster.tls is not None
    assert cluster.client().append(b"value") == 0


def test_it_ends_with_servers_in_any_condition(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        client = cluster.client()
        client.append(b"value")
        cluster.pause("n1")
        cluster.kill("n2")
        cluster.partition(["n3"])

    assert cluster.running == ()
    with pytest.raises(RuntimeError, match="closed"):
        client.append(b"value")


@pytest.mark.parametrize("nodes", [0, 10])
def test_how_many_servers_there_may_be(nodes: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"nodes is {nodes}; it must be from 1 to 9"):
        Cluster(tmp_path, nodes=nodes)


def test_a_server_that_cannot_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "n2").write_text("in the way")

    with pytest.raises(ClusterError, match="n2 did not start: .*"), Cluster(tmp_path) as cluster:
        assert cluster.nodes
