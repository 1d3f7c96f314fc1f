"""Who the members are: where each is reached, which data directory is its, and whose votes count."""

from __future__ import annotations

from typing import NamedTuple

from raftlog.engine import NodeId
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.wire.configurations import configuration_from_bytes, configuration_to_bytes


class Member(NamedTuple):
    address: str  # host:port for servers and clients
    directory_id: str  # uuid of its data directory; "" until it is known


class Members:
    """Addresses come by commands, votes by entries of kind configuration."""

    configuration: Configuration  # in force after the last entry that was applied
    index: int  # of the last entry that changed anything here

    def __init__(self, configuration: Configuration, *, index: int) -> None:
        self.configuration = configuration
        self.index = index
        self._known: dict[NodeId, Member] = {}

    @property
    def known(self) -> dict[NodeId, Member]:
        """Also of those that are not members yet, sorted by id."""
        return dict(sorted(self._known.items()))

    def get(self, node: NodeId) -> Member | None:
        return self._known.get(node)

    def at_address(self, address: str) -> NodeId | None:
        """The member of the configuration with this address."""
        for node in self.configuration.members:
            member = self._known.get(node)
            if member is not None and member.address == address:
                return node
        return None

    def set_member(self, index: int, command: pb.SetMember) -> None:
        self.index = index
        self._known[NodeId(command.id)] = Member(command.address, command.directory_id)

    def change(self, index: int, data: bytes) -> None:
        """Apply an entry of kind configuration. One that is not possible changes nothing, as in the core."""
        if not self.configuration.members:
            return  # what is before it is not known: the core ignores it, too
        try:
            configuration = apply_change(
                self.configuration, ConfigurationChange.from_bytes(data)
            ).configuration
        except InvalidChange:
            return
        for node in set(self.configuration.members).difference(configuration.members):
            self._known.pop(node, None)
        self.configuration = configuration
        self.index = index

    def to_bytes(self) -> bytes:
        view = pb.MembersView(configuration=configuration_to_bytes(self.configuration), index=self.index)
        for node, member in self.known.items():
            view.members.add(id=node, address=member.address, directory_id=member.directory_id)
        return view.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Members:
        """What `to_bytes` gave; DecodeError or ValueError for other bytes."""
        view = pb.MembersView.FromString(data)
        members = cls(configuration_from_bytes(view.configuration), index=view.index)
        for each in view.members:
            members.set_member(view.index, each)
        return members
