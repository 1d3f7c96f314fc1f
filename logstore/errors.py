"""Errors of the engine. Each says whose fault it is and whether the log changed.

An OSError leaves it where the disk refuses to be read, to open a log, or to save what is derived from it; then
nothing changed. Any other exception that leaves the engine, an AssertionError above all, is a bug in it.
"""

from __future__ import annotations


class LogError(Exception):
    """Base of all errors that the engine raises on purpose."""


class OffsetOutOfRange(LogError, LookupError):
    """The caller asked for a record that does not exist. Nothing changed."""

    def __init__(self, offset: int, start: int, end: int) -> None:
        super().__init__(f"offset {offset} is outside of the log, which holds {start} to before {end}")
        self.offset = offset
        self.start = start
        self.end = end


class IndexOutOfRange(LogError, LookupError):
    """The caller asked for an entry that does not exist, or would leave a gap. Nothing changed."""

    def __init__(self, index: int, first: int, last: int) -> None:
        super().__init__(f"entry {index} is outside of the log, which holds entries {first} to {last}")
        self.index = index
        self.first = first
        self.last = last


class RecordCompacted(LogError, LookupError):
    """The record was removed: compaction kept a later one of its key, or repair gave it up."""

    def __init__(self, offset: int, reason: str = "compaction kept a later record of its key") -> None:
        super().__init__(f"record {offset} is gone: {reason}")
        self.offset = offset


class RecordTooLarge(LogError, ValueError):
    """The caller's record is over `record_bytes_max`. Nothing changed; a retry fails again."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a record of {size} bytes is over record_bytes_max, {limit} bytes")
        self.size = size
        self.limit = limit


class BatchTooLarge(LogError, ValueError):
    """The caller's batch is over `batch_bytes_max`. Nothing changed; split it."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a batch of {size} bytes is over batch_bytes_max, {limit} bytes; split it")
        self.size = size
        self.limit = limit


class EmptyBatch(LogError, ValueError):
    """The caller's batch has no records. Nothing changed."""

    def __init__(self) -> None:
        super().__init__("a batch needs at least one record")


class CorruptBatch(LogError, ValueError):
    """Bytes that claim to be a batch are not one: damaged on the way, or badly made. Nothing changed."""


class CorruptLog(LogError):
    """Bytes on disk that were once whole are damaged. Nothing changed; see `logstore verify`.

    `path` and `position` say where; `entry` and `offset` (None where unknown) what it held.
    """

    def __init__(
        self, path: str, position: int, reason: str, *, entry: int | None = None, offset: int | None = None
    ) -> None:
        held = "" if entry is None else f" (entry {entry}, offset {offset})"
        super().__init__(f"{path}: damaged at byte {position}{held}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason
        self.entry = entry
        self.offset = offset


class UnsupportedFormat(LogError):
    """The files were written by a newer version, or are not a log at all. Nothing changed."""


class NoLog(LogError, FileNotFoundError):
    """The directory holds no log, and was opened only to be read. Nothing changed."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} holds no log")
        self.path = path


class LogLocked(LogError):
    """Another process, or another Log in this one, has the directory open. Nothing changed."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{path} is in use by {holder}; close it there, or open with read_only=True")
        self.path = path
        self.pid = pid


class LogPoisoned(LogError):
    """A sync or write failed or was interrupted, so what the disk holds is unknown.

    Reads go on; writes need a reopened log.
    """


class LogClosed(LogError):
    """The log was closed. Open it again."""


class LogReadOnly(LogError):
    """The log was opened with read_only=True. Nothing changed."""


class QueueFull(LogError):
    """`pending_bytes_max` of appends from asyncio are on their way. Nothing was queued; `await log.room()`."""

    def __init__(self, pending: int) -> None:
        super().__init__(f"appends of {pending} bytes are on their way; wait until some are done")
        self.pending = pending


class DiskFull(LogError):
    """The disk has no room. Nothing changed; the same call works once there is room."""
