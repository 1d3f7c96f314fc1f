"""The simulated world, by a small protocol: what it promises to protocols, and that a run is a function of its seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftlog.engine import Effect, Send
from raftlog.sim.simulation import Result, draw_scenario, run
from tests.raftlog.sim import primary_backup
from tests.raftlog.sim.primary_backup import PRIMARY_BACKUP, PrimaryBackup

ROOT = Path(__file__).parents[3]

DIGESTS = """
from raftlog.sim.simulation import draw_scenario, run
from tests.raftlog.sim.primary_backup import PRIMARY_BACKUP
for seed in range(5):
    print(run(PRIMARY_BACKUP, draw_scenario(PRIMARY_BACKUP, nodes=3, seed=seed, steps=500)))
"""


def run_seed(seed: int, steps: int = 1_000) -> Result:
    return run(PRIMARY_BACKUP, draw_scenario(PRIMARY_BACKUP, nodes=3, seed=seed, steps=steps))


@pytest.mark.parametrize("seed", range(30))
def test_a_protocol_without_faults_of_its_own_survives_those_of_the_world(seed: int) -> None:
    result = run_seed(seed)

    assert result.failure is None
    assert result.done > 0


def test_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 5


def test_replies_that_do_not_wait_for_the_disk_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(PrimaryBackup):
        def drain(self) -> list[Effect]:
            return [
                Send(effect.to, effect.message) if isinstance(effect, Send) else effect
                for effect in super().drain()
            ]

    monkeypatch.setattr(primary_backup, "PrimaryBackup", Hasty)

    failures = {result.failure.kind for seed in range(30) if (result := run_seed(seed)).failure is not None}

    assert "acknowledged without a majority" in failures


def test_a_protocol_that_stops_is_found_by_its_lack_of_convergence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(PrimaryBackup):
        def deadline(self) -> float | None:
            return None  # what was lost is never sent again

    monkeypatch.setattr(primary_backup, "PrimaryBackup", Silent)

    failures = {result.failure.kind for seed in range(10) if (result := run_seed(seed)).failure is not None}

    assert failures == {"no convergence"}
