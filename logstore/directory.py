"""The folder of one log: which files may be in it, what they are called, and what is remembered of them.

Files are named by the entry index of the segment's first frame, in 20 digits:

    <base>.store     a segment header, then items
    <base>.index     derived from it
    <base>.spare     the store of a removed segment, kept to be overwritten
    <name>.tmp       being written; removed at the next opening
    LOCK             the process that has the log open
    aside/           what recovery cut off; nothing reads it

Other files are left alone.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from logstore.config import MIB
from logstore.filesystem import File, FileSystem

if TYPE_CHECKING:
    from logstore.segment import Segment

INDEX_BYTES_MAX: Final = 128 * MIB  # indexes of sealed segments held in memory; the first loaded goes first

VIEW_BYTES_MAX: Final = 64 * MIB  # value offsets of frames read from lately; all are forgotten at once
VIEW_OVERHEAD_BYTES: Final = 400  # of Python objects, per frame

_NAME: Final = re.compile(r"(\d{20})\.(store|index|spare)(\.tmp)?")


class FileName(NamedTuple):
    base_index: int
    suffix: str  # store, index or spare
    is_unfinished: bool

    @property
    def is_store(self) -> bool:
        return self.suffix == "store" and not self.is_unfinished

    def __str__(self) -> str:
        return f"{self.base_index:020d}.{self.suffix}{'.tmp' if self.is_unfinished else ''}"


def parse_file_name(name: str) -> FileName | None:
    """None for a file that is not a segment's."""
    match = _NAME.fullmatch(name)
    return FileName(int(match[1]), match[2], match[3] is not None) if match else None


class Directory:
    """A folder, the file system that it is on, and the memory that its sealed segments share."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        self.fs = fs
        self.path = path
        # Weak: a removed segment's file takes room on the disk for as long as anything holds it.
        self._lock = threading.Lock()  # guards what follows
        self._loaded: WeakKeyDictionary[Segment, None] = WeakKeyDictionary()  # the first loaded first
        self._with_views: WeakSet[Segment] = WeakSet()
        self._view_bytes = 0

    def store_path(self, base_index: int) -> str:
        return f"{self.path}/{base_index:020d}.store"

    def index_path(self, base_index: int) -> str:
        return f"{self.path}/{base_index:020d}.index"

    def spare_path(self, base_index: int) -> str:
        return f"{self.path}/{base_index:020d}.spare"

    def names(self) -> list[FileName]:
        """The segments' files."""
        return [name for name in map(parse_file_name, self.fs.list(self.path)) if name]

    @property
    def lock_path(self) -> str:
        return f"{self.path}/LOCK"

    @property
    def aside_path(self) -> str:
        return f"{self.path}/aside"

    def remove_if_exists(self, path: str) -> None:
        if self.fs.exists(path):
            self.fs.remove(path)

    def create_temporary(self, path: str) -> File:
        """A new file that is to be renamed to `path` when it is complete."""
        self.remove_if_exists(path + ".tmp")
        return self.fs.create(path + ".tmp")

    def put_in_place(self, path: str) -> None:
        """Give the complete and synced temporary file its name. Durable on return."""
        self.fs.rename(path + ".tmp", path)
        self.sync()

    def sync(self) -> None:
        """Make all names durable."""
        self.fs.sync_directory(self.path)

    def note_loaded(self, segment: Segment) -> None:
        """Bound the memory of loaded indexes; a forgotten one is loaded again when it is needed."""
        with self._lock:
            self._loaded.pop(segment, None)
            self._loaded[segment] = None
            held = sum(one.index_bytes for one in self._loaded)
            for one in list(self._loaded)[:-1]:
                if held <= INDEX_BYTES_MAX:
                    return
                held -= one.index_bytes
                one.forget_index()
                del self._loaded[one]

    def note_view(self, segment: Segment, size: int) -> None:
        """Bound the memory of the value offsets that segments keep."""
        with self._lock:
            if self._view_bytes > VIEW_BYTES_MAX:
                for one in self._with_views:
                    one.forget_views()
                self._with_views.clear()
                self._view_bytes = 0
            self._with_views.add(segment)
            self._view_bytes += size + VIEW_OVERHEAD_BYTES
