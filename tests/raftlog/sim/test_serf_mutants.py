"""Deliberate breaks of the gossip are found, each by the run that was recorded.

`python -m bench mutants --protocol serf` searches anew, for all or for those whose names contain a word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.report import RESULTS
from raftlog.sim.protocols import protocol
from raftlog.sim.simulation import draw_scenario, run
from tests.raftlog.sim.mutation import PACKAGE, Case, Mutant, copy_package, load_mutants, run_cases

MUTANTS = load_mutants("serf")
RECORDED: dict[str, Any] = {
    mutant["name"]: mutant for mutant in json.loads((RESULTS / "serf_mutants.json").read_text())["mutants"]
}


def _slug(mutant: Mutant) -> str:
    return re.sub(r"\W+", "_", mutant.name)


def _case(recorded: dict[str, Any]) -> Case:
    return Case(recorded["seed"], recorded["nodes"], recorded["steps"])


@pytest.mark.parametrize("mutant", MUTANTS, ids=_slug)
def test_simulator_finds(mutant: Mutant, tmp_path: Path) -> None:
    recorded = RECORDED[mutant.name]
    copy_package(tmp_path, mutant, checks_invariants=True)

    [ended] = run_cases(tmp_path, [_case(recorded)], "serf")

    assert "NameError" not in (ended.kind or ""), "the mutant is no program"
    assert ended.kind == recorded["violation"], ended.detail


def test_unbroken_gossip_passes_the_runs_that_find_the_mutants() -> None:
    serf = protocol("serf")
    cases = sorted({_case(recorded) for recorded in RECORDED.values()})

    failures = [
        (case, failure)
        for case in cases
        if (failure := run(serf, draw_scenario(serf, **case._asdict())).failure) is not None
    ]

    assert failures == []


def test_what_was_recorded_is_of_the_mutants_that_there_are() -> None:
    assert list(RECORDED) == [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=_slug)
def test_what_a_mutant_replaces_is_there_once(mutant: Mutant) -> None:
    text = (PACKAGE / "serf" / mutant.file).read_text()

    assert text.count(mutant.old) == 1
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
