"""The writing side of a log: one lock for the tail, group commit for durability, care for those who read.

Locks, taken in this order and never the other way round:

    _maintenance   held by what removes or replaces whole segments, for as long as that takes
    _commits       group commit: one thread writes and syncs for all that wait
    _lock          held while frames are stamped and written, which takes microseconds; never during a sync

    marked <= durable <= written      entries that a mark vouches for, on disk, with the operating system
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from logstore.appender import NO_ROOM, Appender
from logstore.config import Config
from logstore.directory import Directory
from logstore.encode import encode_value
from logstore.entry import Unstamped
from logstore.errors import DiskFull, IndexOutOfRange, LogClosed, LogError, LogPoisoned
from logstore.frame import Payload
from logstore.group_commit import GroupCommit
from logstore.layout import Layout
from logstore.opening import Configuration, Opened
from logstore.segment import Segment
from logstore.waking import Waker
from logstore.walk import Tail

log = logging.getLogger("logstore")

AROUND_BYTES_MAX: Final = 256  # of a mark, a frame's header and padding
CUTS_MAX: Final = 64  # a cursor that slept through more counts as overtaken


A = TypeVar("A", Payload, Unstamped)


class Cut(NamedTuple):
    """A truncation of the suffix: cursors from before `epoch` that are past `end` must not go on."""

    epoch: int  # of when it was done: who looks while it is being done still sees what it takes away
    end: int


Outcomes = Sequence[int | LogError | ValueError]  # per payload: its first offset, or why it was not appended


class _Entries(NamedTuple):
    """An append whose place in the log was decided elsewhere."""

    entries: list[Unstamped]
    first_index: int  # that the first must become


# What a thread may ask for: records to be appended, entries to be appended, an entry to be made durable.
_Request = list[Payload] | _Entries | int


class Writer:
    """Owns the tail of a log and its layout. Public methods may be called by any thread."""

    def __init__(
        self,
        directory: Directory,
        config: Config,
        opened: Opened,
        *,
        clock: Callable[[], int],
        on_full_segment: Callable[[], None],
    ) -> None:
        self.directory = directory
        self.config = config
        self._is_synced = config.sync == "always"
        self._on_full_segment = on_full_segment
        self._maintenance = threading.RLock()
        self._commits: GroupCommit[_Request, Outcomes] = GroupCommit(self._commit)
        self._lock = threading.Lock()

        # Guarded by _lock.
        self._refusal: Callable[[], LogError] | None = None  # why writes are refused, once they are
        self._wakers: list[Waker] = []  # called once, when `end` moves or the log is closed
        self._unsynced = [one for one in opened.segments[:-1] if one.end_index > opened.durable_index + 1]
        self._appender = Appender(
            directory,
            config,
            active=opened.segments[-1],
            spares=opened.spares,
            configuration=opened.configuration,
            durable_index=opened.durable_index,
            clock=clock,
            on_roll=self._take_in,
        )

        # Written under _lock, read by anyone.
        self.layout = Layout.of(tuple(opened.segments))
        self.end = opened.segments[-1].end_offset  # where readers see the log end
        self.epoch = 0  # moves before bytes that readers may be reading are changed or removed
        self.cuts: tuple[Cut, ...] = ()  # the last truncations of the suffix, oldest first
        self.is_closed = False

    @property
    def last_index(self) -> int:
        return self._appender.active.end_index - 1

    @property
    def durable_index(self) -> int:
        """The highest entry such that it and all before it are on this disk."""
        return self._appender.durable_index

    @property
    def failure(self) -> LogError | None:
        """Why writes are refused; None while they are not."""
        return None if self._refusal is None else self._refusal()

    @property
    def spares(self) -> list[str]:
        """Paths of stores to be overwritten."""
        return self._appender.spares

    @property
    def configuration(self) -> Configuration:
        return self._appender.configuration

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def append_value(self, value: bytes) -> int:
        """The offset of a record that is only a value."""
        if self._is_synced:
            return _first(self._commits.submit([encode_value(value, self.config)]))
        with self._lock:
            try:
                if self._refusal is not None:
                    raise self._refusal()
                offset = self._appender.write_value(value)
                if offset is not None:
                    self.end = offset + 1
                    if self._wakers:
                        self._wake()
                    return offset
            except BaseException as error:
                self._note_failure(error)
                raise
        return self.append_one(encode_value(value, self.config))

    def is_quick(self, size: int) -> bool:
        """Whether so many bytes can be appended without a sync and without a new segment."""
        config = self.config
        room = config.segment_bytes_max - self.layout.active.end_position - AROUND_BYTES_MAX
        return not self._is_synced and size <= room and len(self._unsynced) < config.unsealed_segments_max

    def append_one(self, payload: Payload) -> int:
        """The first offset of one batch of records."""
        return _first(self.append([payload]))

    def append(self, payloads: list[Payload]) -> Outcomes:
        """The first offset of each batch of records, in order, or the error why it was not appended.

        All of one call are written together, and durable on return with sync="always". Those before an error
        are in the log, those from it on are not.
        """
        return self._request(payloads)

    def append_entries(self, entries: list[Unstamped], first_index: int) -> None:
        """Append entries from `first_index` on, as one group; durable on return with sync="always".

        Nothing changed: IndexOutOfRange if another one is next, ValueError if the one before has a higher term.
        DiskFull and LogPoisoned leave whole entries, of segments that were filled before: see `last_index`.
        """
        _first(self._request(_Entries(entries, first_index)))

    def _request(self, request: list[Payload] | _Entries) -> Outcomes:
        if self._is_synced:
            return self._commits.submit(request)
        while len(unsynced := self._unsynced) >= self.config.unsealed_segments_max:
            self.make_durable(unsynced[0].end_index - 1)
        with self._lock:
            outcomes = self._write([request])[0]
            self._publish(self._appender.active.end_offset)
            return outcomes

    def _write(self, requests: Sequence[_Request]) -> list[Outcomes]:
        """Serve the appends among the requests, records that come together as one group. Under _lock."""
        if self._refusal is not None:
            raise self._refusal()
        outcomes: list[Outcomes] = []
        group: list[Payload] = []
        sizes: list[int] = []  # how many payloads each request has in group
        for request in requests:
            if isinstance(request, list):
                group += request
                sizes.append(len(request))
            elif isinstance(request, int):
                sizes.append(0)
            else:
                outcomes += self._write_group(group, sizes)
                group, sizes = [], []
                outcomes.append([self._write_entries(request)])
        outcomes += self._write_group(group, sizes)
        return outcomes

    def _write_group(self, payloads: list[Payload], sizes: list[int]) -> list[Outcomes]:
        outcomes = self._append(payloads, self._appender.write_batches)
        if len(outcomes) == len(sizes) == sizes.count(1):
            return [[outcome] for outcome in outcomes]
        rest = iter(outcomes)
        return [list(islice(rest, size)) for size in sizes]

    def _write_entries(self, request: _Entries) -> int | LogError | ValueError:
        """The offset of the last entry, or why it was not appended."""
        last, last_term = self.last_index, self._appender.active.tail.term
        if request.first_index != last + 1:
            return IndexOutOfRange(request.first_index, self.layout.base_indexes[0], last)
        term = request.entries[0].term
        if term < last_term:
            return ValueError(f"entry {last + 1} cannot have term {term}: entry {last} has {last_term}")
        return self._append(request.entries, self._appender.write)[-1]

    def _append(
        self, appends: list[A], write: Callable[[list[A]], list[int | LogError]]
    ) -> list[int | LogError]:
        if self._refusal is not None:  # because of a request before, which was served together with this one
            return [self._refusal()] * len(appends)
        if not appends:
            return []
        try:
            outcomes = write(appends)
        except BaseException as error:
            self._note_failure(error)
            raise
        if isinstance(outcomes[-1], LogPoisoned):
            self._poison(outcomes[-1])
        return outcomes

    def _note_failure(self, error: BaseException) -> None:
        """Refuse writes if an append ended in a way that leaves the tail in doubt: a Ctrl-C may come anywhere."""
        if isinstance(error, LogPoisoned):
            self._poison(error)
        elif not isinstance(error, LogError):
            self._poison(LogPoisoned(f"{self.directory.path}: an append was interrupted by {error!r}"))

    def _take_in(self, segment: Segment) -> None:
        """The appender has begun a new segment."""
        full = self.layout.active
        if (
            full.end_index > self.durable_index + 1
        ):  # it may be durable already: then no sync would take it out
            self._unsynced.append(full)
        self.layout = Layout.of((*self.layout.segments, segment))
        self._on_full_segment()

    # ── durability ──────────────────────────────────────────────────────────────────────────────────

    def make_durable(self, index: int) -> None:
        """Return when entry `index` and all before it are on disk; LogPoisoned if that cannot be said."""
        if self.durable_index < index:
            self._commits.submit(index)

    def _commit(self, requests: Sequence[_Request]) -> Sequence[Outcomes]:
        """Serve all requests with one write and one sync."""
        with self._lock:
            outcomes = self._write(requests)
            goals = [request for request in requests if isinstance(request, int)]
            goal = max(goals) if len(goals) == len(requests) else self.last_index
            if self.durable_index >= goal:  # a group before has synced it
                return outcomes
            segments = [one for one in (*self._unsynced, self._appender.active) if one.base_index <= goal]
            ends = segments[-1].tail
        self._sync(segments, ends)
        return outcomes

    def _sync(self, segments: list[Segment], ends: Tail) -> None:
        """Sync the oldest segments with unsynced bytes; they were written up to `ends`."""
        try:
            for segment in segments:
                segment.file.sync()
        except OSError as error:
            with self._lock:
                raise self._poison(LogPoisoned(f"{self.directory.path}: a sync failed: {error}")) from error
        with self._lock:
            self._appender.durable_index = ends.next_index - 1
            self._unsynced = [one for one in self._unsynced if one.end_index > ends.next_index]
            if self._is_synced:
                self._publish(ends.offset)

    def _poison(self, error: LogPoisoned) -> LogPoisoned:
        """Refuse writes from now on: nobody knows what the disk holds. See docs/GUARANTEES.md."""
        if self._refusal is None:
            log.error("log poisoned path=%s reason=%s", self.directory.path, error)
            self._refusal = lambda: LogPoisoned(f"{error}; open the log again to learn what is on disk")
            self._wake()
        return error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nothing is written or synced meanwhile."""
        with self._commits.alone(), self._lock:
            yield

    def close(self) -> None:
        """Make everything durable, vouch for it with a last mark, and refuse writes from now on.

        LogPoisoned if that cannot be said; the log is closed all the same.
        """
        with self._maintenance, self.exclusive():
            failure = self.failure
            self.is_closed = True
            self._refusal = lambda: LogClosed(f"{self.directory.path} is closed")
            try:
                if failure is not None:
                    raise failure
                self._seal_off()
            except OSError as error:
                raise LogPoisoned(
                    f"{self.directory.path}: closing could not sync everything: {error}"
                ) from error
            finally:
                self._wake()

    def let_go(self, reason: str) -> None:
        """Refuse everything and touch no file: in a forked child, without the threads that may hold the locks."""
        self._maintenance = threading.RLock()
        self._commits = GroupCommit(self._commit)
        self._lock = threading.Lock()
        self._refusal = lambda: LogClosed(reason)
        self.is_closed = True

    def _seal_off(self) -> None:
        for segment in (*self._unsynced, self._appender.active):
            segment.file.sync()
        self._appender.durable_index = self.last_index
        self.end = self._appender.active.end_offset
        try:
            if self._appender.write_last_mark():
                self._appender.active.file.sync()
        except DiskFull as error:
            log.warning(
                "no room for the last mark path=%s error=%s; nothing is lost", self.directory.path, error
            )

    # ── readers ─────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, end: int) -> None:
        self.end = end
        if self._wakers:
            self._wake()

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def notify(self, waker: Waker, seen_end: int, seen_epoch: int | None = None) -> None:
        """Call `waker` once, from any thread, as soon as `end` differs from `seen_end` or the log is closed.

        With `seen_epoch` also if records were cut off since, though as many may have been appended again. It runs under a lock of the log: it must be quick and must not call the log.
        """
        with self._lock:
            is_same = self.end == seen_end and seen_epoch in (None, self.epoch)
            if is_same and not self.is_closed:
                self._wakers.append(waker)
                return
        waker()

    def forget(self, waker: Waker) -> None:
        with self._lock:
            if waker in self._wakers:
                self._wakers.remove(waker)

    # ── removing and replacing ──────────────────────────────────────────────────────────────────────

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """No other thread removes or replaces segments meanwhile; appends go on. A full disk is DiskFull."""
        with self._maintenance:
            if self._refusal is not None:
                raise self._refusal()
            try:
                yield
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                raise DiskFull(f"{self.directory.path}: no room: {error}; no record is concerned") from error

    @contextmanager
    def poisoning(self, act: str, *, is_locked: bool = False) -> Iterator[None]:
        """Whatever ends the act early, an interrupt too, leaves it unknown what is on disk."""
        try:
            yield
        except BaseException as error:
            reason = LogPoisoned(f"{self.directory.path}: {act} failed half way: {str(error) or repr(error)}")
            with nullcontext() if is_locked else self._lock:
                self._poison(reason)
            if isinstance(error, (OSError, LogPoisoned)):
                raise reason from error
            raise

    def seal_full_segments(self) -> None:
        """Make full segments durable and save their indexes, oldest first."""
        for segment in self.layout.segments[:-1]:
            if not segment.is_sealed:
                with self.maintenance():
                    if segment in self.layout.segments[:-1]:
                        self.make_durable(segment.end_index - 1)
                        segment.seal()

    def forget_oldest(self, count: int) -> None:
        """Go on without the first `count` segments, whose files may be changed from now on."""
        with self._lock:
            self.layout = Layout.of(self.layout.segments[count:])
            self.epoch += 1

    def put_in_place_of(self, old: Segment, new: Segment) -> None:
        """Read from `new`, which holds the same entries as `old`."""
        with self._lock:
            self.layout = Layout.of(tuple(new if one is old else one for one in self.layout.segments))

    def announce_cut(self, end: int) -> None:
        """Tell readers that records from `end` on are about to go; `go_on_in` follows. Within `exclusive`."""
        self.end = min(self.end, max(end, self.layout.start))
        self.cuts = (*self.cuts[1 - CUTS_MAX :], Cut(self.epoch + 2, end))
        self.epoch += 1  # and once more when it is done

    def go_on_in(
        self, active: Segment, kept: Sequence[Segment], *, durable_index: int, configuration: Configuration
    ) -> None:
        """Append to `active` from now on, behind the segments that were kept. Within `exclusive`."""
        self._unsynced = [one for one in self._unsynced if one in kept]
        self.layout = Layout.of((*kept, active))
        self._appender.durable_index = durable_index
        self._appender.configuration = configuration
        self._appender.go_on_in(active)
        self.epoch += 1
        if not kept and active.end_index == active.base_index:  # a log without records may start anywhere
            self.end = active.end_offset
        self._wake()


def _first(outcomes: Outcomes) -> int:
    outcome = outcomes[0]
    if not isinstance(outcome, int):
        raise outcome
    return outcome
