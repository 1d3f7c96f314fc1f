"""Public histories with known verdicts, where they are at hand: RAFTLOG_HISTORIES or ../shared/vectors/porcupine.

`verdicts.json` says of each file, by its name, whether it is linearizable; the files lie anywhere below.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raftlog.sim.history_files import read_history
from raftlog.sim.linearizability import Linearizable, NotLinearizable, check
from raftlog.sim.models import MODELS

PROJECT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("RAFTLOG_HISTORIES") or PROJECT.parent / "shared" / "vectors" / "porcupine")


def verdicts() -> dict[str, bool]:
    try:
        found: dict[str, bool] = json.loads((FOLDER / "verdicts.json").read_text())
    except FileNotFoundError:
        return {}
    return found


VERDICTS = verdicts()


@pytest.mark.skipif(not VERDICTS, reason=f"no verdicts.json in {FOLDER}")
@pytest.mark.parametrize("name", VERDICTS)
def test_verdict_of_a_public_history(name: str) -> None:
    (path,) = FOLDER.rglob(Path(name).name)
    model = "kv-append" if path.read_text().lstrip().startswith("{") else "register"

    verdict = check(MODELS[model], read_history(path, model))

    assert isinstance(verdict, Linearizable if VERDICTS[name] else NotLinearizable)
