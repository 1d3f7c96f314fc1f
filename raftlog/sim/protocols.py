"""The protocols that the simulator knows by name, and those that its users bring."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from raftlog.sim.subject import ProtocolUnderTest

# name: module and constant, imported when asked for: some need packages that not everybody has
PROTOCOLS: Final = {
    "raft": ("raftlog.sim.raft.subject", "RAFT"),
    "serf": ("raftlog.sim.serf.subject", "SERF"),
    "pysyncobj": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ"),
    "pysyncobj-in-memory": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_IN_MEMORY"),
    "pysyncobj-held-answers": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_HELD_ANSWERS"),
    "pysyncobj-two-additions": ("raftlog.sim.pysyncobj.subject", "PYSYNCOBJ_TWO_ADDITIONS"),
}


class NoSuchProtocol(Exception):
    """The name means no protocol, or one that needs a package that is not installed."""


def protocol(name: str) -> ProtocolUnderTest:
    """One of PROTOCOLS, or the constant NAME of a module of one's own: `MODULE:NAME`. NoSuchProtocol if there is none."""
    module, _, constant = name.partition(":")
    if name in PROTOCOLS:
        module, constant = PROTOCOLS[name]
    elif not (module and constant) or module.startswith("."):
        raise NoSuchProtocol(f"{name}: neither one of {', '.join(PROTOCOLS)} nor MODULE:NAME of your own")
    try:
        found = getattr(import_module(module), constant, None)
    except ModuleNotFoundError as error:
        raise NoSuchProtocol(f"{name}: {error}") from error
    if not isinstance(found, ProtocolUnderTest):
        raise NoSuchProtocol(f"{name}: expected a ProtocolUnderTest, found {found!r}")
    return found
