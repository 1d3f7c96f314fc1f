"""How a server comes to its place in a cluster: it begins one, or asks to be let in, and later tells where it is now."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc

from raftlog.client.connection import Connection
from raftlog.client.failures import failure
from raftlog.config import ServerConfig
from raftlog.discovery.source import Source
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.replica import Replica
from raftlog.engine import NodeId
from raftlog.errors import NotLeader, RaftlogError
from raftlog.finding import Identify, find_cluster
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
LEADER_S_MAX: Final = 2.0  # without a word from one it may be that nobody knows where this server is
LOOK_FIRST_S_MAX: Final = 10.0  # several times what a leader takes to call a member that it has lost
LOOK_AGAIN_S: Final = 0.1
LEAVE_S_MAX: Final = 10.0
LEAVE_AGAIN_S: Final = 0.2
STATUS_S_MAX: Final = 2.0  # for one that may not be there

# The namespace of clusters that begin from a list. Another one would make another cluster of the same list.
_STATIC: Final = uuid.UUID("6f0c1f5e-3f0d-4c8e-9d2b-5a1d8e7c4b60")


def cluster_of(config: ServerConfig) -> str:
    """Id of a cluster that begins from a list of peers: the same on all servers that have the same list."""
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
    """Of one server."""

    def __init__(self, tls: TlsFiles | None, *, node: NodeId, address: str, engine: str) -> None:
        """`tls` is what this server proves; `address` is where others reach it."""
        self._tls = tls
        self._node = node
        self._address = address
        self._engine = engine

    async def begin_cluster(self, directory: DataDirectory, config: ServerConfig) -> bool:
        """Make the first content of a directory if the settings say how; whether it has content now.

        Nothing is done with a directory that has some: bootstrapping twice is no error. Nor with a new one whose peers
        have gone on already: this server has lost its data, and asks to be let in. Nor with one that looks for a
        cluster before it begins one.
        """
        if not directory.is_new:
            return True
        if config.peers:
            others = [peer.address for peer in config.peers if peer.name != directory.node_name]
            if await self.have_gone_on(others):
                log.warning("the cluster has data and this server has none: it is to be let in anew")
                return False
            members = {NodeId(peer.name): Member(peer.address, "") for peer in config.peers}
            cluster_id = cluster_of(config)
            log.info("cluster begun from the list of peers", members=len(members))
        elif config.bootstrap and not config.looks_first:
            await self.bootstrap(directory, str(uuid.uuid4()))
            return True
        else:
            return False
        await asyncio.to_thread(directory.bootstrap, cluster_id, members, _first_views(members))
        return True

    async def bootstrap(self, directory: DataDirectory, cluster_id: str) -> None:
        """Begin a cluster with this server alone."""
        members = {directory.node_name: Member(self._address, directory.directory_id)}
        await asyncio.to_thread(directory.bootstrap, cluster_id, members, _first_views(members))
        log.info("cluster begun with this server", cluster=cluster_id)

    async def look_first(self, source: Source, identify: Identify) -> bool:
        """Whether this server, which may begin a cluster, is to: nobody that `source` finds is of one.

        It is sure of that once everybody who was to be asked has answered; it waits no longer than LOOK_FIRST_S_MAX.
        """
        ends = time.monotonic() + LOOK_FIRST_S_MAX
        while True:
            is_complete = source.is_complete
            found, have_answered = await find_cluster(source, identify, own_name=self._node)
            if found:
                log.warning(
                    "a cluster is there already: this server joins it, and begins none", cluster=found
                )
                return False
            if is_complete and have_answered:
                return True
            if time.monotonic() >= ends:
                log.warning(
                    "no cluster found, and not all answered that were to be asked: this server begins one",
                    waited_s=LOOK_FIRST_S_MAX,
                )
                return True
            await asyncio.sleep(LOOK_AGAIN_S)

    async def have_gone_on(self, addresses: Sequence[str]) -> bool:
        """Whether one of these servers is of a cluster that had a leader."""
        found = await asyncio.gather(*map(self._status, addresses))
        return any(status is not None and status.commit_index > FIRST_BASE.index for status in found)

    async def find_cluster(self, addresses: Sequence[str]) -> cluster_pb2.GetStatusResponse:
        """What the first of these servers that is a member of a cluster says of it; asks for ever."""
        while True:
            for address in addresses:
                status = await self._status(address)
                if status is not None and status.members:
                    return status
            log.warning("no cluster found yet", asked=", ".join(addresses))
            await asyncio.sleep(ASK_AGAIN_S)

    async def _status(self, address: str) -> cluster_pb2.GetStatusResponse | None:
        """None if the server does not answer."""
        connection = self._connect(address)
        try:
            status: cluster_pb2.GetStatusResponse = await connection.cluster.GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=STATUS_S_MAX
            )
        except grpc.aio.AioRpcError:
            return None
        finally:
            await connection.close()
        return status

    def _connect(self, address: str) -> Connection:
        return Connection(address, None if self._tls is None else channel_credentials(self._tls))

    async def ask(
        self, addresses: Sequence[str], directory_id: str, cluster_id: str
    ) -> cluster_pb2.JoinResponse:
        """Ask them in turn until one lets us in; tries for ever, and says in the log why it has to."""
        while True:
            answer = await self.ask_once(addresses, directory_id, cluster_id)
            if answer is not None:
                return answer
            await asyncio.sleep(ASK_AGAIN_S)

    async def ask_once(
        self, addresses: Sequence[str], directory_id: str, cluster_id: str
    ) -> cluster_pb2.JoinResponse | None:
        """The answer of the first that lets us in; None if nobody does."""
        for address in addresses:
            try:
                return await self._ask(address, directory_id, cluster_id)
            except grpc.aio.AioRpcError as error:
                log.warning("not let in yet", asked=address, reason=str(failure(error)))
        return None

    async def _ask(self, address: str, directory_id: str, cluster_id: str) -> cluster_pb2.JoinResponse:
        connection = self._connect(address)
        try:
            request = cluster_pb2.JoinRequest(
                id=self._node, rpc_addr=self._address, directory_id=directory_id, cluster_id=cluster_id,
                engine=self._engine,
            )  # fmt: skip
            answer: cluster_pb2.JoinResponse = await connection.cluster.Join(request, timeout=CALL_S_MAX)
            return answer
        finally:
            await connection.close()

    async def leave(self, commit_log: DistributedLog) -> None:
        """Have the leader remove this server; what refuses it is tried again for LEAVE_S_MAX, for a new leader has to hear
        of the others first. The last voter cannot leave. What cannot be done is said in the log."""
        reason = "nobody answered"
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                while (reason := await self._why_not_left(commit_log)) and not commit_log.replica.is_alone:
                    await asyncio.sleep(LEAVE_AGAIN_S)
        except TimeoutError:
            pass
        if reason:
            log.warning("still a member, though it was to leave", node=self._node, reason=reason)

    async def _why_not_left(self, commit_log: DistributedLog) -> str:
        """Ask once; "" if this server is no member any more."""
        try:
            await commit_log.leave(self._node, is_barred=False)
        except NotLeader as refused:
            return await self._ask_to_leave(refused.leader_addr) if refused.leader_addr else str(refused)
        except RaftlogError as error:
            return str(error)
        return ""

    async def _ask_to_leave(self, address: str) -> str:
        connection = self._connect(address)
        request = cluster_pb2.LeaveRequest(id=self._node, by_itself=True)
        try:
            await connection.cluster.Leave(request, timeout=CALL_S_MAX)
        except grpc.aio.AioRpcError as error:
            return str(failure(error))
        finally:
            await connection.close()
        return ""

    async def keep_announced(
        self,
        replica: Replica,
        others: Sequence[str],
        *,
        on_removed: Callable[[str], None],
        on_joined_again: Callable[[], None],
    ) -> None:
        """See to it that the list of members says where this server is and which directory it has.

        Needed after its address or its disk has changed, or if it was joined by somebody who did not know its directory.
        One that knows no members, because it was ended after its data was set aside, asks `others` to let it in.
        `on_removed` is told the reason, once, when this server is no member any more, and `on_joined_again` if it is one
        after that. Ends never.
        """
        while not replica.applier.views.members.configuration.members:
            await self.ask_once(others, replica.directory_id, replica.cluster_id)
            await replica.wait_for_change(ASK_AGAIN_S)
        was_member = is_removed = False
        led_at = time.monotonic()
        while True:
            members = replica.applier.views.members
            is_member = replica.id in members.configuration.members
            reason = "the log says so" if was_member and not is_member else ""
            was_member = is_member
            if replica.leader is not None:
                led_at = time.monotonic()
                if is_removed and is_member:
                    is_removed = False
                    on_joined_again()
            elif time.monotonic() - led_at >= LEADER_S_MAX and replica.failure is None and not is_removed:
                reason = reason or await self._who_says_removed(replica, others)
                led_at = time.monotonic()  # until the next question
            if reason and not is_removed:
                is_removed = True
                log.warning(
                    "removed from the cluster: stop this server, or join it again",
                    node=replica.id,
                    reason=reason,
                )
                on_removed(reason)
            is_told = members.get(replica.id) == Member(self._address, replica.directory_id)
            # Who was removed is not to come back by itself.
            if not is_told and is_member and not is_removed and replica.failure is None:
                for address in await self._who_can_tell(replica):
                    await self._announce(address, replica)
            await replica.wait_for_change(ANNOUNCE_INTERVAL_S)

    async def _who_says_removed(self, replica: Replica, others: Sequence[str]) -> str:
        """By whom it is known that this server was removed; "" if nobody says so.

        Who is removed while it is away gets no entry that tells it. One whose log is applied at least as far as this
        server's, and who does not know it as a member, must have seen its removal.
        """
        applied = replica.applier.applied
        addresses = {*self._addresses_of_others(replica), *others} - {self._address}
        for status in await asyncio.gather(*map(self._status, sorted(addresses))):
            if status is None or status.cluster_id != replica.cluster_id or status.applied_index < applied:
                continue
            found = {member.id: member.directory_id for member in status.members}
            if found and found.get(replica.id) not in ("", replica.directory_id):
                return f"{status.node_id} says so"
        return ""

    @staticmethod
    def _addresses_of_others(replica: Replica) -> list[str]:
        members = replica.applier.views.members.known
        return [member.address for node, member in members.items() if node != replica.id and member.address]

    async def _who_can_tell(self, replica: Replica) -> list[str]:
        """The leader's address; if none is heard of, those of all others: who has moved is looked for where it was."""
        try:
            async with asyncio.timeout(LEADER_S_MAX):
                leader = await replica.wait_for_leader()
        except TimeoutError:
            return self._addresses_of_others(replica)
        known = replica.applier.views.members.get(leader)
        if leader == replica.id:
            return [self._address]
        return [known.address] if known is not None and known.address else []

    async def _announce(self, address: str, replica: Replica) -> None:
        try:
            await self._ask(address, replica.directory_id, replica.cluster_id)
        except grpc.aio.AioRpcError as error:  # the next look asks again
            log.debug("not announced yet", asked=address, reason=str(failure(error)))
