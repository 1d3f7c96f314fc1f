"""A cluster of real servers in this process, for tests: each with its own thread, port and data, and breakable.

with Cluster(folder) as cluster:
    with cluster.client() as client:
        client.append(b"value")
        cluster.kill(cluster.wait_for_leader())
        client.append(b"another")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from raftlog.client.answers import Server
from raftlog.client.async_client import AsyncClient
from raftlog.client.client import Client
from raftlog.config import ServerConfig
from raftlog.config_peers import Peer, settings_of
from raftlog.errors import RaftlogError
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.tls import TlsFiles
from raftlog.raft.leader import Leader
from raftlog.server.acl import MODEL_NAME, POLICY_NAME, default_files
from raftlog.testing.network import Network
from raftlog.testing.ports import ReservedPorts
from raftlog.testing.server import LocalServer

MIB: Final = 1024 * 1024
NODES_MAX: Final = 9  # in one process; more than that shows nothing new
WAIT_S: Final = 10.0  # that the methods wait by default: far more than an election takes on a busy machine
LOOK_S: Final = 0.002

# Times are short, so that tests need not wait for elections, and still longer than a busy machine stops a thread for.
SETTINGS: Final[Mapping[str, object]] = {
    "heartbeat_interval_ms": 50, "election_timeout_ms_min": 300, "election_timeout_ms_max": 600,
    "dial_timeout_ms": 1000, "stop_grace_ms": 1000, "disk_reserve_bytes": MIB, "health_port": None, "admin_port": None,
    "autopilot_stabilisation_ms": 100,
}  # fmt: skip


class ClusterError(RaftlogError):
    """The cluster cannot do that, or did not do it in time. The text says what it is like and what to do."""


class Cluster:
    """Its servers are called n1, n2, n3 and so on, and know each other from the beginning. Belongs to one thread.

    They run when the context begins, and one of them leads. At its end all are killed; the data stay in the folder.
    """

    def __init__(
        self, folder: Path, *, nodes: int = 3, tls: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        """`settings` are keys of the configuration of all servers (raftlog serve --help), with underscores.

        With `tls` all is encrypted, with certificates that are made for this; clients of `client` may do everything.
        """
        if not 1 <= nodes <= NODES_MAX:
            raise ValueError(f"nodes is {nodes}; it must be from 1 to {NODES_MAX}")
        self.folder = folder
        self.nodes: tuple[str, ...] = tuple(f"n{number}" for number in range(1, nodes + 1))
        self._has_tls = tls
        self._settings = dict(settings or {})
        self._network = Network()
        self._ports: ReservedPorts | None = None
        self._configs: dict[str, ServerConfig] = {}
        self._running: dict[str, LocalServer] = {}
        self._clients: list[Client] = []

    # ── start and end ───────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        self._ports = ReservedPorts(0 for _ in self.nodes)
        try:
            self._configs = self._make_configs(self._ports.numbers)
            self._start(self.nodes)
            self.wait_for_leader()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients and kill the servers. Twice is no error."""
        for server in self._running.values():
            server.resume()  # clients may wait for it
        clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        self._kill(list(self._running))
        if self._ports is not None:
            self._ports.close()

    def _make_configs(self, ports: Sequence[int]) -> dict[str, ServerConfig]:
        peers = tuple(
            Peer(name=name, ip_address="127.0.0.1", port=port)
            for name, port in zip(self.nodes, ports, strict=True)
        )
        common = {
            **SETTINGS,
            **self._security(),
            "peers": peers,
            "first_leader": self.nodes[0],
            **self._settings,
        }
        configs = {}
        for peer in peers:
            own: dict[str, Any] = {"node_name": peer.name, "data_dir": str(self.folder / peer.name)}
            configs[peer.name] = ServerConfig(**{**settings_of(peer), **own, **common})
        return configs

    def _security(self) -> dict[str, object]:
        if not self._has_tls:
            return {"insecure": True}
        certs = self._certs
        if not certs.exists():
            init_folder(certs, CertificatePlan(), extra_files=default_files())
        access: dict[str, object] = {
            "acl_model_file": str(certs / MODEL_NAME), "acl_policy_file": str(certs / POLICY_NAME)
        }  # fmt: skip
        for side in ("server", "peer"):
            files = TlsFiles.in_folder(certs, side)
            access |= {
                f"{side}_tls_cert_file": files.cert_file, f"{side}_tls_key_file": files.key_file,
                f"{side}_tls_ca_file": files.ca_file,
            }  # fmt: skip
        return access

    @property
    def _certs(self) -> Path:
        return self.folder / "certs"

    def _start(self, nodes: Iterable[str]) -> None:
        started = {node: LocalServer(self._configs[node], self._network) for node in nodes}
        failures: dict[str, Exception] = {}
        for node, server in started.items():
            try:
                server.wait_until_started(WAIT_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are to be ended, too
                failures[node] = error
            else:
                self._running[node] = server
        for node, failure in failures.items():
            raise ClusterError(f"{node} did not start: {str(failure) or type(failure).__name__}") from failure

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def addresses(self) -> dict[str, str]:
        """host:port of each server, running or not."""
        return {node: f"127.0.0.1:{config.rpc_port}" for node, config in self._configs.items()}

    @property
    def tls(self) -> TlsFiles | None:
        """Of a client that may do everything; None without TLS."""
        return TlsFiles.in_folder(self._certs, "root-client") if self._has_tls else None

    def client(self, *nodes: str, **options: Any) -> Client:
        """A client for plain functions that first asks these servers (all, by default). `options` are those of Client.

        It is closed with the cluster, or before.
        """
        client = Client(self._addresses(nodes), tls=self.tls, **options)
        self._clients.append(client)
        return client

    def async_client(self, *nodes: str, **options: Any) -> AsyncClient:
        """The same for coroutines, made in the loop that runs: `async with cluster.async_client() as client`."""
        return AsyncClient(self._addresses(nodes), tls=self.tls, **options)

    def _addresses(self, nodes: Iterable[str]) -> list[str]:
        asked = list(nodes)
        for node in asked:
            self._require_known(node)
        return [self.addresses[node] for node in asked or self.nodes]

    # ── what it is like ─────────────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> tuple[str, ...]:
        """The servers that were not killed or stopped; some may be paused."""
        return tuple(sorted(self._running))

    def leader(self) -> str | None:
        """The server that leads now: most of the servers follow it, and it takes appends. None: there is none."""
        awake = {
            node: server.replica
            for node, server in self._running.items()
            if server.is_member and not server.is_paused
        }
        for node, replica in awake.items():
            followers = sum(each.leader == node for each in awake.values())
            is_leading = replica.is_ready and isinstance(replica.driver.node.role, Leader)
            if is_leading and 2 * followers > len(self.nodes):
                return node
        return None

    def wait_for_leader(self, timeout_s: float = WAIT_S) -> str:
        """Its name, once there is one; ClusterError."""
        self.wait_until(lambda: self.leader() is not None, "there is no leader", timeout_s)
        return self.leader() or self.wait_for_leader(timeout_s)

    def servers(self) -> list[Server]:
        """The members as the leader knows them, by name; ClusterError if nobody leads."""
        leader = self.leader()
        if leader is None:
            raise ClusterError(
                f"nobody leads, so nobody knows the members: {self}; `wait_for_leader()` waits"
            )
        replica = self._running[leader].replica
        configuration = replica.applier.views.members.configuration
        return [
            Server(str(node), member.address, node == leader, node in configuration.all_voters)
            for node, member in sorted(replica.applier.views.members.known.items())
            if node in configuration.members
        ]

    def ends(self) -> dict[str, int]:
        """How many records each running server can serve: those that are committed, on its own disk, and known to be."""
        return {node: self._running[node].high_watermark for node in self.running}

    def wait_until_equal(self, timeout_s: float = WAIT_S) -> int:
        """Return when all running servers have the same records, and how many; ClusterError, as with a partition."""
        self.wait_until(
            lambda: self.leader() is not None and len(set(self.ends().values())) == 1,
            "the servers have not caught up", timeout_s,
        )  # fmt: skip
        return min(self.ends().values())

    def wait_until(self, condition: Callable[[], bool], trouble: str, timeout_s: float = WAIT_S) -> None:
        """Return when it holds; ClusterError that says `trouble` and what the cluster is like if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"{trouble} after {timeout_s:g} s: {self}")
            time.sleep(LOOK_S)

    def __str__(self) -> str:
        return "; ".join(map(self._describe, self.nodes))

    def _describe(self, node: str) -> str:
        server = self._running.get(node)
        if server is None:
            return f"{node} does not run"
        if server.is_paused:
            return f"{node} is paused"
        if server.failure:
            return f"{node} failed: {server.failure}"
        if not server.is_member:
            return f"{node} waits to be let in"
        replica = server.replica
        return f"{node} follows {replica.leader or 'nobody'} in term {replica.driver.node.term} and has {server.high_watermark} records"

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────

    def kill(self, node: str) -> None:
        """End the server at once, as SIGKILL would: connections break, and what is not on its disk is lost."""
        self._require_running(node)
        self._kill([node])

    def stop(self, node: str) -> None:
        """Ask the server to stop, as SIGTERM would: a leader hands over first."""
        server = self._require_running(node)
        ending = server.begin_stop()
        del self._running[node]
        server.end(ending)

    def restart(self, node: str) -> None:
        """Start the server on the data that it had; one that runs is stopped before."""
        self._require_known(node)
        if node in self._running:
            self.stop(node)
        self._start([node])

    def pause(self, node: str) -> None:
        """Let the server do nothing until `resume`, as SIGSTOP would. Its connections stay open, and nobody answers."""
        server = self._require_running(node)
        if not server.is_paused:
            server.pause()

    def resume(self, node: str) -> None:
        """Let the server go on. One that is not paused is no error."""
        self._require_running(node).resume()

    def slow_down_disk(self, node: str, seconds: float) -> None:
        """Let each sync of the server's disk take so much longer, until it is killed or restarted; 0: no longer."""
        self._require_running(node).slow_down_disk(seconds)

    def partition(self, *groups: Sequence[str]) -> None:
        """From now on servers hear those of their own group alone; those that are in no group are one together.

        What they say to others is lost without a word, calls that would be sent on to a leader included. Clients reach
        all servers. It takes the place of an earlier partition.
        """
        if any(isinstance(group, str) for group in groups):
            raise ClusterError('partition takes groups of servers: partition(["n1"], ["n2", "n3"])')
        found = [node for group in groups for node in group]
        for node in found:
            self._require_known(node)
        twice = sorted({node for node in found if found.count(node) > 1})
        if twice:
            raise ClusterError(f"{', '.join(twice)}: a server is on one side of a partition, not on two")
        self._network.split(groups)

    def heal(self) -> None:
        """Let all servers hear each other again."""
        self._network.heal()

    def _kill(self, nodes: Sequence[str]) -> None:
        servers = [self._running.pop(node) for node in nodes]
        endings = [server.begin_kill() for server in servers]
        for server, ending in zip(servers, endings, strict=True):
            server.end(ending)

    def _require_known(self, node: str) -> None:
        if node not in self.nodes:
            raise ClusterError(f"there is no server {node!r}; there are {', '.join(self.nodes)}")

    def _require_running(self, node: str) -> LocalServer:
        self._require_known(node)
        server = self._running.get(node)
        if server is None:
            raise ClusterError(
                f"{node} does not run: it was killed or stopped; `restart({node!r})` starts it"
            )
        return server
