"""Reads a data directory that proglog wrote, so that its records can be appended to a log of ours.

    <base>.store    repeated: u64 length, big-endian, then so many bytes of a protobuf Record
    <base>.index    not needed, and wrong after a crash: it is padded with zeros

The record's protobuf has value = 1 (bytes) and offset = 2 (varint); its other fields are skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from logstore.config import MIB
from logstore.errors import LogError

_NAME: Final = re.compile(r"(0|[1-9]\d*)\.store")  # without padding, unlike ours
_LENGTH: Final = Struct(">Q")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
RECORD_BYTES_MAX: Final = 1024 * MIB  # a larger length is damage, not a record


class ProglogDamage(LogError):
    """A file of proglog is damaged; its message says where."""


class ProglogRecord(NamedTuple):
    offset: int
    value: bytes


def stores(directory: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """(base offset, path) of each store, in order; ProglogDamage if there is none."""
    matches = [(match, path) for path in Path(directory).iterdir() if (match := _NAME.fullmatch(path.name))]
    found = sorted((int(match[1]), path) for match, path in matches)
    if not found:
        raise ProglogDamage(f"{directory} holds no files of proglog, such as 0.store")
    return found


def read_records(directory: str | os.PathLike[str]) -> Iterator[ProglogRecord]:
    """The records in order. A torn last record is left out, as proglog never synced it; damage elsewhere raises."""
    files = stores(directory)
    expected = files[0][0]
    for base, path in files:
        if base != expected:
            raise ProglogDamage(f"{path}: starts at offset {base}, but {expected} is next: a file is missing")
        for record in _read_store(path, is_last=path == files[-1][1]):
            if record.offset != expected:
                raise ProglogDamage(f"{path}: holds offset {record.offset} where {expected} is next")
            yield record
            expected += 1


def _read_store(path: Path, *, is_last: bool) -> Iterator[ProglogRecord]:
    size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position < size:
            head = file.read(_LENGTH.size)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else RECORD_BYTES_MAX + 1
            if position + _LENGTH.size + length > size:
                if is_last:
                    return
                raise ProglogDamage(f"{path}: the record at byte {position} is cut short")
            yield _parse_record(file.read(length), path, position)
            position += _LENGTH.size + length


def _parse_record(data: bytes, path: Path, position: int) -> ProglogRecord:
    offset, value = 0, b""
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                varint, at = _varint(data, at)
                offset = varint if number == 2 else offset
            elif wire_type == _BYTES:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise IndexError
                value = data[at : at + length] if number == 1 else value
                at += length
            elif wire_type in (_FIXED64, _FIXED32):
                at += 8 if wire_type == _FIXED64 else 4
            else:
                raise IndexError
        if at > len(data):
            raise IndexError
    except IndexError as error:
        raise ProglogDamage(f"{path}: the record at byte {position} is not a protobuf Record") from error
    return ProglogRecord(offset, value)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it); IndexError if the data ends within."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
