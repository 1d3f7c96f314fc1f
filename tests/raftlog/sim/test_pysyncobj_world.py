"""The simulated world finds the bugs of PySyncObj: its checkers have teeth.

Each search begins with a seed that is known to find the bug, and ends there as long as nothing changes what a seed
means. After such a change it goes on; the seed that it prints is the one to begin with from then on.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from random import Random

import pytest

pytest.importorskip("pysyncobj", reason="the optional extra pysyncobj is not installed")

import raftlog.sim.pysyncobj
from raftlog.sim.cluster import Cluster
from raftlog.sim.faults import Act
from raftlog.sim.network import PERFECT
from raftlog.sim.protocols import protocol
from raftlog.sim.pysyncobj.subject import PYSYNCOBJ_TWO_ADDITIONS, PySyncObjSubject
from raftlog.sim.pysyncobj.witness import Broken, Bug
from raftlog.sim.simulation import Result, Scenario, draw_scenario, run
from raftlog.sim.subject import ProtocolUnderTest

STEPS = 6_000
SEEDS_MAX = 400  # more than any bug needs, by several times


def find(
    name: str, nodes: int, broken: Sequence[Broken], bug: Bug, *, first_seed: int
) -> tuple[Scenario, str]:
    """The first run that ends with this finding, and what it says."""
    for seed in range(first_seed, first_seed + SEEDS_MAX):
        scenario = draw_scenario(protocol(name), nodes=nodes, seed=seed, steps=STEPS)
        failure = run(protocol(name), scenario).failure
        if failure is not None and failure.kind in broken and failure.detail.startswith(f"{bug}:"):
            print(
                f"python -m raftlog.sim run --protocol {name} --nodes {nodes} --seeds {seed} --steps {STEPS}"
            )
            return scenario, failure.detail
    raise AssertionError(f"not found by {SEEDS_MAX} seeds from {first_seed}")


def run_to_the_end(scenario: Scenario) -> tuple[Result, PySyncObjSubject]:
    """Whatever is found on the way; of `pysyncobj-two-additions`."""
    subjects: list[PySyncObjSubject] = []

    def make(cluster: Cluster, node_count: int, random: Random) -> PySyncObjSubject:
        subjects.append(PySyncObjSubject(cluster, node_count, random, keeps=True, is_patient=True))
        return subjects[0]

    result = run(ProtocolUnderTest(PYSYNCOBJ_TWO_ADDITIONS.claims, make), scenario)
    return result, subjects[0]


def test_world_finds_a_double_vote() -> None:
    _, detail = find("pysyncobj-in-memory", 3, [Broken.ONE_LEADER], Bug.DOUBLE_VOTE, first_seed=11)

    assert " voted for " in detail


def test_world_finds_a_stale_acknowledgement_that_is_counted() -> None:
    _, detail = find("pysyncobj-held-answers", 5, [Broken.MAJORITY], Bug.STALE_ACKNOWLEDGEMENT, first_seed=3)

    assert "is counted for it but never had it" in detail


def test_world_finds_a_split_brain_after_two_additions() -> None:
    broken = [Broken.LEADER_HAS_ALL, Broken.ONE_ENTRY]
    scenario, detail = find("pysyncobj-two-additions", 3, broken, Bug.SPLIT_BRAIN, first_seed=19)

    assert "took up changes of the members at once" in detail
    assert any(
        isinstance(planned.fault, Act) and "add" in planned.fault.name for planned in scenario.plan.faults
    )


def test_world_finds_a_commit_index_that_comes_with_a_dump() -> None:
    _, detail = find("pysyncobj", 3, [Broken.ONLY_COMMITTED], Bug.FALSE_COMMIT, first_seed=29)

    assert "by a piece of a dump" in detail


def test_world_finds_entries_cut_off_that_were_acknowledged() -> None:
    _, detail = find("pysyncobj", 3, [Broken.COMMITTED_STAYS], Bug.CUT_OFF, first_seed=41)

    assert ", which " in detail


def test_world_finds_an_acknowledged_write_lost_and_clients_notice() -> None:
    for seed in range(17, 17 + SEEDS_MAX):
        scenario = draw_scenario(PYSYNCOBJ_TWO_ADDITIONS, nodes=3, seed=seed, steps=STEPS)
        result, subject = run_to_the_end(scenario)
        is_lost = any(finding.broken is Broken.ACKNOWLEDGED_STAYS for finding in subject.witness.findings)
        if is_lost and result.failure is not None and result.failure.kind == "not linearizable":
            print(f"seed {seed}: {subject.witness.findings[0]}")
            return
    raise AssertionError(f"not found by {SEEDS_MAX} seeds")


def test_in_calm_runs_with_default_settings_nothing_is_found() -> None:
    """The checkers do not cry wolf: without faults, and with one leader for all of it, PySyncObj keeps its promises."""
    for seed in range(5):
        scenario = draw_scenario(protocol("pysyncobj-held-answers"), nodes=3, seed=seed, steps=2_000)
        calm = scenario._replace(plan=scenario.plan._replace(faults=[], weather=PERFECT))

        result = run(protocol("pysyncobj-held-answers"), calm)

        assert result.failure is None
        assert result.done > 10


def test_node_that_is_alone_has_no_connection_to_break() -> None:
    for seed in (0, 2, 5):  # each of them is told to break one
        result = run(
            protocol("pysyncobj"), draw_scenario(protocol("pysyncobj"), nodes=1, seed=seed, steps=1_000)
        )

        assert result.failure is None


def test_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    program = (
        "from raftlog.sim.protocols import protocol\n"
        "from raftlog.sim.simulation import draw_scenario, run\n"
        "for name in ('pysyncobj', 'pysyncobj-in-memory', 'pysyncobj-held-answers'):\n"
        "    scenario = draw_scenario(protocol(name), nodes=5, seed=7, steps=2000)\n"
        "    print(run(protocol(name), scenario).digest)\n"
    )

    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert len(outputs[0].split()) == 3
    assert outputs[0] == outputs[1]


def test_absent_package_is_said_by_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ModuleNotFoundError, match=r"raftlog\[pysyncobj\]"):
        importlib.reload(raftlog.sim.pysyncobj)
