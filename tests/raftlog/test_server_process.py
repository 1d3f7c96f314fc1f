"""Servers in processes of their own, and clusters of them in a folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logstore.filesystem import OsFileSystem
from raftlog import server_process
from raftlog.client.client import Client
from raftlog.local_cluster import LocalCluster, NoCluster, free_ports
from raftlog.net.tls import TlsFiles
from raftlog.server_process import (
    LOG,
    ServerFailed,
    ServerProcess,
    end_process,
    process_of,
    read_settings,
    write_settings,
)


@pytest.fixture
def server(tmp_path: Path, certificates: Path) -> Iterator[ServerProcess]:
    write_settings(tmp_path, certificates, {"bootstrap": True, "rpc-port": free_ports(1)[0]})
    server = ServerProcess(tmp_path)
    yield server
    server.kill()


def client_of(server: ServerProcess, certificates: Path) -> Client:
    return Client(server.address, tls=TlsFiles.in_folder(certificates, "root-client"))


# ── one server ──────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_was_killed_goes_on_where_it_was(server: ServerProcess, certificates: Path) -> None:
    server.start()
    with client_of(server, certificates) as client:
        client.append(b"a")
        first = server.process_id
        assert process_of(server.folder) == first

        server.kill()
        assert process_of(server.folder) is None
        server.start()
        server.start()  # runs already

        assert server.process_id != first
        assert server.address
        assert [record.value for record in client.scan()] == [b"a"]
    server.stop()
    server.stop()


def test_a_server_that_is_paused_does_nothing_until_it_is_resumed(
    server: ServerProcess, until: Callable[[Callable[[], bool]], None]
) -> None:
    def state() -> str:
        return Path(f"/proc/{server.process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]

    server.start()
    assert server.address
    server.pause()
    until(lambda: state() == "T")

    server.resume()

    until(lambda: state() != "T")
    server.pause()
    server.stop()  # also of one that is paused


def test_a_server_started_by_another_process_is_found_and_ended(server: ServerProcess) -> None:
    server.start()
    assert server.address
    process_id = server.process_id
    server.leave_running()
    assert not server.is_running
    server.kill()  # not ours any more

    assert process_of(server.folder) == process_id
    assert end_process(server.folder)
    os.waitid(os.P_PID, process_id, os.WEXITED)
    assert not end_process(server.folder)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    server: ServerProcess, certificates: Path
) -> None:
    write_settings(server.folder, certificates, {"rpc-port": "none of these"})
    server.start()

    with pytest.raises(ServerFailed, match="the server did not start\n.*rpc-port is 'none of these'"):
        _ = server.address
    with pytest.raises(ServerFailed, match="ended with exit code 2"):
        server.stop()


def test_a_server_that_was_never_started_is_stopped_by_nothing(server: ServerProcess) -> None:
    server.stop()
    server.kill()

    assert process_of(server.folder) is None
    assert not server.is_running


def test_a_long_log_of_a_server_begins_anew_and_one_old_one_is_kept(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "LOG_BYTES_MAX", 10)
    log = server.folder / LOG
    log.write_text("x" * 11)

    server.start()

    assert server.address
    assert log.with_name(f"{LOG}.1").read_text() == "x" * 11
    assert b"x" * 11 not in log.read_bytes()


def test_data_that_are_held_by_nobody_known_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "LOCK_S_MAX", 0.05)
    path = tmp_path / server_process.DATA / "LOCK"
    path.parent.mkdir()
    path.touch()
    assert process_of(tmp_path) is None
    lock = OsFileSystem().lock(str(path))
    assert process_of(tmp_path) == os.getpid()

    path.write_text("")
    with pytest.raises(ServerFailed, match="does not say which"):
        process_of(tmp_path)
    lock.close()


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / server_process.SETTINGS).write_text("[]")

    with pytest.raises(ServerFailed, match="not a server's settings"):
        read_settings(tmp_path)


def test_a_server_starts_from_a_file_of_another_program_and_says_what_it_left_out(
    server: ServerProcess, certificates: Path
) -> None:
    (port,) = free_ports(1)
    peers = [{"pid": 1, "name": "alpha", "ip_address": "127.0.0.1", "port": port}]
    seed = {"name": "alpha", "peers": peers, "tick": "50ms", "timeout": "1s", "seed": 7, "aggregate": False}
    write_settings(server.folder, certificates, seed)
    content = read_settings(server.folder)
    del content["rpc-port"]  # the list has it
    (server.folder / server_process.SETTINGS).write_text(json.dumps(content))

    server.start()

    assert server.address == f"127.0.0.1:{port}"
    with client_of(server, certificates) as client:
        assert [(one.name, one.is_leader) for one in client.servers()] == [("alpha", True)]
        assert client.append(b"a") == 0
    (warning,) = [line for line in server.tail.splitlines() if "without a meaning here" in line]
    assert re.findall(r"raftlog.json: (\w+)", warning) == ["seed", "aggregate"]


# ── a cluster in a folder ───────────────────────────────────────────────────────────────────────────


def test_the_first_servers_have_one_list_and_later_ones_ask_to_be_let_in(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.create(2, {"sync": "never"})
    before = {name: read_settings(server.folder) for name, server in cluster.servers.items()}
    cluster.create(3)

    settings = {name: read_settings(server.folder) for name, server in cluster.servers.items()}
    assert {name: settings[name] for name in before} == before
    assert [peer["name"] for peer in settings["n1"]["peers"]] == ["n1", "n2"]
    assert settings["n1"]["peers"] == settings["n2"]["peers"]
    assert (settings["n1"]["first-leader"], settings["n1"]["sync"]) == ("n1", "never")
    assert settings["n3"]["join-addrs"] == [cluster.addresses["n1"], cluster.addresses["n2"]]
    assert LocalCluster(tmp_path).addresses == cluster.addresses
    assert cluster.processes() == {"n1": None, "n2": None, "n3": None}


def test_a_cluster_does_not_shrink_by_asking_for_fewer_servers(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.create(2)

    with pytest.raises(NoCluster, match="holds a cluster of 2 servers, not of 1"):
        cluster.create(1)


def test_what_was_made_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    cluster = LocalCluster(tmp_path)
    cluster.create(1)

    cluster.remove()

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "mine").rmdir()
    cluster.create(1)
    cluster.remove()
    assert not tmp_path.exists()


def test_only_one_process_at_a_time_starts_or_stops_a_cluster(tmp_path: Path) -> None:
    with (
        LocalCluster(tmp_path / "c").used_alone(),
        pytest.raises(NoCluster, match=f"process {os.getpid()} starts or stops"),
        LocalCluster(tmp_path / "c").used_alone(),
    ):
        pass
    assert list(tmp_path.iterdir()) == []  # an empty folder goes as well


def test_a_cluster_without_a_leader_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.create(3)
    try:
        cluster.servers["n1"].start()
        assert cluster.servers["n1"].address
        began = time.monotonic()
        with pytest.raises(NoCluster, match="no leader after 0 s; members: n1, n2, n3"):
            cluster.wait_for_leader(0.1)
        assert time.monotonic() - began < 20
    finally:
        cluster.servers["n1"].kill()


def test_ports_are_different_and_free() -> None:
    ports = free_ports(20)

    assert len(set(ports)) == 20


def test_settings_are_readable_json(tmp_path: Path, certificates: Path) -> None:
    write_settings(tmp_path, certificates, {"node-name": "a"})

    assert json.loads((tmp_path / server_process.SETTINGS).read_text())["node-name"] == "a"
