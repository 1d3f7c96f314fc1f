"""What one server knows of another, and the connections between the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from raftlog.net.connection import Connection
from raftlog.net.handshake import Introduction, Lane
from raftlog.net.outbound import Outbound


class Address(NamedTuple):
    """Where a member is, and which data directory it has."""

    address: str
    directory_id: str = ""  # "": not known, any will do


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """What is known of the links with one peer."""

    is_connected: bool  # we to it, for control
    queued_bytes: int  # that the system has not taken yet
    last_heard: float | None  # loop time of the last message from it
    dropped: int  # messages that were not sent
    connects: int  # connections made to it
    format_min: int  # versions of the log's format that it knows; 0: it has not introduced itself
    format_max: int


@dataclass(slots=True)
class Peer:
    address: Address
    is_member: bool
    outbound: dict[Lane, Outbound] = field(default_factory=dict)
    inbound: dict[Lane, Connection] = field(default_factory=dict)
    introduced: Introduction | None = None  # the last one
    last_heard: float | None = None

    def check_directory(self) -> None:
        """If it came with another directory than is known now, both sides are to introduce themselves again."""
        known, introduced = self.address.directory_id, self.introduced
        if introduced is None or known in ("", introduced.directory_id):
            return
        reason = f"{introduced.node} has another directory than the list of members says"
        for connection in self.inbound.values():
            connection.abort(reason)
        for outbound in self.outbound.values():
            outbound.reconnect(reason)

    def end_inbound(self, reason: str) -> None:
        for connection in self.inbound.values():
            connection.close(reason)

    def take_outbound(self) -> Iterator[Outbound]:
        """All links to it, which are to be closed; it has none any more."""
        links, self.outbound = self.outbound, {}
        return iter(links.values())

    def statistics(self) -> PeerStatistics:
        control, introduced = self.outbound.get(Lane.CONTROL), self.introduced
        links = self.outbound.values()
        return PeerStatistics(
            is_connected=control is not None and control.is_connected,
            queued_bytes=sum(each.queued_bytes for each in links),
            last_heard=self.last_heard,
            dropped=sum(each.dropped for each in links),
            connects=sum(each.connects for each in links),
            format_min=introduced.format_min if introduced is not None else 0,
            format_max=introduced.format_max if introduced is not None else 0,
        )
