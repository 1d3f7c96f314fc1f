"""Entries as a cluster would append them."""

from __future__ import annotations

from logstore import Kind, Log, RawEntry, RecordBatch


def records_entry(index: int, term: int, values: RecordBatch | list[bytes], *, time: int = 0) -> RawEntry:
    """An entry of records whose leader appended them at `time`."""
    batch = values if isinstance(values, RecordBatch) else RecordBatch.encode(values)
    frame = batch.to_bytes()
    return RawEntry(
        index, term, Kind.RECORDS, frame[:32] + time.to_bytes(8, "little", signed=True) + frame[40:]
    )


def append_records(log: Log, values: RecordBatch | list[bytes], *, term: int = 0, time: int = 0) -> None:
    log.append_raw([records_entry(log.last_index + 1, term, values, time=time)])


def append_other(log: Log, kind: Kind, data: bytes = b"", *, term: int = 0) -> None:
    log.append_raw([RawEntry(log.last_index + 1, term, kind, data)])


def all_entries(log: Log) -> list[RawEntry]:
    found: list[RawEntry] = []
    while len(found) < log.last_index + 1 - log.first_index:
        found += log.raw_entries(log.first_index + len(found), log.last_index + 1)
    return found
