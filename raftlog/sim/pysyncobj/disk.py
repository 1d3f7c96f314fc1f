"""What PySyncObj keeps between two starts: its journal, its meta file, its dump.

It writes its journal through a memory map and its meta file by a rename, and never syncs either. What a power cut
would leave of them is anybody's guess, so this is kinder than the truth: a crash is the end of the process only, and
every write that was made before it is kept, whole. Without `keeps` it is PySyncObj in its default configuration, which
keeps nothing.
"""

from __future__ import annotations

import io
from random import Random
from typing import Any

Entry = tuple[bytes, int, int]  # command, index, term

DUMP_FILE = "dump"  # names a file of Disk.files, not one of this machine


class Disk:
    """The files of one node."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.entries: list[Entry] = []  # the journal; indexes ascend by one
        self.meta: dict[str, Any] = {}  # term, vote and a commit index that may be old
        self.files: dict[str, bytes] = {}
        # index and term of every entry that ever was in the journal
        self.stored: set[tuple[int, int]] = set()
        self.forgotten: set[tuple[int, int]] = set()  # those that a crash took
        self.removed: list[tuple[int, int]] = []  # those that were cut off, until somebody looks

    def crash(self) -> None:
        """The process ended; what it had not written, or everything if nothing is kept, is gone."""
        if not self.keeps:
            self.forgotten.update((index, term) for _, index, term in self.entries)
            self.entries, self.meta, self.files = [], {}, {}

    def write(self, write: Any) -> None:
        raise AssertionError("PySyncObj never waits for a disk, so nothing is handed to one")

    def write_torn(self, write: Any, random: Random) -> None:
        raise AssertionError("PySyncObj never waits for a disk, so nothing is handed to one")

    def has(self, index: int, term: int) -> bool:
        """Whether this entry is in the journal, or below its start and so in the state that a dump holds."""
        if not self.entries:
            return False
        first = self.entries[0][1]
        if index < first:
            return True
        place = index - first
        return place < len(self.entries) and self.entries[place][2] == term

    def entry(self, index: int) -> Entry | None:
        """The entry at this index, None if the journal does not reach there."""
        if not self.entries or not self.entries[0][1] <= index <= self.entries[-1][1]:
            return None
        return self.entries[index - self.entries[0][1]]

    def tail(self, first: int) -> list[Entry]:
        """The entries from this index on, as far as the journal has them."""
        return self.entries[max(0, first - self.entries[0][1]) :] if self.entries else []

    # What its serializer module asks of the operating system.

    def open(self, name: str, mode: str) -> io.BytesIO:
        """A file to read or write from its start."""
        return io.BytesIO(self.files[name]) if "r" in mode else _Written(self, name)

    def replace(self, source: str, target: str) -> None:
        """Rename, as the one step that it is."""
        self.files[target] = self.files.pop(source)

    def isfile(self, name: str) -> bool:
        """Whether it was ever written."""
        return name in self.files


class _Written(io.BytesIO):
    """A file that is on the disk once it is closed."""

    def __init__(self, disk: Disk, name: str) -> None:
        super().__init__()
        self._disk = disk
        self._name = name

    def close(self) -> None:
        if not self.closed:
            self._disk.files[self._name] = self.getvalue()
        super().close()


class Journal:
    """PySyncObj's journal interface over a disk, storing when its FileJournal stores."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._meta = dict(disk.meta)
        self._is_meta_stored = True

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._disk.entries.append((command, idx, term))
        self._disk.stored.add((idx, term))

    def clear(self) -> None:
        self._disk.removed.extend((index, term) for _, index, term in self._disk.entries)
        self._disk.entries = []

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self._disk.removed.extend((index, term) for _, index, term in self._disk.entries[entryFrom:])
        del self._disk.entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:
        self._disk.entries = self._disk.entries[entryTo:]

    def __getitem__(self, place: Any) -> Any:
        return self._disk.entries[place]

    def __len__(self) -> int:
        return len(self._disk.entries)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._meta["raftCommitIndex"] = raftCommitIndex
        self._is_meta_stored = False

    def getRaftCommitIndex(self) -> int:
        index: int = self._meta.get("raftCommitIndex", 1)
        return index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._meta["currentTerm"] = term
        self._meta["votedForNodeId"] = votedForNodeId
        self._store_meta()

    def getCurrentTerm(self) -> int:
        term: int = self._meta.get("currentTerm", 0)
        return term

    def getVotedForNodeId(self) -> str | None:
        return self._meta.get("votedForNodeId")

    def onOneSecondTimer(self) -> None:
        if not self._is_meta_stored:
            self._store_meta()

    def _store_meta(self) -> None:
        self._disk.meta = dict(self._meta)
        self._is_meta_stored = True
