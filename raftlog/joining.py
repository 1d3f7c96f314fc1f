"""How a server comes to its place in a cluster: it begins one, or asks to be let in, and later tells where it is now."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import grpc

from raftlog.client.connection import Connection
from raftlog.client.failures import failure
from raftlog.config import ServerConfig
from raftlog.distributed.replica import Replica
from raftlog.engine import NodeId
from raftlog.machines.members import Member
from raftlog.machines.views import Views
from raftlog.net.tls import TlsFiles, channel_credentials
from raftlog.pb.raftlog.v1 import cluster_pb2
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Configuration
from raftlog.runtime.logging import get_logger
from raftlog.storage.data_directory import FIRST_BASE, DataDirectory

log = get_logger(__name__)

CALL_S_MAX: Final = 15.0  # for a join: the leader has to commit it
ASK_AGAIN_S: Final = 1.0
ANNOUNCE_INTERVAL_S: Final = 0.5

_STATIC: Final = uuid.UUID(
    "6f0c1f5e-3f0d-4c8e-9d2b-5a1d8e7c4b60"
)  # the namespace of clusters that begin from a list


def begin_cluster(directory: DataDirectory, config: ServerConfig, address: str) -> bool:
    """Make the first content of a directory if the settings say how; whether it has content now.

    Nothing is done with a directory that has some: bootstrapping twice is no error.
    """
    if not directory.is_new:
        return True
    if config.peers:
        members = {NodeId(peer.name): Member(peer.address, "") for peer in config.peers}
        members[directory.node_name] = Member(members[directory.node_name].address, directory.directory_id)
        directory.bootstrap(_cluster_of(config), members, _first_views(members))
        log.info("cluster begun from the list of peers", members=len(members))
        return True
    if config.bootstrap:
        alone = {directory.node_name: Member(address, directory.directory_id)}
        directory.bootstrap(str(uuid.uuid4()), alone, _first_views(alone))
        log.info("cluster begun with this server", cluster=directory.cluster_id)
        return True
    return False


def _cluster_of(config: ServerConfig) -> str:
    """The same on all servers that have the same list."""
    lines = sorted(f"{peer.name}={peer.address}" for peer in config.peers)
    return str(uuid.uuid5(_STATIC, "\n".join(lines)))


def _first_views(members: Mapping[NodeId, Member]) -> dict[str, bytes]:
    """What all members begin with: of directories each knows its own alone, so they are told later."""
    views = Views(Configuration(tuple(sorted(members))), index=FIRST_BASE.index)
    for node, member in sorted(members.items()):
        directory_id = member.directory_id if len(members) == 1 else ""
        command = pb.SetMember(id=node, address=member.address, directory_id=directory_id)
        views.members.set_member(FIRST_BASE.index, command)
    return views.to_sections()


class Joining:
    """Asks the servers of a cluster to let this one in."""

    def __init__(self, tls: TlsFiles | None, *, node: NodeId, address: str) -> None:
        """`tls` is what this server proves; `address` is where others reach it."""
        self._tls = tls
        self._node = node
        self._address = address

    async def ask(self, addresses: Sequence[str], directory_id: str) -> cluster_pb2.JoinResponse:
        """Ask them in turn until one lets us in; tries for ever, and says in the log why it has to."""
        while True:
            for address in addresses:
                try:
                    return await self._ask(address, directory_id)
                except grpc.aio.AioRpcError as error:
                    log.warning("not let in yet", asked=address, reason=str(failure(error)))
            await asyncio.sleep(ASK_AGAIN_S)

    async def _ask(self, address: str, directory_id: str) -> cluster_pb2.JoinResponse:
        credentials = None if self._tls is None else channel_credentials(self._tls)
        connection = Connection(address, credentials)
        try:
            request = cluster_pb2.JoinRequest(
                id=self._node, rpc_addr=self._address, directory_id=directory_id
            )
            answer: cluster_pb2.JoinResponse = await connection.cluster.Join(request, timeout=CALL_S_MAX)
            return answer
        finally:
            await connection.close()

    async def keep_announced(self, replica: Replica, addresses: Sequence[str]) -> None:
        """See to it that the list of members says where this server is and which directory it has.

        Needed after its address or its disk has changed, or if it was joined by somebody who did not know its directory.
        `addresses` are those of other servers that were known before its log says who they are. Ends never.
        """
        while True:
            members = replica.applier.views.members
            known = members.get(replica.id)
            others = [
                member.address
                for node, member in members.known.items()
                if node != replica.id and member.address
            ]
            is_told = known == Member(self._address, replica.directory_id)
            # Who was removed is not to come back by itself.
            is_wanted = replica.id in members.configuration.members or not members.configuration.members
            if not is_told and is_wanted:
                if replica.is_ready:
                    others = [self._address]
                if others or addresses:
                    await self.ask(others or addresses, replica.directory_id)
            await asyncio.sleep(ANNOUNCE_INTERVAL_S)
