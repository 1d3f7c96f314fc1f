"""The checkers have teeth: deliberate breaks of the core are found, each by the run that was recorded, a few by a test.

`python -m bench mutants` searches anew, for all or for those whose names contain a word, and records what it finds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.report import RESULTS
from raftlog.sim.protocols import protocol
from raftlog.sim.simulation import draw_scenario, run
from tests.raftlog.sim.mutation import PACKAGE, Case, Mutant, copy_package, load_mutants, run_cases

MUTANTS = load_mutants()
SIMULATED = [mutant for mutant in MUTANTS if not mutant.test]
TESTED = [mutant for mutant in MUTANTS if mutant.test]
RECORDED: dict[str, Any] = {
    mutant["name"]: mutant for mutant in json.loads((RESULTS / "mutants.json").read_text())["mutants"]
}
FOUND_MIN = 30
TESTS = PACKAGE.parent / "tests" / "raftlog"


def _slug(mutant: Mutant) -> str:
    return re.sub(r"\W+", "_", mutant.name)


def _case(recorded: dict[str, Any]) -> Case:
    return Case(recorded["seed"], recorded["nodes"], recorded["steps"])


@pytest.mark.parametrize("mutant", SIMULATED, ids=_slug)
def test_simulator_finds(mutant: Mutant, tmp_path: Path) -> None:
    recorded = RECORDED[mutant.name]
    copy_package(tmp_path, mutant, checks_invariants=recorded["with_invariants"])

    [ended] = run_cases(tmp_path, [_case(recorded)])

    assert "NameError" not in (ended.kind or ""), "the mutant is no program"
    assert ended.kind == recorded["violation"], ended.detail


@pytest.mark.parametrize("mutant", TESTED, ids=_slug)
def test_test_finds(mutant: Mutant, tmp_path: Path) -> None:
    copy_package(tmp_path, mutant, checks_invariants=True)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-p", "no:raftlog", str(TESTS / mutant.test)],
        cwd=PACKAGE.parent, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "NameError" not in done.stdout


def test_unbroken_core_passes_the_runs_that_find_the_mutants() -> None:
    raft = protocol("raft")
    cases = sorted({_case(recorded) for recorded in RECORDED.values()})

    failures = [
        (case, failure)
        for case in cases
        if (failure := run(raft, draw_scenario(raft, **case._asdict())).failure) is not None
    ]

    assert failures == []


def test_what_was_recorded_is_of_the_mutants_that_there_are() -> None:
    names = [mutant.name for mutant in SIMULATED]

    assert list(RECORDED) == names
    assert len(names) == len(set(names)) >= FOUND_MIN


@pytest.mark.parametrize("mutant", MUTANTS, ids=_slug)
def test_what_a_mutant_replaces_is_there_once(mutant: Mutant) -> None:
    text = (PACKAGE / "raft" / mutant.file).read_text()

    assert text.count(mutant.old) == 1
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
