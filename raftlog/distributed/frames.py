"""Batches on their way into the log: checked, and stamped with the time of the append."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from logstore import Config, Record, RecordBatch
from logstore.batch import check_wire_frame
from logstore.encode import encode_batch, encode_value
from logstore.frame import FrameHeader, Payload, parse_frame_header, wire_frame
from raftlog.machines.producers import Sequence as ProducerSequence

TIME_AT: Final = 32  # of a frame's append time, i64 (docs/FORMATS.md)
_TIME: Final = Struct("<q")

Value = bytes | Record
Batch = bytes | RecordBatch | Sequence[Value]


class Frame(NamedTuple):
    """A batch as it goes into the log."""

    data: bytes
    record_count: int
    sequence: ProducerSequence | None  # of an idempotent producer


def make_frame(batch: Batch, config: Config, *, time: int) -> Frame:
    """The frame of a batch, appended at `time`.

    Bytes are checked as a stranger's. Raises CorruptBatch, EmptyBatch, RecordTooLarge, BatchTooLarge, UnsupportedFormat.
    """
    if isinstance(batch, bytes):
        header = check_wire_frame(batch, config)
        data = batch
    else:
        data = wire_frame(_payload(batch, config))
        header = parse_frame_header(data)
    stamped = b"".join((data[:TIME_AT], _TIME.pack(time), memoryview(data)[TIME_AT + _TIME.size :]))
    return Frame(stamped, header.record_count, _sequence(header))


def _payload(batch: RecordBatch | Sequence[Value], config: Config) -> Payload:
    if isinstance(batch, RecordBatch):
        return batch.payload(config)
    if len(batch) == 1 and type(batch[0]) is bytes:
        return encode_value(batch[0], config)
    return encode_batch(batch, config)


def _sequence(header: FrameHeader) -> ProducerSequence | None:
    if not header.producer_id:
        return None
    return ProducerSequence(
        header.producer_id, header.producer_epoch, header.first_sequence, header.record_count
    )
