"""A stand-in for the log of a cluster: a log of this process that can be told who leads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import logstore
from logstore import Config, RawEntry, RecordBatch
from logstore.batch import check_wire_frame
from logstore.encode import encode_batch
from logstore.frame import parse_frame_header, wire_frame
from raftlog.errors import NotLeader, SequenceGap, StaleEpoch, UnexpectedOffset


class FakeServer(NamedTuple):
    id: str
    address: str
    is_leader: bool
    is_voter: bool


class FakeMember(NamedTuple):
    id: str
    address: str
    directory_id: str = ""
    is_voter: bool = True
    is_leader: bool = False
    match_index: int = 0
    state: str = ""
    is_active: bool = False


class FakeStatus(NamedTuple):
    node_id: str = "one"
    cluster_id: str = "cluster"
    directory_id: str = "directory"
    role: str = "leader"
    term: int = 3
    leader_id: str = "one"
    first_index: int = 2
    last_index: int = 9
    commit_index: int = 8
    applied_index: int = 7
    snapshot_index: int = 4
    members: tuple[FakeMember, ...] = (FakeMember("one", "one:8400", "directory", is_leader=True),)
    configuration: str = "voters one"
    engine: str = "raft"
    trouble: str = ""
    format_version: int = 1


class FakeCursor(NamedTuple):
    group: str
    offset: int
    time: int = 0


class _Stored(NamedTuple):
    epoch: int
    first_sequence: int
    end_sequence: int
    first_offset: int


class FakeClusterLog(logstore.Log):
    """Stores what it is given if it leads. Idempotent producers get the answer of the first time for any part of a
    batch that was stored, and SequenceGap for what is stored only in part."""

    def __init__(self, path: Path | str, config: Config | None = None, **more: Any) -> None:
        super().__init__(path, config or Config(sync="never"), **more)
        self.elsewhere: NotLeader | None = None  # where the leader is; None: here
        self.lost: Exception | None = None  # set on every append from now on, as by a leader that is deposed
        self.behind = False  # no quorum tells what was acknowledged
        self.batches_begun: list[tuple[int, int, int, int]] = []  # (producer, epoch, first sequence, count)
        self.asked: list[tuple[Any, ...]] = []  # what was asked of the cluster
        self.kept: dict[str, int] = {}  # cursors
        self.held: list[RawEntry] = []  # what a server that mends its log can fetch
        self._stored: dict[int, list[_Stored]] = {}  # by producer
        self._next_offset = self.end

    def require_leader(self) -> None:
        if self.elsewhere is not None:
            raise self.elsewhere

    def begin_append(
        self, batch: Any, *, expected_offset: int | None = None
    ) -> tuple[int, asyncio.Future[int]]:
        self.require_leader()
        frame = self._frame_of(batch)
        header = parse_frame_header(frame)
        count = header.record_count
        self.batches_begun.append((header.producer_id, header.producer_epoch, header.first_sequence, count))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return count, future
        first = self._find_or_refuse(header.producer_id, header.producer_epoch, header.first_sequence, count)
        if first is not None:
            future.set_result(first)
            return count, future
        if expected_offset not in (None, self._next_offset):
            raise UnexpectedOffset(expected_offset, self._next_offset)
        _, done = super().begin_append(batch)
        if header.producer_id:
            end = header.first_sequence + count
            self._stored.setdefault(header.producer_id, []).append(
                _Stored(header.producer_epoch, header.first_sequence, end, self._next_offset)
            )
        self._next_offset += count
        return count, done

    def _frame_of(self, batch: Any) -> bytes:
        if isinstance(batch, bytes):
            check_wire_frame(batch, self.config)
            return batch
        if isinstance(batch, RecordBatch):
            batch.payload(self.config)  # refuses what is too large
            return batch.to_bytes()
        return wire_frame(encode_batch(batch, self.config))

    def _find_or_refuse(self, producer: int, epoch: int, sequence: int, count: int) -> int | None:
        known = self._stored.get(producer, [])
        if not producer or not known:
            return None
        newest = known[-1]
        if epoch < newest.epoch:
            raise StaleEpoch(epoch, newest.epoch)
        same = [one for one in known if one.epoch == epoch]
        for one in same:
            if one.first_sequence <= sequence and sequence + count <= one.end_sequence:
                return one.first_offset + sequence - one.first_sequence
        following = same[-1].end_sequence if same else 0
        if sequence != following:
            raise SequenceGap(sequence, following)
        return None

    async def read_index(self, timeout_s: float) -> int:
        self.asked.append(("read_index",))
        if self.behind:
            raise TimeoutError
        return self.end

    def get_servers(self) -> list[FakeServer]:
        return [FakeServer("one", "one:8400", True, True), FakeServer("two", "two:8400", False, False)]

    # ── what the cluster service asks ──

    def status(self) -> FakeStatus:
        return FakeStatus()

    async def join(self, id: str, addr: str, directory_id: str = "") -> None:
        self._ask("join", id, addr, directory_id)

    async def leave(self, id: str, *, is_barred: bool = True) -> None:
        self._ask("leave", id, *(() if is_barred else ("by itself",)))

    async def promote(self, id: str) -> None:
        self._ask("promote", id)

    async def transfer_leadership(self, to: str = "") -> str:
        self._ask("transfer", to)
        return to or "two"

    async def truncate(self, lowest: int) -> int:  # type: ignore[override]  # that of a cluster takes a while
        self._ask("truncate", lowest)
        return lowest

    async def take_snapshot(self) -> tuple[int, int]:
        self.asked.append(("snapshot",))
        return 7, 1000

    async def commit_cursor(self, group: str, offset: int) -> None:
        self._ask("commit_cursor", group, offset)
        self.kept[group] = offset

    def cursors(self) -> list[FakeCursor]:
        return [FakeCursor(group, offset, 5) for group, offset in self.kept.items()]

    def committed_entries(self, first: int, end: int, bytes_max: int) -> list[RawEntry]:
        """Up to two of those that were put into `held`."""
        self.asked.append(("entries", first))
        return [entry for entry in self.held if first <= entry.index < end][:2]

    def _ask(self, *what: Any) -> None:
        self.require_leader()
        self.asked.append(what)
