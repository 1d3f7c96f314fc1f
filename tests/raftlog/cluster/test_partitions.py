"""Networks that are cut, in both directions and in one, and that are slow. Clients reach all servers."""

from __future__ import annotations

from typing import Final

from tests.raftlog.cluster.servers import Network

DELAY_S: Final = 0.05


def test_a_leader_that_is_cut_off_is_replaced(network: Network) -> None:
    servers, proxies = network
    with servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        proxies.cut_off(leader)
        servers.wait_for_other_leader(leader)
        load.wait_for_progress()
        proxies.heal()
        load.wait_for_progress()

        servers.require_sound(load)


def test_a_follower_that_is_cut_off_catches_up(network: Network) -> None:
    servers, proxies = network
    with servers.load() as load:
        load.wait_for_progress()
        proxies.cut_off(servers.follower())
        load.wait_for_progress(200)
        proxies.heal()
        load.wait_for_progress()

        servers.require_sound(load)


def test_a_leader_that_hears_nobody_steps_down(network: Network) -> None:
    servers, proxies = network
    with servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        proxies.cut({(other, leader) for other in servers.servers if other != leader})
        servers.wait_for_other_leader(leader)
        load.wait_for_progress()
        proxies.heal()
        load.wait_for_progress()

        servers.require_sound(load)


def test_a_leader_that_nobody_hears_is_replaced(network: Network) -> None:
    servers, proxies = network
    with servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        proxies.cut({(leader, other) for other in servers.servers if other != leader})
        servers.wait_for_other_leader(leader)
        load.wait_for_progress()
        proxies.heal()
        load.wait_for_progress()

        servers.require_sound(load)


def test_a_slow_way_to_one_follower_changes_no_leader(network: Network) -> None:
    servers, proxies = network
    with servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        proxies.slow_down(servers.follower(), DELAY_S)
        load.wait_for_progress(200)
        assert servers.leader() == leader
        proxies.heal()

        servers.require_sound(load)
