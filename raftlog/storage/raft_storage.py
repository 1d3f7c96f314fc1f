"""What a Raft node knows after a restart: the log, term and vote, and snapshots of the views.

Entries are frames of a logstore.Log, whose beginning moves up by truncation. A snapshot that is sent to a follower says two
things: the views' state after some entry S, and the *base*, where this node's log begins, at or below S. The follower
begins its log there and is sent the entries behind it, so that its frames are those of the others:

    the leader's log       base |==================== S =========|
    after the install      base |                     S            the views hold everything up to S
    while it catches up    base |=========>           S            entries up to S are applied again: the views skip them

Until its log reaches S, such a node says after a restart that the base is applied, because that is what its log holds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from logstore import Base, Config, CorruptLog, Kind, Log, RawEntry
from logstore.filesystem import FileSystem
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.log import PendingChange
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, UnreadableEntries, Write
from raftlog.storage import snapshot_file
from raftlog.storage.commit_file import CommitFile
from raftlog.storage.hard_state import DamagedState, HardStateFiles
from raftlog.storage.snapshot_file import BadSnapshot, NewerSnapshot, ViewsSnapshot
from raftlog.storage.snapshot_folder import Received, SnapshotFolder

log = logging.getLogger(__name__)

LOG_FOLDER: Final = "log"
SCAN_BYTES: Final = 4 * 1024 * 1024  # read at once when configuration changes are looked for

_RAFT_KINDS: Final = {kind.value: kind for kind in EntryKind}
_FRAME_KINDS: Final = {kind.value: kind for kind in Kind}


class RaftStorage:
    """Implements raftlog.raft.storage.Storage.

    `write` is called by one thread at a time. Everything else may be called by any thread meanwhile.
    """

    log: Log  # for reading, and to mend damage; only `write` and `truncate` change which entries there are

    def __init__(self, fs: FileSystem, path: str, config: Config) -> None:
        """Open what is in the data directory, and finish what a crash has cut short.

        Raises DamagedState if it does not tell what this node has promised; IdentityError if a newer program wrote
        it; LogLocked, UnsupportedFormat or DiskFull as Log does.
        """
        self.path = path
        self._lock = threading.Lock()  # guards _base, _latest, _changes and _pinned
        # Held while the files of snapshots change, which may take long; taken before _lock.
        self._saving = threading.Lock()
        self._states = HardStateFiles(fs, path)
        self._commits = CommitFile(fs, path)
        self._snapshots = SnapshotFolder(fs, path)
        # A cluster's retention goes through the log, so that all nodes agree on what exists.
        config = replace(
            config,
            retention_bytes_max=None,
            retention_age_ms_max=None,
            retention_records_max=None,
        )
        try:
            self.log = Log(f"{path}/{LOG_FOLDER}", config, filesystem=fs)
        except BaseException as error:
            self._states.close()
            self._commits.close()
            if isinstance(error, CorruptLog):
                raise DamagedState(f"the log is damaged: {error}") from error
            raise
        # Where the log begins for the node; files of what is before may still be there.
        self._base = self.log.base
        self.on_damage: Callable[[int], None] = lambda index: None  # from which entry on something is damaged
        self._installed: Snapshot | None = None  # by this process, the last one
        # What is sent to followers while the base is the same.
        self._pinned: tuple[Snapshot, bytes] | None = None
        self._changes: list[PendingChange] = []  # in the log above the latest snapshot, ascending
        self._latest: ViewsSnapshot | None = None  # of the views, without its sections
        self._latest_bytes = 0
        try:
            latest = self._open_snapshot()
            self._base = self.log.base
            if latest is not None:
                self._remember(latest)
            self._changes = self._find_changes()
        except BaseException:
            self.close()
            raise

    def _open_snapshot(self) -> Received | None:
        """The newest snapshot from which this log goes on; an install that was cut short is finished."""
        base = self.log.base
        for received in self._snapshots.whole_ones():
            begins_at = received.views.base
            if begins_at is not None and begins_at.index > base.index:
                self.log.begin_at(begins_at)
                return received
            if received.views.index >= base.index:
                return received
        if base.index > 0 or self.log.last_index > 0:
            raise DamagedState(
                f"{self.path}: the log begins behind entry {base.index}, and no snapshot that can be read goes so far"
            )
        return None

    def _find_changes(self) -> list[PendingChange]:
        """The configuration changes in the log that the latest snapshot does not contain."""
        index = max(self._latest.index if self._latest else 0, self.log.base.index) + 1
        last = self.log.last_index
        changes: list[PendingChange] = []
        if self.log.configuration.entry_index < index:
            return changes
        try:
            while index <= last:
                entries = self.log.raw_entries(index, last + 1, bytes_max=SCAN_BYTES)
                changes += _changes_among(entries)
                index = entries[-1].index + 1
        except CorruptLog as error:
            raise DamagedState(f"the log is damaged where it was not applied yet: {error}") from error
        return changes

    def _remember(self, received: Received) -> None:
        """It is the latest now."""
        with self._lock:
            self._latest = replace(received.views, sections={})
            self._latest_bytes = received.size_bytes
            self._changes = [change for change in self._changes if change.index > received.views.index]

    # ── what a node reads ───────────────────────────────────────────────────────────────────────────

    def hard_state(self) -> HardState:
        return self._states.state

    @property
    def commit(self) -> int:
        return self._commits.index

    @property
    def applied(self) -> int:
        latest = self._latest
        if latest is None:
            return self.log.base.index
        # One that was made here is of entries that were durable here: if they are gone, the node must find that out.
        is_made_here = latest.base is None
        return latest.index if is_made_here or latest.index <= self.log.last_index else self.log.base.index

    def configuration(self) -> Configuration:
        latest = self._latest
        return Configuration() if latest is None else latest.configuration_at(self.applied)

    @property
    def first_index(self) -> int:
        return self._base.index + 1

    @property
    def last_index(self) -> int:
        return self.log.last_index

    def term(self, index: int) -> int:
        return self.log.term(index)

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        """As Storage says; whoever mends the log is told of damage by `on_damage`."""
        try:
            found = self.log.raw_entries(first, end, bytes_max=bytes_max)
        except CorruptLog as error:
            self.on_damage(first)
            raise UnreadableEntries(str(error)) from error
        return [Entry(index, term, _RAFT_KINDS[kind], data) for index, term, kind, data in found]

    # ── snapshots of the views ──────────────────────────────────────────────────────────────────────

    def latest_views(self) -> tuple[int, Mapping[str, bytes]] | None:
        """(index, state of each view) of the latest snapshot; None if there is none. BadSnapshot if it is damaged."""
        while True:
            latest = self._latest
            if latest is None:
                return None
            try:
                return latest.index, self._snapshots.read(latest.index).sections
            except FileNotFoundError:
                if self._latest is latest:  # else a snapshot has just taken its place
                    raise

    @property
    def views_index(self) -> int:
        """Up to where the latest snapshot of the views goes; 0 if there is none."""
        latest = self._latest
        return 0 if latest is None else latest.index

    def save_views(self, index: int, sections: Mapping[str, bytes], configuration: Configuration) -> int:
        """Write the views' state after entry `index`, where `configuration` is in force; returns the file's bytes.

        Durable on return. Nothing is done if the latest snapshot goes as far. Raises DiskFull, or ValueError where it
        is over a limit (raftlog/storage/snapshot_file.py), with nothing changed.
        """
        with self._saving:
            with self._lock:
                latest, changes = self._latest, [each for each in self._changes if each.index <= index]
                if latest is not None and index <= latest.index:
                    return self._latest_bytes
            configurations = _with_changes(latest.configurations if latest is not None else (), changes)
            known = configurations[-1][1] if configurations else Configuration()
            assert known == configuration, f"{configuration} is said to be in force at {index}, not {known}"
            views = ViewsSnapshot(
                index, self.log.term(index), _from(configurations, self.log.base.index), sections
            )
            size = self._snapshots.write(views)
            self._remember(Received(views, size))
            return size

    def snapshot(self) -> Snapshot | None:
        """Where this log begins, with a size that is that of the views' snapshot for a follower."""
        base = self._base
        with self._lock:
            pinned, latest = self._pinned, self._latest
        if pinned is not None and pinned[0].index == base.index:
            return pinned[0]
        return None if latest is None else self._pin(base, latest.index)

    def _pin(self, base: Base, index: int) -> Snapshot | None:
        """What is sent stays the same, byte for byte, as long as the log begins at the same place."""
        try:
            views = self._snapshots.read(index)
            data = snapshot_file.encode(
                replace(views, base=base, configurations=_from(views.configurations, base.index))
            )
        except (BadSnapshot, NewerSnapshot, OSError, ValueError) as error:
            log.error("the latest snapshot cannot be sent folder=%s reason=%s", self.path, error)
            return None
        snapshot = Snapshot(base.index, base.term, views.configuration_at(base.index), len(data))
        with self._lock:
            self._pinned = snapshot, data
        return snapshot

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        with self._lock:
            pinned = self._pinned
        if pinned is None or pinned[0] != snapshot:
            return None
        return pinned[1][position : position + bytes_max]

    # ── what changes it ─────────────────────────────────────────────────────────────────────────────

    def write(self, writes: Sequence[Write]) -> None:
        """Carry out what several Persist effects ask for, in their order; all of it is durable on return.

        After DiskFull the same writes may be given again. After any other error nothing is known: open it anew.
        BadSnapshot: a peer sent one that is not what it claims to be.
        """
        states = [write.hard_state for write in writes if write.hard_state is not None]
        # Before entries of earlier writes: nobody was told of those yet, so they may as well never have come.
        if states and states[-1] != self._states.state:
            self._states.write(states[-1])
        entries: list[Entry] = []
        commit = 0
        for write in writes:
            if write.snapshot is not None and self._take(write.snapshot):
                entries.clear()  # they were of the log that is gone
            if write.entries:
                _join(entries, write.entries)
            commit = max(commit, write.commit)
        if entries:
            self._put(entries)
        self._commits.advance(min(commit, self.log.last_index))

    def _put(self, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        if first <= self.log.last_index:
            self.log.truncate_entries(first)
            with self._lock:
                self._changes = [change for change in self._changes if change.index < first]
        raw = [RawEntry(index, term, _FRAME_KINDS[kind], data) for index, term, kind, data in entries]
        self.log.append_raw(raw)
        changes = _changes_among(raw)
        if changes:
            with self._lock:
                self._changes += [change for change in changes if change.index > self.views_index]

    def _take(self, part: SnapshotPart) -> bool:
        """Whether the log has begun anew by this part."""
        if part.snapshot == self._installed:
            return part.is_last  # the disk was full after it, and all is written again
        with self._saving:
            received = self._snapshots.take(part)
            if received is None:
                return False
            base = received.views.base
            assert base is not None
            self.log.begin_at(base)
            self._installed = part.snapshot
            with self._lock:
                self._base = base
                self._changes = []
            self._remember(received)
            self._snapshots.remove_all_but(received.views.index)
            return True

    def forget(self, lowest: int, *, below_index: int) -> bool:
        """Let the log begin later: without the oldest segments, all of whose records are below offset `lowest`.

        Only entries below `below_index` that the latest snapshot of the views contains. The node is to be between two
        steps; the files go by `remove_forgotten`, which may take its time. False if there is nothing to forget.
        """
        base = self.log.base_after(lowest, below_index=min(below_index, self.views_index + 1))
        with self._lock:
            is_later = base.index > self._base.index  # not if a snapshot has just taken the log's place
            if is_later:
                self._base = base
        return is_later

    def remove_forgotten(self) -> int:
        """Remove the files of what the log does not begin with any more; returns the bytes freed."""
        base = self._base
        return self.log.truncate(base.offset, below_index=base.index + 1)

    def close(self) -> None:
        """Let the files go. Raises LogPoisoned if the log's last sync failed."""
        try:
            self.log.close()
        finally:
            self._states.close()
            self._commits.close()
            self._snapshots.close()


def _changes_among(entries: Sequence[RawEntry]) -> list[PendingChange]:
    return [PendingChange(entry.index, entry.data) for entry in entries if entry.kind == Kind.CONFIGURATION]


def _join(entries: list[Entry], more: Sequence[Entry]) -> None:
    """Add `more`, which takes the place of everything at and above its first index."""
    first = more[0].index
    while entries and entries[-1].index >= first:
        entries.pop()
    entries += more


def _with_changes(
    configurations: Sequence[tuple[int, Configuration]], changes: Sequence[PendingChange]
) -> list[tuple[int, Configuration]]:
    """The history, and what the changes made of it, as RaftNode applies them."""
    history = list(configurations)
    for change in changes:
        if not history or not history[-1][1].members:
            continue  # the node ignores it, too: what is before it is not known
        try:
            changed = apply_change(history[-1][1], ConfigurationChange.from_bytes(change.data)).configuration
        except InvalidChange:
            continue
        if changed != history[-1][1]:
            history.append((change.index, changed))
    return history


def _from(
    configurations: Sequence[tuple[int, Configuration]], index: int
) -> tuple[tuple[int, Configuration], ...]:
    """Without those that were not in force at `index` any more."""
    older = sum(first <= index for first, _ in configurations)
    return tuple(configurations[max(older - 1, 0) :])
