"""A cluster of local processes in one folder: for trying things, demonstrations and tests.

    folder/certs/    as `raftlog certs init` makes them
    folder/n1/       settings, data and log of the first server, and so on

The first servers know each other from a list; those that are added later ask the others to let them in.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from logstore.errors import LogLocked
from logstore.filesystem import OsFileSystem
from raftlog.client.client import Client
from raftlog.client.failures import CallFailed
from raftlog.errors import RaftlogError
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.tls import TlsFiles
from raftlog.server.acl import MODEL_NAME, POLICY_NAME, default_files
from raftlog.server_process import (
    SETTINGS,
    ServerProcess,
    end_process,
    process_of,
    read_settings,
    write_settings,
)

NODES_MAX: Final = 15  # of one cluster on one machine
LEADER_S_MAX: Final = 30.0
LOOK_S: Final = 0.05
PORT_MIN: Final = 10_240
PORT_END: Final = 32_768  # from here on the system gives ports away, on Linux; elsewhere from later on
_NODE: Final = re.compile(r"n[1-9]\d?")


class NoCluster(RaftlogError):
    """The folder holds no cluster, or one that cannot be had as asked. Nothing changed."""


class LocalCluster:
    """The cluster in a folder, whether it runs or not. Servers that this object starts are its children."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.certs = self.folder / "certs"
        self.servers: dict[str, ServerProcess] = {name: self._server(name) for name in self._names()}

    def _names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        found = [
            path.parent.name
            for path in self.folder.glob(f"n*/{SETTINGS}")
            if _NODE.fullmatch(path.parent.name)
        ]
        return sorted(found, key=lambda name: int(name[1:]))

    def _server(self, name: str) -> ServerProcess:
        return ServerProcess(self.folder / name)

    @property
    def tls(self) -> TlsFiles:
        """Of the client that may do everything."""
        return TlsFiles.in_folder(self.certs, "root-client")

    @property
    def addresses(self) -> dict[str, str]:
        """By name, as the settings say."""
        settings = {name: read_settings(server.folder) for name, server in self.servers.items()}
        return {name: f"127.0.0.1:{each['rpc-port']}" for name, each in settings.items()}

    def processes(self) -> dict[str, int | None]:
        """Id of the process of each server, whoever started it; None if it does not run."""
        return {name: process_of(server.folder) for name, server in self.servers.items()}

    def create(self, nodes: int, settings: Mapping[str, object] | None = None) -> None:
        """Write what `nodes` servers need: all is kept that is there. NoCluster if there are more than that."""
        if len(self.servers) > nodes:
            raise NoCluster(
                f"{self.folder} holds a cluster of {len(self.servers)} servers, not of {nodes}; it grows, and "
                "`raftlog leave` takes members away"
            )
        self.make_certificates()
        names = [f"n{number}" for number in range(1, nodes + 1)]
        new = [name for name in names if name not in self.servers]
        ports = dict(zip(new, free_ports(len(new)), strict=True))
        peers = [
            {"pid": int(name[1:]), "name": name, "ip_address": "127.0.0.1", "port": ports[name]}
            for name in new
        ]
        known: dict[str, object] = {"peers": peers, "first-leader": names[0]}
        if self.servers:
            known = {"join-addrs": list(self.addresses.values())}
        for name in new:
            own = {"node-name": name, "rpc-port": ports[name], **self.access(), **known, **(settings or {})}
            write_settings(self.folder / name, self.certs, own)
            self.servers[name] = self._server(name)

    def make_certificates(self) -> None:
        """Unless there are some."""
        if not (self.certs / "ca.pem").exists():
            init_folder(self.certs, CertificatePlan(), extra_files=default_files())

    def access(self) -> dict[str, object]:
        """Settings of a server that say who may do what."""
        return {
            "acl-model-file": str(self.certs / MODEL_NAME),
            "acl-policy-file": str(self.certs / POLICY_NAME),
        }

    def start(self) -> list[str]:
        """Start those that do not run and wait until they serve; returns their names. ServerFailed with their log."""
        stopped = [name for name, process in self.processes().items() if process is None]
        for name in stopped:
            self.servers[name].start()
        for name in stopped:
            _ = self.servers[name].address
        return stopped

    def wait_for_leader(self, timeout_s: float = LEADER_S_MAX) -> str:
        """Name of the leader, once all servers are members and those that run follow it; NoCluster if that takes too long."""
        deadline = time.monotonic() + timeout_s
        addresses = self.addresses
        with Client(list(addresses.values()), tls=self.tls) as client:
            while True:
                members = client.servers()
                leader = next((server.name for server in members if server.is_leader), None)
                if leader is not None and self.servers.keys() <= {server.name for server in members}:
                    running = [name for name, process in self.processes().items() if process is not None]
                    if all(_follows(client, addresses[name], leader) for name in running):
                        return leader
                if time.monotonic() > deadline:
                    seen = ", ".join(server.name for server in members) or "nobody"
                    raise NoCluster(f"no leader after {timeout_s:.0f} s; members: {seen}")
                time.sleep(LOOK_S)

    def end(self) -> list[str]:
        """Stop those that run, whoever started them; returns their names."""
        return [name for name, server in self.servers.items() if end_process(server.folder)]

    def remove(self) -> None:
        """Delete what this has made, with all data. Nothing of it may run."""
        for server in self.servers.values():
            shutil.rmtree(server.folder)
        if self.servers:
            shutil.rmtree(self.certs)
        self.servers.clear()
        self._remove_empty_folder()

    def _remove_empty_folder(self) -> None:
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    @contextmanager
    def used_alone(self) -> Iterator[None]:
        """While it is started or stopped; NoCluster if another process does that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "LOCK"
        try:
            lock = OsFileSystem().lock(str(path))
        except LogLocked as locked:
            raise NoCluster(
                f"{self.folder}: process {locked.pid} starts or stops its servers; wait for it"
            ) from locked
        try:
            yield
        finally:
            path.unlink()
            lock.close()
            self._remove_empty_folder()


def _follows(client: Client, address: str, leader: str) -> bool:
    """Whether this server serves, and knows that this one leads."""
    try:
        return client.status(address).leader_id == leader
    except CallFailed:  # it is on its way into the cluster, or was just killed
        return False


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback interface that nobody listens on now.

    Below those that the system gives to whoever asks for any, and to connections: it may have given away one of them
    before a server listens there, or while it is down.
    """
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(range(PORT_MIN, PORT_END), k=PORT_END - PORT_MIN):
            if len(found) == count:
                break
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            found.append(port)
        if len(found) < count:
            raise NoCluster(f"{count} ports from {PORT_MIN} on are wanted, and {len(found)} are free")
        return found


@contextmanager
def local_cluster(
    folder: Path, nodes: int, settings: Mapping[str, object] | None = None
) -> Iterator[LocalCluster]:
    """A new cluster in `folder` that has a leader, for as long as the context lasts.

    Its servers may be killed meanwhile. ServerFailed or NoCluster if they do not come up, or do not stop cleanly.
    """
    cluster = LocalCluster(folder)
    cluster.create(nodes, settings)
    try:
        cluster.start()
        cluster.wait_for_leader()
    except BaseException:
        for server in cluster.servers.values():
            server.kill()
        raise
    with ExitStack() as stack:
        for server in cluster.servers.values():
            stack.callback(server.stop)
        yield cluster
