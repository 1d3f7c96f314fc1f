"""What the cases of a cluster have in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.processes import processor_s
from logstore.benchmark.measure import Series
from raftlog.client.async_client import AsyncClient
from raftlog.client.picker import Picker
from raftlog.local_cluster import LocalCluster

POWER: Final = "power, quorum"  # fdatasync on a quorum before the acknowledgement


class Sizes(NamedTuple):
    """How much each case does."""

    seconds: float  # of load, per rate
    consumed: int  # records that are read back
    singles: int  # records that are sent one at a time
    idle_s: float
    kills: int
    gigabytes: int  # of traffic while memory is watched; 10**9 bytes


class Notes:
    """Values by case and subject."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def add(self, case: str, subject: str, unit: str, value: float, *, survives: str = "-") -> None:
        series = self._series.setdefault((case, subject), Series(case, subject, unit, survives))
        series.rates.append(value)

    def series(self) -> list[Series]:
        return list(self._series.values())


class Cluster:
    """A cluster of local processes that has a leader."""

    def __init__(self, local: LocalCluster) -> None:
        self.local = local

    def client(self, *, timeout_s: float = 30.0, picker: Picker | None = None) -> AsyncClient:
        return AsyncClient(
            list(self.local.addresses.values()), tls=self.local.tls, timeout_s=timeout_s, picker=picker
        )

    @property
    def process_ids(self) -> dict[str, int]:
        return {name: server.process_id for name, server in self.local.servers.items()}

    @property
    def data(self) -> dict[str, Path]:
        return {name: server.folder / "data" for name, server in self.local.servers.items()}


class Case(NamedTuple):
    measure: Callable[[Cluster, Sizes, Notes], Coroutine[Any, Any, None]]
    settings: Mapping[str, object] = {}


async def leader_of(client: AsyncClient) -> str:
    """Name of the leader."""
    while True:
        for server in await client.servers():
            if server.is_leader:
                return server.name


def by_role(values: Mapping[str, float], leader: str) -> dict[str, float]:
    """Of servers: the leader's value, and the highest of its followers."""
    return {"leader": values[leader], "a follower": max(values[name] for name in values if name != leader)}


class ProcessorTime:
    """Of the servers and this process, from when it is made."""

    def __init__(self, cluster: Cluster, leader: str, client_process: int) -> None:
        self._ids = {**cluster.process_ids, "client": client_process}
        self._leader = leader
        self._before = {name: processor_s(process) for name, process in self._ids.items()}

    def by_role(self) -> dict[str, float]:
        """Seconds."""
        used = {name: processor_s(process) - self._before[name] for name, process in self._ids.items()}
        client = used.pop("client")
        return {**by_role(used, self._leader), "client": client}
