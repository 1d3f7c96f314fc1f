"""Stand-ins for what finds servers, for the autopilot, and for members with keys; and a server that asks them."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from raftlog.errors import NotLeader
from raftlog.runtime.metrics import Metrics
from raftlog.server.authorizer import AllowAll
from raftlog.server.cluster_service import ClusterService
from raftlog.server.gossip_keys import GossipKeysService
from raftlog.server.grpc_binding import GrpcBinding
from raftlog.server.membership_service import MembershipService
from tests.raftlog.fake_cluster_log import FakeClusterLog, FakeMember, FakeServer, FakeStatus
from tests.raftlog.services import NobodyLeads, service_of

START_S_MAX = 20.0
NOW = 1000.0  # by the clock of `since`


class FakeCandidate(NamedTuple):
    name: str
    address: str = ""
    directory_id: str = ""
    cluster_id: str = "cluster"
    role: str = "member"
    version: str = "0.1.0"
    gossip_address: str = ""
    status: str = "alive"
    since: float = 0.0


class FakeSource:
    def __init__(self, *candidates: FakeCandidate) -> None:
        self.candidates = list(candidates)

    def members(self) -> Sequence[FakeCandidate]:
        return self.candidates


class FakeServerReport(NamedTuple):
    name: str
    address: str = ""
    status: str = "alive"
    is_member: bool = True
    is_voter: bool = True
    is_leader: bool = False
    is_healthy: bool = True
    healthy_since_s: float = 60.0
    last_contact_s: float | None = 0.05
    trailing_entries: int | None = 0
    reason: str = ""


class FakeActionReport(NamedTuple):
    time_ns: int
    text: str
    error: str = ""


class FakeReport(NamedTuple):
    mode: str = "act"
    is_leader: bool = True
    is_healthy: bool = True
    failure_tolerance: int = 1
    voters_max: int | None = None
    servers: tuple[FakeServerReport, ...] = ()
    advice: tuple[str, ...] = ()
    last_actions: tuple[FakeActionReport, ...] = ()


class FakeAutopilot:
    def __init__(self, report: FakeReport | None = None) -> None:
        self.now = report or FakeReport()
        self.elsewhere: NotLeader | None = None

    def report(self) -> FakeReport:
        return self.now

    async def set_mode(self, mode: str) -> None:
        if self.elsewhere is not None:
            raise self.elsewhere
        self.now = self.now._replace(mode=mode)


class FakeKeysAnswer(NamedTuple):
    members: int
    answers: int
    errors: Mapping[str, str]
    keys: Mapping[str, int]
    primary_keys: Mapping[str, int]


class FakeKeyrings:
    """Members with keyrings, the primary key first, as Serf's: those that are silent neither do nor answer."""

    def __init__(self, **keyrings: Sequence[bytes]) -> None:
        self.keyrings = {name: list(keys) for name, keys in keyrings.items()}
        self.asked: list[tuple[str, bytes]] = []
        self.silent: dict[str, set[str]] = {}  # by action, names
        self.hurt = False  # whether one encrypted with what another had not

    @property
    def is_authenticated(self) -> bool:
        return all(self.keyrings.values())

    async def keys(self, action: str, key: bytes) -> FakeKeysAnswer:
        self.asked.append((action, key))
        errors: dict[str, str] = {}
        keys: dict[str, int] = {}
        primary: dict[str, int] = {}
        answering = [name for name in self.keyrings if name not in self.silent.get(action, ())]
        for name in answering:
            keyring = self.keyrings[name]
            if action == "install" and key not in keyring:
                keyring.append(key)
            elif action == "use" and key in keyring:
                keyring.remove(key)
                keyring.insert(0, key)
            elif action == "use":
                errors[name] = "it is not installed"
            elif action == "remove" and key == keyring[0]:
                errors[name] = "it is the primary key"
            elif action == "remove" and key in keyring:
                keyring.remove(key)
            elif action == "list":
                for one in keyring:
                    text = base64.b64encode(one).decode()
                    keys[text] = keys.get(text, 0) + 1
                    primary[text] = primary.get(text, 0) + (one == keyring[0])
            self.hurt |= not self.all_understand_each_other
        return FakeKeysAnswer(len(self.keyrings), len(answering), errors, keys, primary)

    @property
    def all_understand_each_other(self) -> bool:
        keyrings = [one for one in self.keyrings.values() if one]
        return all(one[0] in other for one in keyrings for other in keyrings)


class FoundLog(FakeClusterLog):
    """One whose members can be told: this server, which is "one", leads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.members: tuple[FakeMember, ...] = FakeStatus().members

    def status(self) -> FakeStatus:
        return FakeStatus(members=self.members)

    def get_servers(self) -> list[FakeServer]:
        return [FakeServer(one.id, one.address, one.is_leader, one.is_voter) for one in self.members]


class MembershipServer:
    """A server, "one", without TLS, on a loop in a thread. What it asks can be set while nobody calls."""

    def __init__(self, log: FoundLog) -> None:
        self.log = log
        self.source: FakeSource | None = FakeSource()
        self.autopilot: FakeAutopilot | None = FakeAutopilot()
        self.gossip: FakeKeyrings | None = FakeKeyrings()
        self.departed = 0
        self.port = 0
        self._server: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        access, leader = AllowAll(), NobodyLeads()
        membership = MembershipService(
            self.log, access, leader, source=self.source, autopilot=self.autopilot, depart=self._depart,
            clock=lambda: NOW,
        )  # fmt: skip
        binding = GrpcBinding(Metrics(), peer_names=frozenset())
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((
            binding.log_service(service_of(self.log, access=access)),
            binding.cluster_service(ClusterService(self.log, access, leader)),
            binding.membership_service(membership, GossipKeysService(access, gossip=self.gossip)),
        ))  # fmt: skip
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.log.members = (FakeMember("one", self.address, "directory", is_leader=True),)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _depart(self) -> None:
        self.departed += 1


Serve = Callable[..., MembershipServer]
Command = Callable[..., str]


@contextmanager
def membership_server(folder: Path, **asked: Any) -> Iterator[MembershipServer]:
    """One that runs. `asked`: source, autopilot, gossip."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with FoundLog(folder / "log") as log:
            server = MembershipServer(log)
            for name, value in asked.items():
                setattr(server, name, value)
            asyncio.run_coroutine_threadsafe(server.start(), loop).result(START_S_MAX)
            try:
                yield server
            finally:
                asyncio.run_coroutine_threadsafe(server.stop(), loop).result(START_S_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
