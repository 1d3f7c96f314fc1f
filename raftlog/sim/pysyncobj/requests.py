"""What clients ask of a PySyncObj node, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftlog.engine import NodeId


@dataclass(frozen=True, slots=True)
class Command:
    """Run this method of the replicated machine: `write`, `append`, `cas`, or `read`.

    Reads go through the log as well: a read of the local copy is promised by nobody to be the latest.
    """

    request: int
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AddMember:
    """Add this node to the cluster."""

    request: int
    node: NodeId


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Remove this node from the cluster."""

    request: int
    node: NodeId


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """Let this node lead, or the one that has most, if this node leads now."""

    request: int
    node: NodeId | None


@dataclass(frozen=True, slots=True)
class Compact:
    """Put the applied part of the log into a dump at the next opportunity. There is no reply."""


@dataclass(frozen=True, slots=True)
class Done:
    """SUCCESS was reported, with what the method returned."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """It was refused, or another entry took its place: it never happens."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """PySyncObj says that it does not know."""

    reason: str


Request = Command | AddMember | RemoveMember | TransferLeadership | Compact
Outcome = Done | Failed | Unknown
