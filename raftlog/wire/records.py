"""Records as messages of the service, both ways."""

from __future__ import annotations

from logstore import Record
from raftlog.pb.log.v1 import log_pb2 as pb


def to_message(record: Record) -> pb.Record:
    """A record that was stored, or is to be."""
    message = pb.Record(
        value=record.value,
        offset=max(record.offset, 0),  # -1 until it is stored
        term=record.term,
        key=record.key,
        timestamp_ns=record.timestamp,
    )
    for name, value in record.headers:
        message.headers.add(name=name, value=value)
    return message


def to_record(message: pb.Record) -> Record:
    headers = tuple((header.name, header.value) for header in message.headers)
    return Record(
        message.value, message.key, message.timestamp_ns, headers, offset=message.offset, term=message.term
    )
