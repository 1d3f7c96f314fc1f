"""Copies of the package with one deliberate break in the core, run in the simulator by processes of their own.

Nothing here touches the tree that it is copied from, and no process imports two versions of one module.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
PACKAGE: Final = HERE.parents[2] / "raftlog"
COPIED: Final = ("__init__.py", "engine.py", "raft", "serf", "sim")
TABLES: Final = {
    "raft": "mutants.toml",
    "serf": "serf_mutants.toml",
}  # by protocol, which is the package's name too
INVARIANTS: Final = ("sim/raft/settings.py", "check_invariants=True", "check_invariants=False")


class Mutant(NamedTuple):
    """A deliberate break; mutants.toml says what each field means."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    test: str = ""
    protocol: str = "raft"


class Case(NamedTuple):
    """One run of the simulator."""

    seed: int
    nodes: int
    steps: int


class Ended(NamedTuple):
    """What became of a case; `kind` is None if nothing was wrong with it."""

    case: Case
    events: int
    kind: str | None
    detail: str


def load_mutants(protocol: str = "raft") -> list[Mutant]:
    content = tomllib.loads((HERE / TABLES[protocol]).read_text())
    return [Mutant(**each, protocol=protocol) for each in content["mutant"]]


def copy_package(
    folder: Path, mutant: Mutant | None, *, checks_invariants: bool, package: Path = PACKAGE
) -> None:
    """A copy of what the simulator needs in `folder`, broken by the mutant.

    Without the invariants of the core, only what the simulator itself sees can tell that something is wrong.
    """
    target = folder / "raftlog"
    target.mkdir()
    for name in COPIED:
        if (package / name).is_dir():
            shutil.copytree(package / name, target / name)
        else:
            shutil.copy2(package / name, target / name)
    if mutant is not None:
        _patch(target / mutant.protocol / mutant.file, mutant.old, mutant.new)
    if not checks_invariants:
        name, old, new = INVARIANTS
        _patch(target / name, old, new)


def _patch(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name}: {text.count(old)} times: {old}"
    file.write_text(text.replace(old, new))
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()  # else it may be taken for that of the patched file, if size and second are the same


def run_cases(folder: Path, cases: Sequence[Case], protocol: str = "raft") -> Generator[Ended, None, None]:
    """Each case as it ends, in the package that was copied to `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(HERE / "mutation_runs.py"), str(folder), protocol, json.dumps(cases)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for case in cases:
            line = process.stdout.readline()
            assert line, f"the simulator ended with {process.wait()} before it came to {case}"
            yield Ended(case, *json.loads(line))
    finally:  # perhaps nobody wants to know of the others
        process.kill()
        process.communicate()
