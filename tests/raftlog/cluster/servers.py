"""Servers in processes of their own, and what they say of their cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from raftlog import Client
from raftlog.client.answers import Member, Status
from raftlog.errors import RaftlogError
from raftlog.local_cluster import LocalCluster
from raftlog.server_process import read_settings, write_settings
from raftlog.testing.ports import ReservedPorts
from tests.raftlog.cluster.load import LOOK_S, WAIT_S_MAX, Load
from tests.raftlog.cluster.proxies import Proxies

FINDINGS_SHOWN: Final = 10
ASK_S_MAX: Final = 1.0  # for what a server believes: it may be paused

SETTINGS: Final[Mapping[str, object]] = {
    "heartbeat-interval-ms": 100, "election-timeout-ms-min": 600, "election-timeout-ms-max": 1200,
    "dial-timeout-ms": 2000, "stop-grace-ms": 2000, "disk-reserve-bytes": 1 << 20, "log-level": "debug",
    "autopilot-stabilisation-ms": 200,
}  # fmt: skip


class Servers(LocalCluster):
    """A cluster that tests break. Its servers' ports stay theirs while they are down."""

    def load(self) -> Load:
        return Load(list(self.advertised.values()), self.tls)

    def require_sound(self, load: Load, *, refusal: str | None = None) -> None:
        """Stop the load, and fail unless all clients were told the truth and nobody was told of a failure.

        With `refusal`, errors that say this are right.
        """
        ended = [
            f"{name} ended: {server.tail}" for name, server in self.servers.items() if not server.is_running
        ]
        assert not ended, "\n".join(ended)
        load.stop()
        load.errors = [error for error in load.errors if refusal is None or refusal not in error]
        findings = load.findings(list(self.advertised.values()))
        assert not findings, "\n".join(findings[:FINDINGS_SHOWN])
        assert load.acknowledged and load.consumed

    def members(self) -> dict[str, Member]:
        """By name, as the server has them that most of the servers follow; empty if there is none."""
        views = self.views()
        followed = Counter(view.leader_id for view in views.values() if view.leader_id)
        for name, followers in followed.items():
            if name in views and views[name].role == "leader" and 2 * followers > len(self.servers):
                return {member.name: member for member in views[name].members}
        return {}

    def views(self) -> dict[str, Status]:
        """What each server believes, as far as it can be asked."""
        views = {}
        with Client(list(self.advertised.values()), tls=self.tls, timeout_s=ASK_S_MAX) as client:
            for name, address in self.advertised.items():
                with suppress(RaftlogError):
                    views[name] = client.status(address)
        return views

    def leader(self) -> str:
        """Its name, once there is one."""
        self.wait_until(lambda: bool(self.members()), "nobody leads")
        return (
            next((name for name, member in self.members().items() if member.is_leader), "") or self.leader()
        )

    def wait_for_other_leader(self, before: str) -> None:
        self.wait_until(
            lambda: any(member.is_leader and name != before for name, member in self.members().items()),
            f"nobody leads but {before}",
        )

    def follower(self) -> str:
        leader = self.leader()
        return next(name for name in self.servers if name != leader)

    def wait_for_voters(self, *names: str) -> None:
        """Return when these are the members, and all are voters."""

        def are_voters() -> bool:
            members = self.members()
            return members.keys() == set(names) and all(each.is_voter for each in members.values())

        self.wait_until(are_voters, f"{', '.join(names)} are not the voters")

    def wait_until(self, condition: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + WAIT_S_MAX
        while not condition():
            assert time.monotonic() < deadline, f"{trouble}: {self.views()}"
            time.sleep(LOOK_S)

    def process_ids(self) -> dict[str, int]:
        return {name: server.process_id for name, server in self.servers.items() if server.is_running}

    def kill_all(self) -> None:
        for server in self.servers.values():
            server.kill()

    def settle(self, name: str, **settings: object) -> None:
        """Change settings of a server that does not run."""
        folder = self.servers[name].folder
        changed = {key.replace("_", "-"): value for key, value in settings.items()}
        write_settings(folder, self.certs, {**read_settings(folder), **changed})

    @property
    def advertised(self) -> dict[str, str]:
        """Where clients and other servers are told that they are, by name."""
        settings = {name: read_settings(server.folder) for name, server in self.servers.items()}
        return {
            name: settings[name].get("rpc-advertise-addr", address)
            for name, address in self.addresses.items()
        }

    def restart(self, name: str) -> None:
        server = self.servers[name]
        server.start()
        _ = server.address


class Network(NamedTuple):
    """Servers that know each other by the addresses of proxies."""

    servers: Servers
    proxies: Proxies


@contextmanager
def serving_by_proxies(folder: Path, nodes: int) -> Iterator[Network]:
    found: list[Proxies] = []

    def begin(servers: Servers) -> None:
        targets = {name: int(address.rpartition(":")[2]) for name, address in servers.addresses.items()}
        proxies = stack.enter_context(Proxies(targets, servers.process_ids))
        found.append(proxies)
        peers = [
            {"name": name, "ip_address": "127.0.0.1", "port": port} for name, port in proxies.ports.items()
        ]
        for name, port in proxies.ports.items():
            servers.settle(name, peers=peers, rpc_advertise_addr=f"127.0.0.1:{port}")

    with ExitStack() as stack:
        servers = stack.enter_context(serving(Servers(folder), nodes, prepare=begin))
        yield Network(servers, found[0])


@contextmanager
def serving(
    servers: Servers, nodes: int, *, prepare: Callable[[Servers], None] = lambda servers: None
) -> Iterator[Servers]:
    """A new cluster that has a leader, for as long as the context lasts. `prepare` may change settings before."""
    servers.create(nodes, SETTINGS)
    prepare(servers)
    with ExitStack() as stack:
        ports = [int(address.rpartition(":")[2]) for address in servers.addresses.values()]
        stack.enter_context(ReservedPorts(ports))
        stack.callback(servers.kill_all)
        servers.start()
        servers.wait_for_leader()
        yield servers
