"""A new cluster out of one server of an old one whose quorum is lost for good. Offline; `raftlog recover` is how.

What this server has is taken for the truth: entries that no quorum had become part of the log, and what was acknowledged
without this server is lost. The log goes on behind its last entry, in a new term, with changes of the configuration
that leave this server alone; so whoever joins later replays the same history. The cluster has a new id, and the old
members, should one come back, are refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from logstore import Config
from logstore.filesystem import OsFileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.machines.views import Views
from raftlog.raft.configuration import (
    Change,
    ChangeKind,
    Configuration,
    ConfigurationChange,
    apply_change,
)
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import HardState, Write
from raftlog.storage import identity
from raftlog.storage.data_directory import DataDirectory
from raftlog.storage.hard_state import DamagedState
from raftlog.storage.raft_storage import RaftStorage

READ_BYTES: Final = 8 * 1024 * 1024  # of entries at once


class Found(NamedTuple):
    """What a data directory holds: the server to recover from is the one with the highest term, then last entry."""

    node: str
    cluster_id: str
    term: int  # of the last entry
    last_index: int
    commit_index: int  # known to be committed; what is above may or may not have been acknowledged
    start: int  # record offsets
    end: int
    members: tuple[str, ...]


class Recovery:
    """An opened data directory. Made by `opened`."""

    def __init__(self, directory: DataDirectory, storage: RaftStorage) -> None:
        """IdentityError if it does not hold a log that a cluster could begin with."""
        self._directory = directory
        self._storage = storage
        self._views = _views_at_the_end(directory.path, storage)
        last = storage.last_index
        self.found = Found(
            directory.node_name, directory.cluster_id, storage.term(last), last, min(storage.commit, last),
            max(self._views.log_start, storage.log.start), self._views.next_offset,
            self._views.members.configuration.members,
        )  # fmt: skip

    def force(self) -> str:
        """Make this server a cluster of its own and return the new cluster's id. Interrupted, it is to be run again."""
        cluster_id = str(uuid.uuid4())
        # First: from here on this server cannot meet the others, whatever of the rest is done.
        self._directory.change_cluster(cluster_id)
        storage, views, node = self._storage, self._views, self._directory.node_name
        term = max(storage.hard_state().term, self.found.term) + 1
        index = storage.last_index
        entries = []
        for change in changes_to_alone(views.members.configuration, node):
            index += 1
            entries.append(Entry(index, term, EntryKind.CONFIGURATION, change.to_bytes()))
        storage.write([Write(hard_state=HardState(term, node), entries=entries, commit=index)])
        for entry in entries:
            views.apply(entry)
        storage.save_views(views.index, views.to_sections(), views.members.configuration)
        return cluster_id


@contextmanager
def opened(path: Path) -> Iterator[Recovery]:
    """The data directory of a server that does not run. Raises IdentityError, DamagedState, or what Log raises."""
    known = identity.read(OsFileSystem(), str(path)) if path.is_dir() else None
    if known is None:
        raise IdentityError(f"{path} is no server's data directory: it holds no {identity.NAME}")
    directory = DataDirectory.open(path, node_name=known.node)
    try:
        if directory.is_new:
            raise IdentityError(f"{path} holds no part of a cluster yet")
        storage = directory.open_storage(Config())
        try:
            yield Recovery(directory, storage)
        finally:
            storage.close()
    finally:
        directory.close()


def _views_at_the_end(path: str, storage: RaftStorage) -> Views:
    """The views after the last entry of the log."""
    latest = storage.latest_views()
    if latest is None:
        raise IdentityError(f"{path} holds nothing of its cluster's log yet: take another server's")
    views = Views.from_sections(*latest)
    last = storage.last_index
    if views.index > last:
        raise DamagedState(
            f"{path}: this server was being caught up, and lacks entries {last + 1} to {views.index}: take another one's"
        )
    while views.index < last:
        for entry in storage.entries(views.index + 1, last + 1, READ_BYTES):
            views.apply(entry)
    return views


def changes_to_alone(configuration: Configuration, node: NodeId) -> list[ConfigurationChange]:
    """What makes `node` the only member, as changes to be applied one after the other."""
    changes: list[ConfigurationChange] = []

    def add(change: ConfigurationChange) -> None:
        nonlocal configuration
        configuration = apply_change(configuration, change).configuration
        changes.append(change)

    leave = ConfigurationChange(())
    if configuration.is_joint:
        add(leave)
    steps = [] if node in configuration.voters else [Change(ChangeKind.ADD_VOTER, node)]
    steps += [Change(ChangeKind.REMOVE, other) for other in configuration.members if other != node]
    if steps:
        add(ConfigurationChange(tuple(steps)))
    if configuration.is_joint:
        add(leave)
    assert configuration == Configuration((node,)), configuration
    return changes
