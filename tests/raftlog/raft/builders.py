"""Builders of what the tests of Raft are about: entries, changes, disks, single nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

from raftlog.engine import (
    Effect,
    NodeId,
    Note,
)
from raftlog.raft import RaftConfig, RaftNode
from raftlog.raft.configuration import Change, ChangeKind, Configuration, ConfigurationChange, Transition
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import HardState, Write

N1, N2, N3, N4, N5, N6, N7 = (NodeId(f"n{number}") for number in range(1, 8))
SEED = 20_140_814
CONFIG = RaftConfig(check_invariants=True)


def entries(*terms: int, first: int = 1) -> list[Entry]:
    """One entry per term; those of the same index and term have the same data."""
    return [
        Entry(index, term, EntryKind.COMMAND, b"%d.%d" % (index, term))
        for index, term in enumerate(terms, first)
    ]


def change(
    *changes: tuple[ChangeKind, NodeId], transition: Transition = Transition.AUTO
) -> ConfigurationChange:
    return ConfigurationChange(tuple(Change(kind, node) for kind, node in changes), transition)


def storage_with(
    configuration: Configuration, *terms: int, term: int = 0, vote: NodeId | None = None, commit: int = 0
) -> MemoryStorage:
    """A disk with entries of these terms; the hard state's term is the last one's unless given."""
    storage = MemoryStorage(configuration)
    state = HardState(max((term, *terms)), vote)
    storage.write(Write(hard_state=state, entries=entries(*terms), commit=commit))
    return storage


def make_node(
    name: NodeId = N1,
    *terms: int,
    voters: int = 3,
    term: int = 0,
    vote: NodeId | None = None,
    commit: int = 0,
    **settings: Any,
) -> RaftNode:
    """One node alone, with entries of these terms on its disk."""
    configuration = Configuration(tuple(NodeId(f"n{number + 1}") for number in range(voters)))
    storage = storage_with(configuration, *terms, term=term, vote=vote, commit=commit)
    return RaftNode(name, replace(CONFIG, **settings), storage, Random(SEED))


def react(node: RaftNode, *events: object) -> list[Effect]:
    """What the node does about these events, taken together, without what it notes."""
    for event in events:
        node.step(event, node.now)
    return [effect for effect in node.drain() if not isinstance(effect, Note)]


def payloads(found: Iterable[Entry]) -> list[bytes]:
    """What was proposed, without a leader's own entries."""
    return [entry.data for entry in found if entry.kind is EntryKind.COMMAND]
