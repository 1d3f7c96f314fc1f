"""Reads entries of other servers' logs, over gRPC with this server's own certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc

from logstore import Kind, RawEntry
from raftlog.client.connection import Connection
from raftlog.client.failures import CallFailed, failure
from raftlog.engine import NodeId
from raftlog.net.tls import TlsFiles, channel_credentials
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb

FETCH_S_MAX: Final = 60.0  # for one range from one server


class PeerEntries:
    """Implements raftlog.distributed.mending.Peers."""

    def __init__(self, tls: TlsFiles | None) -> None:
        self._tls = tls

    async def entries(
        self, node: NodeId, address: str, first: int, end: int
    ) -> AsyncIterator[Sequence[RawEntry]]:
        credentials = None if self._tls is None else channel_credentials(self._tls)
        connection = Connection(address, credentials)
        try:
            request = pb.FetchEntriesRequest(first_index=first, end_index=end)
            async for response in connection.cluster.FetchEntries(request, timeout=FETCH_S_MAX):
                yield [
                    RawEntry(one.index, one.term, _kind(node, one.kind), one.data) for one in response.entries
                ]
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code(), str(failure(error))) from error
        finally:
            await connection.close()


def _kind(node: NodeId, kind: int) -> Kind:
    try:
        return Kind(kind)
    except ValueError as error:
        raise CallFailed(
            grpc.StatusCode.DATA_LOSS, f"{node} sent an entry of kind {kind}, which there is not"
        ) from error
