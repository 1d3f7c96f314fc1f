"""The log: what users open and write; `readable_log` is the other half of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

from logstore import mending, removing, replication
from logstore.append_queue import AppendQueue
from logstore.appender import NO_ROOM
from logstore.batch import OFFSET_LIMIT, RecordBatch
from logstore.compaction import Compaction, compact
from logstore.config import Config
from logstore.cursor import View
from logstore.directory import Directory
from logstore.encode import encode_batch, encode_value
from logstore.entry import check_entries
from logstore.errors import (
    DiskFull,
    LogError,
    NoLog,
    QueueFull,
)
from logstore.filesystem import FileSystem, Lock, OsFileSystem, call_in_forked_children, process_id
from logstore.frame import Base, Payload, RawEntry
from logstore.housekeeping import Housekeeper
from logstore.opening import Configuration, Repair, open_directory, remove_files
from logstore.read_only import ReadOnlyView
from logstore.readable_log import ReadableLog
from logstore.record import Record
from logstore.retention import Decision, decide_retention
from logstore.writer import Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Value = Buffer | Record
    Batch = Iterable[Value] | RecordBatch | bytes


class Log(ReadableLog):
    """A segmented, append-only log in a directory.

    Offsets count records from 0 without gaps. Appends and reads may come from any number of threads and asyncio
    tasks at once. One Log at a time has a directory open for writing; with `read_only` any number may look on,
    also from other processes, without touching a file.

    In a child that this process forks, a log opened for writing is closed: every use of it raises LogClosed, and
    `close()` touches nothing. The parent's goes on.

    Durability is `Config.sync`. With "always", readers see only what is on disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config | None = None,
        *,
        read_only: bool = False,
        filesystem: FileSystem | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the log; make it if there is none, recover it if it was not closed.

        Raises LogLocked, CorruptLog, UnsupportedFormat, DiskFull, or NoLog if it is to be read only and is not there.
        `repairs` says what recovery had to do.
        """
        self.path = os.fspath(path)
        self.config = config or Config()
        self._append_value: Callable[[bytes], int] | None = None  # the short way, where there is one
        self._clock = clock
        self._directory = Directory(filesystem or OsFileSystem(), self.path)
        self._process_id = process_id()
        self._close_lock = threading.Lock()
        self._lock: Lock | None = None
        self._look: ReadOnlyView | None = None
        self._open_writer: Writer | None = None
        if read_only:
            self._open_read_only()
        else:
            self._open_for_writing()

    def _open_read_only(self) -> None:
        if not self._directory.fs.exists(self.path):
            raise NoLog(self.path)
        opened = open_directory(self._directory, self.config, writable=False)
        self._view: View = ReadOnlyView(self._directory, opened)
        self._look = self._view
        self.repairs: list[Repair] = []

    def _open_for_writing(self) -> None:
        fs = self._directory.fs
        fs.make_directory(self.path)
        self._lock = fs.lock(self._directory.lock_path)
        try:
            opened = open_directory(self._directory, self.config, writable=True)
            writer = Writer(
                self._directory, self.config, opened, clock=self._clock, on_full_segment=self._on_full_segment
            )
            writer.make_durable(writer.last_index)  # what a killed process wrote but did not sync
        except BaseException as error:
            self._lock.close()
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise DiskFull(f"{self.path}: no room to open the log: {error}") from error
            raise
        self._view = self._open_writer = writer
        if self.config.compression == "none":
            self._append_value = writer.append_value
        self.repairs = opened.repairs
        is_timed = self.config.sync == "interval"
        self._housekeeper = Housekeeper(
            writer,
            interval_ms=self.config.sync_interval_ms if is_timed else None,
            retain=self.apply_retention,
            name=self.path,
        )
        if is_timed or len(opened.segments) > 1:
            self._housekeeper.wake()
        self._appends = self._make_queue(writer)
        _written.add(self)

    def _make_queue(self, writer: Writer) -> AppendQueue:
        return AppendQueue(
            writer,
            pending_bytes_max=self.config.pending_bytes_max,
            name=self.path,
        )

    def _let_go(self) -> None:
        """In a forked child: what it knows of the files is soon wrong, and the threads are its parent's."""
        assert self._lock is not None
        self._lock.close()
        self._close_lock = threading.Lock()
        self._writer.let_go(
            f"{self.path} was opened by process {self._process_id}; open it again after a fork"
        )
        self._appends = self._make_queue(self._writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._view.is_closed else "read-only" if self._look else self.config.sync
        return f"<Log {self.path} offsets {self.start} to before {self.end}, {state}>"

    def close(self) -> None:
        """Make everything durable and let the directory go. Closing twice is no error.

        Raises LogPoisoned if the last sync failed; the log is closed all the same. Iterators end with LogClosed.
        """
        with self._close_lock:
            if self._view.is_closed:
                return
            if self._look is not None:
                self._look.is_closed = True
                return
            self._close(then=lambda: None)

    def _close(self, *, then: Callable[[], None]) -> None:
        """Close a log that is written, and do `then` before anybody else can open it."""
        self._appends.close()
        self._housekeeper.close()
        try:
            self._writer.close()
            then()
        finally:
            assert self._lock is not None
            self._lock.close()

    def _on_full_segment(self) -> None:
        self._housekeeper.wake()

    @property
    def failure(self) -> LogError | None:
        """Why appends are refused (LogPoisoned, LogClosed); None while they are not."""
        return self._writer.failure

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def append(self, value: Value) -> int:
        """The offset of the record, which is durable as the policy says.

        `value` is any bytes-like object, or a Record with key, timestamp and headers. Raises RecordTooLarge or
        DiskFull with nothing changed; LogPoisoned if a sync failed, when the record may be there after reopening.
        """
        if type(value) is bytes and self._append_value is not None:
            return self._append_value(value)
        return self._writer.append_one(self._encode_one(value))

    def append_batch(self, batch: Batch) -> tuple[int, int]:
        """(first offset, end) of the records: one frame, durable together, all of them or none.

        `batch` is an iterable of bytes-like objects and Records, a RecordBatch, or the bytes of one (which are
        checked as a stranger's). Raises as `append`, and EmptyBatch, BatchTooLarge or CorruptBatch.
        """
        payload = self._encode(batch)
        first = self._writer.append_one(payload)
        return first, first + payload.record_count

    async def append_async(self, value: Value) -> int:
        """As `append`, without blocking the event loop; what other tasks append meanwhile shares the sync.

        If the waiting task is cancelled the record may be stored all the same.
        """
        return (await self._append_payload(self._encode_one(value)))[0]

    async def append_batch_async(self, batch: Batch) -> tuple[int, int]:
        """As `append_batch`, without blocking the event loop."""
        return await self._append_payload(self._encode(batch))

    async def _append_payload(self, payload: Payload) -> tuple[int, int]:
        self._require_writable()
        while True:
            try:
                future = self._appends.begin(payload)
            except QueueFull:
                await self._appends.room()
            else:
                first = await future
                return first, first + payload.record_count

    def begin_append(self, batch: Batch) -> tuple[int, asyncio.Future[int]]:
        """Queue a batch; (how many records it has, the future of its first offset). For asyncio.

        Batches are stored in the order in which they were begun. Raises QueueFull while `pending_bytes_max` are
        queued, and otherwise as `append_batch`.
        """
        self._require_writable()
        append, value = self._append_value, _only_value(batch)
        if append is not None and value is not None and self._appends.is_short(len(value)):
            future = asyncio.get_running_loop().create_future()
            future.set_result(append(value))
            return 1, future
        payload = self._encode(batch)
        return payload.record_count, self._appends.begin(payload)

    async def room(self) -> None:
        """Return when an append that was begun is done; at once if there is none."""
        self._require_writable()
        await self._appends.room()

    def _require_writable(self) -> None:
        self._writer  # noqa: B018  # raises LogReadOnly

    def _encode_one(self, value: Value) -> Payload:
        if isinstance(value, Record):
            return encode_batch([value], self.config)
        return encode_value(bytes(memoryview(value)), self.config)

    def _encode(self, batch: Batch) -> Payload:
        if isinstance(batch, RecordBatch):
            return batch.payload(self.config)
        if isinstance(batch, (bytes, bytearray, memoryview)):
            return RecordBatch.from_bytes(bytes(batch), config=self.config).payload(self.config)
        values = batch if isinstance(batch, Sequence) else list(batch)
        if len(values) == 1 and type(values[0]) is bytes:
            return encode_value(values[0], self.config)
        return encode_batch(values, self.config)

    def sync(self) -> None:
        """Make everything appended so far durable; LogPoisoned if that fails."""
        self._require_open()
        self._writer.make_durable(self._writer.last_index)

    # ── removing ────────────────────────────────────────────────────────────────────────────────────

    def truncate(self, lowest: int, *, below_index: int | None = None) -> int:
        """Remove the segments whose last offset is below `lowest`, and return the bytes freed.

        With `below_index` only those all of whose entries are below it. The active segment stays. `start` is then
        the first offset of the first segment left. Durable on return.
        """
        writer = self._writer
        with writer.maintenance():
            return removing.remove_oldest(writer, replication.count_below(writer, lowest, below_index))

    def truncate_suffix(self, end: int) -> int:
        """Forget every record at or above `end`, and return the bytes freed. Durable on return.

        Range: start <= end <= the end of what was appended, else OffsetOutOfRange and nothing changed. Readers
        past `end` raise on their next read. Source: Raft dissertation 3.5 (conflicting entries).
        """
        return removing.truncate_suffix(self._writer, end)

    def apply_retention(self, *, dry_run: bool = False, limits: Config | None = None) -> list[Decision]:
        """Remove the segments that `retention_*_max` no longer allows; why each goes or stays.

        `limits` stands in for the log's own config, by which this runs by itself after each new segment. Whole
        segments only, oldest first, never the active one. A dry run works on a read-only log too.
        """
        self._require_open()
        limits = limits or self.config
        if dry_run:
            return decide_retention(self._view.layout.segments, limits, now=self._clock())
        writer = self._writer
        with writer.maintenance():
            decisions = decide_retention(writer.layout.segments, limits, now=self._clock())
            removing.remove_oldest(writer, sum(not decision.stays for decision in decisions))
            return decisions

    def compact(self, *, end: int | None = None, dry_run: bool = False) -> Compaction:
        """Keep only the last record of each key in the sealed segments; records without a key all stay.

        Of records at or above `end` (the log's by default) no notice is taken.
        A record with a key and an empty value is a tombstone: it goes too, `tombstone_age_ms_min` after its append.
        Appends and reads go on meanwhile. Offsets do not change; removed ones raise RecordCompacted.
        """
        writer = self._writer
        self._require_open()
        return compact(writer, self.config, end=end, now=self._clock(), dry_run=dry_run)

    def reset(self, start: int = 0) -> None:
        """Forget everything: an empty log whose first record will have offset `start`. Durable on return."""
        self.begin_at(Base(index=0, term=0, offset=start, time=0, chain=0))

    def begin_at(self, base: Base) -> None:
        """Forget everything: an empty log whose next entry has index base.index + 1. Durable on return.

        A crash meanwhile leaves the log without some of its last entries, an empty one, or the new one.
        """
        *others, chain = base
        if not all(0 <= one < OFFSET_LIMIT for one in others) or not 0 <= chain < 1 << 32:
            raise ValueError(f"a log cannot start at offset {base.offset}, behind {base}")
        removing.begin_at(self._writer, base)

    def remove(self) -> None:
        """Close the log and delete its files; the directory too, unless it holds others."""
        self._require_writable()
        with self._close_lock:
            self._require_open()  # a closed one may be in other hands by now
            self._close(then=lambda: remove_files(self._directory))

    # ── entries, for replication ────────────────────────────────────────────────────────────────────

    @property
    def durable_index(self) -> int:
        """Index of the last entry that is known to be on disk."""
        return self._writer.durable_index

    @property
    def configuration(self) -> Configuration:
        """The newest entry of kind CONFIGURATION."""
        return self._writer.configuration

    def append_raw(self, entries: Sequence[RawEntry]) -> None:
        """Append entries whose place a cluster has decided: one write for each segment and one sync for all.

        Nothing changed: IndexOutOfRange unless the first is last_index + 1; ValueError if indexes do not ascend by
        one or terms descend; CorruptBatch for a damaged frame; RecordTooLarge for a configuration over
        CONFIGURATION_BYTES_MAX. Otherwise as `append`, but DiskFull may leave the first of the entries: see
        `last_index`.
        """
        if entries:
            self._writer.append_entries(check_entries(entries), entries[0].index)

    def replace_damaged(self, entries: Sequence[RawEntry]) -> int:
        """Put entries of a replica in the place of damaged ones, and return how many; durable on return.

        An entry is taken only where its frame has the size, the place and the header CRC that the index and the
        frames around it ask for; where the frame in front of it is damaged too, only together with that one. So
        nothing comes in the place of holes and of frames that were compacted on one side only: those need a new
        copy of the log. Whole frames stay as they are. Raises as `append_raw`, and IndexOutOfRange for entries
        that do not exist here.
        """
        self._require_open()
        return mending.replace_damaged(self._writer, entries)

    def truncate_entries(self, index: int) -> int:
        """Forget entry `index` and all after it, and return the bytes freed. Durable on return."""
        return removing.truncate_entries(self._writer, index)


def _only_value(batch: Batch) -> bytes | None:
    """What a batch of one record holds, if that is only a value."""
    return batch[0] if isinstance(batch, list) and len(batch) == 1 and type(batch[0]) is bytes else None


_written: Final[WeakSet[Log]] = WeakSet()  # opened for writing by this process


def _let_go_of_all() -> None:
    for log in list(_written):
        log._let_go()
    _written.clear()


call_in_forked_children(_let_go_of_all)
