"""The cluster service: what operators ask of the cluster, and what consumers keep in its log.

Nothing here knows gRPC. What only the leader can do is sent on to it; what is asked of one server never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from logstore import RawEntry
from raftlog.errors import InvalidRequest, MembershipRefused, NotLeader
from raftlog.net.addresses import split_address
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.server.call import OBJECT, Access, Call, Leader
from raftlog.server.service import CommitLog, catch_up

PATH: Final = "/raftlog.v1.Cluster/"  # before a method's name
ENTRIES_BYTES: Final = 1024 * 1024  # of entries in one response; a larger one comes alone
NAME_BYTES_MAX: Final = 255  # of a server's or a group's name, and of an address: each is kept in the log

Request = TypeVar("Request")
Response = TypeVar("Response")


class MemberStatus(Protocol):
    """A member as the asked server knows it. The last three are known to the leader alone: 0, "" and False elsewhere."""

    @property
    def id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def directory_id(self) -> str: ...
    @property
    def is_voter(self) -> bool: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def match_index(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def is_active(self) -> bool: ...


class ClusterStatus(Protocol):
    """What a server is and believes; proto/raftlog/v1/cluster.proto explains it."""

    @property
    def node_id(self) -> str: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def directory_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def term(self) -> int: ...
    @property
    def leader_id(self) -> str: ...  # "": none is known
    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def snapshot_index(self) -> int: ...
    @property
    def members(self) -> Sequence[MemberStatus]: ...
    @property
    def configuration(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def trouble(self) -> str: ...  # "": nothing is wrong
    @property
    def format_version(self) -> int: ...


class GroupCursor(Protocol):
    """How far a group has consumed."""

    @property
    def group(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def time(self) -> int: ...


class ClusterLog(CommitLog, Protocol):
    """What the service needs of a log. What changes the cluster raises NotLeader where this server does not lead."""

    def status(self) -> ClusterStatus: ...
    async def join(self, id: str, addr: str, directory_id: str = "") -> None: ...
    async def leave(self, id: str, *, is_barred: bool = True) -> None:
        """With `is_barred` it is not let in again because it was found, only because it was asked for."""
        ...

    async def promote(self, id: str) -> None: ...
    async def transfer_leadership(self, to: str = "") -> str: ...
    async def truncate(self, lowest: int) -> int: ...
    async def take_snapshot(self) -> tuple[int, int]: ...
    def committed_entries(self, first: int, end: int, bytes_max: int) -> Sequence[RawEntry]:
        """Entries from `first` on as they lie on the disk here; none if this server cannot give the first."""
        ...

    async def commit_cursor(self, group: str, offset: int) -> None: ...
    def cursors(self) -> Sequence[GroupCursor]: ...


class ClusterService:
    """The methods of `raftlog.v1.Cluster`; its proto file says what each promises."""

    def __init__(self, log: ClusterLog, access: Access, leader: Leader) -> None:
        """`leader` is asked where this server does not lead."""
        self._log = log
        self._access = access
        self._leader = leader

    # ── members ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, request: pb.JoinRequest, call: Call) -> pb.JoinResponse:
        if not call.is_peer:  # a server may bring itself in
            self._may(call, "admin")
        check_name("id", request.id)
        _check_address(request.rpc_addr)

        status = self._log.status()
        if request.cluster_id not in ("", status.cluster_id):
            raise MembershipRefused(
                f"{request.id} has data of cluster {request.cluster_id}, this is {status.cluster_id}: "
                "give it an empty data directory"
            )
        if request.engine not in ("", status.engine):
            raise MembershipRefused(
                f"{request.id} runs on the engine {request.engine}, this cluster on {status.engine}: change its setting"
            )

        async def join() -> pb.JoinResponse:
            await self._log.join(request.id, request.rpc_addr, request.directory_id)
            status = self._log.status()
            return pb.JoinResponse(cluster_id=status.cluster_id, members=map(_member, status.members))

        return await self._by_leader(join, "Join", request, pb.JoinResponse, call)

    async def leave(self, request: pb.LeaveRequest, call: Call) -> pb.LeaveResponse:
        if not (call.is_peer and request.by_itself):
            self._may(call, "admin")
        check_name("id", request.id)

        async def leave() -> pb.LeaveResponse:
            await self._log.leave(request.id, is_barred=not request.by_itself)
            return pb.LeaveResponse()

        return await self._by_leader(leave, "Leave", request, pb.LeaveResponse, call)

    async def promote(self, request: pb.PromoteRequest, call: Call) -> pb.PromoteResponse:
        self._may(call, "admin")
        check_name("id", request.id)

        async def promote() -> pb.PromoteResponse:
            await self._log.promote(request.id)
            return pb.PromoteResponse()

        return await self._by_leader(promote, "Promote", request, pb.PromoteResponse, call)

    async def transfer_leadership(
        self, request: pb.TransferLeadershipRequest, call: Call
    ) -> pb.TransferLeadershipResponse:
        self._may(call, "admin")

        async def transfer() -> pb.TransferLeadershipResponse:
            return pb.TransferLeadershipResponse(leader_id=await self._log.transfer_leadership(request.to))

        kind = pb.TransferLeadershipResponse
        return await self._by_leader(transfer, "TransferLeadership", request, kind, call)

    # ── one server ──────────────────────────────────────────────────────────────────────────────────

    async def get_status(self, request: pb.GetStatusRequest, call: Call) -> pb.GetStatusResponse:
        self._access.require_subject(call.subject)
        status = self._log.status()
        return pb.GetStatusResponse(
            node_id=status.node_id,
            cluster_id=status.cluster_id,
            directory_id=status.directory_id,
            role=status.role,
            term=status.term,
            leader_id=status.leader_id,
            first_index=status.first_index,
            last_index=status.last_index,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            snapshot_index=status.snapshot_index,
            log_start=self._log.start,
            high_watermark=self._log.end,
            members=map(_member, status.members),
            configuration=status.configuration,
            engine=status.engine,
            trouble=status.trouble,
            format_version=status.format_version,
        )

    async def take_snapshot(self, request: pb.TakeSnapshotRequest, call: Call) -> pb.TakeSnapshotResponse:
        self._may(call, "admin")
        index, size = await self._log.take_snapshot()
        return pb.TakeSnapshotResponse(index=index, size_bytes=size)

    # ── the log ─────────────────────────────────────────────────────────────────────────────────────

    async def truncate(self, request: pb.TruncateRequest, call: Call) -> pb.TruncateResponse:
        self._may(call, "admin")

        async def truncate() -> pb.TruncateResponse:
            return pb.TruncateResponse(log_start=await self._log.truncate(request.lowest_offset))

        return await self._by_leader(truncate, "Truncate", request, pb.TruncateResponse, call)

    async def commit_cursor(self, request: pb.CommitCursorRequest, call: Call) -> pb.CommitCursorResponse:
        self._may(call, "consume")
        check_name("group", request.group)

        async def commit() -> pb.CommitCursorResponse:
            await self._log.commit_cursor(request.group, request.offset)
            return pb.CommitCursorResponse()

        return await self._by_leader(commit, "CommitCursor", request, pb.CommitCursorResponse, call)

    async def list_cursors(self, request: pb.ListCursorsRequest, call: Call) -> pb.ListCursorsResponse:
        self._may(call, "consume")
        if request.linearizable:
            await catch_up(self._log, call)
        cursors = (
            pb.Cursor(group=one.group, offset=one.offset, time_ns=one.time)
            for one in sorted(self._log.cursors(), key=lambda one: one.group)
            if request.group in ("", one.group)
        )
        return pb.ListCursorsResponse(cursors=cursors, high_watermark=self._log.end)

    async def fetch_entries(
        self, request: pb.FetchEntriesRequest, call: Call
    ) -> AsyncIterator[pb.FetchEntriesResponse]:
        if not call.is_peer:  # servers, and where nobody proves who he is everybody
            self._may(call, "admin")
        first = request.first_index
        while first < request.end_index:
            entries = await asyncio.to_thread(
                self._log.committed_entries, first, request.end_index, ENTRIES_BYTES
            )
            if not entries:
                return
            found = (
                pb.RawEntry(index=one.index, term=one.term, kind=one.kind, data=one.data) for one in entries
            )
            yield pb.FetchEntriesResponse(entries=found)
            first = entries[-1].index + 1

    # ── what they share ─────────────────────────────────────────────────────────────────────────────

    def _may(self, call: Call, action: str) -> None:
        self._access.check(call.subject, OBJECT, action)

    async def _by_leader(
        self,
        do: Callable[[], Awaitable[Response]],
        method: str,
        request: Any,
        response: type[Response],
        call: Call,
    ) -> Response:
        return await by_leader(self._leader, do, method, request, response, call)


async def by_leader(
    leader: Leader,
    do: Callable[[], Awaitable[Response]],
    method: str,
    request: Any,
    response: type[Response],
    call: Call,
) -> Response:
    """What `do` returns, or the leader's answer if that is another server."""
    try:
        return await do()
    except NotLeader as refused:
        return await leader.ask(refused, f"{PATH}{method}", request, response, call)


def _member(member: MemberStatus) -> pb.Member:
    return pb.Member(
        id=member.id, rpc_addr=member.address, directory_id=member.directory_id, is_voter=member.is_voter,
        is_leader=member.is_leader, match_index=member.match_index, state=member.state, is_active=member.is_active,
    )  # fmt: skip


def check_name(field: str, name: str) -> None:
    """InvalidRequest unless it is a name, or address, that can be kept."""
    if not name or len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest(f"{field}: 1 to {NAME_BYTES_MAX} bytes are needed, {len(name.encode())} came")


def _check_address(address: str) -> None:
    check_name("rpc_addr", address)
    try:
        split_address(address)
    except ValueError as error:
        raise InvalidRequest(f"rpc_addr: {address!r}: {error}") from None
