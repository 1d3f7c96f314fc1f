"""What it costs to gossip, and how long it takes to be found: processes on this machine, memberlist's LAN profile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Final

from bench.cluster_case import Notes
from bench.processes import processor_s
from logstore.benchmark.measure import Series
from raftlog.client.client import Client
from raftlog.local_cluster import LocalCluster, free_ports
from raftlog.server_process import write_settings

NODES: Final = 5
WAIT_S_MAX: Final = 60.0
SETTLED_S: Final = 3.0  # after everybody has seen everybody
LOOK_S: Final = 0.005


class GossipProcess:
    """A process of bench/gossip_node.py."""

    def __init__(self, name: str, key: str, *join: str) -> None:
        self.name = name
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.gossip_node", name, "0", key, *join],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: Queue[list[str]] = Queue()
        self.seen: dict[str, float] = {}  # name -> when it was seen alive first
        self.address = ""
        Thread(target=self._read, daemon=True).start()
        self._wait(lambda: bool(self.address))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.split())

    def wait_for(self, names: Sequence[str]) -> float:
        """When it had seen all of them."""
        self._wait(lambda: set(names) <= self.seen.keys())
        return max(self.seen[name] for name in names)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S_MAX
        while not condition():
            try:
                what, value = self._lines.get(timeout=max(deadline - time.monotonic(), 0.0))
            except Empty:
                raise TimeoutError(f"{self.name}: nothing more was said") from None
            if what == "at":
                self.address = value
            else:
                self.seen.setdefault(what, float(value))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(WAIT_S_MAX)


@contextmanager
def gossiping(key: str) -> Iterator[list[GossipProcess]]:
    """NODES of them that have all seen each other."""
    with ExitStack() as stack:
        nodes: list[GossipProcess] = []
        for number in range(1, NODES + 1):
            node = GossipProcess(f"n{number}", key, *[nodes[-1].address] if nodes else [])
            stack.callback(node.end)
            nodes.append(node)
        for node in nodes:
            node.wait_for([each.name for each in nodes])
        yield nodes


def measure(folder: Path, *, runs: int, idle_s: float, tell: Callable[[str], None]) -> list[Series]:
    notes = Notes()
    for run in range(runs):
        for kind, key in (("plain", "-"), ("encrypted", b64encode(os.urandom(32)).decode())):
            tell(f"run {run + 1} of {runs}: gossip, {kind}")
            with gossiping(key) as nodes:
                _joining(nodes, key, kind, notes)
                _idle(nodes, kind, idle_s, notes)
        tell(f"run {run + 1} of {runs}: servers")
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-membership-") as path:
            _servers(Path(path), idle_s, notes)
    return notes.series()


def _joining(nodes: Sequence[GossipProcess], key: str, kind: str, notes: Notes) -> None:
    """From the newcomer's being there, alone, until it knows all and all know it."""
    newcomer = GossipProcess("newcomer", key, nodes[-1].address)
    try:
        there = newcomer.seen.get(newcomer.name) or newcomer.wait_for([newcomer.name])
        ends = [newcomer.wait_for([node.name for node in nodes])]
        ends += [node.wait_for([newcomer.name]) for node in nodes]
        notes.add("join", f"{kind}: known by all {NODES} others, and knows them", "s", max(ends) - there)
    finally:
        newcomer.process.kill()  # it is not to be missed in what follows
        newcomer.process.wait()


def _idle(nodes: Sequence[GossipProcess], kind: str, idle_s: float, notes: Notes) -> None:
    time.sleep(SETTLED_S)
    before = [processor_s(node.process.pid) for node in nodes]
    time.sleep(idle_s)
    for node, used in zip(nodes, before, strict=True):
        share = 100 * (processor_s(node.process.pid) - used) / idle_s
        notes.add("idle_gossip", f"{kind}: a node of {NODES}", "% of a core", share)


# ── whole servers ──


def _servers(folder: Path, idle_s: float, notes: Notes) -> None:
    """Five that know one other each: until all vote; then what all that costs while nothing is asked of them."""
    cluster = LocalCluster(folder)
    cluster.make_certificates()
    names = [f"n{number}" for number in range(1, NODES + 1)]
    rpc, gossip = free_ports(NODES), free_ports(NODES)
    for place, name in enumerate(names):
        settings: dict[str, object] = {
            "node-name": name, "rpc-port": rpc[place], "bind-addr": f"127.0.0.1:{gossip[place]}",
            "start-join-addrs": [f"127.0.0.1:{gossip[place - 1]}"], "bootstrap": place == 0, **cluster.access(),
        }  # fmt: skip
        write_settings(folder / name, cluster.certs, settings)
    cluster = LocalCluster(folder)
    with ExitStack() as stack:
        for server in cluster.servers.values():
            stack.callback(server.stop)
        begun = time.monotonic()
        for server in cluster.servers.values():
            server.start()
        for server in cluster.servers.values():
            _ = server.address  # it listens
        listening = time.monotonic()
        with Client(list(cluster.addresses.values()), tls=cluster.tls) as client:
            while sum(each.is_voter for each in client.servers()) < NODES:
                if time.monotonic() > begun + WAIT_S_MAX:
                    raise TimeoutError("the servers did not become a cluster")
                time.sleep(LOOK_S)
        notes.add(
            "cluster",
            f"{NODES} servers started at once: from listening to voting, all",
            "s",
            time.monotonic() - listening,
        )
        time.sleep(SETTLED_S)
        ids = {name: server.process_id for name, server in cluster.servers.items()}
        before = {name: processor_s(process) for name, process in ids.items()}
        time.sleep(idle_s)
        for name, process in ids.items():
            notes.add(
                "idle_server",
                f"a server of {NODES}",
                "% of a core",
                100 * (processor_s(process) - before[name]) / idle_s,
            )
