"""Networks that are cut, in both directions and in one, and that are slow. Clients reach all servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.raftlog.cluster.proxies import Proxies
from tests.raftlog.cluster.servers import Servers, serving

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(),
    reason="proxies find out who calls them by /proc, which only Linux has",
)

DELAY_S = 0.05


class Network(NamedTuple):
    servers: Servers
    proxies: Proxies


@pytest.fixture(scope="module")
def whole_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three servers that know each other by the addresses of proxies."""
    with ExitStack() as stack:

        def begin(servers: Servers) -> None:
            def processes() -> dict[str, int]:
                return {name: each.process_id for name, each in servers.servers.items() if each.is_running}

            targets = {name: int(address.rpartition(":")[2]) for name, address in servers.addresses.items()}
            proxies = stack.enter_context(Proxies(targets, processes))
            found.append(proxies)
            peers = [
                {"name": name, "ip_address": "127.0.0.1", "port": port}
                for name, port in proxies.ports.items()
            ]
            for name, port in proxies.ports.items():
                servers.settle(name, peers=peers, rpc_advertise_addr=f"127.0.0.1:{port}")

        found: list[Proxies] = []
        servers = stack.enter_context(serving(Servers(tmp_path_factory.mktemp("network")), 3, prepare=begin))
        yield Network(servers, found[0])


@pytest.fixture
def network(whole_network: Network) -> Iterator[Network]:
    yield whole_network
    whole_network.proxies.heal()


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
