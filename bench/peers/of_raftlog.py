"""raftlog itself, with either engine: TLS, the asyncio client, single appends and batches of 1,000."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of_package
from pathlib import Path
from typing import Final

from bench.cluster_rates import ready_producer
from bench.peers.peer import QUORUM_POWER
from logstore import RecordBatch
from raftlog.client.async_client import AsyncClient
from raftlog.local_cluster import local_cluster

NODES: Final = 3
SURVIVES: Final = QUORUM_POWER


class RaftlogStore:
    group = 1_000
    groups_in_flight = 16

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._producer = ready_producer(client)

    async def append(self, value: bytes) -> None:
        await self._client.append(value)

    async def append_group(self, values: Sequence[bytes]) -> None:
        await self._producer.send_batch(RecordBatch.encode(values))

    async def read_all(self) -> int:
        count = 0
        async for batch in self._client.batches():
            count += len(batch.to_pylist())
        return count


@asynccontextmanager
async def raft(folder: Path) -> AsyncIterator[RaftlogStore]:
    async with _connected(folder, "raft") as store:
        yield store


@asynccontextmanager
async def pysyncobj_engine(folder: Path) -> AsyncIterator[RaftlogStore]:
    async with _connected(folder, "pysyncobj") as store:
        yield store


@asynccontextmanager
async def _connected(folder: Path, engine: str) -> AsyncIterator[RaftlogStore]:
    with local_cluster(folder, NODES, {"engine": engine}) as cluster:
        addresses = list(cluster.addresses.values())
        async with AsyncClient(addresses, tls=cluster.tls, timeout_s=30.0) as client:
            yield RaftlogStore(client)


def version() -> str:
    return f"raftlog {version_of_package('raftlog')}"
