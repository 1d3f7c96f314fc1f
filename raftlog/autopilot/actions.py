"""What the reconciler can do, one at a time. Each changes the list of members once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from raftlog.engine import NodeId


@dataclass(frozen=True, slots=True)
class ChangeAddress:
    """The same server, with the same directory, is elsewhere. To be checked before it is done."""

    name: NodeId
    address: str
    directory_id: str
    why: str


@dataclass(frozen=True, slots=True)
class ReplaceDisk:
    """The same name with another directory: the old one goes, the new one begins as a learner. To be checked."""

    name: NodeId
    address: str
    directory_id: str
    why: str


@dataclass(frozen=True, slots=True)
class AddLearner:
    """To be checked."""

    name: NodeId
    address: str
    directory_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    name: NodeId
    why: str


@dataclass(frozen=True, slots=True)
class RemoveLeft:
    name: NodeId
    why: str


@dataclass(frozen=True, slots=True)
class RemoveFailed:
    name: NodeId
    why: str


Checked = ChangeAddress | ReplaceDisk | AddLearner
Action = Checked | Promote | RemoveLeft | RemoveFailed


def describe(action: Action) -> str:
    """In words, with the reason."""
    match action:
        case ChangeAddress():
            what = f"change the address of {action.name} to {action.address}"
        case ReplaceDisk():
            what = f"begin anew with {action.name}, whose disk was replaced"
        case AddLearner():
            what = f"add {action.name} at {action.address} as a learner"
        case Promote():
            what = f"make a voter of {action.name}"
        case RemoveLeft():
            what = f"remove {action.name}, which has left"
        case RemoveFailed():
            what = f"remove {action.name}, which has failed"
        case _:
            assert_never(action)
    return f"{what}: {action.why}"
