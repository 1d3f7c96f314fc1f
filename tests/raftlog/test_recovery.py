"""A new cluster out of one server whose others are lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raftlog.client.client import Client
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.local_cluster import local_cluster
from raftlog.raft.configuration import Configuration, apply_change
from raftlog.recovery import changes_to_alone, opened
from raftlog.server_process import DATA, server_process
from raftlog.storage.data_directory import DataDirectory

N1, N2, N3, N4 = (NodeId(f"n{number}") for number in (1, 2, 3, 4))
DEADLINE_S = 30.0


# ── the configuration ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("configuration", "steps"),
    [
        (Configuration((N1,)), 0),
        (Configuration((N1, N2)), 1),
        (Configuration((N1, N2, N3)), 2),  # into a joint configuration, and out of it
        (Configuration((N1,), learners=(N4,)), 1),
        (Configuration((N2, N3), learners=(N1,)), 2),
        (Configuration((N2, N3)), 2),
        (Configuration((N1, N2), outgoing=(N2, N3)), 2),  # out of the one that it is in, and one change
        (Configuration((N2,), outgoing=(N1, N2, N3), learners_next=(N3,), auto_leave=True), 3),
    ],
)
def test_changes_leave_one_server_alone_from_wherever_they_begin(
    configuration: Configuration, steps: int
) -> None:
    changes = changes_to_alone(configuration, N1)

    assert len(changes) == steps
    for change in changes:
        configuration = apply_change(configuration, change).configuration
    assert configuration == Configuration((N1,))


# ── directories that cannot be recovered from ───────────────────────────────────────────────────────


def test_a_folder_that_is_no_data_directory_is_refused_and_not_touched(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(IdentityError, match="no server's data directory"), opened(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_told_nothing_yet_is_refused(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, node_name=N1)
    directory.join("00000000-0000-0000-0000-000000000001")
    directory.close()

    with pytest.raises(IdentityError, match="holds nothing of its cluster's log yet"), opened(tmp_path):
        pass


# ── with real servers ───────────────────────────────────────────────────────────────────────────────


def test_one_of_three_servers_becomes_a_cluster_that_keeps_the_records_and_grows(tmp_path: Path) -> None:
    expected = [b"%d" % number for number in range(100)]
    with local_cluster(tmp_path / "old", 3) as old:
        with Client(list(old.addresses.values()), tls=old.tls) as client:
            for value in expected:
                client.append(value)
            client.commit_cursor("g", 7)
            _wait(lambda: client.status(old.addresses["n2"]).last_index == client.status().last_index)
            old_id = client.status().cluster_id
            with (
                pytest.raises(IdentityError, match="is in use by process"),
                opened(old.servers["n2"].folder / DATA),
            ):
                pass
        for server in old.servers.values():
            server.kill()

        with opened(old.servers["n2"].folder / DATA) as recovery:
            found = recovery.found
            new_id = recovery.force()
        with opened(old.servers["n2"].folder / DATA) as again:
            assert (again.found.cluster_id, again.found.members) == (new_id, ("n2",))

        assert (found.node, found.cluster_id, found.members) == ("n2", old_id, ("n1", "n2", "n3"))
        assert (found.start, found.end) == (0, 100)
        old.servers["n2"].start()
        address = old.servers["n2"].address
        joining = {"node-name": "n4", "bootstrap": False, "join-addrs": [address]}
        with (
            Client(address, tls=old.tls) as client,
            server_process(tmp_path / "n4", old.certs, joining) as newcomer,
        ):
            _wait(lambda: {one.name for one in client.servers() if one.is_voter} == {"n2", "n4"})
            client.append(b"new")
            assert client.status(address).cluster_id == new_id
            with Client(newcomer.address, tls=old.tls) as other:
                held = [record.value for record in other.scan(linearizable=True)]
            assert held == [*expected, b"new"]
            assert [(one.group, one.offset) for one in client.cursors()] == [("g", 7)]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
