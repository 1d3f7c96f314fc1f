"""Messages of Raft to and from the other servers.

Each server dials each other one, twice: for control (votes, heartbeats, replies) and, once there is something to send,
for bulk (entries and snapshots), so that nothing small waits behind something large. It sends on the connections that
it dialled and receives on those that it accepted. Messages of one lane arrive in order; some may be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple

from raftlog.engine import NodeId
from raftlog.errors import RaftlogError
from raftlog.net.backoff import BackOff
from raftlog.net.connection import Connection, ConnectionEnded
from raftlog.net.handshake import (
    MESSAGE,
    WELCOME,
    HandshakeFailed,
    Hello,
    Identity,
    Lane,
    Welcome,
    hear_hello,
    introduction,
    refuse,
    say_hello,
    why_refuse_hello,
    why_refuse_welcome,
)
from raftlog.net.outbound import Outbound
from raftlog.net.peer import Address, Peer, PeerStatistics
from raftlog.net.quiet_log import QuietLog
from raftlog.net.stream_layer import StreamLayer, Unreachable
from raftlog.net.throttle import Throttle
from raftlog.raft.messages import Append, SnapshotChunk
from raftlog.wire.frames import HEADER_BYTES, Frame, frame_header
from raftlog.wire.raft_messages import BadMessage, decode, encode

log = logging.getLogger(__name__)

KIB: Final = 1024
MIB: Final = 1024 * KIB
CLOSE_S_MAX: Final = 2.0  # for what was said last and the goodbye of TLS; then connections are cut
STRANGERS_MAX: Final = 64  # servers not in the list of members; a new one knows nobody before a leader calls


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """What a link may use, and how long things may take. All servers must take frames as long as any of them sends."""

    control_frame_bytes_max: int = 64 * KIB  # longer ones are refused by the receiver, and never sent
    bulk_frame_bytes_max: int = 64 * MIB  # holds one entry of any size that the log takes
    control_queue_bytes_max: int = 1 * MIB  # to one peer; what comes then is dropped
    bulk_queue_bytes_max: int = 32 * MIB
    dial_s_max: float = 5.0  # for the connection, TLS and both introductions
    retry_s_min: float = 0.05
    retry_s_max: float = 1.0


class Language(NamedTuple):
    """How the messages of one kind of engine travel. Each kind has a type of frame, and takes no other."""

    frame_type: int
    encode: Callable[[Any], list[bytes]]
    decode: Callable[[memoryview], Any]  # BadMessage for what is none
    is_bulk: Callable[[Any], bool]


RAFT: Final = Language(MESSAGE, encode, decode, lambda message: isinstance(message, (Append, SnapshotChunk)))


class PeerLinks:
    """The links of one server with all others. It must be made and used in the thread of its loop."""

    def __init__(
        self,
        node_id: NodeId,
        identity: Identity,
        stream_layer: StreamLayer,
        addresses: Mapping[NodeId, tuple[str, str]],
        on_message: Callable[[NodeId, Any], None],
        on_unreachable: Callable[[NodeId], None],
        *,
        on_cluster: Callable[[str], None] | None = None,
        elsewhere: Callable[[NodeId], str] | None = None,
        limits: LinkLimits | None = None,
        throttle: Throttle | None = None,
        random: Random | None = None,
        language: Language = RAFT,
    ) -> None:
        """Begin at once to connect and to accept. `addresses`: of the members, with their directories.

        `on_message` is called with a sender that has proved who it is. `on_unreachable` follows when something could
        not be sent, or a connection was lost. Both are called by the loop, never within `send`; neither may raise.

        `on_cluster` is called, once, where the identity has no cluster id and a member of one calls: then this server
        is of that cluster; it must be durable on return. `throttle` holds back snapshots and what is marked as
        catching up; None: they go as fast as they can.

        `elsewhere` says where a member may be that is not at its address, "" if that is not known: all may have moved at
        once, and then there is no leader who could tell of it. The handshake shows who is there.
        """
        self._node_id = node_id
        self._identity = identity
        self._stream_layer = stream_layer
        self._on_message = on_message
        self._on_unreachable = on_unreachable
        self._on_cluster = on_cluster
        self._elsewhere = elsewhere or (lambda _: "")
        self._limits = limits or LinkLimits()
        self._throttle = throttle
        self._random = random or Random()
        self._language = language
        self._members_version = 0
        self._loop = asyncio.get_running_loop()
        self._quiet = QuietLog(log, self._loop.time)
        self._peers: dict[NodeId, Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()  # that were dialled or accepted, and have not ended
        self._is_closed = False
        self.set_members(addresses)
        self._spawn(self._accept_all())

    def set_identity(self, identity: Identity) -> None:
        """Introduce this server so from now on; what is connected stays so."""
        self._identity = identity

    def set_cluster(self, cluster_id: str) -> None:
        self.set_identity(replace(self._identity, cluster_id=cluster_id))

    # ── members ──

    def set_members(self, members: Mapping[NodeId, tuple[str, str]], *, version: int = 0) -> None:
        """From now on these are the members: id -> (address, directory id). This server itself may be among them.

        `version` ascends from list to list: the index of the entry that made it. Where two servers know different
        directories for a name, the newer list is right; with equal versions they do not speak.
        """
        self._members_version = version
        for node in sorted(self._peers.keys() - members.keys()):
            if self._peers[node].is_member:
                self._forget(node)
        for node, place in sorted(members.items()):
            if node != self._node_id:
                self._put(node, Address(*place), is_member=True)

    def _put(self, node: NodeId, address: Address, *, is_member: bool) -> None:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer(address, is_member)
        elif peer.address.address != address.address:  # what we hear from it need not be heard anew
            for outbound in peer.take_outbound():
                self._spawn(outbound.close())
        peer.address = address
        peer.is_member = is_member
        peer.check_directory()
        if is_member:
            self._outbound(node, peer, Lane.CONTROL).stay_connected()

    def _forget(self, node: NodeId) -> None:
        peer = self._peers.pop(node)
        peer.end_inbound("it is no longer a member there")
        for outbound in peer.take_outbound():
            self._spawn(outbound.close())

    # ── sending ──

    def send(self, to: NodeId, message: Any, *, is_catch_up: bool = False) -> None:
        """Send it as soon as it can be done, or drop it and call `on_unreachable`; never waits.

        `is_catch_up`: entries that `to` is far behind of, which the throttle may hold back.
        """
        peer = self._peers.get(to)
        if peer is None or self._is_closed:
            self._loop.call_soon(self._on_unreachable, to)
            return
        is_bulk = self._language.is_bulk(message)
        limits = self._limits
        payload = self._language.encode(message)
        size = sum(map(len, payload))
        bytes_max = limits.bulk_frame_bytes_max if is_bulk else limits.control_frame_bytes_max
        if size > bytes_max:
            self._quiet.warning(
                f"size to {to}", "message dropped: it is too large to=%s message=%s bytes=%d limit=%d",
                to, type(message).__name__, size, bytes_max,
            )  # fmt: skip
            self._loop.call_soon(self._on_unreachable, to)
            return
        payload.insert(0, frame_header(self._language.frame_type, size))
        outbound = self._outbound(to, peer, Lane.BULK if is_bulk else Lane.CONTROL)
        is_throttled = is_catch_up or isinstance(message, SnapshotChunk)
        outbound.send(payload, HEADER_BYTES + size, is_throttled=is_throttled)

    def _outbound(self, node: NodeId, peer: Peer, lane: Lane) -> Outbound:
        outbound = peer.outbound.get(lane)
        if outbound is None:
            limits, is_control = self._limits, lane is Lane.CONTROL
            peer.outbound[lane] = outbound = Outbound(
                f"{node} {lane.value}",
                partial(self._connect, node, peer, lane),
                partial(self._on_unreachable, node),
                queue_bytes_max=limits.control_queue_bytes_max if is_control else limits.bulk_queue_bytes_max,
                is_eager=is_control and peer.is_member,
                back_off=BackOff(
                    seconds_min=limits.retry_s_min, seconds_max=limits.retry_s_max, random=self._random
                ),
                quiet=self._quiet,
                throttle=self._throttle,
            )
        return outbound

    async def _connect(self, node: NodeId, peer: Peer, lane: Lane) -> Connection:
        """A connection on which `node` has said who it is, or an error of ours."""
        address = peer.address.address
        try:
            return await self._connect_at(address, node, peer, lane)
        except RaftlogError:
            elsewhere = self._elsewhere(node)
            if elsewhere in ("", address):
                raise
        return await self._connect_at(elsewhere, node, peer, lane)

    async def _connect_at(self, address: str, node: NodeId, peer: Peer, lane: Lane) -> Connection:
        connection = await self._stream_layer.dial(address, self._limits.dial_s_max)
        self._take_over(connection)
        try:
            hello = Hello(to=node, lane=lane, **self._introduction())
            welcome = await say_hello(connection, hello)
            reason = why_refuse_welcome(hello, welcome, node, known_directory=peer.address.directory_id)
            if reason is not None:
                raise HandshakeFailed(reason)
        except TimeoutError as error:
            connection.abort("no answer")
            raise Unreachable(f"{address}: no answer to the introduction") from error
        except BaseException as error:
            connection.abort(str(error))
            raise
        peer.introduced = welcome
        connection.listen(
            lambda _: connection.abort(f"{node} sent a frame where it only receives"), payload_bytes_max=0
        )
        return connection

    # ── who is there ──

    async def check(self, node: NodeId, address: str, directory_id: str = "") -> Welcome:
        """What the server at this address says of itself, once it has proved to be `node` with this directory ("": any),
        of this cluster or new: then it is of this cluster from now on. Else HandshakeFailed, ConnectionEnded or
        Unreachable, with the reason. Links with it, if there are any, stay as they are.
        """
        hello = Hello(to=node, lane=Lane.CHECK, **self._introduction())
        welcome = await self._ask_who(address, hello)
        reason = why_refuse_welcome(hello, welcome, node, known_directory="")
        if reason is None and directory_id not in ("", welcome.directory_id):
            reason = f"{node} at {address} has directory {welcome.directory_id!r}, not {directory_id!r}"
        if reason is not None:
            raise HandshakeFailed(reason)
        return welcome

    async def identify(self, address: str) -> Welcome:
        """As `check`, of whoever is there; a new server is of no cluster afterwards, too."""
        return await self._ask_who(address, Hello(to="", lane=Lane.CHECK, **self._introduction()))

    async def _ask_who(self, address: str, hello: Hello) -> Welcome:
        connection = await self._stream_layer.dial(address, self._limits.dial_s_max)
        self._take_over(connection)
        try:
            return await say_hello(connection, hello)
        except TimeoutError as error:
            raise Unreachable(f"{address}: no answer to the introduction") from error
        finally:
            connection.abort("it was only checked")

    # ── receiving ──

    async def _accept_all(self) -> None:
        while True:
            try:
                connection = await self._stream_layer.accept()
            except ConnectionAbortedError:
                return
            self._take_over(connection)
            admitting = self._spawn(self._admit(connection))
            admitting.add_done_callback(partial(_abort_if_cancelled, connection))

    async def _admit(self, connection: Connection) -> None:
        try:
            hello = await hear_hello(connection)
        except (ConnectionEnded, TimeoutError, HandshakeFailed) as error:
            self._quiet.warning(
                f"hello {connection.peer_address}", "connection of a server refused address=%s reason=%s",
                connection.peer_address, error if isinstance(error, RaftlogError) else "no introduction in time",
            )  # fmt: skip
            connection.abort("no introduction")
            return
        node = NodeId(hello.node)
        peer = self._peers.get(node)
        own = self._introduction()
        reason = why_refuse_hello(
            Welcome(**own), hello, known_directory=peer.address.directory_id if peer is not None else ""
        )
        is_to_stay = hello.lane is not Lane.CHECK
        if reason is None and peer is None and is_to_stay and self._strangers >= STRANGERS_MAX:
            reason = f"{node} is no member, and {STRANGERS_MAX} others that are none have called before"
        if reason is not None:
            self._quiet.warning(
                f"refused {node}", "connection of a server refused node=%s address=%s subject=%s reason=%s",
                node, connection.peer_address, connection.subject, reason,
            )  # fmt: skip
            await refuse(connection, reason)
            return
        if not self._identity.cluster_id and hello.to:
            assert self._on_cluster is not None, "a server without a cluster and without a way into one"
            self._on_cluster(hello.cluster_id)
            self.set_cluster(hello.cluster_id)
            own = self._introduction()
        if hello.lane is Lane.CHECK:
            connection.on_proved()
            connection.write_frame(WELCOME, Welcome(**own).to_bytes())
            connection.close("it was only a check")
            return
        if peer is None or (not peer.is_member and peer.address.address != hello.address):
            self._put(node, Address(hello.address), is_member=False)
        connection.on_proved()
        connection.write_frame(WELCOME, Welcome(**own).to_bytes())
        self._receive_from(node, self._peers[node], hello, connection)

    @property
    def _strangers(self) -> int:
        return sum(not peer.is_member for peer in self._peers.values())

    def _receive_from(self, node: NodeId, peer: Peer, hello: Hello, connection: Connection) -> None:
        lane, limits = hello.lane, self._limits
        before = peer.inbound.get(lane)
        if before is not None:
            before.abort(f"{node} has made a new connection")
        peer.inbound[lane] = connection
        peer.introduced = hello
        peer.last_heard = self._loop.time()
        connection.ended.add_done_callback(lambda _: self._remove_inbound(peer, lane, connection))
        for outbound in peer.outbound.values():
            outbound.try_now()
        is_bulk = lane is Lane.BULK
        connection.listen(
            partial(self._take, node, peer, connection),
            payload_bytes_max=limits.bulk_frame_bytes_max if is_bulk else limits.control_frame_bytes_max,
        )

    def _remove_inbound(self, peer: Peer, lane: Lane, connection: Connection) -> None:
        if peer.inbound.get(lane) is connection:
            del peer.inbound[lane]

    def _take(self, node: NodeId, peer: Peer, connection: Connection, frame: Frame) -> None:
        try:
            if frame.type != self._language.frame_type:
                raise BadMessage(f"a frame of type {frame.type}")
            message = self._language.decode(frame.payload)
        except BadMessage as error:
            self._quiet.warning(
                f"bad from {node}", "connection of a server ended: it sent what cannot be read node=%s reason=%s",
                node, error,
            )  # fmt: skip
            connection.abort(str(error))
            return
        peer.last_heard = self._loop.time()
        self._on_message(node, message)

    # ── the rest ──

    @property
    def format_version(self) -> int:
        """The highest version of the log's format that this server and all members known so far have in common."""
        known = [
            peer.introduced.format_max for peer in self._peers.values() if peer.is_member and peer.introduced
        ]
        return min([self._identity.format_max, *known])

    def statistics(self) -> dict[NodeId, PeerStatistics]:
        """Of each peer, members and others."""
        return {node: peer.statistics() for node, peer in sorted(self._peers.items())}

    async def close(self) -> None:
        """End all connections and take no more; returns when they have ended. The stream layer is its owner's."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        peers = [self._peers.pop(node) for node in sorted(self._peers)]
        for peer in peers:
            peer.end_inbound("this server is stopping")
            for outbound in peer.take_outbound():
                self._spawn(outbound.close())
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._wait_for_ends()
        for connection in list(self._open):
            connection.abort("this server is stopping")
        await self._wait_for_ends()

    async def _wait_for_ends(self) -> None:
        if self._open:
            await asyncio.wait([connection.ended for connection in self._open], timeout=CLOSE_S_MAX)

    def _take_over(self, connection: Connection) -> None:
        self._open.add(connection)
        connection.ended.add_done_callback(lambda _: self._open.discard(connection))

    def _introduction(self) -> dict[str, Any]:
        return introduction(self._node_id, self._identity, members_version=self._members_version)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _abort_if_cancelled(connection: Connection, task: asyncio.Task[None]) -> None:
    """Also where the task had not begun yet."""
    if task.cancelled():
        connection.abort("this server is stopping")
