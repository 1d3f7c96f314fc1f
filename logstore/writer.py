"""The write path: stamps batches, writes those that came together at once, makes them durable together.

Group commit needs no timer: what is written while one fdatasync runs is covered by the next. Three locks, taken
in this order and never the other way round:

    _maintenance   held by what removes or replaces whole segments, for as long as that takes
    _turn          a condition: one thread syncs at a time; the others wait and are usually served by it
    _lock          held while frames are stamped and written, never during a sync

    marked <= durable <= written      entries that a mark vouches for, on disk, with the operating system
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from logstore.checksum import crc32c
from logstore.config import Config
from logstore.directory import Directory
from logstore.encode import entry_data_of
from logstore.errors import DiskFull, IndexOutOfRange, LogClosed, LogError, LogPoisoned, OffsetOutOfRange
from logstore.frame import (
    BODY_CRC_START,
    FORMAT_VERSION,
    FRAME_MAGIC,
    LINK,
    MARK_BYTES,
    STAMP,
    BytesLike,
    Kind,
    Payload,
    SegmentHeader,
    pack_mark,
)
from logstore.layout import Layout
from logstore.opening import FIRST_SEGMENT, NO_CONFIGURATION, Configuration, Opened, create_segment
from logstore.segment import Segment
from logstore.truncation import cut_segment, find_configuration
from logstore.walk import Tail

log = logging.getLogger("logstore")

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


CUTS_MAX: Final = 64  # a cursor that slept through more counts as overtaken


class Cut(NamedTuple):
    """A truncation of the suffix: cursors from before `epoch` that are past `end` must not go on."""

    epoch: int
    end: int


class Writer:
    """Owns the tail of a log and its layout. Public methods may be called by any thread."""

    def __init__(
        self,
        directory: Directory,
        config: Config,
        opened: Opened,
        *,
        clock: Callable[[], int],
        on_roll: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._config = config
        self._clock = clock
        self._on_roll = on_roll
        self._maintenance = threading.RLock()
        self._turn = threading.Condition(threading.Lock())
        self._is_syncing = False  # guarded by _turn
        self._lock = threading.Lock()

        # Guarded by _lock.
        self._refusal: Callable[[], LogError] | None = None  # why writes are refused, once they are
        self._waiters: list[
            Callable[[], None]
        ] = []  # called once, when `end` moves or reading makes no sense
        self._tail = opened.tail  # where the next frame goes
        self._active = opened.segments[-1]
        self._unsynced = [one for one in opened.segments[:-1] if one.end_index > opened.durable_index]
        self._spares = opened.spares
        self._marked_index = opened.durable_index
        self.configuration = opened.configuration

        # Written under _lock, read by anyone.
        self.layout = Layout.of(tuple(opened.segments))
        self.durable_index = opened.durable_index  # entries on this disk
        self.end = opened.tail.offset  # where readers see the log end
        self.epoch = 0  # moves before bytes that readers may be reading are changed or removed
        self.cuts: tuple[Cut, ...] = ()  # the last truncations of the suffix, oldest first
        self.is_closed = False

    @property
    def last_index(self) -> int:
        return self._tail.index - 1

    @property
    def is_writable(self) -> bool:
        return self._refusal is None

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def append(
        self,
        payloads: Sequence[Payload],
        *,
        kind: Kind = Kind.RECORDS,
        term: int = 0,
        index: int | None = None,
    ) -> list[int | LogError]:
        """The first offset of each payload, in order, or the error why it was not appended.

        All of one call are written together, and durable on return with sync="always". Those before an error
        are in the log, those from it on are not. With `index`, the first payload becomes that entry, or
        IndexOutOfRange is raised and nothing changed.
        """
        unsynced = self._unsynced
        if len(unsynced) >= self._config.unsealed_segments_max:
            self.make_durable(unsynced[0].end_index - 1)
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            if index is not None and index != self._tail.index:
                raise IndexOutOfRange(index, self.layout.base_indexes[0], self._tail.index)
            outcomes = self._write(payloads, kind, term)
            last = self._tail.index - 1
            if self._config.sync != "always":
                self._publish(self._tail.offset)
        if self._config.sync == "always":
            self.make_durable(last)
        return outcomes

    def _write(self, payloads: Sequence[Payload], kind: Kind, term: int) -> list[int | LogError]:
        """Stamp and write under _lock; frames that go to one segment in one write."""
        outcomes: list[int | LogError] = []
        written = 0
        try:
            while written < len(payloads):
                count = self._fitting(payloads, written)
                if not count:
                    self._roll()
                    continue
                outcomes += self._write_group(payloads[written : written + count], kind, term)
                written += count
        except LogError as error:
            outcomes += [error] * (len(payloads) - written)
        return outcomes

    def _fitting(self, payloads: Sequence[Payload], start: int) -> int:
        """How many payloads from `start` on fit the active segment; an empty segment takes any one."""
        room = self._config.segment_bytes_max - self._tail.position - MARK_BYTES
        count = 0
        for payload in payloads[start:]:
            room -= BODY_CRC_START + payload.size
            if room < 0 and (count or self._tail.index > self._active.base_index):
                break
            count += 1
        return count

    def _write_group(self, payloads: Sequence[Payload], kind: Kind, term: int) -> list[int]:
        tail, active = self._tail, self._active
        now = max(tail.time, self._clock())
        position, index, offset, chain = tail.position, tail.index, tail.offset, tail.chain
        buffers: list[BytesLike] = []
        rows = []
        offsets: list[int] = []
        if self._marked_index < self.durable_index:
            buffers.append(pack_mark(active.header.segment_id, self.durable_index))
            position += MARK_BYTES
        for payload in payloads:
            length = BODY_CRC_START + payload.size
            stamp = STAMP.pack(
                index, term, offset, now, 0, FORMAT_VERSION, kind, payload.record_count, length, payload.crc
            )
            chain = crc32c(chain, stamp)
            buffers += (LINK.pack(FRAME_MAGIC, chain), stamp, *payload.buffers)
            rows.append((offset, position, term, now))
            offsets.append(offset)
            position += length
            index += 1
            offset += payload.record_count
        self._put(buffers, len(rows))
        for row in rows:
            active.index.append(*row)
        self._marked_index = self.durable_index
        if kind == Kind.CONFIGURATION:
            self.configuration = Configuration(index - 1, entry_data_of(payloads[-1]))
        active.end_position, active.end_index, active.end_offset, active.last_time = (
            position,
            index,
            offset,
            now,
        )
        self._tail = Tail(position, index, offset, term, now, chain)
        return offsets

    def _put(self, buffers: list[BytesLike], rows: int) -> None:
        """Write at the tail, or raise with the file as it was."""
        active = self._active
        try:
            active.index.reserve(rows)
            active.file.write(buffers, self._tail.position)
        except OSError as error:
            try:
                active.file.truncate(self._tail.position)
            except OSError as second:
                raise self._poison(f"a failed write could not be undone: {second}") from error
            if error.errno not in NO_ROOM:
                raise self._poison(f"a write failed: {error}") from error
            raise DiskFull(
                f"{active.store_path}: no room for an append: {error}; nothing was appended"
            ) from error

    def _roll(self) -> None:
        """Begin a new segment, in a spare file if there is one."""
        tail = self._tail
        header = SegmentHeader(
            segment_id=0,
            base_index=tail.index,
            base_offset=tail.offset,
            previous_term=tail.term,
            previous_time=tail.time,
            previous_crc=tail.chain,
            durable_index=self.durable_index,
            stale_end=0,
            configuration_index=self.configuration.entry_index,
            configuration=self.configuration.data,
        )
        try:
            segment = create_segment(self._directory, header, self._spares.pop() if self._spares else None)
        except OSError as error:
            raise DiskFull(
                f"{self._directory.path}: no room for a new segment: {error}; nothing was appended"
            ) from error
        self._unsynced.append(self._active)
        self._become_active(segment, Tail.at_start(segment.header))
        self.layout = Layout.of((*self.layout.segments, segment))
        self._on_roll()

    def _become_active(self, segment: Segment, tail: Tail) -> None:
        self._active = segment
        self._tail = tail
        self._marked_index = min(segment.header.durable_index, self.durable_index)

    # ── durability ──────────────────────────────────────────────────────────────────────────────────

    def make_durable(self, index: int) -> None:
        """Return when entry `index` and all before it are on disk; LogPoisoned if that cannot be said."""
        if self.durable_index >= index:
            return
        with self._turn:
            while self._is_syncing and self.durable_index < index:
                self._turn.wait()
            if self.durable_index >= index:
                return
            self._is_syncing = True
        try:
            self._sync(index)
        finally:
            with self._turn:
                self._is_syncing = False
                self._turn.notify_all()

    def _sync(self, index: int) -> None:
        """Sync what was written to the segments up to the one that holds `index`. The turn is taken."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            segments = [one for one in (*self._unsynced, self._active) if one.base_index <= index]
            end_index, end_offset = segments[-1].end_index, segments[-1].end_offset
        try:
            for segment in segments:
                segment.file.sync()
        except OSError as error:
            with self._lock:
                raise self._poison(f"a sync failed: {error}") from error
        with self._lock:
            self.durable_index = end_index - 1
            self._unsynced = [one for one in self._unsynced if one not in segments]
            if self._config.sync == "always":
                self._publish(end_offset)

    def _poison(self, reason: str) -> LogPoisoned:
        """Refuse writes from now on. After a failed sync nobody knows what the disk holds: docs/GUARANTEES.md."""
        path = self._directory.path
        log.error("log poisoned path=%s reason=%s", path, reason)
        self._refuse(lambda: LogPoisoned(f"{path}: {reason}; open the log again to learn what is on disk"))
        assert self._refusal is not None
        error = self._refusal()
        assert isinstance(error, LogPoisoned)
        return error

    def _refuse(self, why: Callable[[], LogError]) -> None:
        self._refusal = why
        self._wake()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Nothing is written or synced meanwhile."""
        with self._turn:
            while self._is_syncing:
                self._turn.wait()
            self._is_syncing = True
        try:
            with self._lock:
                yield
        finally:
            with self._turn:
                self._is_syncing = False
                self._turn.notify_all()

    def close(self) -> None:
        """Make everything durable, vouch for it with a last mark, and refuse writes from now on.

        LogPoisoned if that cannot be said; the log is closed all the same.
        """
        with self._maintenance, self._exclusive():
            was_writable = self._refusal is None
            self.is_closed = True
            self._refuse(lambda: LogClosed(f"{self._directory.path} is closed"))
            if not was_writable:
                return
            try:
                for segment in (*self._unsynced, self._active):
                    segment.file.sync()
                self.durable_index = self.last_index
                if self._marked_index < self.durable_index:
                    mark = pack_mark(self._active.header.segment_id, self.durable_index)
                    self._active.file.write((mark,), self._tail.position)
                    self._active.file.sync()
            except OSError as error:
                reason = f"{self._directory.path}: closing could not make everything durable: {error}"
                raise LogPoisoned(reason) from error
            self._publish(self._tail.offset)

    # ── readers ─────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, end: int) -> None:
        self.end = end
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def notify(self, waiter: Callable[[], None], seen_end: int) -> None:
        """Call `waiter` once, from any thread, as soon as `end` differs from `seen_end` or the log is closed.

        It runs under a lock of the log: it must be quick and must not call the log.
        """
        with self._lock:
            if self.end == seen_end and not self.is_closed:
                self._waiters.append(waiter)
                return
        waiter()

    def forget(self, waiter: Callable[[], None]) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    # ── removing and replacing ──────────────────────────────────────────────────────────────────────

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """No other thread removes or replaces segments meanwhile; appends go on."""
        with self._maintenance:
            if self._refusal is not None:
                raise self._refusal()
            yield

    def seal_full_segments(self) -> None:
        """Make full segments durable and save their indexes, oldest first."""
        for segment in self.layout.segments[:-1]:
            if not segment.is_sealed:
                with self.maintenance():
                    if segment in self.layout.segments[:-1]:
                        self.make_durable(segment.end_index - 1)
                        segment.seal()

    def remove_oldest(self, count: int) -> int:
        """Remove the first `count` segments, never the active one, and return the bytes freed or recycled."""
        with self.maintenance():
            segments = self.layout.segments
            assert 0 <= count < len(segments)
            if not count:
                return 0
            self.make_durable(segments[count - 1].end_index - 1)
            segments[count].file.sync()  # its header says where the log starts; that must outlive the others
            with self._lock:
                self.layout = Layout.of(self.layout.segments[count:])
                self.epoch += 1
            freed = 0
            for segment in segments[:count]:  # oldest first, each durably, so that no crash leaves a gap
                freed += segment.file.size()
                self._retire(segment)
            return freed

    def _retire(self, segment: Segment) -> None:
        """Remove the files of a segment that nobody reads any more, or keep its store to be overwritten."""
        fs = self._directory.fs
        is_worth_keeping = segment.file.size() >= self._config.segment_bytes_max // 2
        if is_worth_keeping and len(self._spares) < self._config.spare_segments_max:
            spare = self._directory.spare_path(segment.base_index)
            fs.rename(segment.store_path, spare)
        else:
            spare = None
            fs.remove(segment.store_path)
        self._directory.remove_if_exists(segment.index_path)
        self._directory.sync()
        if spare is not None:
            self._spares.append(spare)

    def replace(self, old: Segment, new: Segment) -> None:
        """Let readers use `new`, which holds the same entries, from now on. Files are the caller's work."""
        with self._lock:
            self.layout = Layout.of(tuple(new if one is old else one for one in self.layout.segments))

    def truncate_suffix(self, end: int) -> int:
        """Forget every record at or above offset `end`; returns the bytes freed. Durable on return."""
        with self.maintenance(), self._exclusive():
            layout, tail = self.layout, self._tail
            if not layout.start <= end <= tail.offset:
                raise OffsetOutOfRange(end, layout.start, tail.offset)
            if end == tail.offset:
                return 0
            segment = layout.segments[layout.at_offset(end)]
            row = segment.index.find(end, segment.end_offset)
            return self._cut(segment, row, end)

    def truncate_entries(self, index: int) -> int:
        """Forget entry `index` and all after it; returns the bytes freed. Durable on return."""
        with self.maintenance(), self._exclusive():
            if index == self._tail.index:
                return 0
            segment = self.layout.at_index(index)
            row = index - segment.base_index
            return self._cut(segment, row, segment.index.offset(row))

    def _cut(self, segment: Segment, row: int, end: int) -> int:
        """Forget the entries from `row` of `segment` on; of that one keep its records below `end`."""
        if self._refusal is not None:
            raise self._refusal()
        layout = self.layout
        kept = layout.segments[: layout.segments.index(segment)]
        freed = sum(one.file.size() for one in layout.segments[len(kept) :])
        self._announce_cut(end)
        try:
            for later in reversed(layout.segments[len(kept) + 1 :]):  # newest first: a crash leaves no gap
                self._directory.fs.remove(later.store_path)
                self._directory.remove_if_exists(later.index_path)
                self._directory.sync()
            active, tail = cut_segment(segment, row, end)
        except OSError as error:
            raise self._poison(f"a truncation failed half way: {error}") from error
        self._unsynced = [one for one in self._unsynced if one in kept]
        self.layout = Layout.of((*kept, active))
        self._become_active(active, tail)
        self.durable_index = min(self.durable_index, tail.index - 1)
        if self.configuration.entry_index >= tail.index:
            self.configuration = find_configuration(active)
        self._wake()
        return freed - active.file.size()

    def _announce_cut(self, end: int) -> None:
        self.end = min(self.end, end)
        self.cuts = (*self.cuts[1 - CUTS_MAX :], Cut(self.epoch + 1, end))
        self.epoch += 1

    def reset(self) -> None:
        """Forget everything: an empty log that starts at offset 0 and entry 1. Durable on return."""
        with self.maintenance(), self._exclusive():
            self._announce_cut(0)
            try:
                for segment in reversed(self.layout.segments):
                    self._directory.fs.remove(segment.store_path)
                    self._directory.remove_if_exists(segment.index_path)
                    self._directory.sync()
                first = create_segment(self._directory, FIRST_SEGMENT)
                first.file.sync()
            except OSError as error:
                raise self._poison(f"a reset failed half way: {error}") from error
            self._unsynced = []
            self.layout = Layout.of((first,))
            self.durable_index = 0
            self.configuration = NO_CONFIGURATION
            self._become_active(first, Tail.at_start(first.header))
            self._wake()
