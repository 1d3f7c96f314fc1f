"""Who the members are: where each is reached, which data directory is its, and whose votes counted when."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from raftlog.engine import NodeId
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.wire.configurations import configuration_from_bytes, configuration_to_bytes

HISTORY_MAX: Final = (
    10_000  # configurations that are remembered; a log that begins before the oldest cannot be shipped
)


class Member(NamedTuple):
    address: str  # host:port for servers and clients
    directory_id: str  # uuid of its data directory; "" until it is known


class Members:
    """Addresses come by commands, votes by entries of kind configuration."""

    def __init__(self, configuration: Configuration, *, index: int) -> None:
        """`configuration` was put in force by entry `index`."""
        self._known: dict[NodeId, Member] = {}
        self._history: list[tuple[int, Configuration]] = [(index, configuration)]

    @property
    def configuration(self) -> Configuration:
        return self._history[-1][1]

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

    def configuration_at(self, index: int) -> Configuration | None:
        """The one in force after entry `index`; None if that is not remembered."""
        position = bisect_right(self._history, index, key=lambda each: each[0])
        return self._history[position - 1][1] if position else None

    def set_member(self, command: pb.SetMember) -> None:
        self._known[NodeId(command.id)] = Member(command.address, command.directory_id)

    def change(self, index: int, data: bytes) -> bool:
        """Apply an entry of kind configuration; False if it changes nothing, as the core, too, ignores it then."""
        try:
            configuration = apply_change(
                self.configuration, ConfigurationChange.from_bytes(data)
            ).configuration
        except InvalidChange:
            return False
        left = set(self.configuration.members).difference(configuration.members)
        for node in sorted(left):
            self._known.pop(node, None)
        self._history.append((index, configuration))
        del self._history[:-HISTORY_MAX]
        return True

    def to_bytes(self) -> bytes:
        view = pb.MembersView()
        for node, member in self.known.items():
            view.members.add(id=node, address=member.address, directory_id=member.directory_id)
        for index, configuration in self._history:
            view.configurations.add(index=index, configuration=configuration_to_bytes(configuration))
        return view.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Members:
        """What `to_bytes` gave; DecodeError or ValueError for other bytes."""
        view = pb.MembersView.FromString(data)
        history = [(each.index, configuration_from_bytes(each.configuration)) for each in view.configurations]
        if not history:
            raise ValueError("a members view without a configuration")
        members = cls(history[0][1], index=history[0][0])
        members._history = history
        for each in view.members:
            members.set_member(each)
        return members
