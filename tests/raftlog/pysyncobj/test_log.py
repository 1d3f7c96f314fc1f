from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from logstore import Log, LogClosed, OffsetOutOfRange, Record
from raftlog.errors import (
    InvalidRequest,
    MembershipRefused,
    NodeFailed,
    NotLeader,
    NotSupported,
    OutcomeUnknown,
    UnexpectedOffset,
)
from raftlog.pysyncobj.journal import Journal
from raftlog.pysyncobj.replica import TURN_BYTES_MAX
from tests.raftlog.pysyncobj.cluster import DEADLINE_S, Cluster

NAMES = ["n1", "n2", "n3"]


def values(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


def test_three_nodes_replicate_records_in_order(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()

            offsets = await asyncio.gather(*(leader.append(value) for value in values(0, 50)))
            first, end = await leader.append_batch([Record(b"a", key=b"k"), b"b"])

            assert (offsets, first, end) == (list(range(50)), 50, 52)
            await cluster.have([*values(0, 50), b"a", b"b"])

    asyncio.run(story())


def test_logs_of_all_nodes_are_equal_byte_for_byte(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            for value in values(0, 5):
                await leader.append(value)
            await cluster.have(values(0, 5))

    asyncio.run(story())

    logs = []
    for name in NAMES:
        with Log(tmp_path / name / "log", read_only=True) as log:
            logs.append(b"".join(frames.data for frames in log.frames()))
    assert logs[0] and logs[0] == logs[1] == logs[2]


def test_others_go_on_without_the_leader_and_it_catches_up(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            first = await cluster.leader()
            for value in values(0, 10):
                await first.append(value)
            name = first.status().node_id

            await cluster.stop(name)
            second = await cluster.leader()
            for value in values(10, 20):
                await second.append(value)
            cluster.start(name, NAMES)

            await cluster.have(values(0, 20))

    asyncio.run(story())


def test_restart_of_all_repeats_and_loses_nothing(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            for round in range(3):
                cluster.start_all(NAMES)
                ends = [log.end for log in cluster.logs.values()]
                applied = [log.status().applied_index > round for log in cluster.logs.values()]
                leader = await cluster.leader()
                await leader.append(b"%d" % round)
                await cluster.have(values(0, round + 1))
                for name in NAMES:
                    await cluster.stop(name)

                assert (ends, applied) == ([round] * 3, [True] * 3)  # what was applied is known at once

    asyncio.run(story())


def test_one_node_alone_is_a_cluster(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()

            assert await log.wait_for_leader(1.0) == "n1"
            assert await log.append(b"0") == 0
            assert await log.wait_async(0) == 1
            with pytest.raises(OffsetOutOfRange):
                log.read(1)

    asyncio.run(story())


def test_an_append_can_name_the_offset_that_it_expects(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()

            _, first = log.begin_append([b"0", b"1"], expected_offset=0)
            _, second = log.begin_append([b"2"], expected_offset=2)
            _, third = log.begin_append([b"x"], expected_offset=2)
            with pytest.raises(UnexpectedOffset):
                await third

            assert (await first, await second, log.end) == (0, 2, 3)

    asyncio.run(story())


def test_a_read_index_is_behind_all_that_was_acknowledged(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            await leader.append(b"0")

            assert await leader.read_index(10.0) == 1

            for name, log in list(cluster.logs.items()):
                if log is not leader:
                    await cluster.stop(name)
            with pytest.raises((TimeoutError, NotLeader, OutcomeUnknown)):
                await leader.read_index(0.2)

    asyncio.run(story())


def test_what_the_engine_cannot_do_is_refused_by_its_name(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()

            for call in (log.promote("n1"), log.truncate(0), log.take_snapshot(), log.commit_cursor("g", 0)):
                with pytest.raises(NotSupported, match="pysyncobj"):
                    await call
            with pytest.raises(NotSupported, match="pysyncobj"):
                log.cursors()
            with pytest.raises(InvalidRequest):
                await log.join("n2", "nowhere")
            with pytest.raises(MembershipRefused):
                await log.leave("n1")
            assert log.end == 0

    asyncio.run(story())


def test_an_append_without_a_quorum_ends_as_unknown(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            for name in set(NAMES) - {leader.status().node_id}:
                await cluster.stop(name)

            with pytest.raises(OutcomeUnknown):
                async with asyncio.timeout(DEADLINE_S):
                    await leader.append(b"0")

            assert not leader.is_leader and leader.end == 0

    asyncio.run(story())


def test_a_node_whose_disk_fails_takes_part_no_more_and_can_be_read(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Journal) -> None:
        raise OSError(errno.EIO, "no such luck")

    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()
            await log.append(b"0")

            with monkeypatch.context() as patch:
                patch.setattr(Journal, "flush", fail)
                with pytest.raises(NodeFailed, match="no such luck"):
                    await log.append(b"1")
            with pytest.raises(NodeFailed):
                await log.append(b"2")
            with pytest.raises(NodeFailed):
                await log.wait_async(1)

            assert (log.read(0).value, log.end, log.is_leader) == (b"0", 1, False)
            assert "no such luck" in log.status().trouble

    asyncio.run(story())


def test_a_newcomer_gets_more_than_one_turn_may_send(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        large = [bytes([number]) * (TURN_BYTES_MAX // 2 + 1) for number in range(4)]
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            leader = await cluster.leader()
            for value in large:
                await leader.append(value)

            cluster.start("n2", ["n1", "n2"], joins=True)
            await leader.join("n2", cluster.address("n2"))

            await cluster.have(large)

    asyncio.run(story())


def test_a_closed_log_says_so(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()
            waiting = asyncio.ensure_future(log.wait_async(0))
            _, appended = log.begin_append([b"0"])

            await log.close()
            await log.close()

            with pytest.raises(OutcomeUnknown):
                await appended
            with pytest.raises(LogClosed):
                await waiting
            with pytest.raises(LogClosed):
                await log.append(b"1")

    asyncio.run(story())
