"""Which servers there are, who leads, and which of them this client cannot reach.

Any server names all. They are asked at the first call, when something fails, and every REFRESH_S while calls are made;
names under which servers are to be found are looked up at the same times. What is said is a hint: a wrong address or an
old leader costs another attempt, never an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import grpc

from raftlog.client.answers import Server
from raftlog.client.connection import Connection
from raftlog.client.failures import NoServer
from raftlog.client.picker import Observer, Picker
from raftlog.client.seeds import Seeds
from raftlog.net.tls import TlsFiles, channel_credentials
from raftlog.pb.log.v1 import log_pb2 as pb

REFRESH_S: Final = 30.0  # how old the list of servers may be before it is asked for again
ASK_S_MAX: Final = 1.0  # for one server to name all; then the next is asked
REFRESHED_S_MAX: Final = 2.0  # that a call waits for the list; then it goes by what is known
AVOIDED_S: Final = 5.0  # a server that could not be reached is tried last for so long
SERVERS_MAX: Final = 1_000  # of a list that is believed
CONNECTIONS_MAX: Final = 128  # to addresses that nobody names any more; beyond it the oldest is closed

NO_FORWARD: Final = (("raftlog-no-forward", "1"),)


class Target(NamedTuple):
    """Where a call goes."""

    connection: Connection
    is_leader: bool  # as far as is known; else it sends on what only the leader can do

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """Of produces: who does not lead any more is to say so, because the next one is better sent to the leader."""
        return NO_FORWARD if self.is_leader else None


class Servers:
    def __init__(self, seeds: Seeds, tls: TlsFiles | None, picker: Picker) -> None:
        """TlsError if the files cannot be used."""
        self._seeds = seeds
        self._credentials = None if tls is None else channel_credentials(tls)
        self._picker = picker
        self._observer = picker if isinstance(picker, Observer) else None
        self._listed: list[Server] = []  # as a server named them last; empty: none has
        self._leader = ""  # address; maybe of no listed server, where one that does not lead has named it
        self._listed_at: float | None = None  # by the monotonic clock
        self._avoided: dict[str, float] = {}  # address -> until when
        # By address and name for TLS; used last, last
        self._connections: dict[tuple[str, str], Connection] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()  # of connections

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await self._seeds.close()
        if self._closing:
            await asyncio.wait(self._closing)
        for connection in self._connections.values():
            await connection.close()

    # ── where to send a call ────────────────────────────────────────────────────────────────────────

    async def leader(self) -> Target:
        """The leader; where it is not known or cannot be reached, a server that sends on to it. NoServer."""
        await self._know()
        if self._leader and not self._is_avoided(self._leader):
            return Target(self.connection(self._leader), is_leader=True)
        others = [server for server in self._candidates() if server.address != self._leader]
        if not others:
            return Target(self.connection(self._leader), is_leader=True)
        return Target(self.connection(self._reachable_first(others)[0].address), is_leader=False)

    async def follower(self) -> Target:
        """A server to consume from, as the picker says. NoServer."""
        await self._know()
        picked = [*self._picker(self._listed), *self._seeds_not_listed()] or self._listed
        address = self._reachable_first(picked)[0].address
        return Target(self.connection(address), is_leader=address == self._leader)

    def connection(self, address: str) -> Connection:
        is_listed = any(server.address == address for server in self._listed)
        key = (address, "" if is_listed else self._seeds.tls_name(address))
        connection = self._connections.pop(key, None)
        if connection is None:
            connection = Connection(address, self._credentials, tls_name=key[1])
        self._connections[key] = connection
        if len(self._connections) > CONNECTIONS_MAX:
            self._close_unknown()
        return connection

    def _close_unknown(self) -> None:
        """Servers that moved on leave connections behind: of those that nobody names, close the one unused for longest."""
        named = {self._leader, *(server.address for server in self._candidates())}
        unknown = [key for key in self._connections if key[0] not in named]
        if len(unknown) > CONNECTIONS_MAX:
            closing = asyncio.create_task(self._connections.pop(unknown[0]).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def other_than(self, address: str) -> Connection | None:
        """Another server, which is as likely to know what is new as any; None if there is none."""
        others = [one for one in self._listed or self._candidates() if one.address != address]
        others.sort(key=lambda one: one.address != self._leader)
        return self.connection(self._reachable_first(others)[0].address) if others else None

    @property
    def has_choice(self) -> bool:
        """Whether there is another server to try."""
        return len(self._listed or self._seeds.known) > 1

    @property
    def is_leader_in_reach(self) -> bool:
        return bool(self._leader) and not self._is_avoided(self._leader)

    def _candidates(self) -> list[Server]:
        return [*self._listed, *self._seeds_not_listed()]

    def _seeds_not_listed(self) -> list[Server]:
        listed = {server.address for server in self._listed}
        return [
            Server("", seed.address, is_leader=False)
            for seed in self._seeds.known
            if seed.address not in listed
        ]

    def _reachable_first(self, servers: Sequence[Server]) -> list[Server]:
        return sorted(servers, key=lambda server: self._is_avoided(server.address))

    def _is_avoided(self, address: str) -> bool:
        until = self._avoided.get(address)
        return until is not None and time.monotonic() < until

    # ── what calls have shown ───────────────────────────────────────────────────────────────────────

    def failed(self, address: str) -> None:
        """It could not be reached, or did not answer."""
        self._avoided[address] = time.monotonic() + AVOIDED_S
        self.disappointed(address)

    def answered(self, address: str) -> None:
        """It can be reached."""
        self._avoided.pop(address, None)

    def observe(self, address: str, seconds: float) -> None:
        """A consume was answered, after so long."""
        self.answered(address)
        if self._observer is not None:
            self._observer.observe(address, seconds)

    def disappointed(self, address: str) -> None:
        """It could be reached, but not consumed from, because it lags behind what this client has seen."""
        if self._observer is not None:
            self._observer.failed(address)

    def leads(self, address: str) -> None:
        """A server named the leader; empty: it knows of none."""
        if address != self._leader:
            self.answered(address)  # it is alive to somebody, and worth another attempt
        self._leader = address

    # ── asking for the list ─────────────────────────────────────────────────────────────────────────

    async def refresh(self) -> None:
        """Ask who there is; return when a server has said so, none can, or it takes too long."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask_all())
        await asyncio.wait((self._refreshing,), timeout=REFRESHED_S_MAX)

    async def leads_elsewhere(self, address: str) -> bool:
        """Whether the others say that another server than this one leads now."""
        for server in self._reachable_first(self._candidates()):
            if server.address == address:
                continue
            listed = await self._ask(server.address)
            leader = next((one.address for one in listed if one.is_leader), "")
            if leader:
                self._learn(listed)
                return leader != address
        return False

    async def _know(self) -> None:
        """Return once there is a server to ask; NoServer."""
        if self._listed_at is None or not (self._listed or self._seeds.known):
            await self.refresh()
        elif time.monotonic() > self._listed_at + REFRESH_S and (
            self._refreshing is None or self._refreshing.done()
        ):
            self._refreshing = asyncio.create_task(self._ask_all())
        if not (self._listed or self._seeds.known):
            raise NoServer("; ".join(self._seeds.failures))

    async def _ask_all(self) -> None:
        """Ask those that are known, one after another, until one knows a leader; then those that are found meanwhile."""
        looking = self._seeds.begin_look()
        if looking is not None and not self._candidates():
            await looking
        answers: dict[str, list[Server]] = {}  # by whom was asked
        if await self._ask_others(answers):
            return
        if looking is not None:
            await looking
            if await self._ask_others(answers):
                return
        if not any(answers.values()):
            await self._seeds.look_closer()
            if await self._ask_others(answers):
                return
        self._learn(next((listed for listed in reversed(answers.values()) if listed), []))

    async def _ask_others(self, answers: dict[str, list[Server]]) -> bool:
        """Ask those that have not been asked, until one knows a leader; whether one does."""
        for server in self._reachable_first(self._candidates()):
            if server.address in answers:
                continue
            listed = answers[server.address] = await self._ask(server.address)
            if any(one.is_leader for one in listed):
                self._learn(listed)
                if self._is_avoided(self._leader):
                    await self._ask(self._leader)  # which takes it back if it answers
                return True
        return False

    async def _ask(self, address: str) -> list[Server]:
        """All servers, as the one at `address` names them; empty if it does not."""
        try:
            response = await self.connection(address).log.GetServers(
                pb.GetServersRequest(), timeout=ASK_S_MAX
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                self.failed(address)
            return []
        self.answered(address)
        return [to_server(one) for one in response.servers[:SERVERS_MAX] if one.rpc_addr]

    def _learn(self, listed: list[Server]) -> None:
        self._listed_at = time.monotonic()
        self.leads(next((server.address for server in listed if server.is_leader), ""))
        if listed:
            self._listed = listed


def to_server(message: pb.Server) -> Server:
    return Server(message.id, message.rpc_addr, message.is_leader, message.is_voter)
