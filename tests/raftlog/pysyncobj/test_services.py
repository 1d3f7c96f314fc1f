"""The services of a server, on a log of this engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftlog.errors import NotSupported
from raftlog.pb.log.v1 import log_pb2
from raftlog.pb.raftlog.v1 import cluster_pb2
from raftlog.server.authorizer import AllowAll
from raftlog.server.cluster_service import ClusterService
from raftlog.server.service import LogService
from raftlog.server.status import status_of
from tests.raftlog.pysyncobj.cluster import Cluster
from tests.raftlog.services import ROOT, NobodyLeads


def test_services_serve_it(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as nodes:
            nodes.start_all(["n1"])
            log = await nodes.leader()
            service = LogService(
                log, AllowAll(), NobodyLeads(), queue_bytes_max=10_000, unsent_bytes_max=10_000
            )
            cluster = ClusterService(log, AllowAll(), NobodyLeads())

            request = log_pb2.ProduceRequest(record=log_pb2.Record(value=b"0"))
            produced = await service.produce(request, ROOT)
            consumed = await service.consume(log_pb2.ConsumeRequest(offset=0, linearizable=True), ROOT)
            servers = await service.get_servers(log_pb2.GetServersRequest(), ROOT)
            status = await cluster.get_status(cluster_pb2.GetStatusRequest(), ROOT)

            assert (produced.offset, consumed.record.value, consumed.high_watermark) == (0, b"0", 1)
            assert [(server.id, server.is_leader) for server in servers.servers] == [("n1", True)]
            assert (status.engine, status.role, status.leader_id, status.high_watermark) == (
                "pysyncobj",
                "leader",
                "n1",
                1,
            )
            assert [member.id for member in status.members] == ["n1"]

    asyncio.run(story())


def test_clients_are_told_that_the_engine_cannot_do_it(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as nodes:
            nodes.start_all(["n1"])
            cluster = ClusterService(await nodes.leader(), AllowAll(), NobodyLeads())

            with pytest.raises(NotSupported) as refused:
                await cluster.list_cursors(cluster_pb2.ListCursorsRequest(), ROOT)

            status = status_of(refused.value)
            assert status is not None and status.code.name == "UNIMPLEMENTED" and "pysyncobj" in status.text

    asyncio.run(story())
