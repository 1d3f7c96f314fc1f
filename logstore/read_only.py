"""Looking at a log that this process may not write, perhaps while another does.

That other process tells nobody when it overwrites the store of a removed segment, or cuts a store and writes on at
the same place. Either changes one of two pieces of the store before anything else that a reader could be given: the
segment's id, or the header CRC of its last frame, which depends on every frame before. So both are looked at
*after* each read. Where one has changed, everything is looked at again, and the epoch moves: what was just read is
then not believed, as in a log that this process writes (see `cursor`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Final, cast

from logstore.config import Config
from logstore.directory import Directory
from logstore.filesystem import File
from logstore.frame import COMPACTED_MAGIC, FRAME_MAGIC, HOLE_MAGIC, LINK
from logstore.index import Index
from logstore.layout import Layout
from logstore.opening import Opened, open_directory
from logstore.recovery import read_header
from logstore.segment import Segment, index_rows
from logstore.walk import Tail, Walk
from logstore.writer import CUTS_MAX, Cut

SEGMENT_ID_AT: Final = 24  # of the segment header
REWRITTEN: Final = tuple(magic.to_bytes(4, "little") for magic in (COMPACTED_MAGIC, HOLE_MAGIC))
PIECE_BYTES: Final = 8  # a segment's id; what every item starts with: its magic and a CRC


class _WatchedFile:
    """The part of a File that readers use; calls `on_change` after reading what may not be of `segment` any more."""

    def __init__(self, segment: Segment, on_change: Callable[[Segment], None]) -> None:
        self.path = segment.file.path
        self.size = segment.file.size
        self._read = segment.file.read
        self._segment = weakref.ref(segment)  # no cycle: the descriptor goes with the last holder
        self._on_change = on_change
        self._id = segment.header.segment_id.to_bytes(PIECE_BYTES, "little")
        self.last: tuple[int, bytes] | None = None  # where the last frame is, how it starts; None until known

    def read(self, count: int, position: int, /) -> bytes:
        data = self._read(count, position)
        if not self.is_unchanged(self._read) and (segment := self._segment()):
            self._on_change(segment)
        return data

    def is_unchanged(self, read: Callable[[int, int], bytes]) -> bool:
        """Whether the file that `read` reads is this one, with the last frame that is known."""
        last = self.last or self.look_at_last()
        return read(PIECE_BYTES, SEGMENT_ID_AT) == self._id and (
            last is None or read(PIECE_BYTES, last[0]) == last[1]
        )

    def look_at_last(self) -> tuple[int, bytes] | None:
        segment = self._segment()
        position = segment.last_position if segment else None
        self.last = None if position is None else (position, self._read(PIECE_BYTES, position))
        return self.last

    def expect_last(self) -> None:
        """Of a segment that was just surveyed: the last frame is what it was then, though it be cut since."""
        segment, last = self._segment(), self.look_at_last()
        if segment and last and last[1][:4] not in REWRITTEN:
            self.last = (last[0], LINK.pack(FRAME_MAGIC, segment.tail.chain))


class ReadOnlyView:
    """What the files held when they were last looked at; `refresh` looks again.

    Nothing on disk is touched. An offset whose record was removed or replaced meanwhile gives the record that was
    there, or the one that is there now, or OffsetOutOfRange; where looking again fails, what opening raises. In a
    segment that is first read after it was cut it may give CorruptLog, until `refresh`.
    """

    def __init__(self, directory: Directory, opened: Opened) -> None:
        self._directory = directory
        self._lock = threading.RLock()  # held by who changes what follows; read by anyone
        self.layout = self._watched(opened.segments)
        self.end = opened.segments[-1].end_offset
        self.epoch = 0  # moves once all else is in its place
        self.cuts: tuple[Cut, ...] = ()
        self.is_closed = False

    def _watched(self, segments: list[Segment]) -> Layout:
        active = segments[-1]
        rows = active.index.rows[: active.index.count]
        active.index = Index.growing_in_memory()
        active.index.extend(rows)
        for segment in segments:
            self._watch(segment)
            cast(_WatchedFile, segment.file).expect_last()
        return Layout.of(tuple(segments))

    def _watch(self, segment: Segment) -> None:
        segment.file = cast(File, _WatchedFile(segment, self._look_again))

    def refresh(self) -> None:
        """Take in what was appended since."""
        with self._lock:
            if not self._is_in_place(self.layout.active):
                self._look_again(self.layout.active)
            while True:
                self._read_on()
                directory, active = self._directory, self.layout.active
                path = directory.store_path(active.end_index)
                if active.end_index == active.base_index or not directory.fs.exists(path):
                    break
                file = directory.fs.open(path, writable=False)
                header = read_header(file, path)
                if header is None or Tail.at_start(header).link != active.tail.link:
                    break  # it is being made
                following = Segment(directory, header, file)
                following.index = Index.growing_in_memory()
                self._watch(following)
                self.layout = Layout.of((*self.layout.segments, following))
            self.end = self.layout.active.end_offset

    def _is_in_place(self, segment: Segment) -> bool:
        """Whether the segment's name still stands for its file, and that has its last frame."""
        try:
            file = self._directory.fs.open(segment.store_path, writable=False)
        except FileNotFoundError:
            return False
        try:
            return cast(_WatchedFile, segment.file).is_unchanged(file.read)
        finally:
            file.close()

    def _read_on(self) -> None:
        segment = self.layout.active
        walk = Walk(segment.file, segment.tail, segment_id=segment.header.segment_id)
        for item in walk:
            if item.damage or segment is not self.layout.active:
                return  # its header is there already, its body not yet; or the log was cut
            segment.index.extend(index_rows(item))
            segment.tail = walk.tail
            starts_with = item.buffer[item.start : item.start + PIECE_BYTES]
            cast(_WatchedFile, segment.file).last = (item.position, starts_with)

    def _look_again(self, changed: Segment) -> None:
        """Replace all that is known, because `changed` is not what it was."""
        with self._lock:
            before = self.layout
            if changed not in before.segments:
                return  # another thread has met it too
            layout = self._watched(open_directory(self._directory, Config(), writable=False).segments)
            kept = _common_end(before, layout)
            if kept < before.active.end_offset:
                self.cuts = (*self.cuts[1 - CUTS_MAX :], Cut(self.epoch + 1, kept))
            self.layout = layout
            self.end = layout.active.end_offset
            self.epoch += 1


def _common_end(before: Layout, now: Layout) -> int:
    """Up to which offset a log is surely what it was, by the ends of segments; 0 if nobody knows."""
    for old in reversed(before.segments):
        for new in now.segments:
            row = old.end_index - new.base_index
            is_within = 0 <= row < new.end_index - new.base_index
            tail = new.tail_before(row) if is_within else new.tail
            if tail.link == old.tail.link:
                return old.end_offset
    return 0
