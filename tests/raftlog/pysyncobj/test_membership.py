from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftlog.errors import MembershipRefused, NotLeader
from raftlog.pysyncobj.log import SyncObjLog
from tests.raftlog.pysyncobj.cluster import Cluster, until

NAMES = ["n1", "n2", "n3"]


def members(log: SyncObjLog) -> dict[str, tuple[str, str]]:
    """Address and directory of each."""
    return {server.id: (server.address, server.directory_id) for server in log.get_servers()}


def test_followers_name_the_leader(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = (await cluster.leader()).status().node_id
            follower = next(log for name, log in cluster.logs.items() if name != leader)
            await until(lambda: follower.status().leader_id == leader)

            with pytest.raises(NotLeader, match=leader) as refused:
                await follower.append(b"x")

            assert refused.value.leader_addr == cluster.address(leader)
            assert await follower.wait_for_leader(1.0) == leader

    asyncio.run(story())


def test_a_fourth_node_joins_and_leaves(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            for value in [b"%d" % number for number in range(20)]:
                await leader.append(value)

            fourth = cluster.start("n4", [*NAMES, "n4"], joins=True)
            joins = [
                leader.join("n4", cluster.address("n4")) for _ in range(3)
            ]  # together: one is carried out
            await asyncio.gather(*joins)
            await cluster.have([b"%d" % number for number in range(20)])
            assert [server.id for server in fourth.get_servers()] == [*NAMES, "n4"]
            assert await leader.append(b"20") == 20

            await leader.leave("n4")
            await cluster.stop("n4")
            assert [server.id for server in leader.get_servers()] == NAMES
            assert await leader.append(b"21") == 21

    asyncio.run(story())


def test_members_are_known_after_a_restart(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            leader = await cluster.leader()
            cluster.start("n2", ["n1", "n2"], joins=True)
            await leader.join("n2", cluster.address("n2"))
            await until(lambda: len(cluster.logs["n2"].get_servers()) == 2)
            for name in ("n1", "n2"):
                await cluster.stop(name)

            log = cluster.start("n1", ["n1"])  # what it was first told does not count any more

            assert [server.id for server in log.get_servers()] == ["n1", "n2"]
            cluster.start("n2", ["n1", "n2"])
            await (await cluster.leader()).append(b"0")
            await cluster.have([b"0"])

    asyncio.run(story())


def test_a_leader_that_leaves_hands_over_first(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            name = leader.status().node_id
            await leader.append(b"0")
            await cluster.have([b"0"])

            with pytest.raises(NotLeader) as refused:
                await leader.leave(name)

            second = cluster.logs[refused.value.leader_id]
            await until(lambda: second.is_leader)
            await second.leave(name)
            assert name not in [server.id for server in second.get_servers()]
            assert await second.append(b"1") == 1

    asyncio.run(story())


def test_a_node_that_joins_does_not_campaign_before_it_is_let_in(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            newcomer = cluster.start("n2", ["n2"], joins=True)  # alone, it would lead at once
            alone = cluster.start("n1", ["n1"])
            await until(lambda: alone.is_leader)
            await alone.append(b"0")

            assert (newcomer.status().term, newcomer.status().role) == (0, "follower")

    asyncio.run(story())


def test_a_server_that_has_moved_or_has_another_disk_is_replaced(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            name = leader.status().node_id
            one, other = (each for each in NAMES if each != name)

            await cluster.stop(one)
            await leader.join(one, "127.0.0.1:1", "another disk")
            await leader.join(one, "127.0.0.1:1")  # it is
            assert members(leader)[one] == ("127.0.0.1:1", "another disk")
            await leader.join("n4", "127.0.0.1:1")  # who has that address now
            with pytest.raises(MembershipRefused, match="which leads"):
                await leader.join("n5", cluster.address(name))
            with pytest.raises(MembershipRefused, match="cannot change the address"):
                await leader.join(name, "127.0.0.1:2")

            addresses = {name: cluster.address(name), other: cluster.address(other), "n4": "127.0.0.1:1"}
            assert members(leader) == {id: (address, "") for id, address in addresses.items()}

    asyncio.run(story())


def test_leadership_is_handed_to_who_is_named(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(NAMES)
            leader = await cluster.leader()
            await leader.append(b"0")
            await cluster.have([b"0"])
            target = next(each for each in NAMES if each != leader.status().node_id)

            with pytest.raises(MembershipRefused, match="n9"):
                await leader.transfer_leadership("n9")
            assert await leader.transfer_leadership(target) == target

            await until(lambda: cluster.logs[target].is_leader)
            await cluster.logs[target].hand_over(10.0)
            await until(lambda: not cluster.logs[target].is_leader)

    asyncio.run(story())
