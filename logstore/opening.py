"""Opening a directory: what recovery decided is done here, and segments are made here.

Everything is safe to be cut short by another crash: the next opening finds the same facts, or those of the
finished work.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logstore.config import Config
from logstore.directory import Directory
from logstore.errors import CorruptLog, DiskFull, LogPoisoned, NoLog
from logstore.filesystem import File
from logstore.frame import MARK_BYTES, Base, SegmentHeader, pack_segment_header
from logstore.index import ROW, Index, read_saved_header
from logstore.recovery import Survey, Verdict, corrupt, judge, read_header, survey_unvouched
from logstore.segment import Segment, new_segment_id, write_store
from logstore.walk import READ_BYTES, Tail

log = logging.getLogger("logstore")

NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE)  # for this process, or on this machine
MORE_FILES_ADVICE: Final = (
    "each segment holds a file open: "
    "raise the limit of open files (ulimit -n), or use a larger segment_bytes_max"
)

ASIDE_FILES_MAX: Final = 16  # the oldest are removed beyond it


class Configuration(NamedTuple):
    """The newest entry of kind CONFIGURATION; opaque to the engine."""

    entry_index: int  # 0: there is none
    data: bytes


NO_CONFIGURATION: Final = Configuration(0, b"")


@dataclass(frozen=True, slots=True)
class Repair:
    """Something that opening had to do: what, and how many bytes from which position of which file."""

    action: str
    path: str
    position: int
    bytes: int
    offset: int  # of the first record that could be concerned


@dataclass(slots=True)
class Opened:
    segments: list[Segment]  # oldest first; the last is active
    spares: list[str]  # paths
    repairs: list[Repair]
    durable_index: int
    configuration: Configuration


def open_directory(directory: Directory, config: Config, *, writable: bool) -> Opened:
    """The log in `directory`, recovered; a new one if it holds none.

    Raises CorruptLog, changing nothing, where bytes that were once durable are damaged so that it is not known
    where the log ends; UnsupportedFormat; NoLog if there is none and it may not be made; DiskFull if it has more
    segments than this process may have files open.
    """
    while True:
        names = directory.names()
        try:
            return _open_files(directory, config, writable=writable)
        except (CorruptLog, FileNotFoundError):
            # Segments that come and go next to a reader: what it found is of no one moment.
            if writable or directory.names() == names:
                raise
        except OSError as error:
            if error.errno not in NO_MORE_FILES:
                raise
            raise DiskFull(f"{directory.path}: cannot open the log: {error}; {MORE_FILES_ADVICE}") from error


def _open_files(directory: Directory, config: Config, *, writable: bool) -> Opened:
    bases, spares = _list_files(directory, config, writable=writable)
    surveys, durable_index = survey_unvouched(directory, bases, writable=writable)
    if bases:
        durable_index = max(durable_index, bases[0] - 1)  # what was removed had been durable
    verdicts = judge(surveys, durable_index)
    for found, verdict in verdicts:
        if verdict is Verdict.CORRUPT:
            raise corrupt(found)
    kept = [found for found, verdict in verdicts if verdict in (Verdict.KEEP, Verdict.CUT)]
    if bases and not kept and bases[0] != 1:
        raise corrupt(surveys[0])  # what came before it was removed, which only happens once it is durable
    sealed = _open_sealed(directory, bases[: len(bases) - len(surveys)], surveys)
    if not kept and not writable:
        raise NoLog(directory.path)

    repairs: list[Repair] = []
    if writable:
        for found, verdict in reversed(verdicts):  # newest first: what another crash leaves is no gap
            if verdict is not Verdict.KEEP:
                repairs.insert(0, _repair(directory, found, verdict))
        directory.sync()
        for found in kept:
            _write_again(found, durable_index)
    segments = sealed + [_open_surveyed(directory, found) for found in kept]
    if not segments:
        segment = create_segment(directory, FIRST_SEGMENT)
        return Opened([segment], spares, repairs, 0, NO_CONFIGURATION)
    if writable:
        activate(segments[-1], segments[-1].index.rows)
    return Opened(segments, spares, repairs, durable_index, _configuration(kept[-1]))


def _configuration(found: Survey) -> Configuration:
    assert found.header is not None
    if found.configurations:
        return Configuration(*found.configurations[-1])
    return Configuration(found.header.configuration_index, found.header.configuration)


def _list_files(directory: Directory, config: Config, *, writable: bool) -> tuple[list[int], list[str]]:
    """(base indexes of the stores, paths of the spares); files that a crash left half made are removed."""
    names = directory.names()
    bases = sorted(name.base_index for name in names if name.is_store)
    spares = []
    for name in names:
        # A spare that is not older than the log is of a log that was reset or removed. Its frames could be
        # taken for ones of this log, because they have the same entry indexes.
        is_older = bool(bases) and name.base_index < bases[0]
        if (name.suffix, name.is_unfinished, is_older) == ("spare", False, True):
            spares.append(directory.spare_path(name.base_index))
        elif writable and (
            name.is_unfinished
            or name.suffix == "spare"
            or (name.suffix == "index" and name.base_index not in bases)
        ):
            directory.fs.remove(f"{directory.path}/{name}")
    if writable:
        for path in spares[config.spare_segments_max :]:
            directory.fs.remove(path)
    return bases, spares[: config.spare_segments_max]


def _open_sealed(directory: Directory, bases: list[int], surveys: list[Survey]) -> list[Segment]:
    """The segments that are vouched for, without reading more than their headers."""
    segments: list[Segment] = []
    following = surveys[0].header if surveys else None
    for base_index in reversed(bases):
        assert following is not None
        path = directory.store_path(base_index)
        file = directory.fs.open(path, writable=False)
        header = read_header(file, path)
        if header is None or header.base_index != base_index:
            raise CorruptLog(path, 0, "the segment's header is damaged", entry=base_index)
        tail = Tail(
            0, following.base_index, following.base_offset, following.previous_term, following.previous_time,
            following.previous_crc,
        )  # fmt: skip
        segment = Segment(directory, header, file, tail)
        saved = read_saved_header(directory.fs, segment.index_path)
        if saved is not None and saved.segment_id == header.segment_id:
            if (base_index + saved.count, saved.end_offset) != (segment.end_index, segment.end_offset):
                raise CorruptLog(
                    path, saved.end_position, f"the next segment starts with entry {segment.end_index}: a file is missing",
                    entry=base_index + saved.count, offset=saved.end_offset,
                )  # fmt: skip
            segment.tail = tail._replace(position=saved.end_position)
            segment.is_sealed = True
        segments.insert(0, segment)
        following = header
    return segments


def _open_surveyed(directory: Directory, found: Survey) -> Segment:
    assert found.header is not None
    segment = Segment(directory, found.header, found.file, found.tail)
    segment.index = Index.in_memory(found.rows)
    for place, _ in found.breaks:
        log.error(
            "damaged frame path=%s position=%d entry=%d offset=%d; reading it raises CorruptLog",
            found.path, place.position, place.next_index, place.offset,
        )  # fmt: skip
    return segment


def _repair(directory: Directory, found: Survey, verdict: Verdict) -> Repair:
    """Cut a torn tail, or put a segment that was never born out of the way. Durable on return."""
    position = found.tail.position if verdict is Verdict.CUT else 0
    offset = found.tail.offset
    length = max(found.present_end - position, 0)
    if length:
        _keep_aside(directory, found.file, position, length, f"{found.base_index:020d}-{position:020d}")
    if verdict is Verdict.CUT:
        found.file.truncate(position)
        found.file.sync()
    else:
        directory.fs.remove(found.path)
        directory.remove_if_exists(directory.index_path(found.base_index))
        directory.sync()
    log.warning(
        "%s path=%s position=%d bytes=%d next_offset=%d reason=%s",
        verdict.value, found.path, position, length, offset, found.stopped,
    )  # fmt: skip
    return Repair(verdict.value, found.path, position, length, offset)


def _write_again(found: Survey, durable_index: int) -> None:
    """Write what nothing vouches for once more, so that the next sync of the file makes it durable.

    If a sync of these bytes has failed, the system may take them for written though the disk lacks them; then no
    sync would ever write them. Of what is vouched for only the mark may be such: it is in front of the rest.
    """
    rows = found.rows["position"]
    number = durable_index + 1 - found.base_index
    if number <= 0:
        position = 0
    else:
        position = (int(rows[number]) if number < len(rows) else found.tail.position) - MARK_BYTES
    while position < found.tail.position:
        data = found.file.read(min(READ_BYTES, found.tail.position - position), position)
        found.file.write(data, position)
        position += len(data)


def _keep_aside(directory: Directory, file: File, position: int, length: int, name: str) -> None:
    """Copy bytes that are about to go. They were never acknowledged, so failing to keep them is no failure."""
    fs, folder = directory.fs, directory.aside_path
    try:
        fs.make_directory(folder)
        names = fs.list(folder)
        for old in names[: max(len(names) - ASIDE_FILES_MAX + 1, 0)]:
            fs.remove(f"{folder}/{old}")
        directory.remove_if_exists(f"{folder}/{name}")
        copy = fs.create(f"{folder}/{name}")
        for done in range(0, length, READ_BYTES):
            copy.write(file.read(min(READ_BYTES, length - done), position + done), done)
        copy.sync()
        copy.close()
        fs.sync_directory(folder)
    except OSError as error:
        log.warning("cannot keep torn bytes aside path=%s bytes=%d error=%s", folder, length, error)


NO_ROWS: Final = np.empty(0, ROW)


# ── making segments ─────────────────────────────────────────────────────────────────────────────────

FIRST_SEGMENT: Final = SegmentHeader(
    segment_id=0, base_index=1, base_offset=0, previous_term=0, previous_time=0, previous_crc=0, durable_index=0,
    stale_end=0, configuration_index=0, configuration=b"",
)  # fmt: skip


def begin_log(directory: Directory, base: Base) -> Segment:
    """The first segment of a log that begins behind `base`. It appears whole or not at all; durable on return.

    Were its name there without its header, nothing would tell that no entry is missing before it.
    """
    header = FIRST_SEGMENT._replace(
        base_index=base.index + 1, base_offset=base.offset, previous_term=base.term, previous_time=base.time,
        previous_crc=base.chain, durable_index=base.index,
    )  # fmt: skip
    segment = write_store(directory, header, (), Tail.at_start(header))
    directory.put_in_place(segment.store_path)
    segment.file.path = segment.store_path
    activate(segment)
    return segment


def create_segment(directory: Directory, header: SegmentHeader, spare: str | None = None) -> Segment:
    """A new active segment, in a new file or in the one at `spare`. Its name is durable, its header is not yet.

    The id and `stale_end` of `header` are filled in here. After an OSError nothing is left of it; LogPoisoned
    if that cannot be said.
    """
    fs, store_path = directory.fs, directory.store_path(header.base_index)
    if spare is None:
        file = fs.create(store_path)
    else:
        file = fs.open(spare, writable=True)
        fs.rename(spare, store_path)
    try:
        header = header._replace(segment_id=new_segment_id(), stale_end=file.size())
        file.write(pack_segment_header(header), 0)
        segment = Segment(directory, header, file)
        activate(segment)
        directory.sync()
    except OSError as error:
        try:
            file.close()  # the sync needs a descriptor, and there may be no other
            fs.remove(store_path)
            directory.sync()  # appends may go on in the segment before: this one must not come back behind it
        except OSError as second:
            raise LogPoisoned(
                f"{store_path}: making it failed: {error}; and it may be left: {second}"
            ) from second
        raise
    return segment


def activate(segment: Segment, rows: NDArray[np.void] = NO_ROWS) -> None:
    """Give the newest segment an index that grows, with the rows that it already has."""
    if segment.directory.fs.exists(segment.index_path):
        segment.directory.fs.remove(segment.index_path)
        segment.directory.sync()  # a saved index that came back would contradict what is appended now
    index = Index.active(segment.directory.fs.create(segment.index_path))
    index.extend(rows)
    segment.index = index


def remove_files(directory: Directory) -> None:
    """Delete the files of a closed log, and the directory if nothing else is in it."""
    fs = directory.fs
    for name in sorted(map(str, directory.names()), reverse=True):
        fs.remove(f"{directory.path}/{name}")  # newest first: what a crash leaves is a log
        directory.sync()
    if fs.exists(directory.aside_path):
        for name in fs.list(directory.aside_path):
            fs.remove(f"{directory.aside_path}/{name}")
        fs.remove_directory(directory.aside_path)
    directory.remove_if_exists(directory.lock_path)
    if not fs.list(directory.path):
        fs.remove_directory(directory.path)
