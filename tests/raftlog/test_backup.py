"""Copies of a cluster's records in a folder, and back: servers in this process, each a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import Log, NoLog, Record
from raftlog import Client, TlsFiles
from raftlog import backup as backups
from raftlog.backup import BackupFailed, Copied, back_up, restore
from tests.raftlog.serving import server_in_thread


@pytest.fixture
def client(tmp_path: Path, certificates: Path) -> Iterator[Client]:
    """Of a new, empty cluster."""
    with (
        server_in_thread(tmp_path / "one", certificates) as agent,
        Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client,
    ):
        yield client


@pytest.fixture
def other(tmp_path: Path, certificates: Path) -> Iterator[Client]:
    """Of another one."""
    with (
        server_in_thread(tmp_path / "other", certificates, node_name="other") as agent,
        Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client,
    ):
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def held(folder: Path) -> list[Record]:
    with Log(folder, read_only=True) as log:
        return list(log.scan())


# ── into a folder ───────────────────────────────────────────────────────────────────────────────────


def test_a_backup_holds_the_same_records_under_the_same_offsets(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "SYNC_BYTES", 300)
    client.append_batch([b"a", Record(b"b", key=b"k", headers=(("name", b"1"),))])
    client.append(b"c")
    client.append_batch([b"x" * 100] * 50)

    assert back_up(client, folder) == Copied(53, 0, 53)

    assert held(folder) == list(client.scan())  # with times of appending, and terms


def test_a_backup_that_is_made_again_adds_what_came_since(client: Client, folder: Path) -> None:
    client.append(b"a")
    back_up(client, folder)
    assert back_up(client, folder) == Copied(0, 0, 1)

    client.append_batch([b"b", b"c"])

    assert back_up(client, folder) == Copied(2, 0, 3)
    assert held(folder) == list(client.scan())


def test_a_backup_of_nothing_is_empty(client: Client, folder: Path) -> None:
    assert back_up(client, folder) == Copied(0, 0, 0)


def test_a_backup_begins_where_the_log_does_within_a_batch_too(client: Client, folder: Path) -> None:
    client.append_batch([b"a", b"b", b"c"])
    client.append(b"d")
    client.truncate(2)

    assert back_up(client, folder) == Copied(2, 2, 4)

    assert [(one.offset, one.value) for one in held(folder)] == [(2, b"c"), (3, b"d")]
    assert [one.timestamp for one in held(folder)] == [one.timestamp for one in client.scan()]


def test_a_folder_that_is_too_old_to_go_on_with_is_refused(client: Client, folder: Path) -> None:
    client.append(b"a")
    back_up(client, folder)
    client.append_batch([b"b", b"c"])
    client.truncate(3)

    with pytest.raises(BackupFailed, match="ends at offset 1, and the cluster has forgotten what is below 3"):
        back_up(client, folder)


def test_a_folder_with_records_of_another_cluster_is_refused(
    client: Client, other: Client, folder: Path
) -> None:
    other.append_batch([b"other", b"records"])
    back_up(other, folder)

    with pytest.raises(BackupFailed, match="up to before 2, the cluster up to before 0"):
        back_up(client, folder)
    client.append_batch([b"a", b"b", b"c"])
    with pytest.raises(BackupFailed, match="the record at offset 1 is not that of the cluster"):
        back_up(client, folder)


# ── and back ────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_restored_is_what_was_backed_up(client: Client, other: Client, folder: Path) -> None:
    client.append_batch([b"a", Record(b"b", key=b"k", timestamp=5)])
    client.append_batch([b"x" * 100] * 1000)
    back_up(client, folder)

    assert restore(other, folder) == Copied(1002, 0, 1002)

    ours, theirs = list(client.scan()), list(other.scan())
    assert [(one.offset, one.value, one.key) for one in theirs] == [
        (one.offset, one.value, one.key) for one in ours
    ]
    assert theirs[1].timestamp == 5
    assert restore(other, folder) == Copied(0, 0, 1002)


def test_a_restoration_that_was_cut_short_goes_on(client: Client, other: Client, folder: Path) -> None:
    client.append_batch([b"a", b"b", b"c"])
    client.append(b"d")
    back_up(client, folder)
    other.append_batch([b"a", b"b"])

    assert restore(other, folder) == Copied(2, 0, 4)

    assert [one.value for one in other.scan()] == [b"a", b"b", b"c", b"d"]


def test_a_cluster_that_has_records_of_its_own_is_not_restored_into(
    client: Client, other: Client, folder: Path
) -> None:
    client.append_batch([b"a", b"b"])
    back_up(client, folder)
    other.append(b"mine")
    with pytest.raises(BackupFailed, match="holds 1 records that are not those of"):
        restore(other, folder)
    other.append_batch([b"mine"] * 2)

    with pytest.raises(BackupFailed, match="offsets 0 to before 3: it is not empty"):
        restore(other, folder)


def test_who_produces_meanwhile_ends_a_restoration(
    client: Client, other: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.append_batch([b"a", b"b"])
    back_up(client, folder)
    produce = backups._produce

    def produce_late(target: Client, log: Log, first: int, shift: int) -> None:
        target.append(b"mine")
        produce(target, log, first, shift)

    monkeypatch.setattr(backups, "_produce", produce_late)
    with pytest.raises(BackupFailed, match="somebody else produces to the cluster: offset 0 was expected"):
        restore(other, folder)


def test_a_backup_without_its_first_records_is_restored_only_under_other_offsets(
    client: Client, other: Client, folder: Path
) -> None:
    client.append_batch([b"a", b"b", b"c"])
    client.truncate(1)
    back_up(client, folder)
    with pytest.raises(BackupFailed, match="begins at offset 1.*--renumber"):
        restore(other, folder)

    assert restore(other, folder, renumber=True) == Copied(2, 0, 2)

    assert [(one.offset, one.value) for one in other.scan()] == [(0, b"b"), (1, b"c")]
    assert restore(other, folder, renumber=True) == Copied(0, 0, 2)


def test_no_backup_is_an_error(other: Client, folder: Path) -> None:
    with pytest.raises(NoLog):
        restore(other, folder)
    folder.mkdir()
    with pytest.raises(NoLog):
        restore(other, folder)
