"""A server on this engine in this process: whose data it takes, and what it refuses."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raftlog import TlsFiles
from raftlog.agent import Agent
from raftlog.errors import ConfigError, IdentityError
from raftlog.pysyncobj.log import SyncObjLog
from tests.raftlog.pysyncobj.cluster import until
from tests.raftlog.serving import client_of, config_of, run, serving

FAST = {
    "engine": "pysyncobj",
    "election_timeout_ms_min": 200,
    "election_timeout_ms_max": 400,
    "heartbeat_interval_ms": 50,
}


async def start(folder: Path, certificates: Path, **settings: Any) -> int:
    """Start a server, append a record, stop; how many records it had."""
    async with serving(folder, certificates, **settings) as agent:
        while agent.log.status().role != "leader":
            await asyncio.sleep(0.01)
        await agent.log.read_index(20.0)
        before = agent.log.end
        _, stored = agent.log.begin_append([b"x"])
        assert await stored == before
        return before


def test_a_cluster_of_one_begins_once(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        assert [await start(tmp_path, certificates, **FAST) for _ in range(3)] == [0, 1, 2]

    run(story())


def test_it_is_ready_with_a_leader_and_says_which_log_it_has(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path, certificates, **FAST) as agent:
            assert isinstance(agent.log, SyncObjLog)
            while not agent.health.is_serving:
                await asyncio.sleep(0.01)
            assert agent.metrics.registry.get_sample_value("raftlog_log_segments") == 1

    run(story())


@pytest.mark.parametrize(("first", "second"), [("raft", "pysyncobj"), ("pysyncobj", "raft")])
def test_data_of_the_other_engine_is_refused(
    tmp_path: Path, certificates: Path, first: str, second: str
) -> None:
    async def story() -> None:
        await start(tmp_path, certificates, **{**FAST, "engine": first})

        with pytest.raises(IdentityError, match=f'data of the engine {first}: .*"{first}"'):
            await start(tmp_path, certificates, **{**FAST, "engine": second})

        assert await start(tmp_path, certificates, **{**FAST, "engine": first}) == 1

    run(story())


def peer_tls(certificates: Path) -> dict[str, Any]:
    files = TlsFiles.in_folder(certificates, "peer")
    return {
        "peer_tls_cert_file": files.cert_file, "peer_tls_key_file": files.key_file, "peer_tls_ca_file": files.ca_file
    }  # fmt: skip


def test_a_cluster_on_the_other_engine_is_not_joined(
    tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        joining = {**FAST, **peer_tls(certificates), "bootstrap": False, "node_name": "two"}
        async with (
            serving(tmp_path, certificates, **{**FAST, "engine": "raft"}) as member,
            serving(tmp_path / "two", certificates, **joining, join_addrs=[member.rpc_address]) as agent,
        ):
            assert agent.failed is not None
            assert await agent.failed == 1
            assert [server.id for server in member.log.get_servers()] == ["one"]

    run(story())
    assert "runs on the engine raft, this server on pysyncobj" in caplog.text


def test_a_server_that_is_let_in_goes_on_as_a_member_after_a_restart(
    tmp_path: Path, certificates: Path
) -> None:
    async def story() -> None:
        joining = {**FAST, **peer_tls(certificates), "bootstrap": False, "node_name": "two"}
        async with serving(tmp_path, certificates, **FAST, **peer_tls(certificates)) as member:
            joining["join_addrs"] = [member.rpc_address]
            for end in (1, 2):
                async with serving(tmp_path / "two", certificates, **joining) as agent:
                    await until(lambda: len(member.log.get_servers()) == 2)
                    async with client_of(member, certificates, timeout_s=20.0) as client:
                        assert await client.append(b"x") == end - 1
                    await until(partial(has, agent, end))
                    joining["rpc_port"] = agent.rpc_port

    run(story())


def has(agent: Agent, end: int) -> bool:
    """It is a member, and has so many records."""
    return agent.health.is_serving and agent.log.end == end


def test_data_of_another_node_are_refused(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        await start(tmp_path, certificates, **FAST)

        with pytest.raises(IdentityError, match="holds data of node one, not of two"):
            await start(tmp_path, certificates, **FAST, node_name="two")

    run(story())


def test_data_in_use_are_refused(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path, certificates, **FAST):
            with pytest.raises(IdentityError, match="in use"):
                await start(tmp_path, certificates, **FAST)

    run(story())


def test_a_log_that_lost_what_was_committed_is_refused(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        await start(tmp_path, certificates, **FAST)
        for store in (tmp_path / "data" / "pysyncobj" / "log").iterdir():
            store.unlink()

        with pytest.raises(IdentityError, match="join it with an empty directory and under another name"):
            await start(tmp_path, certificates, **FAST)

    run(story())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"retention_records_max": 10}, "retention-records-max: the engine pysyncobj needs the whole log"),
        ({"bootstrap": False}, "cannot wait to be joined: give bootstrap, peers or join-addrs"),
    ],
)
def test_settings_that_it_cannot_follow_are_refused(
    tmp_path: Path, certificates: Path, settings: dict[str, Any], problem: str
) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match=problem):
            await start(tmp_path, certificates, **FAST, **settings)

    run(story())
    assert not (tmp_path / "data").exists()


def test_without_the_package_the_command_is_told_that_installs_it(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.startswith("raftlog.pysyncobj.") or name == "raftlog.pysyncobj"
    ]:
        monkeypatch.delitem(sys.modules, name)

    def nothing_installed(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", nothing_installed)

    async def story() -> None:
        with pytest.raises(ConfigError, match=r'pip install "raftlog\[pysyncobj\]"'):
            await start(tmp_path, certificates, **FAST)

    run(story())
    assert config_of(tmp_path, certificates, **FAST).engine == "pysyncobj"
