"""Raft nodes driven by hand (tests/raftlog/raft/cluster.py), each on a RaftStorage beside a model of it in memory.

Everything that a node reads is compared with the model, so what it does is what it would do in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from logstore.testing import CrashFileSystem
from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Entry, EntryKind, Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, Write
from raftlog.storage import RaftStorage
from tests.raftlog.raft.cluster import Cluster, Server
from tests.raftlog.storage.builders import SMALL, THREE, all_entries, founded, joined

PATH = "/data"


def state_of_views(index: int) -> bytes:
    return b"after %d" % index


class Mirror(MemoryStorage):
    """The model, and the disk that is to be like it."""

    def __init__(self, node: NodeId, configuration: Configuration, rng: Random) -> None:
        """A founder if it is in the configuration; else it waits to be sent everything."""
        is_founder = node in configuration.members
        super().__init__(configuration, index=1, term=0) if is_founder else super().__init__(Configuration())
        self._commit = 0
        self.node = node
        self._rng = rng
        self._fs = CrashFileSystem()
        self._make = founded if is_founder else joined
        self.disk = self._open()
        self.written: list[Write] = []

    def _open(self) -> RaftStorage:
        return self._make(PATH, self._fs, node=self.node).open_storage(SMALL)

    # ── what a node reads ───────────────────────────────────────────────────────────────────────────

    def hard_state(self) -> HardState:
        assert self.disk.hard_state() == self._hard_state
        return self._hard_state

    @property
    def commit(self) -> int:
        assert self.disk.commit == self._commit
        return self._commit

    def configuration(self) -> Configuration:
        return self.disk.configuration()

    @property
    def applied(self) -> int:
        assert self._before[0] <= self.disk.applied <= self.last_index
        return self.disk.applied

    @property
    def first_index(self) -> int:
        assert self.disk.first_index == self._before[0] + 1
        return self.disk.first_index

    @property
    def last_index(self) -> int:
        last = super().last_index
        assert self.disk.last_index == last
        return last

    def term(self, index: int) -> int:
        term = super().term(index)
        assert self.disk.term(index) == term
        return term

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        found = self.disk.entries(first, end, bytes_max)
        start = self._before[0] + 1
        assert found and found == self._log[first - start : end - start][: len(found)]
        return found

    def snapshot(self) -> Snapshot | None:
        found = self.disk.snapshot()
        assert found is None or (found.index, found.term) == self._before
        return found

    def snapshot_data(self, snapshot: Snapshot, position: int, bytes_max: int) -> bytes | None:
        return self.disk.snapshot_data(snapshot, position, bytes_max)

    # ── what changes it ─────────────────────────────────────────────────────────────────────────────

    def write(self, write: Write) -> None:
        self.written.append(write)
        self.disk.write([write])
        self._model(write)

    def _model(self, write: Write) -> None:
        super().write(write)
        self._commit = min(self._commit, super().last_index)

    def _take_part(self, part: SnapshotPart) -> None:
        if part.is_last:
            self._log, self._before = [], (part.snapshot.index, part.snapshot.term)

    def save(self, index: int, configuration: Configuration, *, below_index: int) -> None:
        """The views are saved after `index`, and the log begins later if there is a segment to go."""
        self.disk.save_views(index, {"state": state_of_views(index)}, configuration)
        self.disk.forget(0, below_index=below_index)
        self.disk.remove_forgotten()
        base = self.disk.log.base
        gone = base.index - self._before[0]
        if gone > 0:
            assert self._log[gone - 1].term == base.term
            del self._log[:gone]
            self._before = (base.index, base.term)

    # ── crashes ─────────────────────────────────────────────────────────────────────────────────────

    def kill(self) -> None:
        """Only the process dies; everything that it wrote is there."""
        files = self._fs.files()
        self._fs = CrashFileSystem(files, directories=[f"{PATH}/log", f"{PATH}/snapshots"])
        self.disk = self._open()
        self.require_equal()

    def lose_power_in(self, writes: Sequence[Write]) -> None:
        """The power fails at any moment while these are written as one group, or after it."""
        before = len(self._fs.operations)
        old = (self._hard_state, list(self._log), self._before, self._commit)
        self.disk.write(writes)
        for write in writes:
            self._model(write)
        moment = self._rng.randint(before, len(self._fs.operations))
        self._fs = self._fs.crash_point(moment, cut_bytes=8).random_state(self._rng)
        self.disk = self._open()

        log, base = all_entries(self.disk), self.disk.log.base
        assert self.disk.hard_state() in (old[0], self._hard_state)
        assert (base.index, base.term) in (old[2], self._before)
        assert self.disk.commit <= max(old[3], self._commit)
        if (base.index, base.term) == self._before != old[2]:
            assert log == self._log[: len(log)]
        elif self._before == old[2]:
            both = zip(old[1], self._log, strict=False)
            same = next((number for number, (one, two) in enumerate(both) if one != two), None)
            if same is None:
                same = min(len(old[1]), len(self._log))
            assert len(log) >= same
            assert log in (old[1][: len(log)], self._log[: len(log)])
        else:
            assert log == old[1][: len(log)]
        self._hard_state, self._log = self.disk.hard_state(), log
        self._before, self._commit = (base.index, base.term), self.disk.commit
        self.require_equal()

    def require_equal(self) -> None:
        assert self.hard_state() == self._hard_state and self.commit == self._commit
        assert all_entries(self.disk) == self._log and self.first_index == self._before[0] + 1
        latest = self.disk.latest_views()
        if latest is not None and latest[0] > 1:
            assert latest[1] == {"state": state_of_views(latest[0])}


class DiskCluster(Cluster):
    """Three founders; `outside` are up, and know nothing."""

    def __init__(self, rng: Random, *, outside: Sequence[NodeId] = (), **settings: Any) -> None:
        self.rng = rng
        self.changes: dict[int, ConfigurationChange] = {}  # by index; all that any node has applied
        nodes = (*THREE.voters, *outside)
        super().__init__(
            THREE.voters,
            outside=outside,
            storages={node: Mirror(node, THREE, rng) for node in nodes},
            **settings,
        )

    def mirror(self, name: NodeId) -> Mirror:
        storage = self.servers[name].storage
        assert isinstance(storage, Mirror)
        return storage

    def restart(self, name: NodeId) -> None:
        """After a crash: with what was written, or after a power loss while the rest was."""
        mirror, unwritten = self.mirror(name), self.servers[name].unwritten
        if self.rng.random() < 0.5:
            mirror.kill()
        else:
            mirror.lose_power_in([each.write for each in unwritten])
        super().restart(name)
        node = self[name]
        assert node.configuration == self.configuration_after(node.log.applied)

    def _apply(self, server: Server, found: Sequence[Entry]) -> None:
        super()._apply(server, found)
        for entry in found:
            if entry.kind is EntryKind.CONFIGURATION:
                self.changes[entry.index] = ConfigurationChange.from_bytes(entry.data)

    def wake_next(self) -> None:
        """As for any cluster; a node that is no voter, or whose disk stalls, waits for nothing."""
        deadlines = [
            (deadline, name)
            for name, server in self.servers.items()
            if (deadline := server.node.deadline()) is not None
        ]
        if deadlines:
            self.wake(min(deadlines)[1])

    def configuration_after(self, index: int) -> Configuration:
        """By what nodes have applied; none before the cluster's first entry."""
        if index == 0:
            return Configuration()
        configuration = self.configuration
        for each in sorted(self.changes):
            if each <= index:
                try:
                    configuration = apply_change(configuration, self.changes[each]).configuration
                except InvalidChange:
                    continue
        return configuration

    def save(self, name: NodeId, *, keep: int) -> None:
        """The node saves its views, and forgets entries but the last `keep` of those that they contain."""
        node, mirror = self[name], self.mirror(name)
        index = node.log.applied
        # The views are ahead of what is applied after a snapshot; then there is nothing to save.
        if index > max(mirror.disk.views_index, 1) and node.log.installing is None:
            mirror.save(index, node.configuration, below_index=index + 1 - keep)
