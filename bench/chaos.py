"""Faults of a cluster of real processes, one after the other under load, and what the checkers say of what clients saw.

The clients and checkers are those of the tests (tests/raftlog/cluster/load.py).
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from logstore.benchmark.measure import machine
from tests.raftlog.cluster.load import Load
from tests.raftlog.cluster.servers import Servers, serving

NODES: Final = 3
STEADY_S_MAX: Final = 1.0  # between two faults
PAUSE_S: Final = (0.2, 4.0)  # of SIGSTOP: shorter and longer than an election takes
PROGRESS: Final = 20  # records acknowledged and consumed, after which the cluster counts as working
LOOK_S: Final = 0.01
FINDINGS_MAX: Final = 100  # that are recorded

Fault = Callable[[Servers, random.Random], None]


def kill_leader(servers: Servers, chance: random.Random) -> None:
    _kill(servers, servers.leader(), chance)


def kill_follower(servers: Servers, chance: random.Random) -> None:
    _kill(servers, servers.follower(), chance)


def _kill(servers: Servers, name: str, chance: random.Random) -> None:
    servers.servers[name].kill()
    time.sleep(chance.uniform(0.0, STEADY_S_MAX))
    servers.restart(name)


def kill_all(servers: Servers, chance: random.Random) -> None:
    servers.kill_all()
    servers.start()


def pause_leader(servers: Servers, chance: random.Random) -> None:
    _pause(servers, servers.leader(), chance)


def pause_follower(servers: Servers, chance: random.Random) -> None:
    _pause(servers, servers.follower(), chance)


def _pause(servers: Servers, name: str, chance: random.Random) -> None:
    servers.servers[name].pause()
    time.sleep(chance.uniform(*PAUSE_S))
    servers.servers[name].resume()


def restart_leader(servers: Servers, chance: random.Random) -> None:
    name = servers.leader()
    servers.servers[name].stop()
    servers.restart(name)


def wipe_follower(servers: Servers, chance: random.Random) -> None:
    name = servers.follower()
    servers.servers[name].kill()
    shutil.rmtree(servers.servers[name].folder / "data")
    servers.restart(name)
    servers.wait_for_voters(*servers.servers)


FAULTS: Final[dict[str, Fault]] = {
    "SIGKILL of the leader, started again": kill_leader,
    "SIGKILL of a follower, started again": kill_follower,
    "SIGKILL of all, started again": kill_all,
    "SIGSTOP of the leader, 0.2 to 4 s": pause_leader,
    "SIGSTOP of a follower, 0.2 to 4 s": pause_follower,
    "SIGTERM of the leader, started again": restart_leader,
    "SIGKILL of a follower, its data deleted, started again": wipe_follower,
}


class Stalls(threading.Thread):
    """Watches how long no record at all is acknowledged."""

    def __init__(self, load: Load) -> None:
        super().__init__(name="stalls")
        self._load = load
        self._is_over = threading.Event()
        self.longest_s = 0.0  # since it was set to 0

    def run(self) -> None:
        seen, since = self._load.acknowledged, time.perf_counter()
        while not self._is_over.wait(LOOK_S):
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - since)
            if self._load.acknowledged != seen:
                seen, since = self._load.acknowledged, now

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()


def measure(folder: Path, *, rounds: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """One fault per round, in an order that is drawn; for each how long no record was acknowledged."""
    chance = random.Random(seed)
    left: list[str] = []  # of the faults; each comes as often as the others
    stalls: dict[str, list[float]] = {name: [] for name in FAULTS}
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="bench-chaos-") as path,
        serving(Servers(Path(path)), NODES) as servers,
        servers.load() as load,
    ):
        load.wait_for_progress(PROGRESS)
        with Stalls(load) as watch:
            for number in range(rounds):
                if not left:
                    left = chance.sample(list(FAULTS), len(FAULTS))
                name = left.pop()
                watch.longest_s = 0.0
                FAULTS[name](servers, chance)
                load.wait_for_progress(PROGRESS)
                stalls[name].append(watch.longest_s)
                servers.wait_for_voters(*servers.servers)
                tell(f"{number + 1} of {rounds}: {name}: nothing acknowledged for {stalls[name][-1]:.2f} s")
                time.sleep(chance.uniform(0.0, STEADY_S_MAX))
        load.stop()
        findings = load.findings(list(servers.advertised.values()))
    return {
        "machine": machine(),
        "seed": seed,
        "acknowledged": load.acknowledged,
        "consumed": load.consumed,
        "findings": findings[:FINDINGS_MAX],
        "faults": [
            {"name": name, "times": len(seconds), "median_s": round(statistics.median(seconds), 3),
             "max_s": round(max(seconds), 3)}
            for name, seconds in stalls.items() if seconds
        ],
    }  # fmt: skip
