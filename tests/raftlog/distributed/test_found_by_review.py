"""What went wrong once between the parts of a node."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from logstore import Kind, LogClosed, RawEntry
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.mending import Mending
from raftlog.engine import NodeId
from raftlog.errors import MembershipRefused, NodeFailed, NotLeader, OutcomeUnknown
from raftlog.machines.views import Views
from raftlog.raft.configuration import Configuration
from raftlog.raft.storage import Write
from raftlog.runtime.applier import Applier
from raftlog.storage.data_directory import DataDirectory
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import CALL_S_MAX, append, call, look, steady


def wait_until_directories_are_known(cluster: Cluster, leader: str) -> None:
    """Each server tells its own; then no members change by themselves."""
    cluster.wait_until(
        lambda: all(look(cluster, leader, lambda log: [each.directory_id for each in log.get_servers()])),
        "not all directories are known",
    )


def test_a_server_that_ended_when_its_data_was_set_aside_is_let_in_at_its_next_start(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"a", b"b")
        cluster.wait_until_equal()
        wait_until_directories_are_known(cluster, leader)
        follower = next(node for node in cluster.running if node != leader)
        cluster.kill(follower)
        directory = DataDirectory.open(tmp_path / follower, node_name=NodeId(follower))
        directory.set_aside("a test")
        directory.close()

        cluster.restart(follower)

        cluster.wait_until(lambda: cluster.ends().get(follower) == 2, "it was not let in")


OPERATIONS: dict[str, Callable[[DistributedLog], Awaitable[object]]] = {
    "join": lambda log: log.join("n9", "127.0.0.1:1"),
    "leave": lambda log: log.leave("n2"),
    "promote": lambda log: log.promote("n2"),
    "transfer": lambda log: log.transfer_leadership(),
    "truncate": lambda log: log.truncate(0),
    "commit_cursor": lambda log: log.commit_cursor("group", 0),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_leader_that_failed_sends_operators_away_at_once(tmp_path: Path, operation: str) -> None:
    with steady(tmp_path, election_timeout_ms_min=300, election_timeout_ms_max=600) as cluster:
        leader = cluster.wait_for_leader()

        async def fail_and_ask(log: DistributedLog) -> None:
            log.replica.driver.actor.fail(OSError("the disk broke"))
            while log.replica.failure is None:
                await asyncio.sleep(0)
            async with asyncio.timeout(5):  # half of what an unanswered request waits
                await OPERATIONS[operation](log)

        with pytest.raises(NotLeader):
            call(cluster, leader, fail_and_ask)


def test_requests_to_a_node_that_failed_end_at_once_and_leave_nothing_behind(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:

        async def fail_and_read(log: DistributedLog) -> int:
            log.replica.driver.actor.fail(OSError("the disk broke"))
            while log.replica.failure is None:
                await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(NodeFailed):
                    await log.read_index(5)
            return len(log.replica.driver._requests)

        assert call(cluster, cluster.wait_for_leader(), fail_and_read) == 0


def test_a_follower_sends_away_whoever_names_an_offset_that_it_lacks_still(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)

        for operation in (lambda log: log.commit_cursor("group", 5), lambda log: log.truncate(5)):
            with pytest.raises(NotLeader):
                call(cluster, follower, operation)


def test_a_leader_that_does_not_know_yet_what_was_committed_before_it_changes_no_members(
    tmp_path: Path,
) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        wait_until_directories_are_known(cluster, leader)

        async def ask(log: DistributedLog) -> None:
            log.replica.is_ready = False  # as between its election and the commit of its first entry
            try:
                await log.leave("nobody")
            finally:
                log.replica.is_ready = True

        with pytest.raises(NotLeader):
            call(cluster, leader, ask)


def test_a_name_that_cannot_be_a_members_leaves_nothing_in_the_list(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()

        with pytest.raises(MembershipRefused):
            call(cluster, leader, lambda log: log.join("n" * 100, "127.0.0.1:1"))

        known = look(cluster, leader, lambda log: list(log.replica.applier.views.members.known))
        assert known == ["n1", "n2", "n3"]


def test_who_waits_for_the_offset_of_an_entry_that_a_snapshot_hides_is_told() -> None:
    applier = Applier(Views(Configuration(), index=1), applied=1, end=0)
    told: list[int | Exception] = []
    applier.tell_offset(5, told.append)
    applier.tell_offset(11, told.append)

    applier.start_at(Views(Configuration(), index=12, next_offset=30), applied=10, end=20)

    assert [type(each) for each in told] == [OutcomeUnknown]


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    applier = Applier(Views(Configuration(), index=1), applied=1, end=0)

    async def give_up() -> None:
        for wait in (applier.wait_for(2), applier.wait_for_end(0)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await wait

    asyncio.run(give_up())

    assert not applier._waiters
    assert not applier._followers


def test_a_log_that_closes_tells_what_became_of_appends_that_its_disk_is_busy_with(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:

        async def close_while_writing(log: DistributedLog) -> int:
            storage, is_writing, may_write = log.replica.storage, threading.Event(), threading.Event()
            write = storage.write

            def write_late(writes: Sequence[Write]) -> None:
                is_writing.set()
                may_write.wait(CALL_S_MAX)
                write(writes)

            storage.write = write_late  # type: ignore[method-assign]
            _, first = log.begin_append([b"a"])
            await asyncio.to_thread(is_writing.wait, CALL_S_MAX)
            closing = asyncio.create_task(log.close())
            await asyncio.sleep(0)
            may_write.set()
            offset = await first
            await closing
            with pytest.raises(LogClosed):
                log.begin_append([b"b"])
            return offset

        assert call(cluster, "n1", close_while_writing) == 0


def test_who_waits_for_records_of_a_log_that_closes_is_told_that_it_closed(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:

        async def close_while_waiting(log: DistributedLog) -> None:
            waiting = asyncio.create_task(log.wait_async(log.end))
            await asyncio.sleep(0)
            await log.close()
            await waiting

        with pytest.raises(LogClosed):
            call(cluster, "n1", close_while_waiting)


def test_housekeeping_goes_on_and_tries_again_after_a_snapshot_that_could_not_be_made(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, settings={"snapshot_entries": 5}) as cluster:

        async def refuse_once(log: DistributedLog) -> int:
            storage, refused = log.replica.storage, asyncio.Event()
            before = storage.views_index
            save, loop = storage.save_views, asyncio.get_running_loop()

            def save_later(index: int, sections: Mapping[str, bytes], configuration: Configuration) -> int:
                if not refused.is_set():
                    loop.call_soon_threadsafe(refused.set)
                    raise ValueError("a snapshot that is over a limit")
                return save(index, sections, configuration)

            storage.save_views = save_later  # type: ignore[method-assign]
            for _ in range(10):
                await log.append(b"a")
            await refused.wait()
            return before

        before = call(cluster, "n1", refuse_once)

        cluster.wait_until(
            lambda: look(cluster, "n1", lambda log: log.replica.storage.views_index) > before,
            "no snapshot was made",
        )


def test_a_disk_that_was_replaced_while_all_were_down_is_filled_though_its_server_started_first(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"a", b"b")
        cluster.wait_until_equal()
        wait_until_directories_are_known(cluster, leader)
        for node in cluster.nodes:
            cluster.kill(node)
        shutil.rmtree(tmp_path / "n3")

        for node in ("n3", "n1", "n2"):  # the first asks whether there is a cluster, and finds none
            cluster.restart(node)

        cluster.wait_until(lambda: cluster.ends()["n3"] == 2, "it was not let in")


class _Peers:
    """The first that is asked sends what is none of its entries."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def entries(
        self, node: NodeId, address: str, first: int, end: int
    ) -> AsyncIterator[Sequence[RawEntry]]:
        self.asked.append(node)
        if len(self.asked) == 1:
            yield [RawEntry(first, 1, Kind.RECORDS, b"no frame")]


def test_a_peer_that_sends_nonsense_keeps_nobody_from_asking_the_others(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        append(cluster, leader, b"a")

        async def fetch(log: DistributedLog) -> list[str]:
            peers, last = _Peers(), log.replica.applier.applied
            mending = Mending(log.replica, peers)
            log.replica.log.damage = lambda first, end: [(first, end)]  # type: ignore[method-assign]
            await mending._fetch(last, last + 1)
            await mending.close()
            return peers.asked

        assert len(call(cluster, leader, fetch)) == 2
