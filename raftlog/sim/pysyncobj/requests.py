"""What clients ask of a PySyncObj node, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftlog.engine import NodeId
from raftlog.sim import models


@dataclass(frozen=True, slots=True)
class Command:
    """Let the replicated machine do this.

    Reads go through the log as well: of a read of the local copy nobody promises that it sees the latest.
    """

    request: int
    operation: models.Request


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
    """SUCCESS was reported."""

    result: Any  # what the machine answered
    index: int  # the entry that the node was applying then


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
