"""The protocols that the simulator knows by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from raftlog.sim.subject import ProtocolUnderTest

# name: module and constant, imported when asked for: some need packages that not everybody has
PROTOCOLS: Final = {
    "raft": ("raftlog.sim.raft.subject", "RAFT"),
    "pysyncobj": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ"),
    "pysyncobj-in-memory": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_IN_MEMORY"),
    "pysyncobj-held-answers": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_HELD_ANSWERS"),
    "pysyncobj-two-additions": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_TWO_ADDITIONS"),
}


def protocol(name: str) -> ProtocolUnderTest:
    """KeyError if there is none of this name."""
    module, constant = PROTOCOLS[name]
    found = getattr(import_module(module), constant)
    assert isinstance(found, ProtocolUnderTest)
    return found
