"""Clusters whose servers find each other by gossip, while clients go on."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from raftlog import Client
from raftlog.joining import LEAVE_S_MAX
from raftlog.local_cluster import free_ports
from raftlog.server_process import write_settings
from raftlog.testing.ports import ReservedPorts
from tests.raftlog.cluster.servers import SETTINGS, Servers

QUICK: Final[Mapping[str, object]] = {**SETTINGS, "gossip-profile": "fast", "autopilot-stabilisation-ms": 500}


class Strangers(Servers):
    """Each server knows where one other gossips, and nothing else of the cluster."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gossip: dict[str, int] = {}

    def found(self, name: str, *, knows: str, **settings: object) -> None:
        """Settings of a new server that starts with the address of `knows`."""
        own = {
            "node-name": name, "rpc-port": free_ports(1)[0], "bind-addr": f"127.0.0.1:{self._gossip_port(name)}",
            "start-join-addrs": [f"127.0.0.1:{self._gossip_port(knows)}"], "gossip-key-file": str(self._key_file()),
        }  # fmt: skip
        changed = {key.replace("_", "-"): value for key, value in settings.items()}
        self.settled(name, {**own, **QUICK, **changed})

    def settled(self, name: str, settings: Mapping[str, object]) -> None:
        write_settings(self.folder / name, self.certs, {**settings, **self.access()})
        self.servers[name] = self._server(name)

    def _key_file(self) -> Path:
        path = self.folder / "gossip.key"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(base64.b64encode(os.urandom(32)))
        return path

    def _gossip_port(self, name: str) -> int:
        if name not in self.gossip:
            [self.gossip[name]] = free_ports(1)
        return self.gossip[name]


@contextmanager
def strangers(folder: Path, count: int, **settings: object) -> Iterator[Strangers]:
    """Started at once, in a ring: each knows the one before it."""
    servers = Strangers(folder)
    servers.make_certificates()
    names = [f"n{number}" for number in range(1, count + 1)]
    for place, name in enumerate(names):
        servers.found(name, knows=names[place - 1], bootstrap=name == "n1", **settings)
    with running(servers):
        servers.wait_for_voters(*names)
        yield servers


@contextmanager
def running(servers: Strangers) -> Iterator[None]:
    with ExitStack() as stack:
        ports = [int(address.rpartition(":")[2]) for address in servers.addresses.values()]
        stack.enter_context(ReservedPorts(ports))
        stack.callback(servers.kill_all)
        servers.start()
        yield


def leave(servers: Strangers, name: str) -> None:
    with Client(list(servers.addresses.values()), tls=servers.tls) as client:
        client.leave(name)


def status_of(servers: Strangers, name: str) -> str:
    """As gossip has it."""
    with Client(list(servers.addresses.values()), tls=servers.tls) as client:
        known = client.known_servers(servers.addresses[servers.leader()])
        return next((each.status for each in known.servers if each.name == name), "")


def test_five_strangers_become_a_cluster_and_lose_nothing_while_its_members_change(folder: Path) -> None:
    with strangers(folder, 5) as servers, servers.load() as load:
        load.wait_for_progress()

        servers.servers["n5"].kill()
        load.wait_for_progress()

        leave(servers, "n4")
        servers.servers.pop("n4").stop()
        servers.wait_for_voters("n1", "n2", "n3", "n5")
        load.wait_for_progress()

        servers.found("n6", knows="n2")
        servers.restart("n6")
        servers.wait_for_voters("n1", "n2", "n3", "n5", "n6")
        load.wait_for_progress()

        leader = servers.leader()
        servers.servers[leader].kill()
        shutil.rmtree(servers.servers[leader].folder / "data")
        servers.wait_for_other_leader(leader)
        servers.restart(leader)
        servers.restart("n5")
        servers.wait_for_voters("n1", "n2", "n3", "n5", "n6")
        load.wait_for_progress()

        servers.require_sound(load)


def test_a_rolling_restart_changes_no_voter(folder: Path) -> None:
    with strangers(folder, 3) as servers, servers.load() as load:
        before = {name: member.directory_id for name, member in servers.members().items()}
        for name, server in servers.servers.items():
            server.stop()
            servers.restart(name)
            load.wait_for_progress(20)

        servers.require_sound(load)
        assert {name: member.directory_id for name, member in servers.members().items()} == before
        assert all(member.is_voter for member in servers.members().values())


def test_a_server_that_bootstraps_with_an_empty_directory_joins_the_cluster_that_it_finds(
    folder: Path,
) -> None:
    with strangers(folder, 3) as servers:
        servers.servers["n1"].kill()
        shutil.rmtree(servers.servers["n1"].folder / "data")

        servers.restart("n1")

        servers.wait_for_voters("n1", "n2", "n3")
        assert len({view.cluster_id for view in servers.views().values()}) == 1


def test_servers_that_dns_names_become_a_cluster(folder: Path) -> None:
    """Addresses stand for a name that has them: DNS is asked for neither."""
    servers = Strangers(folder)
    servers.make_certificates()
    ports = dict(zip(("n1", "n2", "n3"), free_ports(3), strict=True))
    names = [f"127.0.0.1:{port}" for port in ports.values()]
    for name, port in ports.items():
        own = {
            "node-name": name, "rpc-port": port, "bootstrap": name == "n1", "discovery": "dns",
            "discovery-dns-names": names,
        }  # fmt: skip
        servers.settled(name, {**own, **SETTINGS})
    with running(servers):
        servers.wait_for_voters("n1", "n2", "n3")


def test_a_server_that_is_to_leave_on_terminate_is_removed_and_comes_back(folder: Path) -> None:
    with strangers(folder, 3, leave_on_terminate=True) as servers, servers.load() as load:
        load.wait_for_progress()
        leader = servers.leader()
        rest = sorted(servers.servers.keys() - {leader})

        servers.servers[leader].stop()
        servers.wait_for_voters(*rest)
        assert status_of(servers, leader) == "left"
        load.wait_for_progress()
        servers.restart(leader)

        servers.wait_for_voters("n1", "n2", "n3")
        servers.require_sound(load)


def test_a_server_that_was_removed_stays_away_until_it_is_joined_again(folder: Path) -> None:
    with strangers(folder, 3) as servers, servers.load() as load:
        removed = servers.follower()
        rest = sorted(servers.servers.keys() - {removed})

        leave(servers, removed)
        servers.wait_for_voters(*rest)
        servers.wait_until(lambda: status_of(servers, removed) == "left", "it does not leave the gossip")
        with Client(servers.addresses[servers.leader()], tls=servers.tls) as client:
            client.join(removed, servers.addresses[removed])

        servers.wait_for_voters("n1", "n2", "n3")
        servers.wait_until(lambda: status_of(servers, removed) == "alive", "nobody sees that it is back")
        servers.require_sound(load)


def test_all_servers_that_leave_at_once_end_soon_and_come_back_as_the_same_cluster(folder: Path) -> None:
    with strangers(folder, 3, leave_on_terminate=True) as servers:
        [before] = {view.cluster_id for view in servers.views().values()}
        start = time.monotonic()
        for process_id in servers.process_ids().values():
            os.kill(process_id, signal.SIGTERM)
        servers.wait_until(lambda: not servers.process_ids(), "they do not end")
        seconds = time.monotonic() - start

        for name in servers.servers:
            servers.restart(name)
        servers.wait_for_voters("n1", "n2", "n3")

        assert {view.cluster_id for view in servers.views().values()} == {before}
        assert seconds < LEAVE_S_MAX, "the last voter tried in vain to leave"


def test_a_server_that_was_removed_because_it_failed_is_let_in_when_it_is_back(folder: Path) -> None:
    with strangers(folder, 4, autopilot_remove_failed_ms=3000) as servers:
        late = servers.follower()
        rest = servers.servers.keys() - {late}
        servers.servers[late].pause()
        servers.wait_until(lambda: servers.members().keys() == rest, "it is not removed")

        servers.servers[late].resume()

        servers.wait_for_voters("n1", "n2", "n3", "n4")
        servers.wait_until(lambda: status_of(servers, late) == "alive", "nobody sees that it is back")


def test_servers_that_all_have_new_addresses_find_each_other_and_tell_the_cluster(folder: Path) -> None:
    with strangers(folder, 3) as servers:
        for server in servers.servers.values():
            server.stop()
        with ReservedPorts([0, 0, 0]) as ports:
            for name, port in zip(servers.servers, ports.numbers, strict=True):
                servers.settle(name, rpc_port=port)
            for name in servers.servers:
                servers.restart(name)

            servers.wait_until(
                lambda: (
                    {name: member.address for name, member in servers.members().items()} == servers.addresses
                ),
                "it is not known where they are",
            )
            servers.kill_all()
