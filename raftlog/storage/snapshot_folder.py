"""The files of snapshots: those of the views that this node made or was sent, and one that is being received.

snapshots/<index, 20 digits>.snapshot    the views after that entry
snapshots/incoming.tmp                   parts that came so far
snapshots/*.tmp                          being written; removed at the next opening
"""

from __future__ import annotations

import logging
import re
from typing import Final, NamedTuple

from logstore.filesystem import File, FileSystem
from raftlog.errors import IdentityError
from raftlog.raft.messages import Snapshot
from raftlog.raft.storage import SnapshotPart
from raftlog.storage import snapshot_file
from raftlog.storage.files import (
    UNFINISHED,
    folder_of,
    read_whole,
    remove_if_exists,
    replace_whole,
    told_when_full,
)
from raftlog.storage.snapshot_file import SNAPSHOT_BYTES_MAX, BadSnapshot, NewerSnapshot, ViewsSnapshot

log = logging.getLogger(__name__)

FOLDER: Final = "snapshots"
KEPT: Final = 2  # files; the older one in case that the newer is damaged
_NAME: Final = re.compile(r"\d{20}\.snapshot")
_INCOMING: Final = f"incoming{UNFINISHED}"


class Received(NamedTuple):
    """A snapshot that is whole and has its name."""

    views: ViewsSnapshot
    size_bytes: int


class SnapshotFolder:
    """Used by one thread at a time; `read` by any."""

    def __init__(self, fs: FileSystem, folder: str) -> None:
        self._fs = fs
        self._path = f"{folder}/{FOLDER}"
        self._incoming: File | None = None
        self._incoming_of: Snapshot | None = None
        fs.make_directory(self._path)
        for name in fs.list(self._path):
            if name.endswith(UNFINISHED):
                fs.remove(f"{self._path}/{name}")

    def _names(self) -> list[str]:
        """Oldest first."""
        return [name for name in self._fs.list(self._path) if _NAME.fullmatch(name)]

    def _path_of(self, index: int) -> str:
        return f"{self._path}/{index:020d}.snapshot"

    def whole_ones(self) -> list[Received]:
        """Those that can be read, newest first; damaged ones are named in the log.

        Raises IdentityError if one was written by a newer program.
        """
        found = []
        for name in reversed(self._names()):
            path = f"{self._path}/{name}"
            try:
                data = read_whole(self._fs, path)
                views = snapshot_file.decode(data)
                if path != self._path_of(views.index):
                    raise BadSnapshot(f"it is one of entry {views.index}")
            except NewerSnapshot as error:
                raise IdentityError(f"{path}: {error}: use a newer program") from error
            except (BadSnapshot, OSError) as error:
                log.error("damaged snapshot path=%s reason=%s", path, error)
                continue
            found.append(Received(views, len(data)))
        return found

    def read(self, index: int) -> ViewsSnapshot:
        """The snapshot of this entry. Raises BadSnapshot or OSError."""
        return snapshot_file.decode(read_whole(self._fs, self._path_of(index)))

    def write(self, views: ViewsSnapshot) -> int:
        """Keep this snapshot, and only the one before it besides; returns its bytes. Durable on return.

        Raises DiskFull or ValueError with nothing changed.
        """
        data = snapshot_file.encode(views)
        replace_whole(self._fs, self._path_of(views.index), [data])
        for name in self._names()[:-KEPT]:
            self._fs.remove(f"{self._path}/{name}")
        return len(data)

    def remove_all_but(self, index: int) -> None:
        for name in self._names():
            path = f"{self._path}/{name}"
            if path != self._path_of(index):
                self._fs.remove(path)

    # ── one that is being received ──────────────────────────────────────────────────────────────────

    def take(self, part: SnapshotPart) -> Received | None:
        """Keep a part; with the last one the snapshot gets its name, durably, and is returned.

        BadSnapshot if a part is missing or the whole is not what it claims to be. DiskFull: the same part may be
        taken again.
        """
        size = part.position + len(part.data)
        if size > min(part.snapshot.size_bytes, SNAPSHOT_BYTES_MAX):
            raise BadSnapshot(f"{size} bytes came of a snapshot of {part.snapshot.size_bytes}")
        if part.position == 0:
            self._begin(part.snapshot)
        file = self._incoming
        if file is None or self._incoming_of != part.snapshot or file.size() < part.position:
            raise BadSnapshot(f"bytes from {part.position} came, and what is before them is not here")
        with told_when_full(file.path):
            file.truncate(part.position)
            file.write(part.data, part.position)
        return self._finish(file, part.snapshot) if part.is_last else None

    def _begin(self, snapshot: Snapshot) -> None:
        self.close()
        path = f"{self._path}/{_INCOMING}"
        remove_if_exists(self._fs, path)
        with told_when_full(path):
            self._incoming = self._fs.create(path)
        self._incoming_of = snapshot

    def _finish(self, file: File, expected: Snapshot) -> Received:
        data = file.read(file.size(), 0)
        try:
            views = snapshot_file.decode(data)
        except NewerSnapshot as error:
            raise BadSnapshot(f"a snapshot was sent in a format that is not known here: {error}") from error
        base = views.base
        if base is None:
            raise BadSnapshot("a snapshot was sent that does not say where its log begins")
        found = Snapshot(base.index, base.term, views.configuration_at(base.index), len(data))
        if found != expected:
            raise BadSnapshot(f"{expected} was announced, {found} came")
        file.sync()
        self.close()
        path = self._path_of(views.index)
        self._fs.rename(f"{self._path}/{_INCOMING}", path)
        self._fs.sync_directory(folder_of(path))
        return Received(views, len(data))

    def close(self) -> None:
        """Let go of what is being received."""
        file, self._incoming, self._incoming_of = self._incoming, None, None
        if file is not None:
            file.close()
