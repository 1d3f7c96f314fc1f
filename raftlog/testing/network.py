"""Which servers of a cluster in this process hear each other: messages and calls between others go nowhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from raftlog.distributed.replica import Links
from raftlog.engine import NodeId
from raftlog.errors import NotLeader, OutcomeUnknown
from raftlog.machines.members import Member
from raftlog.net.tls import TlsFiles
from raftlog.raft.messages import Message
from raftlog.server.call import Call
from raftlog.server.forwarding import Forwarder

Response = TypeVar("Response")

REST: Final = 0  # the group of those that are in no other


class Network:
    """Changed by the test's thread, read by those of the servers."""

    def __init__(self) -> None:
        self._groups: Mapping[str, int] = {}  # replaced as a whole, never changed; who is in none is of REST

    def split(self, groups: Iterable[Iterable[str]]) -> None:
        """From now on each group hears itself alone, and so do those that are in none."""
        self._groups = {node: number for number, group in enumerate(groups, start=REST + 1) for node in group}

    def heal(self) -> None:
        self._groups = {}

    def is_open(self, one: str, other: str) -> bool:
        groups = self._groups
        return groups.get(one, REST) == groups.get(other, REST)


class CutLinks:
    """The links of one server, as far as the network lets its messages through.

    Lost messages are lost without a word, as those of a network are: no connection ends, and timeouts tell.
    """

    def __init__(self, node: NodeId, links: Links, network: Network) -> None:
        self._node = node
        self._links = links
        self._network = network

    def send(self, to: NodeId, message: Message, *, is_catch_up: bool = False) -> None:
        if self._network.is_open(self._node, to):
            self._links.send(to, message, is_catch_up=is_catch_up)

    def set_members(self, members: Mapping[NodeId, Member], *, version: int) -> None:
        self._links.set_members(members, version=version)

    @property
    def format_version(self) -> int:
        return self._links.format_version


class CutForwarder(Forwarder):
    """Sends calls on to the leader if the network lets them through; else the caller is told who leads."""

    def __init__(self, node: str, network: Network, tls: TlsFiles | None, *, message_bytes_max: int) -> None:
        super().__init__(tls, message_bytes_max=message_bytes_max)
        self._node = node
        self._network = network

    async def ask(
        self, refused: NotLeader, method: str, request: Any, response: type[Response], call: Call
    ) -> Response:
        self._require_open(refused)
        return await super().ask(refused, method, request, response, call)

    async def relay(
        self,
        refused: NotLeader,
        method: str,
        requests: AsyncIterator[Any],
        response: type[Response],
        call: Call,
        **more: Any,
    ) -> AsyncGenerator[Response]:
        self._require_open(refused)
        async with aclosing(super().relay(refused, method, requests, response, call, **more)) as answers:
            async for answer in answers:
                if not self._network.is_open(self._node, refused.leader_id):
                    raise OutcomeUnknown(
                        f"{self._node} and the leader, {refused.leader_id}, do not hear each other"
                    )
                yield answer

    def _require_open(self, refused: NotLeader) -> None:
        if not self._network.is_open(self._node, refused.leader_id):
            raise refused
