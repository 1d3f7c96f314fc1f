"""Every limit and policy of a log, with its unit, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

BATCH_BYTES_LIMIT: Final = GIB  # a frame's length is a u32 and Arrow's offsets are an i32

SyncPolicy = Literal["always", "interval", "never"]
Compression = Literal["none", "zstd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Limits and policies of one log. None means without that limit.

    sync:
        "always"    an append returns when its records are on disk; concurrent appends share one
                    fdatasync. Readers see only what is on disk.
        "interval"  an append returns when its records are with the operating system; a background
                    sync follows within `sync_interval_ms`. A crash of the process loses nothing,
                    a power loss loses at most that interval.
        "never"     as "interval", but only full segments, `sync()` and `close()` reach for the disk.
    """

    sync: SyncPolicy = "always"
    sync_interval_ms: int = 100

    # A segment is closed before it would grow past this. Each holds a file open, so small ones are soon too many.
    segment_bytes_max: int = 64 * MIB
    record_bytes_max: int = 16 * MIB  # value + key + headers of one record: RecordTooLarge beyond
    batch_bytes_max: int = 32 * MIB  # one batch, uncompressed, with its columns: BatchTooLarge beyond
    pending_bytes_max: int = 64 * MIB  # queued by append_async and not written: later ones wait

    compression: Compression = "none"  # of values, where it makes a batch smaller

    retention_bytes_max: int | None = None
    retention_age_ms_max: int | None = None
    retention_records_max: int | None = None
    tombstone_age_ms_min: int = 24 * 3600 * 1000  # compaction keeps a deletion this long
    compaction_keys_max: int = 1_000_000  # keys held in memory at once; others wait for a later run

    spare_segments_max: int = 2  # removed stores kept to be overwritten: their syncs are cheaper
    unsealed_segments_max: int = 4  # full segments not yet synced; beyond it an append waits

    def __post_init__(self) -> None:
        if self.sync not in ("always", "interval", "never"):
            raise ValueError(f"sync is {self.sync!r}; choose always, interval or never")
        if self.compression not in ("none", "zstd"):
            raise ValueError(f"compression is {self.compression!r}; choose none or zstd")
        if self.batch_bytes_max > BATCH_BYTES_LIMIT:
            raise ValueError(
                f"batch_bytes_max is {self.batch_bytes_max}; the format allows at most {BATCH_BYTES_LIMIT}"
            )
        positive = (
            "sync_interval_ms", "segment_bytes_max", "record_bytes_max", "batch_bytes_max",
            "pending_bytes_max", "compaction_keys_max", "unsealed_segments_max",
        )  # fmt: skip
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        not_negative = (
            "retention_bytes_max", "retention_age_ms_max", "retention_records_max",
            "tombstone_age_ms_min", "spare_segments_max",
        )  # fmt: skip
        for name in not_negative:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; it cannot be negative")
