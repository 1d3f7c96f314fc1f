"""PySyncObj's journal, which is the log of records: one entry is one frame of logstore, and nothing is stored twice.

What PySyncObj appends waits here until `flush`, so that all entries of one turn share one sync. Whoever drives it sends
nothing, and lets it count nothing as committed, before that.

PySyncObj's own journal is not synced, has no checksums and holds every entry in memory; this one has none of that. What
it keeps beside the entries: term and vote (twice), how far the log is known to be committed, and the members as of there.

    pysyncobj.json  whose data this is, and who the members are
    log/            the entries; none is ever removed, because there are no snapshots to bring a newcomer up with
    state-a, -b     term and vote
    commit          how far the log is known to be committed and applied
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, overload

from logstore import Config, Log, RawEntry
from logstore.filesystem import OsFileSystem
from logstore.frame import Kind
from raftlog.engine import NodeId
from raftlog.errors import IdentityError, NodeFailed
from raftlog.pysyncobj.codec import FIRST_INDEX, MEMBERSHIP, NOTHING, RECORDS, Change, Entry, decode_change
from raftlog.pysyncobj.producers import StoredBatches
from raftlog.raft.log import LostEntries
from raftlog.raft.storage import HardState
from raftlog.storage.commit_file import NAME as COMMIT_FILE
from raftlog.storage.commit_file import CommitFile
from raftlog.storage.files import read_whole, remove_tree, replace_whole
from raftlog.storage.hard_state import NAMES as STATE_FILES
from raftlog.storage.hard_state import HardStateFiles

NAME: Final = "pysyncobj.json"
FORMAT_VERSION: Final = 1
LOG_FOLDER: Final = "log"
RECENT_BYTES_MAX: Final = 8 * 1024 * 1024  # of the latest entries, kept for followers; older are read again
RECENT_MAX: Final = 4096  # the same in entries
PAGE_BYTES: Final = 1024 * 1024  # read at a time, and sent in one message; a larger entry comes alone

_KINDS: Final = {RECORDS: Kind.RECORDS, NOTHING: Kind.NOOP, MEMBERSHIP: Kind.CONFIGURATION}
_TYPES: Final = {kind: bytes([number]) for number, kind in _KINDS.items()}


class Member(NamedTuple):
    """Where a member is, and which data directory it has."""

    address: str
    directory_id: str  # "": not known, any will do


Members = dict[NodeId, Member]


class Entries(Sequence[Entry]):
    """Entries first..end-1 of the journal, read when they are looked at: PySyncObj slices to the end, and looks at few."""

    def __init__(self, journal: Journal, first: int, end: int) -> None:
        self._journal = journal
        self._first = first
        self._end = max(first, end)

    def __len__(self) -> int:
        return self._end - self._first

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Entries: ...
    def __getitem__(self, place: int | slice) -> Entry | Entries:
        places = range(self._first, self._end)[place]
        if isinstance(places, range):
            return Entries(self._journal, places.start, places.stop)
        return self._journal.entry(places)

    def __iter__(self) -> Iterator[Entry]:
        index = self._first
        while index < self._end:
            for entry in self._journal.page(index, self._end):
                yield entry
                index += 1


class Journal:
    """Of one node; the names in camel case are PySyncObj's. A disk that fails or is full raises: the node must stop."""

    members: Members  # as of `applied`; moved by `applied_to` alone

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: Config,
        *,
        node: NodeId,
        cluster_id: str,
        members: Mapping[NodeId, str],
    ) -> None:
        """Open it, or make it for a node whose cluster has these members (addresses; they count only then).

        It holds term and vote, so it must not be made anew for a node that has voted: join it under another name.

        Raises IdentityError if it is another's, LostEntries if entries that were committed are not there, DamagedState,
        and what logstore raises.
        """
        assert node in members, "a server has to be told all members, itself among them"
        self.folder, self.node, self.cluster_id = os.fspath(folder), node, cluster_id
        self._fs = fs = OsFileSystem()
        is_new = not fs.exists(f"{self.folder}/{NAME}")
        fs.make_directory(self.folder)
        # Retention would remove entries that a newcomer needs: there are no snapshots.
        limits = replace(
            config, retention_bytes_max=None, retention_age_ms_max=None, retention_records_max=None
        )
        if is_new:
            self._make(members)
        self.members, index = self._read()
        self.log = Log(f"{self.folder}/{LOG_FOLDER}", replace(limits, sync="always"))
        self._state = HardStateFiles(fs, self.folder)
        self._commit = CommitFile(fs, self.folder)
        self.applied = max(self._commit.index, index, FIRST_INDEX)
        self._unflushed: list[RawEntry] = []
        self._recent: list[Entry] = []  # the last entries, those that are not flushed among them
        self._recent_bytes = 0
        self.last_index = self.log.last_index
        if self.last_index < FIRST_INDEX:
            self.add(bytes([NOTHING]), FIRST_INDEX, 0)
            self.flush()
        if self.last_index < self.applied:
            self.close()
            raise LostEntries(
                f"{self.folder}: entries up to {self.applied} were committed, the log ends at {self.last_index}"
            )
        self.committed = self.applied  # entries up to here are never cut off; moved by PySyncObj
        self.stored = StoredBatches(self)  # as of `applied`; moved by the replica

    # ── whose it is ──

    def _make(self, members: Mapping[NodeId, str]) -> None:
        if self._fs.exists(f"{self.folder}/{LOG_FOLDER}/LOCK"):
            raise IdentityError(
                f"{self.folder} holds a log that this engine did not make: use an empty directory"
            )
        for name in (*STATE_FILES, COMMIT_FILE):  # of an attempt that was interrupted
            remove_tree(self._fs, f"{self.folder}/{name}")
        HardStateFiles.create(self._fs, self.folder)
        self._write({id: Member(address, "") for id, address in members.items()}, FIRST_INDEX)

    def _write(self, members: Members, index: int) -> None:
        content = {
            "format": FORMAT_VERSION, "node": self.node, "cluster_id": self.cluster_id, "index": index, "members": members,
        }  # fmt: skip
        replace_whole(self._fs, f"{self.folder}/{NAME}", [json.dumps(content, indent=1).encode()])

    def _read(self) -> tuple[Members, int]:
        """The members, and the index as of which they were written."""
        path = f"{self.folder}/{NAME}"
        wanted = [FORMAT_VERSION, self.node, self.cluster_id]
        try:
            content = json.loads(read_whole(self._fs, path))
            known = [content["format"], content["node"], content["cluster_id"]]
            members = {NodeId(id): Member(*fields) for id, fields in content["members"].items()}
            index = int(content["index"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IdentityError(
                f"{path} is damaged ({error}): begin with an empty directory and join again"
            ) from error
        if known != wanted:
            raise IdentityError(f"{path}: format, node and cluster are {known}, not {wanted}")
        return members, index

    def newest_members(self) -> Members:
        """As of the last entry: a change counts from when it is appended."""
        members = dict(self.members)
        for command, _, _ in Entries(self, self.applied + 1, self.last_index + 1):
            if command[0] == MEMBERSHIP:
                _obey(decode_change(command), members)
        return members

    def apply_change(self, change: Change, index: int) -> None:
        """The change in entry `index` is committed: durable on return, so that it is known after a restart."""
        _obey(change, self.members)
        self._write(self.members, index)

    def applied_to(self, index: int) -> None:
        """All entries up to here are committed, durable and applied."""
        if index > self.applied:
            self.applied = index
            self._commit.advance(index)

    # ── entries ──

    def flush(self) -> None:
        """Make durable what was added."""
        if self._unflushed:
            self.log.append_raw(self._unflushed)
            self._unflushed = []

    def entry(self, index: int) -> Entry:
        return self.page(index, index + 1)[0]

    def term(self, index: int) -> int:
        place = index - (self.last_index + 1 - len(self._recent))
        return self._recent[place][2] if place >= 0 else self.log.term(index)

    def page(self, first: int, end: int) -> Sequence[Entry]:
        """Entries from `first` on, before `end`: as many as fit PAGE_BYTES, at least one."""
        recent_first = self.last_index + 1 - len(self._recent)
        if first < recent_first:
            raw = self.log.raw_entries(first, min(end, recent_first), bytes_max=PAGE_BYTES)
            return [(_TYPES[entry.kind] + entry.data, entry.index, entry.term) for entry in raw]
        place, size = first - recent_first, 0
        stop = place
        while (
            stop < len(self._recent) and stop - place < end - first and (stop == place or size < PAGE_BYTES)
        ):
            size += len(self._recent[stop][0])
            stop += 1
        return self._recent[place:stop]

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert idx == self.last_index + 1, (idx, self.last_index)
        kind = _KINDS[command[0]]
        self._unflushed.append(RawEntry(idx, term, kind, command[1:]))
        self._recent.append((command, idx, term))
        self._recent_bytes += len(command)
        self.last_index = idx
        if self._recent_bytes > 2 * RECENT_BYTES_MAX or len(self._recent) > 2 * RECENT_MAX:
            self._forget()

    def _forget(self) -> None:
        """Let go of half of what is kept, so that it is done seldom."""
        self.flush()
        while self._recent_bytes > RECENT_BYTES_MAX or len(self._recent) > RECENT_MAX:
            half = len(self._recent) // 2 + 1
            self._recent_bytes -= sum(len(command) for command, _, _ in self._recent[:half])
            del self._recent[:half]

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        index = entryFrom + FIRST_INDEX
        if index > self.last_index:
            return
        if index <= self.committed:
            raise NodeFailed(
                f"PySyncObj would cut off entry {index}; entries up to {self.committed} are committed"
            )
        self.flush()
        self.log.truncate_entries(index)
        self._recent, self._recent_bytes = [], 0
        self.last_index = index - 1

    def clear(self) -> None:
        raise AssertionError("there are no dumps, so the journal never begins anew")

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise AssertionError("there are no dumps, so the journal never loses its beginning")

    def __len__(self) -> int:
        return self.last_index + 1 - FIRST_INDEX

    def __getitem__(self, place: Any) -> Any:
        if place == -1 and self._recent:  # PySyncObj asks for it all the time
            return self._recent[-1]
        return Entries(self, FIRST_INDEX, self.last_index + 1)[place]

    # ── what is kept beside ──

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self.committed = max(self.committed, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        return self.committed

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        state = HardState(term, None if votedForNodeId is None else NodeId(votedForNodeId))
        if state != self._state.state:
            self._state.write(state)

    def getCurrentTerm(self) -> int:
        return self._state.state.term

    def getVotedForNodeId(self) -> str | None:
        return self._state.state.vote

    def onOneSecondTimer(self) -> None:
        pass

    def _destroy(self) -> None:
        self.close()

    def close(self) -> None:
        try:
            self.log.close()
        finally:
            self._state.close()
            self._commit.close()


def _obey(change: Change, members: Members) -> None:
    if change.adds:
        members[change.node] = Member(change.address, change.directory_id)
    else:
        members.pop(change.node, None)
