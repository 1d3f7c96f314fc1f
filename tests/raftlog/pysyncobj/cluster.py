"""Nodes on PySyncObj in one process, over loopback TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from logstore import Config
from raftlog.engine import NodeId
from raftlog.net.handshake import Identity
from raftlog.net.listener import Listener
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.tls import TlsFiles
from raftlog.pysyncobj.journal import Journal
from raftlog.pysyncobj.log import SyncObjLog

DEADLINE_S = 30.0  # of whatever a test waits for; far more than any needs
CLUSTER_ID = "7d1f0c1e-0000-4000-8000-000000000001"


class Cluster:
    """Its nodes by name. Listeners stay open while a node is stopped, so that its address stays its own."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self.logs: dict[str, SyncObjLog] = {}
        self._tls = TlsFiles.in_folder(certificates, "peer")
        self._listeners: dict[str, Listener] = {}
        self._layers: dict[str, StreamLayer] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self.logs):
            await self.stop(name)
        for listener in self._listeners.values():
            await listener.close()

    def address(self, name: str) -> str:
        if name not in self._listeners:
            self._listeners[name] = Listener("127.0.0.1", 0)
            self._listeners[name].start()
        return self._listeners[name].address

    def start(self, name: str, members: Iterable[str], *, joins: bool = False) -> SyncObjLog:
        address = self.address(name)
        self._layers[name] = layer = StreamLayer(self._listeners[name], self._tls, self._tls)
        node, known = NodeId(name), {NodeId(member): self.address(member) for member in members}
        journal = Journal(self.folder / name, Config(), node=node, cluster_id=CLUSTER_ID, members=known)
        self.logs[name] = SyncObjLog(
            journal,
            layer,
            Identity(cluster_id=CLUSTER_ID, directory_id=f"of {name}", address=address),
            joins=joins,
            election_timeout_s_min=0.5,
            election_timeout_s_max=1.0,
        )
        return self.logs[name]

    def start_all(self, names: Iterable[str]) -> None:
        members = list(names)
        for name in members:
            self.start(name, members)

    async def stop(self, name: str) -> None:
        await self.logs.pop(name).close()
        await self._layers.pop(name).close()

    async def leader(self) -> SyncObjLog:
        """Of the nodes that run, once one of them leads and can take appends."""
        await until(lambda: any(log.is_leader for log in self.logs.values()))
        return next(log for log in self.logs.values() if log.is_leader)

    async def have(self, values: list[bytes]) -> None:
        """Return once all nodes that run have these records, and no others."""
        await until(lambda: all(log.end >= len(values) for log in self.logs.values()))
        for log in self.logs.values():
            assert [log.read(offset).value for offset in range(log.end)] == values


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)
