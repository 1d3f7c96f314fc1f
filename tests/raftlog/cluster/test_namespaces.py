"""Partitions by cable: a server in a network namespace is unplugged, with its clients, where namespaces can be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from raftlog.net.certificates import LOOPBACK_NAMES, CertificatePlan, init_folder
from raftlog.server.acl import default_files
from raftlog.server_process import ServerProcess
from tests.raftlog.cluster.namespaces import Namespaces, NoNamespaces
from tests.raftlog.cluster.servers import Servers, serving

NAMES = ("n1", "n2", "n3")


class ServersInNamespaces(Servers):
    def __init__(self, folder: Path, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        super().__init__(folder)

    def _server(self, name: str) -> ServerProcess:
        return ServerProcess(self.folder / name, prefix=self._namespaces.prefix(name))

    @property
    def addresses(self) -> dict[str, str]:
        hosts = self._namespaces.hosts
        return {
            name: f"{hosts[name]}:{address.rpartition(':')[2]}" for name, address in super().addresses.items()
        }


class Network(NamedTuple):
    servers: Servers
    namespaces: Namespaces


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    namespaces = Namespaces(NAMES)
    folder = tmp_path_factory.mktemp("namespaces")
    hosts = namespaces.hosts
    init_folder(
        folder / "certs",
        CertificatePlan(host_names=(*LOOPBACK_NAMES, *hosts.values())),
        extra_files=default_files(),
    )

    def settle(servers: Servers) -> None:
        ports = {name: int(address.rpartition(":")[2]) for name, address in servers.addresses.items()}
        peers = [{"name": name, "ip_address": hosts[name], "port": ports[name]} for name in NAMES]
        for name in NAMES:
            servers.settle(name, peers=peers, bind_addr=f"{hosts[name]}:0")

    with ExitStack() as stack:
        try:
            stack.enter_context(namespaces.made())
        except NoNamespaces as error:
            pytest.skip(f"no network namespaces here: {error}")
        servers = ServersInNamespaces(folder, namespaces)
        stack.enter_context(serving(servers, len(NAMES), prepare=settle))
        yield Network(servers, namespaces)


def test_an_unplugged_leader_is_replaced_and_catches_up(network: Network) -> None:
    servers, namespaces = network
    with servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        namespaces.unplug(leader)
        servers.wait_for_other_leader(leader)
        load.wait_for_progress()
        namespaces.plug_in(leader)
        load.wait_for_progress()

        servers.require_sound(load)


def test_an_unplugged_follower_catches_up(network: Network) -> None:
    servers, namespaces = network
    with servers.load() as load:
        load.wait_for_progress()
        follower = servers.follower()
        namespaces.unplug(follower)
        load.wait_for_progress(200)
        namespaces.plug_in(follower)
        load.wait_for_progress()

        servers.require_sound(load)
