"""Batches that are sent again are stored once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logstore.encode import encode_batch
from logstore.frame import wire_frame
from raftlog.errors import NotLeader, SequenceGap, StaleEpoch, UnexpectedOffset
from raftlog.pysyncobj.log import SyncObjLog
from tests.raftlog.pysyncobj.cluster import Cluster, until

NAMES = ["n1", "n2", "n3"]


def batch(first: int, values: list[bytes], *, epoch: int = 0) -> bytes:
    return wire_frame(encode_batch(values, producer_id=7, producer_epoch=epoch, first_sequence=first))


async def second_leader(cluster: Cluster, first: SyncObjLog) -> SyncObjLog:
    await first.transfer_leadership()
    await until(lambda: any(log.is_leader for log in cluster.logs.values() if log is not first))
    return await cluster.leader()


def test_a_batch_that_is_sent_again_gets_the_offset_that_it_had(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()

            together = [leader.begin_append(batch(0, [b"a", b"b"]))[1] for _ in range(2)]
            part = leader.begin_append(batch(1, [b"b"]))[1]
            assert (await asyncio.gather(*together), await part) == ([0, 0], 1)
            assert await leader.append_batch(batch(0, [b"a", b"b"])) == (0, 2)
            assert await leader.append_batch(batch(2, [b"c"])) == (2, 3)

            await cluster.have([b"a", b"b", b"c"])

    asyncio.run(story())


def test_the_next_leader_knows_what_is_stored(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            first = await cluster.leader()
            await first.append_batch(batch(0, [b"a"]))
            await cluster.have([b"a"])

            second = await second_leader(cluster, first)

            assert await second.append_batch(batch(0, [b"a"])) == (0, 1)
            assert await second.append_batch(batch(1, [b"b"])) == (1, 2)
            await cluster.have([b"a", b"b"])

    asyncio.run(story())


def test_what_is_stored_is_known_after_a_restart(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            await (await cluster.leader()).append_batch(batch(0, [b"a", b"b"]))
            await cluster.stop("n1")
            cluster.start("n1", ["n1"])
            leader = await cluster.leader()

            assert await leader.append_batch(batch(1, [b"b"])) == (1, 2)
            assert await leader.append_batch(batch(2, [b"c"])) == (2, 3)
            await cluster.have([b"a", b"b", b"c"])

    asyncio.run(story())


def test_a_batch_out_of_its_order_is_refused(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            leader = await cluster.leader()
            _, on_its_way = leader.begin_append(batch(0, [b"a"], epoch=2))

            with pytest.raises(SequenceGap):
                await leader.append_batch(batch(2, [b"c"], epoch=2))
            with pytest.raises(StaleEpoch):
                await leader.append_batch(batch(1, [b"b"], epoch=1))
            with pytest.raises(UnexpectedOffset):
                await leader.append_batch(batch(1, [b"b"], epoch=2), expected_offset=0)

            assert await on_its_way == 0
            await cluster.have([b"a"])

    asyncio.run(story())


def test_a_refusal_is_only_told_by_one_who_leads(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            for name in set(NAMES) - {leader.status().node_id}:
                await cluster.stop(name)

            with pytest.raises(NotLeader):
                await leader.append_batch(batch(5, [b"x"]))

    asyncio.run(story())


def test_who_gives_up_takes_nothing_back(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            leader = await cluster.leader()

            _, given_up = leader.begin_append(batch(0, [b"a"]))
            given_up.cancel()

            assert await leader.append_batch(batch(0, [b"a"])) == (0, 1)
            await cluster.have([b"a"])

    asyncio.run(story())
