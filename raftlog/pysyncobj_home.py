"""Whose data a directory of the engine pysyncobj holds; what is in it is the journal's (raftlog/pysyncobj/journal.py).

LOCK                 the process that has it open
pysyncobj/node.json  node, cluster and directory, as raftlog/storage/identity.py has them, and the members that the
                     node was told of at its beginning: with itself if it is one of those who began the cluster
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Final

from logstore import LogLocked
from logstore.filesystem import OsFileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.storage import identity
from raftlog.storage.files import UNFINISHED, remove_if_exists
from raftlog.storage.identity import Identity, Stage

FOLDER: Final = "pysyncobj"


class PySyncObjHome:
    """Open and locked."""

    def __init__(self, path: str | os.PathLike[str], node: NodeId) -> None:
        """Make the directory, for its owner alone, if there is none.

        IdentityError if it is another node's, of another engine, or in use.
        """
        self._fs = fs = OsFileSystem()
        place = os.fspath(path)
        self.folder = f"{place}/{FOLDER}"
        if not fs.exists(place):
            fs.make_directory(place)
            os.chmod(place, 0o700)
        try:
            self._lock = fs.lock(f"{place}/LOCK")
        except LogLocked as error:
            holder = "another process" if error.pid is None else f"process {error.pid}"
            raise IdentityError(
                f"{place} is in use by {holder}: a node's data is used by one process"
            ) from error
        try:
            if fs.exists(f"{place}/{identity.NAME}"):
                raise IdentityError(
                    f'{place} holds data of the engine raft: start with engine = "raft", or use another data directory'
                )
            self._known = self._read(node)
        except BaseException:
            self._lock.close()
            raise
        self._node = node

    def _read(self, node: NodeId) -> Identity | None:
        self._fs.make_directory(self.folder)
        remove_if_exists(self._fs, f"{self.folder}/{identity.NAME}{UNFINISHED}")
        known = identity.read(self._fs, self.folder)
        if known is not None and known.node != node:
            raise IdentityError(
                f"{self.folder} holds data of node {known.node}, not of {node}: "
                "use this node's own directory, or the name that the data has"
            )
        return known

    @property
    def is_new(self) -> bool:
        """It holds nothing yet: `begin` comes first."""
        return self._known is None

    @property
    def identity(self) -> Identity:
        assert self._known is not None, "begin comes first"
        return self._known

    def begin(self, cluster_id: str, members: Mapping[NodeId, str]) -> None:
        """Be a node of this cluster, whose members have these addresses. Durable on return."""
        known = Identity(self._node, cluster_id, str(uuid.uuid4()), Stage.READY, dict(members))
        identity.write(self._fs, self.folder, known)
        self._known = known

    def close(self) -> None:
        self._lock.close()
