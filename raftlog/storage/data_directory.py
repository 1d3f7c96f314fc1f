"""The folder of one node: who it is, and what it holds.

    node.json       whose data this is
    LOCK            the process that has it open
    log/            the entries (logstore)
    state-a, -b     term and vote, twice
    commit          how far the log is known to be committed
    snapshots/      the views' state
    aside/          what was set aside because it was damaged; nothing reads it

The first content is there once node.json is; what a crash left without one is thrown away. What is moved later is
announced in node.json before, and finished by the next opening.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol, Self

from logstore import Base, Config, LogLocked
from logstore.filesystem import FileSystem, Lock, OsFileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.raft.configuration import Configuration
from raftlog.storage import hard_state, identity
from raftlog.storage.commit_file import NAME as COMMIT_FILE
from raftlog.storage.files import UNFINISHED, remove_if_exists, remove_tree, replace_whole
from raftlog.storage.hard_state import HardStateFiles
from raftlog.storage.identity import Identity, Stage
from raftlog.storage.raft_storage import LOG_FOLDER, RaftStorage
from raftlog.storage.snapshot_file import ViewsSnapshot
from raftlog.storage.snapshot_folder import FOLDER as SNAPSHOT_FOLDER
from raftlog.storage.snapshot_folder import SnapshotFolder

log = logging.getLogger(__name__)

ASIDE: Final = "aside"
ASIDE_MAX: Final = 2  # folders kept; beyond it the oldest goes, for each may be as large as the log
CONTENT: Final = (LOG_FOLDER, *hard_state.NAMES, COMMIT_FILE, SNAPSHOT_FOLDER)

# A cluster's log begins behind an entry that nobody has, so who joins later is sent a snapshot, and with it the
# configuration. Its term is the one that nodes are in who have not yet heard of any.
FIRST_BASE: Final = Base(index=1, term=0, offset=0, time=0, chain=0)


class MemberFields(Protocol):
    """What is asked of a member when a cluster begins."""

    @property
    def address(self) -> str: ...


class DataDirectory:
    """Open and locked. Made by `open`."""

    is_new: bool  # it holds nothing yet: `bootstrap` or `join` makes its content

    def __init__(self, fs: FileSystem, path: str, lock: Lock, node_name: NodeId) -> None:
        self.path = path
        self._fs = fs
        self._lock = lock
        known = _who(fs, path, node_name)
        self.is_new = known is None
        self._identity = known or Identity(node_name, "", str(uuid.uuid4()), Stage.READY)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, node_name: NodeId, filesystem: FileSystem | None = None
    ) -> Self:
        """The directory at `path`, which is made, for its owner alone, if there is none.

        Raises IdentityError if it is another node's, is in use, or holds what no cluster or a newer program made.
        """
        fs, place = filesystem or OsFileSystem(), os.fspath(path)
        if not fs.exists(place):
            fs.make_directory(place)
            if filesystem is None:
                os.chmod(place, 0o700)
        try:
            lock = fs.lock(f"{place}/LOCK")
        except LogLocked as error:
            holder = "another process" if error.pid is None else f"process {error.pid}"
            raise IdentityError(
                f"{place} is in use by {holder}: a node's data is used by one process"
            ) from error
        try:
            directory = cls(fs, place, lock, node_name)
            if directory._identity.stage is Stage.SETTING_ASIDE:
                directory._finish_setting_aside()
        except BaseException:
            lock.close()
            raise
        return directory

    @property
    def node_name(self) -> NodeId:
        return self._identity.node

    @property
    def cluster_id(self) -> str:
        """Empty while it is new."""
        return "" if self.is_new else self._identity.cluster_id

    @property
    def directory_id(self) -> str:
        """Stands for this content: made once, and anew when it was set aside."""
        return self._identity.directory_id

    @property
    def members(self) -> dict[NodeId, str]:
        """Address of each member that was known last; to ask for the cluster after a restart."""
        return {} if self.is_new else dict(self._identity.members)

    # ── the first content ───────────────────────────────────────────────────────────────────────────

    def bootstrap(
        self,
        cluster_id: str,
        members: Mapping[NodeId, MemberFields],
        sections: Mapping[str, bytes] | None = None,
    ) -> None:
        """Begin a cluster of these voters together with them; `sections` is the first state of its views.

        Nothing is done if this is one of that cluster's nodes already. Raises IdentityError if it is another
        cluster's. Durable on return; after a crash meanwhile it is new still.
        """
        if not self.is_new:
            self._require_cluster(cluster_id)
            return
        configuration = Configuration(tuple(sorted(members)))
        first = ViewsSnapshot(
            FIRST_BASE.index,
            FIRST_BASE.term,
            ((FIRST_BASE.index, configuration),),
            sections or {},
            FIRST_BASE,
        )
        self._make(cluster_id, {node: each.address for node, each in members.items()}, first)

    def join(self, cluster_id: str, members: Mapping[NodeId, str] | None = None) -> None:
        """Be empty, and wait for a leader of this cluster to send everything. `members` are known addresses.

        Nothing is done if this is one of that cluster's nodes already. Raises IdentityError if it is another
        cluster's.
        """
        if self.is_new:
            self._make(cluster_id, members or {}, None)
        else:
            self._require_cluster(cluster_id)

    def _require_cluster(self, cluster_id: str) -> None:
        known = self._identity.cluster_id
        if known != cluster_id:
            raise IdentityError(
                f"{self.path} holds data of cluster {known}, not of {cluster_id}: "
                "use another data directory, or this node's own cluster"
            )

    def _make(self, cluster_id: str, members: Mapping[NodeId, str], first: ViewsSnapshot | None) -> None:
        self._make_content(first)
        self._become(replace(self._identity, cluster_id=cluster_id, members=dict(members)))
        self.is_new = False

    def _make_content(self, first: ViewsSnapshot | None) -> None:
        """What a node holds that has promised nothing; whatever was there is thrown away."""
        for name in CONTENT:
            remove_tree(self._fs, f"{self.path}/{name}")
        if first is not None:
            SnapshotFolder(self._fs, self.path).write(first)  # the first opening begins the log at its base
        HardStateFiles.create(self._fs, self.path)
        self._fs.sync_directory(self.path)

    def _become(self, known: Identity) -> None:
        identity.write(self._fs, self.path, known)
        self._identity = known

    # ── later ───────────────────────────────────────────────────────────────────────────────────────

    def open_storage(self, config: Config) -> RaftStorage:
        """What the node knows; close it before the directory. Raises DamagedState: then `set_aside` and open it again.

        Other errors are those of RaftStorage.
        """
        assert not self.is_new, "bootstrap or join comes first"
        return RaftStorage(self._fs, self.path, config)

    def remember_members(self, members: Mapping[NodeId, str]) -> None:
        """Keep these addresses for the next start. Durable on return; nothing is done if they are known."""
        if dict(members) != dict(self._identity.members):
            self._become(replace(self._identity, members=dict(members)))

    def change_cluster(self, cluster_id: str) -> None:
        """Be of another cluster from now on, with the content that is here, and know none of the old members. Durable."""
        self._become(replace(self._identity, cluster_id=cluster_id, members={}))

    def set_aside(self, reason: str) -> str:
        """Move the content to aside/, and be an empty node of the same cluster with another directory id.

        The storage must be closed. Durable on return, and once begun, it is finished by the next opening. Returns the
        folder, which also holds the reason.
        """
        name = self._name_aside()
        self._become(
            replace(self._identity, directory_id=str(uuid.uuid4()), stage=Stage.SETTING_ASIDE, aside=name)
        )
        log.error("data set aside folder=%s/%s/%s reason=%s", self.path, ASIDE, name, reason)
        self._finish_setting_aside(reason)
        return f"{self.path}/{ASIDE}/{name}"

    def _name_aside(self) -> str:
        """A folder for which there is room, in the order of time."""
        folder = f"{self.path}/{ASIDE}"
        self._fs.make_directory(folder)
        names = self._fs.list(folder)
        for name in names[: max(len(names) - ASIDE_MAX + 1, 0)]:
            remove_tree(self._fs, f"{folder}/{name}")
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        numbers = [int(name.rpartition("-")[2]) for name in names if name.startswith(f"{moment}-")]
        number = max(numbers, default=0) + 1
        return f"{moment}-{number}"

    def _finish_setting_aside(self, reason: str = "not known: it was interrupted") -> None:
        folder = f"{self.path}/{ASIDE}/{self._identity.aside}"
        self._fs.make_directory(folder)
        for name in CONTENT:
            # What is there already was moved before; then this one is new and empty.
            if self._fs.exists(f"{self.path}/{name}") and not self._fs.exists(f"{folder}/{name}"):
                self._fs.rename(f"{self.path}/{name}", f"{folder}/{name}")
        self._fs.sync_directory(folder)
        self._fs.sync_directory(self.path)
        if not self._fs.exists(f"{folder}/REASON"):
            replace_whole(self._fs, f"{folder}/REASON", [reason.encode() + b"\n"])
        self._make_content(None)
        self._become(replace(self._identity, stage=Stage.READY, aside=""))

    def close(self) -> None:
        self._lock.close()


def _who(fs: FileSystem, path: str, node_name: NodeId) -> Identity | None:
    """Whose data is there; None if it is nobody's yet."""
    remove_if_exists(fs, f"{path}/{identity.NAME}{UNFINISHED}")
    known = identity.read(fs, path)
    if known is None:
        folder = f"{path}/{LOG_FOLDER}"
        if fs.exists(folder) and any(name.endswith(".store") for name in fs.list(folder)):
            raise IdentityError(
                f"{folder} holds a log that no cluster made: move it elsewhere, start with an empty directory, and "
                "produce its records again (`logstore cat` reads them)"
            )
        return None
    if known.node != node_name:
        raise IdentityError(
            f"{path} holds data of node {known.node}, not of {node_name}: "
            "use this node's own directory, or the name that the data has"
        )
    return known
