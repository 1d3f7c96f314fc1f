"""A segmented, crash-safe log to embed in a program, as one embeds SQLite.

with logstore.Log("data/events") as log:
    offset = log.append(b"value")
    first, end = log.append_batch([b"a", b"b"])
    for record in log.scan():
        ...
"""

from logstore.batch import RecordBatch
from logstore.config import GIB, KIB, MIB, Config
from logstore.errors import (
    BatchTooLarge,
    CorruptBatch,
    CorruptLog,
    DiskFull,
    EmptyBatch,
    IndexOutOfRange,
    LogClosed,
    LogError,
    LogLocked,
    LogPoisoned,
    LogReadOnly,
    NoLog,
    OffsetOutOfRange,
    QueueFull,
    RecordCompacted,
    RecordTooLarge,
    UnsupportedFormat,
)
from logstore.frame import Base, Kind, RawEntry
from logstore.log import Log
from logstore.record import Record

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "Base",
    "BatchTooLarge",
    "Config",
    "CorruptBatch",
    "CorruptLog",
    "DiskFull",
    "EmptyBatch",
    "IndexOutOfRange",
    "Kind",
    "Log",
    "LogClosed",
    "LogError",
    "LogLocked",
    "LogPoisoned",
    "LogReadOnly",
    "NoLog",
    "OffsetOutOfRange",
    "QueueFull",
    "RawEntry",
    "Record",
    "RecordBatch",
    "RecordCompacted",
    "RecordTooLarge",
    "UnsupportedFormat",
]
