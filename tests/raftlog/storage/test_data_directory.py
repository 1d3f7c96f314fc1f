from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore import Config, Log
from logstore.filesystem import File, OsFileSystem
from logstore.testing import CrashFileSystem
from raftlog.errors import IdentityError
from raftlog.raft.configuration import Configuration
from raftlog.raft.storage import HardState, Write
from raftlog.storage import DamagedState, DataDirectory
from raftlog.storage.hard_state import parse
from tests.raftlog.storage.builders import (
    ADDRESSES,
    CLUSTER,
    MEMBERS,
    N1,
    N2,
    N4,
    OTHER_CLUSTER,
    THREE,
    all_entries,
    append,
    commands,
    founded,
    joined,
    some_states,
)

PATH = "/data"


def reopened(directory: DataDirectory) -> DataDirectory:
    directory.close()
    return DataDirectory.open(directory.path, node_name=directory.node_name)


# ── whose it is ─────────────────────────────────────────────────────────────────────────────────────


def test_new_directory_is_its_owners_alone(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "a" / "data", node_name=N1)

    assert stat.S_IMODE(os.stat(tmp_path / "a" / "data").st_mode) == 0o700
    assert directory.is_new
    assert (directory.cluster_id, directory.members) == ("", {})
    assert len(directory.directory_id) == 36


def test_identity_is_made_once(tmp_path: Path) -> None:
    directory = founded(str(tmp_path))
    known = directory.directory_id

    directory = reopened(directory)

    assert not directory.is_new
    assert (directory.node_name, directory.cluster_id, directory.directory_id) == (N1, CLUSTER, known)
    assert directory.members == ADDRESSES


def test_two_directories_differ(tmp_path: Path) -> None:
    ids = {DataDirectory.open(tmp_path / name, node_name=N1).directory_id for name in "ab"}

    assert len(ids) == 2


def test_bootstrap_of_the_same_cluster_changes_nothing_the_second_time(tmp_path: Path) -> None:
    directory = founded(str(tmp_path))
    storage = directory.open_storage(Config())
    append(storage, commands(1, 1))
    storage.close()

    directory.bootstrap(CLUSTER, {N2: MEMBERS[N2]})
    directory.join(CLUSTER)
    directory = reopened(directory)
    directory.bootstrap(CLUSTER, MEMBERS)

    assert all_entries(directory.open_storage(Config())) == commands(1, 1)
    assert directory.members == ADDRESSES


@pytest.mark.parametrize("act", ["bootstrap", "join"])
def test_data_of_another_cluster_is_refused(tmp_path: Path, act: str) -> None:
    directory = founded(str(tmp_path))

    with pytest.raises(IdentityError, match=f"cluster {CLUSTER}, not of {OTHER_CLUSTER}"):
        directory.bootstrap(OTHER_CLUSTER, MEMBERS) if act == "bootstrap" else directory.join(OTHER_CLUSTER)


def test_data_of_another_node_is_refused(tmp_path: Path) -> None:
    founded(str(tmp_path)).close()

    with pytest.raises(IdentityError, match="data of node n1, not of n2"):
        DataDirectory.open(tmp_path, node_name=N2)

    assert DataDirectory.open(tmp_path, node_name=N1).cluster_id == CLUSTER  # and it was let go


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    directory = founded(str(tmp_path))

    with pytest.raises(IdentityError, match=f"in use by process {os.getpid()}"):
        DataDirectory.open(tmp_path, node_name=N1)

    reopened(directory)


def test_log_that_no_cluster_made_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append(b"mine")

    with pytest.raises(IdentityError, match="no cluster made: move it elsewhere"):
        DataDirectory.open(tmp_path, node_name=N1)

    with Log(tmp_path / "log") as log:
        assert log.read(0).value == b"mine"


def test_newer_format_is_refused(tmp_path: Path) -> None:
    founded(str(tmp_path)).close()
    path = tmp_path / "node.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))

    with pytest.raises(IdentityError, match="format 2, this program knows 1"):
        DataDirectory.open(tmp_path, node_name=N1)


def test_every_changed_byte_of_the_identity_is_found(tmp_path: Path) -> None:
    founded(str(tmp_path)).close()
    path = tmp_path / "node.json"
    data = path.read_bytes()
    meant = json.loads(data)

    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        path.write_bytes(changed)
        try:
            DataDirectory.open(tmp_path, node_name=N1).close()
        except IdentityError:
            continue
        assert json.loads(bytes(changed)) == meant  # only how it is written was changed


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b"[]", b"\xff", b"7", b"[" * 100_000, b'{"format":"1"}', b"{" * 5_000_000]
)
def test_identity_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "node.json").write_bytes(data)

    with pytest.raises(IdentityError, match="restore it from a backup|no node's identity"):
        DataDirectory.open(tmp_path, node_name=N1)


def test_members_are_remembered(tmp_path: Path) -> None:
    directory = founded(str(tmp_path))
    members = {**ADDRESSES, N4: "n4.test:8400"}

    directory.remember_members(members)

    assert directory.members == members
    assert reopened(directory).members == members


# ── the first content ───────────────────────────────────────────────────────────────────────────────


def test_cluster_begins_with_a_snapshot_that_tells_its_configuration(tmp_path: Path) -> None:
    storage = founded(str(tmp_path)).open_storage(Config())

    assert (storage.applied, storage.first_index, storage.last_index, storage.commit) == (1, 2, 1, 0)
    assert storage.term(1) == 0
    assert storage.configuration() == THREE
    assert storage.hard_state() == HardState()
    assert storage.latest_views() == (1, {"members": b"first"})
    assert storage.log.end == 0
    snapshot = storage.snapshot()
    assert snapshot is not None and (snapshot.index, snapshot.term, snapshot.configuration) == (1, 0, THREE)


def test_all_who_begin_a_cluster_begin_with_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for node in (N1, N2):
        founded(str(tmp_path / node), node=node)
        files.append((tmp_path / node / "snapshots" / f"{1:020d}.snapshot").read_bytes())

    assert files[0] == files[1]


def test_who_joins_waits_for_everything(tmp_path: Path) -> None:
    directory = joined(str(tmp_path))
    storage = directory.open_storage(Config())

    assert (storage.applied, storage.first_index, storage.last_index) == (0, 1, 0)
    assert storage.configuration() == Configuration()
    assert storage.snapshot() is None and storage.latest_views() is None
    assert directory.members == ADDRESSES


@pytest.mark.parametrize("make", [founded, joined])
def test_power_loss_at_any_moment_of_the_first_making_leaves_a_new_directory_or_a_made_one(
    make: Callable[..., DataDirectory],
) -> None:
    fs = CrashFileSystem()
    directory = make(PATH, fs)
    made = len(fs.operations)
    directory.open_storage(Config()).close()
    seen = set()

    for done, disk in some_states(fs, most=8):
        found = DataDirectory.open(PATH, node_name=directory.node_name, filesystem=disk)
        seen.add(found.is_new)
        assert not (found.is_new and done >= made)
        assert found.cluster_id in ("", CLUSTER)
        found.close()
        found = make(PATH, disk)
        storage = found.open_storage(Config())
        assert storage.configuration() == (THREE if make is founded else Configuration())
        assert storage.last_index == (1 if make is founded else 0)
        assert storage.hard_state() == HardState()
        storage.close()

    assert seen == {True, False}


# ── setting aside ───────────────────────────────────────────────────────────────────────────────────


def with_history(path: str) -> DataDirectory:
    """A node that has voted, appended and applied."""
    directory = founded(path)
    storage = directory.open_storage(Config())
    storage.write([Write(hard_state=HardState(3, N2), entries=commands(1, 2, 3), commit=3)])
    storage.save_views(3, {"members": b"later"}, THREE)
    storage.close()
    return directory


def test_what_is_set_aside_leaves_an_empty_node_of_the_same_cluster(tmp_path: Path) -> None:
    directory = with_history(str(tmp_path))
    before = directory.directory_id

    folder = Path(directory.set_aside("its vote was damaged"))

    directory = reopened(directory)
    assert directory.cluster_id == CLUSTER and directory.members == ADDRESSES and not directory.is_new
    assert directory.directory_id != before
    storage = directory.open_storage(Config())
    assert (storage.hard_state(), storage.last_index, storage.configuration()) == (
        HardState(), 0, Configuration(),
    )  # fmt: skip
    assert (folder / "REASON").read_text() == "its vote was damaged\n"
    assert sorted(os.listdir(folder)) == ["REASON", "commit", "log", "snapshots", "state-a", "state-b"]
    with Log(folder / "log", read_only=True) as log:
        assert log.last_index == 4


def test_damaged_vote_is_found_and_set_aside(tmp_path: Path) -> None:
    directory = with_history(str(tmp_path))
    for name in ("state-a", "state-b"):
        (tmp_path / name).write_bytes(b"?" * 512)

    with pytest.raises(DamagedState, match="term and vote are lost") as raised:
        directory.open_storage(Config())
    directory.set_aside(str(raised.value))

    assert directory.open_storage(Config()).hard_state() == HardState()


def test_only_the_latest_that_were_set_aside_are_kept(tmp_path: Path) -> None:
    directory = founded(str(tmp_path))

    folders = [Path(directory.set_aside(f"reason {number}")) for number in range(4)]

    assert [folder.exists() for folder in folders] == [False, False, True, True]


class PowerLoss(Exception):
    """The machine stops here."""


class _DyingFile:
    def __init__(self, fs: DyingFileSystem, file: File) -> None:
        self._fs, self._file = fs, file

    def __getattr__(self, name: str) -> object:
        if name in ("write", "write_all", "sync", "truncate"):
            self._fs.count()
        return getattr(self._file, name)


class DyingFileSystem(OsFileSystem):
    """A real one that stops before operation `last`; `lose_names` then takes back what no sync has made durable."""

    def __init__(self, last: int) -> None:
        self._left = last
        self._unsynced: list[tuple[str, str, bytes | None]] = []  # renames: from, to, what was there

    def count(self) -> None:
        if self._left == 0:
            raise PowerLoss
        self._left -= 1

    def create(self, path: str) -> File:  # type: ignore[override]
        self.count()
        return _DyingFile(self, super().create(path))  # type: ignore[return-value]

    def rename(self, old: str, new: str) -> None:
        self.count()
        replaced = Path(new).read_bytes() if os.path.isfile(new) else None
        super().rename(old, new)
        self._unsynced.append((old, new, replaced))

    def remove(self, path: str) -> None:
        self.count()
        super().remove(path)

    def remove_directory(self, path: str) -> None:
        self.count()
        super().remove_directory(path)

    def make_directory(self, path: str) -> None:
        if not os.path.isdir(path):
            self.count()
        super().make_directory(path)

    def sync_directory(self, path: str) -> None:
        self.count()
        super().sync_directory(path)
        self._unsynced = [
            each
            for each in self._unsynced
            if path not in (os.path.dirname(each[0]), os.path.dirname(each[1]))
        ]

    def lose_names(self, number: int) -> None:
        """Take back every `number`-th rename that is not durable."""
        for old, new, replaced in self._unsynced[::-1][::number]:
            os.replace(new, old)
            if replaced is not None:
                Path(new).write_bytes(replaced)


@pytest.mark.parametrize("lost", [0, 1, 2], ids=["killed", "names-lost", "some-names-lost"])
def test_power_loss_at_any_moment_of_setting_aside_leaves_the_old_content_or_an_empty_node(
    tmp_path: Path, lost: int
) -> None:
    outcomes = []
    for last in range(200):
        path = str(tmp_path / str(last))
        directory = with_history(path)
        before = directory.directory_id
        directory.close()
        fs = DyingFileSystem(last)
        has_ended = False
        try:
            directory = DataDirectory.open(path, node_name=N1, filesystem=fs)
            directory.set_aside("because")
            has_ended = True
        except PowerLoss:
            if lost:
                fs.lose_names(lost)
        directory.close()

        directory = DataDirectory.open(path, node_name=N1)
        storage = directory.open_storage(Config())
        is_old = directory.directory_id == before
        outcomes.append(is_old)
        if is_old:
            assert storage.hard_state() == HardState(3, N2)
            assert all_entries(storage) == commands(1, 2, 3)
            assert storage.latest_views() == (3, {"members": b"later"})
        else:
            assert (storage.hard_state(), storage.last_index) == (HardState(), 0)
            assert storage.latest_views() is None
            (aside,) = Path(path, "aside").iterdir()
            assert parse((aside / "state-a").read_bytes()).state == HardState(3, N2)
            with Log(aside / "log", read_only=True) as log:
                assert log.last_index == 4
        storage.close()
        directory.close()
        if has_ended:
            break

    assert has_ended and not outcomes[-1] and len(outcomes) > 20
    assert outcomes == sorted(outcomes, reverse=True)
