"""Which segments may go, and why each stays. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from logstore.config import Config

NS_PER_MS = 1_000_000


class SegmentFacts(Protocol):
    """What retention needs to know of a segment."""

    @property
    def base_offset(self) -> int: ...
    @property
    def end_offset(self) -> int: ...
    @property
    def last_time(self) -> int: ...
    @property
    def end_position(self) -> int: ...  # 0: not known before its index is loaded
    @property
    def store_bytes(self) -> int: ...  # of the file, with what was written ahead or is of an older life


class Decision(NamedTuple):
    """Whether a segment stays, and the reason in words."""

    base_offset: int
    end_offset: int
    bytes: int
    stays: bool
    reason: str


def decide_retention(segments: Sequence[SegmentFacts], config: Config, *, now: int) -> list[Decision]:
    """A decision for each segment, oldest first. Once one stays all newer ones do; the last always does.

    A segment is too old when its newest record is: append times are the clock, never the producers'.
    """
    decisions: list[Decision] = []
    sizes = [segment.end_position or segment.store_bytes for segment in segments]
    bytes_from = sum(sizes)  # of the segment and all newer ones
    for segment, size in zip(segments, sizes, strict=True):
        over = _over_limit(segment, config, now=now, bytes_from=bytes_from, end=segments[-1].end_offset)
        if decisions and decisions[-1].stays:
            over, reason = None, "an older segment stays"
        elif segment is segments[-1]:
            over, reason = None, "it is the active segment"
        else:
            reason = over or "it is within every limit"
        decisions.append(Decision(segment.base_offset, segment.end_offset, size, over is None, reason))
        bytes_from -= size
    return decisions


def _over_limit(segment: SegmentFacts, config: Config, *, now: int, bytes_from: int, end: int) -> str | None:
    """The limit that keeping the segment would break, None if none."""
    age_ms = (now - segment.last_time) // NS_PER_MS
    if config.retention_age_ms_max is not None and age_ms > config.retention_age_ms_max:
        return f"its newest record is {age_ms} ms old, retention_age_ms_max is {config.retention_age_ms_max}"
    if config.retention_bytes_max is not None and bytes_from > config.retention_bytes_max:
        return f"with it the log has {bytes_from} bytes, retention_bytes_max is {config.retention_bytes_max}"
    records = end - segment.base_offset
    if config.retention_records_max is not None and records > config.retention_records_max:
        return (
            f"with it the log has {records} records, retention_records_max is {config.retention_records_max}"
        )
    return None
