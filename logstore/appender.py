"""Stamps batches and writes them at the tail of the active segment. Its owner holds the lock.

What is written together goes down in one write: a mark if one is due, then the frames. If that fails, the file
is cut back to where it was, so that a failed append leaves nothing behind.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Final, NamedTuple

from logstore.checksum import crc32c
from logstore.config import KIB, Config
from logstore.directory import Directory
from logstore.encode import PADDING, check_value_size
from logstore.entry import Place, Unstamped, data_of, stamp, unstamped_records
from logstore.errors import DiskFull, LogError, LogPoisoned
from logstore.filesystem import BytesLike
from logstore.frame import (
    BODY_CRC_START,
    FORMAT_VERSION,
    FRAME_MAGIC,
    LINK,
    MARK_BYTES,
    PRODUCER,
    STAMP,
    Kind,
    Payload,
    SegmentHeader,
    pack_mark,
)
from logstore.opening import MORE_FILES_ADVICE, NO_MORE_FILES, Configuration, create_segment
from logstore.segment import Segment
from logstore.walk import Tail

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ZEROS: Final = bytes(256 * KIB)  # written ahead of small groups: a file that does not grow syncs faster
SMALL_GROUP_BYTES_MAX: Final = 16 * KIB  # larger groups would pay more for the zeros than they gain
TEMPLATES_MAX: Final = 1024  # sizes of single values that are remembered; the memory is about 200 KiB

_pack_link: Final = LINK.pack
_pack_stamp: Final = STAMP.pack
_pack_value_stamp: Final = Struct("<QQQq12sI").pack  # STAMP with what depends on the size alone made before
_new_tail: Final[Callable[[tuple[int, ...]], Tail]] = partial(tuple.__new__, Tail)
_STAMP_CONSTANTS: Final = Struct("<HBBII")
_ONE_VALUE: Final = Struct(PRODUCER.format + "II")


class _Template(NamedTuple):
    """All of a frame with one value of a certain size that the size decides."""

    length: int  # of the frame
    constants: bytes  # of the stamp: stream, version, kind, span, length
    head: bytes  # of the payload: the producer's fields and the value offsets
    head_crc: int
    padding: bytes


class Appender:
    """The tail of a log: where the next frame goes, and what it must continue."""

    def __init__(
        self,
        directory: Directory,
        config: Config,
        *,
        active: Segment,
        spares: list[str],
        configuration: Configuration,
        durable_index: int,
        clock: Callable[[], int],
        on_roll: Callable[[Segment], None],
    ) -> None:
        """`on_roll` is called with each new segment; the one before it is then full."""
        self._directory = directory
        self._config = config
        self._is_synced = config.sync == "always"
        self._segment_bytes_max = config.segment_bytes_max
        self._clock = clock
        self._on_roll = on_roll
        self._templates: dict[int, _Template] = {}
        self.spares = spares  # paths of stores to be overwritten
        self.configuration = configuration
        self.durable_index = durable_index  # moved by the owner; what the next mark says
        self.go_on_in(active)

    def go_on_in(self, active: Segment) -> None:
        """Append behind the tail of `active` from now on."""
        self.active = active
        self._marked_index = min(active.header.durable_index, self.durable_index)
        self._written_end = active.file.size()  # bytes that a write does not make the file longer for

    # ── one value ───────────────────────────────────────────────────────────────────────────────────

    def write_value(self, value: bytes) -> int | None:
        """Append a record that is only a value, in a third of the time of `write`; returns its offset.

        None, and nothing done, if a new segment or a mark is due: then `write` has to do it.
        """
        size = len(value)
        template = self._templates.get(size) or self._make_template(size)
        length, constants, head, head_crc, padding = template
        active = self.active
        index = active.index
        position, entry_index, offset, term, time, chain = active.tail
        end_position = position + length
        if (
            end_position > self._segment_bytes_max
            or self._marked_index < self.durable_index
            or index.count == index.capacity
        ):
            return None
        now = self._clock()
        if now > time:  # noqa: PLR1730  # max() would take four times as long
            time = now
        padded = value + padding
        stamp = _pack_value_stamp(entry_index, term, offset, time, constants, crc32c(head_crc, padded))
        chain = crc32c(chain, stamp)
        try:
            active.file.write(b"".join((_pack_link(FRAME_MAGIC, chain), stamp, head, padded)), position)
        except OSError as error:
            raise self._undo(error) from error
        index.put(entry_index - active.header.base_index, offset, position, term, time)
        active.tail = _new_tail((end_position, entry_index + 1, offset + 1, term, time, chain))
        return offset

    def _make_template(self, size: int) -> _Template:
        """What the size of a single value decides. Raises RecordTooLarge or BatchTooLarge."""
        check_value_size(size, self._config)
        head = _ONE_VALUE.pack(0, 0, 0, 1, size, size, 0, 0, 0, 0, 0, size)
        padding = PADDING[size & 7]
        length = BODY_CRC_START + len(head) + size + len(padding)
        constants = _STAMP_CONSTANTS.pack(0, FORMAT_VERSION, Kind.RECORDS, 1, length)
        template = _Template(length, constants, head, crc32c(0, head), padding)
        if len(self._templates) < TEMPLATES_MAX:
            self._templates[size] = template
        return template

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────

    def write_batches(self, payloads: list[Payload]) -> list[int | LogError]:
        """As `write`, for batches of records that are appended now, in the term of the last entry."""
        now = self._clock()
        return self.write([unstamped_records(payload, now) for payload in payloads])

    def write(self, entries: Sequence[Unstamped]) -> list[int | LogError]:
        """The first offset of each entry, or the error why it and all after it were not appended."""
        outcomes: list[int | LogError] = []
        try:
            while len(outcomes) < len(entries):
                rest = entries[len(outcomes) :] if outcomes else entries
                count = self._count_fitting(rest)
                if count:
                    outcomes += self._write_group(rest[:count])
                else:
                    self._roll()
        except LogError as error:
            outcomes += [error] * (len(entries) - len(outcomes))
        return outcomes

    def _count_fitting(self, entries: Sequence[Unstamped]) -> int:
        """How many of the entries fit the active segment; an empty one takes any single entry."""
        tail = self.active.tail
        room = self._segment_bytes_max - tail.position - MARK_BYTES
        for count, entry in enumerate(entries):
            room -= entry.size
            if room < 0:
                return 1 if count == 0 and tail.next_index == self.active.base_index else count
        return len(entries)

    def _write_group(self, entries: Sequence[Unstamped]) -> list[int]:
        """Stamp entries that fit the active segment and write them at once."""
        active = self.active
        tail = active.tail
        position, place = tail.position, Place(*tail[1:])
        configuration = self.configuration
        buffers: list[BytesLike] = []
        rows: list[tuple[int, int, int, int]] = []
        if self._marked_index < self.durable_index:
            buffers.append(pack_mark(active.header.segment_id, self.durable_index))
            position += MARK_BYTES
        for entry in entries:
            offset = place.offset
            if entry.kind == Kind.CONFIGURATION:
                configuration = Configuration(place.entry_index, data_of(entry))
            place = stamp(entry, place, buffers)
            rows.append((offset, position, place.term, place.time))
            position += entry.size

        self._put(buffers, position, len(rows))
        first_row = active.end_index - active.base_index
        for row, fields in enumerate(rows, first_row):
            active.index.put(row, *fields)
        active.tail = _new_tail((position, *place))
        self._marked_index = self.durable_index
        self.configuration = configuration
        return [row[0] for row in rows]

    def write_last_mark(self) -> bool:
        """Vouch for everything that is durable; False if a mark does already."""
        if self._marked_index >= self.durable_index:
            return False
        mark = pack_mark(self.active.header.segment_id, self.durable_index)
        self._put([mark], self.active.end_position + MARK_BYTES, 0)
        return True

    def _put(self, buffers: list[BytesLike], end_position: int, rows: int) -> None:
        """Write at the tail up to `end_position`, or raise DiskFull or LogPoisoned with the file as it was."""
        active = self.active
        try:
            active.index.reserve(rows)
            if self._is_synced and end_position > self._written_end:
                self._written_end = end_position
                ahead = min(len(ZEROS), self._segment_bytes_max - end_position)
                if ahead > 0 and end_position - active.end_position <= SMALL_GROUP_BYTES_MAX:
                    self._written_end += ahead
                    buffers.append(ZEROS[:ahead])
            active.file.write_all(buffers, active.end_position)
        except OSError as error:
            raise self._undo(error) from error

    def _undo(self, error: OSError) -> LogError:
        """Cut the file back to what it was before a write that failed, and return the error to raise."""
        active = self.active
        self._written_end = active.end_position
        try:
            active.file.truncate(active.end_position)
        except OSError as second:
            return LogPoisoned(f"{active.store_path}: a failed write could not be undone: {second}")
        if error.errno not in NO_ROOM:
            return LogPoisoned(f"{active.store_path}: a write failed: {error}")
        return DiskFull(f"{active.store_path}: no room for an append: {error}; nothing was appended")

    def _roll(self) -> None:
        """Begin a new segment, in a spare file if there is one."""
        full = self.active
        header = SegmentHeader(
            segment_id=0,
            base_index=full.end_index,
            base_offset=full.end_offset,
            previous_term=full.tail.term,
            previous_time=full.tail.time,
            previous_crc=full.tail.chain,
            durable_index=self.durable_index,
            stale_end=0,
            configuration_index=self.configuration.entry_index,
            configuration=self.configuration.data,
        )
        try:
            segment = create_segment(self._directory, header, self.spares.pop() if self.spares else None)
        except OSError as error:
            place = self._directory.path
            if error.errno in NO_ROOM or error.errno in NO_MORE_FILES:
                advice = f"; {MORE_FILES_ADVICE}" if error.errno in NO_MORE_FILES else ""
                raise DiskFull(
                    f"{place}: no room for a new segment: {error}; nothing was appended{advice}"
                ) from error
            raise LogPoisoned(f"{place}: a new segment could not be made: {error}") from error
        self.go_on_in(segment)
        self._on_roll(segment)
