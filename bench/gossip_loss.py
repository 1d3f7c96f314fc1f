"""Real agents of Serf and nodes of ours on a network that loses packets: who is held for dead, and how long.

The story is that of the tests (tests/raftlog/gossip/lossy.py), told at full length.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvloop

from logstore.benchmark.measure import machine
from raftlog.serf.config import LAN
from tests.raftlog.gossip.lossy import tell_story

AGENTS: Final = 3
NODES: Final = 5
DETECT_S_MAX: Final = 120.0  # of members that were killed


def measure(folder: Path, *, seconds: float, loss: float, seed: int) -> dict[str, Any]:
    """All with the profile for a LAN. AssertionError if a living member stays dead to somebody, or a dead one alive."""
    logging.getLogger("raftlog").setLevel(logging.ERROR)  # what is lost is noted, over and over
    with tempfile.TemporaryDirectory(dir=folder) as place:
        story = uvloop.run(
            tell_story(
                Path(place), seconds=seconds, loss=loss, seed=seed, profile=LAN, agent_profile="lan",
                agents=AGENTS, nodes=NODES, detect_s_max=DETECT_S_MAX,
            )
        )  # fmt: skip
    told = {
        key: {name: round(number, 2) for name, number in value.items()}
        if isinstance(value, dict)
        else round(value, 2)
        for key, value in asdict(story).items()
    }
    setting = {"agents": AGENTS, "nodes": NODES, "loss": loss, "seed": seed}
    return {"machine": machine(), **setting, **told}
