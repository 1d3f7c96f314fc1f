"""Run cases in the package of a folder, a line of JSON for each: events, kind of failure or null, detail.

    python -P mutation_runs.py FOLDER PROTOCOL '[[seed, nodes, steps], ...]'

FOLDER is first in PYTHONPATH, too.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import raftlog
from raftlog.sim.protocols import protocol
from raftlog.sim.simulation import draw_scenario, run

SECONDS_MAX: Final = 60  # of one run: a healthy one takes a tenth of a second
DETAIL_CHARACTERS_MAX: Final = 400


class Endless(Exception):
    """A run takes far too long."""


def _give_up(_: int, __: FrameType | None) -> None:
    raise Endless(f"still running after {SECONDS_MAX} s")


def main(folder: Path, name: str, cases: list[list[int]]) -> None:
    assert raftlog.__file__ is not None and Path(raftlog.__file__).parent.parent == folder, raftlog.__file__
    signal.signal(signal.SIGALRM, _give_up)
    under_test = protocol(name)
    for seed, nodes, steps in cases:
        signal.alarm(SECONDS_MAX)
        result = run(under_test, draw_scenario(under_test, nodes=nodes, seed=seed, steps=steps))
        signal.alarm(0)
        kind, detail = result.failure or (None, "")
        if kind is not None and kind.startswith("raised Endless"):
            kind = "does not end"  # wherever it was then
        print(json.dumps([result.events, kind, detail[:DETAIL_CHARACTERS_MAX]]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
