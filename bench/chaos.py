"""Faults of a cluster of real processes, one after the other under load, and what the checkers say of what clients saw.

The clients and checkers are those of the tests (tests/raftlog/cluster/load.py).
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from logstore.benchmark.measure import machine
from tests.raftlog.cluster.servers import Servers, serving

NODES: Final = 3
STEADY_S_MAX: Final = 1.0  # between two faults
PAUSE_S: Final = (0.2, 4.0)  # of SIGSTOP: shorter and longer than an election takes
PROGRESS: Final = 20  # records acknowledged and consumed, after which the cluster counts as working
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


def measure(folder: Path, *, rounds: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """One fault drawn per round; the seconds until PROGRESS more records count from the end of the fault."""
    chance = random.Random(seed)
    waits: dict[str, list[float]] = {name: [] for name in FAULTS}
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-chaos-") as path:
        with serving(Servers(Path(path)), NODES) as servers:
            with servers.load() as load:
                load.wait_for_progress(PROGRESS)
                for number in range(rounds):
                    name = chance.choice(list(FAULTS))
                    FAULTS[name](servers, chance)
                    ended = time.perf_counter()
                    load.wait_for_progress(PROGRESS)
                    waits[name].append(time.perf_counter() - ended)
                    servers.wait_for_voters(*servers.servers)
                    tell(f"{number + 1} of {rounds}: {name}: {waits[name][-1]:.1f} s")
                    time.sleep(chance.uniform(0.0, STEADY_S_MAX))
                load.stop()
                findings = load.findings(list(servers.advertised.values()))
            acknowledged, consumed = load.acknowledged, load.consumed
    return {
        "machine": machine(),
        "seed": seed,
        "acknowledged": acknowledged,
        "consumed": consumed,
        "findings": findings[:FINDINGS_MAX],
        "faults": [
            {"name": name, "times": len(seconds), "median_s": round(statistics.median(seconds), 3),
             "max_s": round(max(seconds), 3)}
            for name, seconds in waits.items() if seconds
        ],
    }  # fmt: skip
