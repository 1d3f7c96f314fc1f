"""Servers in this process that know nobody, and a source that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

import raftlog.raft_engine
from raftlog.autopilot.reconciler import Links, Reconciler
from raftlog.autopilot.report import AutopilotReport
from raftlog.autopilot.settings import AutopilotSettings
from raftlog.config import ServerConfig
from raftlog.discovery.source import Candidate, Source
from raftlog.distributed.log import DistributedLog
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.tls import TlsFiles
from raftlog.raft.configuration import Configuration
from raftlog.server.acl import MODEL_NAME, POLICY_NAME, default_files
from raftlog.testing.cluster import SETTINGS
from raftlog.testing.network import Network
from raftlog.testing.ports import ReservedPorts
from raftlog.testing.server import LocalServer

DEADLINE_S = 30.0
T = TypeVar("T")


class FakeSource:
    """Says the same to all servers."""

    def __init__(self, *, is_authenticated: bool = True) -> None:
        self.is_authenticated = is_authenticated
        self._said: dict[str, Candidate] = {}

    def say(self, candidate: Candidate) -> None:
        """From now on, of this name (or of this address, if it has none)."""
        self._said = {**self._said, candidate.name or candidate.address: candidate}

    def members(self) -> Sequence[Candidate]:
        return list(self._said.values())

    async def start(self) -> None: ...

    is_complete = True

    async def wait_for_change(self, timeout_s: float) -> None:
        await asyncio.sleep(min(timeout_s, 0.05))

    async def set_tags(self, **tags: str) -> None: ...
    async def leave(self) -> None: ...
    async def come_back(self) -> None: ...
    async def close(self) -> None: ...


class Servers:
    """n1 begins the cluster; the others wait to be let in. All are killed at the end."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool = False, **settings: Any
    ) -> None:
        self.source = FakeSource(is_authenticated=settings.pop("is_authenticated", True))
        self._settings = AutopilotSettings(
            **{
                "stabilisation_s": 0.1,
                "last_contact_s_max": 3.0,
                "trailing_entries_max": 1_000,
                "left_s": 0.2,
                **settings,
            }
        )
        self._folder = folder
        self._network = Network()
        self._ports = ReservedPorts([0] * 6)
        self._running: dict[str, LocalServer] = {}
        self._security: dict[str, object] = {"insecure": True}
        if tls:
            self._security = self._make_certificates()
        monkeypatch.setattr(raftlog.raft_engine, "Reconciler", self._make_reconciler)

    def _make_reconciler(
        self, log: DistributedLog, source: Source | None, links: Links, settings: AutopilotSettings
    ) -> Reconciler:
        return Reconciler(log, self.source, links, self._settings)

    def _make_certificates(self) -> dict[str, object]:
        certs = self._folder / "certs"
        init_folder(certs, CertificatePlan(), extra_files=default_files())
        made: dict[str, object] = {
            "acl_model_file": str(certs / MODEL_NAME), "acl_policy_file": str(certs / POLICY_NAME)
        }  # fmt: skip
        for side in ("server", "peer"):
            files = TlsFiles.in_folder(certs, side)
            made |= {
                f"{side}_tls_cert_file": files.cert_file, f"{side}_tls_key_file": files.key_file,
                f"{side}_tls_ca_file": files.ca_file,
            }  # fmt: skip
        return made

    def __enter__(self) -> Self:
        self.start("n1")
        self.until(lambda: self.leader is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._running):
            self.kill(name)
        self._ports.close()

    # ── servers ──

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports.numbers[int(name[1:]) - 1]}"

    def start(self, name: str) -> Candidate:
        """What gossip would say of the server, which runs then."""
        settings: dict[str, Any] = {
            **SETTINGS, **self._security, "node_name": name, "data_dir": str(self._folder / name), "discovery": "off",
            "bind_addr": "127.0.0.1:8401", "rpc_port": self._ports.numbers[int(name[1:]) - 1],
            "rpc_advertise_addr": self.address(name), "bootstrap": name == "n1",
        }  # fmt: skip
        config = ServerConfig(**settings)
        server = self._running[name] = LocalServer(config, self._network)
        self.until(lambda: server._engine._links is not None)
        directory = server._engine._home
        return Candidate(name=name, address=self.address(name), directory_id=directory.directory_id)

    def grow(self, *names: str) -> None:
        """Start them, and return when all vote."""
        for name in names:
            self.source.say(self.start(name))
        self.until(lambda: set(names) <= set(self.configuration.voters))

    def kill(self, name: str) -> None:
        server = self._running.pop(name)
        server.end(server.begin_kill())

    def say(self, name: str, **more: Any) -> None:
        """As before, but for this, which is so from now on."""
        known = next(one for one in self.source.members() if one.name == name)
        self.source.say(replace(known, **{"since": time.monotonic(), **more}))

    # ── what the leader knows ──

    @property
    def leader(self) -> str | None:
        for name, server in self._running.items():
            if server.is_member and server.replica.is_ready:
                return name
        return None

    def call(self, what: Callable[[DistributedLog], Coroutine[Any, Any, T]]) -> T:
        """Of the leader's log, in its loop."""
        return self._running[self._leader()].call(what, DEADLINE_S)

    def _leader(self) -> str:
        self.until(lambda: self.leader is not None)
        return self.leader or self._leader()

    @property
    def configuration(self) -> Configuration:
        return self._running[self._leader()].replica.applier.views.members.configuration

    def set_mode(self, mode: str) -> None:
        reconciler = self._running[self._leader()]._engine.autopilot

        async def set_mode(log: DistributedLog) -> None:
            await reconciler.set_mode(mode)

        self.call(set_mode)

    def removed(self, name: str) -> str:
        """Why the server is no member any more, as far as it knows."""
        return self._running[name]._engine.removed

    def report(self, name: str = "") -> AutopilotReport:
        return self._running[name or self._leader()]._engine.autopilot.report()

    def reason(self, name: str) -> str:
        return next((server.reason for server in self.report().servers if server.name == name), "")

    def looks_since(self) -> Callable[[], bool]:
        """Whether the leader has judged several times since this call: then what it has not done it will not do."""
        reconciler = self._running[self._leader()]._engine.autopilot
        seen = [reconciler._judgement]

        def has_looked() -> bool:
            latest = reconciler._judgement
            if latest is not None and latest is not seen[-1]:
                seen.append(latest)
            return len(seen) > 5

        return has_looked

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"it did not become so in {DEADLINE_S} s"
            time.sleep(0.01)
