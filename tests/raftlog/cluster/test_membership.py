"""Clusters that grow, shrink and move while clients go on."""

from __future__ import annotations

from pathlib import Path

from raftlog import Client
from raftlog.local_cluster import free_ports
from tests.raftlog.cluster.servers import SETTINGS, Servers, serving


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(1, count + 1)]


def grow(servers: Servers, count: int) -> None:
    servers.create(count, SETTINGS)
    servers.start()
    servers.wait_for_voters(*names(count))


def shrink(servers: Servers, count: int) -> None:
    """The ones that were added last leave, and end."""
    for name in sorted(servers.servers, reverse=True)[: len(servers.servers) - count]:
        with Client(list(servers.addresses.values()), tls=servers.tls) as client:
            client.leave(name)
        servers.servers.pop(name).stop()
    servers.wait_for_voters(*names(count))


def is_at(servers: Servers, name: str, address: str) -> bool:
    members = servers.members()
    return name in members and members[name].address == address


def test_a_cluster_grows_from_one_to_five_and_shrinks_again(folder: Path) -> None:
    with serving(Servers(folder), 1) as servers, servers.load() as load:
        for count in (3, 5):
            load.wait_for_progress()
            grow(servers, count)
        load.wait_for_progress()
        for count in (3, 1):
            shrink(servers, count)
            load.wait_for_progress()

        servers.require_sound(load)


def test_a_server_that_moves_is_found_at_its_new_address(folder: Path) -> None:
    with serving(Servers(folder), 3) as servers, servers.load() as load:
        load.wait_for_progress()
        moving, other = [name for name in servers.servers if name != servers.leader()]
        [port] = free_ports(1)
        address = f"127.0.0.1:{port}"

        servers.servers[moving].stop()
        servers.settle(moving, rpc_port=port, rpc_advertise_addr=address)
        servers.restart(moving)
        servers.wait_until(lambda: is_at(servers, moving, address), "it is not known where it is")
        servers.servers[other].kill()
        load.wait_for_progress()  # which needs the one that moved
        servers.restart(other)

        servers.require_sound(load)
