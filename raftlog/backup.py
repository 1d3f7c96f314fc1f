"""Copies of a cluster's records: into a folder, and back into an empty cluster."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from logstore import Config, Kind, Log, NoLog, RawEntry, RecordBatch
from raftlog.client.batch import BatchHandle
from raftlog.client.client import Client
from raftlog.errors import RaftlogError, UnexpectedOffset

SYNC_BYTES: Final = 8 * 1024 * 1024  # of copied frames that are written and synced together
TIME_AT: Final = 32  # byte of a frame's header at which its time of appending stands
IN_FLIGHT_MAX: Final = 16  # batches on their way to the cluster


class BackupFailed(RaftlogError):
    """Folder and cluster do not go together. Nothing was changed beyond what was copied before."""


class Copied(NamedTuple):
    """What a backup or a restoration has done."""

    copied: int  # records, by this call
    start: int  # offsets that the copy holds now
    end: int


def back_up(client: Client, folder: Path) -> Copied:
    """Add to the log in `folder` what the cluster has and it has not; all is durable on return.

    Its frames are the cluster's, with their terms and times of appending. BackupFailed if the folder holds what is not
    in the cluster, or what the cluster has forgotten lies between.
    """
    bounds = client.bounds(linearizable=True)
    with Log(folder, Config(sync="always")) as log:
        if log.end == log.start == 0 and log.last_index == 0:
            log.reset(start=bounds.start)
        first = log.end
        if first > bounds.end:
            raise BackupFailed(f"{folder} holds records up to before {first}, the cluster up to before {bounds.end}: "
                               "it is a copy of another one")  # fmt: skip
        if first < bounds.start:
            raise BackupFailed(
                f"{folder} ends at offset {first}, and the cluster has forgotten what is below {bounds.start}: "
                "begin another copy, in another folder"
            )
        _require_same(client, log, bounds.start)
        waiting: list[RawEntry] = []
        size = 0
        for batch in client.batches(first, bounds.end, linearizable=True):
            frame = _stamped(batch)
            waiting.append(RawEntry(log.last_index + len(waiting) + 1, batch.term, Kind.RECORDS, frame))
            size += len(frame)
            if size >= SYNC_BYTES:
                log.append_raw(waiting)
                waiting, size = [], 0
        log.append_raw(waiting)
        return Copied(log.end - first, log.start, log.end)


def _stamped(batch: RecordBatch) -> bytes:
    """The frame of a batch with its time of appending; where the log begins within a frame, of what is left of it."""
    frame = batch.to_bytes()
    return frame[:TIME_AT] + batch.append_time.to_bytes(8, "little", signed=True) + frame[TIME_AT + 8 :]


def _require_same(client: Client, log: Log, cluster_start: int) -> None:
    """BackupFailed if the last record here is not that of the cluster."""
    last = log.end - 1
    if last < max(log.start, cluster_start):
        return
    ours, theirs = log.read(last), client.read(last)
    if (ours.value, ours.key, ours.timestamp, ours.term) != (
        theirs.value,
        theirs.key,
        theirs.timestamp,
        theirs.term,
    ):
        raise BackupFailed(
            f"{log.path}: the record at offset {last} is not that of the cluster: it is a copy of another one"
        )


def restore(client: Client, folder: Path, *, renumber: bool = False) -> Copied:
    """Produce the records of a backup into a cluster that has none, or only the first of them from an earlier attempt.

    Each is stored under its offset, or with `renumber` so many lower that the first is 0. BackupFailed if the cluster has
    others; NoLog if there is no backup.
    """
    if not folder.is_dir():
        raise NoLog(str(folder))
    with Log(folder, read_only=True) as log:
        shift = log.start if renumber else 0
        if log.start > shift:
            raise BackupFailed(
                f"{folder} begins at offset {log.start}, because its cluster had forgotten what is below, and an empty "
                "cluster begins at 0: accept other offsets with --renumber"
            )
        bounds = client.bounds(linearizable=True)
        done = bounds.end + shift  # offset in the backup of the record to send next
        if bounds.start or done > log.end:
            raise BackupFailed(
                f"the cluster holds offsets {bounds.start} to before {bounds.end}: it is not empty"
            )
        if bounds.end and client.read(bounds.end - 1).value != log.read(done - 1).value:
            raise BackupFailed(
                f"the cluster holds {bounds.end} records that are not those of {folder}: it is not empty"
            )
        _produce(client, log, done, shift)
        return Copied(log.end - done, 0, log.end - shift)


def _produce(client: Client, log: Log, first: int, shift: int) -> None:
    unanswered: deque[BatchHandle] = deque()
    try:
        with client.producer() as producer:
            for batch in log.batches(first):
                unanswered.append(producer.send_batch(batch, expected_offset=batch.first_offset - shift))
                while len(unanswered) >= IN_FLIGHT_MAX:
                    unanswered.popleft().result()
            while unanswered:
                unanswered.popleft().result()
    except UnexpectedOffset as error:
        raise BackupFailed(f"somebody else produces to the cluster: {error}") from error
