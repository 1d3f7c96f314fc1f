"""Whether a server that may begin a cluster does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raftlog import joining
from raftlog.agent import Agent
from raftlog.config import ServerConfig
from raftlog.discovery.membership import Membership
from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId
from raftlog.joining import Joining
from raftlog.net.handshake import Welcome
from raftlog.net.stream_layer import Unreachable
from tests.raftlog.autopilot.grown import FakeSource

OWN = "n1.example:8400"


def looks(candidates: Mapping[str, Candidate], there: Mapping[str, tuple[str, str]]) -> bool:
    """Whether it begins a cluster; at each address of `there` is a server of this name and cluster."""
    source = FakeSource()
    for candidate in candidates.values():
        source.say(candidate)

    async def identify(address: str) -> Welcome:
        if address not in there:
            raise Unreachable(f"{address}: nobody is there")
        node, cluster_id = there[address]
        return Welcome(
            cluster_id=cluster_id, node=node, directory_id="d", address=address, protocol=1, format_min=1,
            format_max=1, members_version=0,
        )  # fmt: skip

    mine = Joining(None, node=NodeId("n1"), address=OWN, engine="raft")
    return asyncio.run(mine.look_first(source, identify))


def found(*addresses: str) -> dict[str, Candidate]:
    """As DNS has them."""
    return {address: Candidate(name="", address=address) for address in addresses}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "LOOK_FIRST_S_MAX", 0.5)


def seconds_of(
    candidates: Mapping[str, Candidate], there: Mapping[str, tuple[str, str]], *, begins: bool
) -> float:
    start = time.monotonic()
    assert looks(candidates, there) is begins
    return time.monotonic() - start


def test_one_that_is_listed_and_does_not_answer_is_waited_for() -> None:
    assert seconds_of(found("10.0.0.2:8400"), {}, begins=True) >= 0.5


def test_a_cluster_is_begun_once_all_that_are_listed_say_that_they_are_of_none() -> None:
    there = {"10.0.0.1:8400": ("n1", ""), "10.0.0.2:8400": ("n2", "")}  # the first is this server itself

    assert seconds_of(found(*there), there, begins=True) < 0.5


def test_a_cluster_that_one_of_them_is_of_is_joined() -> None:
    there = {"10.0.0.2:8400": ("n2", ""), "10.0.0.3:8400": ("n3", "a-cluster")}

    assert not looks(found(*there, "10.0.0.4:8400"), there)


def test_a_cluster_that_is_told_of_is_enough() -> None:
    told = Candidate(name="n2", address="10.0.0.2:8400", cluster_id="a-cluster")

    assert not looks({"n2": told}, {})


def test_so_many_that_not_all_are_asked_are_waited_for() -> None:
    addresses = [f"10.0.0.{number}:8400" for number in range(100)]

    assert seconds_of(found(*addresses), dict.fromkeys(addresses, ("n2", "")), begins=True) >= 0.5


def test_who_is_told_to_leave_begins_no_cluster_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    async def goodbye(_: Membership) -> None:
        await asyncio.wait((asyncio.create_task(looked.wait()),), timeout=2.0)  # longer than it looks

    async def bootstrap(*_: object) -> None:
        looked.set()

    monkeypatch.setattr(Membership, "leave", goodbye)
    monkeypatch.setattr(Joining, "bootstrap", bootstrap)
    settings: dict[str, Any] = {
        "node_name": "n1", "data_dir": str(tmp_path), "insecure": True, "bind_addr": "127.0.0.1:0", "rpc_port": 0,
        "health_port": None, "admin_port": None, "bootstrap": True, "start_join_addrs": ("127.0.0.1:1",),
    }  # fmt: skip

    async def scenario() -> None:
        async with Agent(ServerConfig(**settings)) as agent:
            await agent.leave()

    asyncio.run(scenario())

    assert not looked.is_set()
