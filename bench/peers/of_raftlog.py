"""raftlog itself, with either engine: TLS, the asyncio client, single appends and batches of 1,000."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of_package
from pathlib import Path
from typing import Final

from bench.cluster_case import leader_of
from bench.cluster_rates import ready_producer
from bench.peers.peer import QUORUM_POWER
from logstore import RecordBatch
from raftlog.client.async_client import AsyncClient
from raftlog.client.connection import Connection
from raftlog.local_cluster import LocalCluster, local_cluster
from raftlog.net.tls import channel_credentials
from raftlog.pb.log.v1 import log_pb2 as pb

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


class PlainStore(RaftlogStore):
    """Calls at the leader without a producer's id, which the engine pysyncobj does not take."""

    def __init__(self, client: AsyncClient, leader: Connection) -> None:
        super().__init__(client)
        self._leader = leader

    async def append(self, value: bytes) -> None:
        await self._leader.log.Produce(pb.ProduceRequest(record=pb.Record(value=value)))

    async def append_group(self, values: Sequence[bytes]) -> None:
        batch = RecordBatch.encode(values).to_bytes()
        await self._leader.log.ProduceBatch(pb.ProduceBatchRequest(batch=batch))


@asynccontextmanager
async def raft(folder: Path) -> AsyncIterator[RaftlogStore]:
    with local_cluster(folder, NODES) as cluster:
        async with _client(cluster) as client:
            yield RaftlogStore(client)


@asynccontextmanager
async def pysyncobj_engine(folder: Path) -> AsyncIterator[PlainStore]:
    with local_cluster(folder, NODES, {"engine": "pysyncobj"}) as cluster:
        async with _client(cluster) as client:
            address = cluster.addresses[await leader_of(client)]
            leader = Connection(address, channel_credentials(cluster.tls))
            yield PlainStore(client, leader)
            await leader.close()


def _client(cluster: LocalCluster) -> AsyncClient:
    return AsyncClient(list(cluster.addresses.values()), tls=cluster.tls, timeout_s=30.0)


def version() -> str:
    return f"raftlog {version_of_package('raftlog')}"
