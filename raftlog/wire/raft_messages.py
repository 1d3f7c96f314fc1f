"""Messages of Raft as bytes, both ways. All numbers are little-endian.

The first byte is the message's number in NUMBERS. Then come the fields in the order of the class: numbers as 8 bytes
below 2**63, booleans as 1 byte. These end with what has no fixed length:

    Append           count (4); per entry term (8), kind (1), bytes of its data (4); then all data. The first entry's
                     index is prev_index + 1, and the others follow it. Terms ascend from prev_term to term.
    SnapshotChunk    term, index, term of that entry, size, position, is_last; bytes of the configuration (4) and of the
                     data (4); then both
    TransferRequest  bytes of the node's name (2), and the name

What comes from a peer is checked: decode gives a message that encode could have been given, or raises BadMessage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple

from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    TransferRequest,
    Vote,
    VoteReply,
)
from raftlog.wire.configurations import BadConfiguration, configuration_from_bytes, configuration_to_bytes

NUMBER_MAX: Final = 2**63 - 1  # of any index, term or count: they are signed in the log's files

# The number of a message is never given to another.
NUMBERS: Final[dict[type[Message], int]] = {
    Append: 1, AppendReply: 2, AppendRejected: 3, HigherTerm: 4, Heartbeat: 5, HeartbeatReply: 6, Vote: 7, VoteReply: 8,
    PreVote: 9, PreVoteReply: 10, SnapshotChunk: 11, SnapshotReply: 12, TimeoutNow: 13, TransferRequest: 14,
    ReadRequest: 15, ReadReply: 16,
}  # fmt: skip

_APPEND: Final = struct.Struct("<BQQQQQI")
_ENTRY: Final = struct.Struct("<QBI")
_CHUNK: Final = struct.Struct("<BQQQQQBII")
_TRANSFER: Final = struct.Struct("<BQH")


class BadMessage(Exception):
    """A peer sent bytes that are no message of Raft. It runs another version, or is broken."""


class _Fixed(NamedTuple):
    """A message whose fields are numbers and booleans only."""

    make: type[Message]
    layout: struct.Struct
    fields: Callable[[Any], Any]  # their values, in order
    booleans: tuple[int, ...]  # positions among the fields


def _fixed(make: type[Message], types: str) -> _Fixed:
    names = list(make.__dataclass_fields__)
    assert len(names) == len(types), make
    booleans = tuple(position for position, type in enumerate(types) if type == "B")
    return _Fixed(make, struct.Struct(f"<B{types}"), attrgetter("__class__", *names), booleans)


_FIXED: Final = {
    NUMBERS[each.make]: each
    for each in (
        _fixed(AppendReply, "QQ"),
        _fixed(AppendRejected, "QQQQQ"),
        _fixed(HigherTerm, "Q"),
        _fixed(Heartbeat, "QQQ"),
        _fixed(HeartbeatReply, "QQ"),
        _fixed(Vote, "QQQB"),
        _fixed(VoteReply, "QBQQ"),
        _fixed(PreVote, "QQQ"),
        _fixed(PreVoteReply, "QBQQ"),
        _fixed(SnapshotReply, "QQQ"),
        _fixed(TimeoutNow, "Q"),
        _fixed(ReadRequest, "QQ"),
        _fixed(ReadReply, "QQQ"),
    )
}


def encode(message: Message) -> list[bytes]:
    """The message's bytes, in parts that are to be sent one after the other; the data of entries is not copied."""
    match message:
        case Append():
            return _encode_append(message)
        case SnapshotChunk():
            return _encode_chunk(message)
        case TransferRequest():
            name = message.to.encode()
            return [_TRANSFER.pack(NUMBERS[TransferRequest], message.term, len(name)) + name]
        case _:
            number = NUMBERS[type(message)]
            fixed = _FIXED[number]
            return [fixed.layout.pack(number, *fixed.fields(message)[1:])]


def _encode_append(message: Append) -> list[bytes]:
    entries = message.entries
    head = [
        _APPEND.pack(
            NUMBERS[Append], message.term, message.prev_index, message.prev_term, message.commit, message.attempt,
            len(entries),
        )
    ]  # fmt: skip
    index = message.prev_index
    for entry in entries:
        index += 1
        assert entry.index == index, f"entry {entry.index} at the place of {index}"
        head.append(_ENTRY.pack(entry.term, entry.kind, len(entry.data)))
    return [b"".join(head), *(entry.data for entry in entries)]


def _encode_chunk(message: SnapshotChunk) -> list[bytes]:
    snapshot = message.snapshot
    configuration = configuration_to_bytes(snapshot.configuration)
    head = _CHUNK.pack(
        NUMBERS[SnapshotChunk], message.term, snapshot.index, snapshot.term, snapshot.size_bytes, message.position,
        message.is_last, len(configuration), len(message.data),
    )  # fmt: skip
    return [head + configuration, message.data]


def decode(data: bytes | memoryview) -> Message:
    """The message that these bytes are, or BadMessage. Nothing of `data` is kept; what is large is copied once."""
    view = memoryview(data)
    if not view:
        raise BadMessage("no bytes are no message")
    number = view[0]
    try:
        fixed = _FIXED.get(number)
        if fixed is not None:
            return _decode_fixed(fixed, view)
        if number == NUMBERS[Append]:
            return _decode_append(view)
        if number == NUMBERS[SnapshotChunk]:
            return _decode_chunk(view)
        if number == NUMBERS[TransferRequest]:
            return _decode_transfer(view)
    except struct.error as error:
        raise BadMessage(f"message {number} of {len(view)} bytes: {error}") from error
    raise BadMessage(f"no message has the number {number}")


def _check_numbers(*numbers: int) -> None:
    if max(numbers) > NUMBER_MAX:
        raise BadMessage(f"{max(numbers)} is above {NUMBER_MAX}")


def _decode_fixed(fixed: _Fixed, view: memoryview) -> Message:
    _, *fields = fixed.layout.unpack(view)
    _check_numbers(*fields)
    for position in fixed.booleans:
        fields[position] = _boolean(fields[position])
    return fixed.make(*fields)


def _boolean(value: int) -> bool:
    if value > 1:
        raise BadMessage(f"a boolean is 0 or 1, not {value}")
    return value == 1


def _decode_append(view: memoryview) -> Append:
    _, term, prev_index, prev_term, commit, attempt, count = _APPEND.unpack_from(view)
    table_end = _APPEND.size + count * _ENTRY.size
    if table_end > len(view):
        raise BadMessage(f"{count} entries do not fit into {len(view)} bytes")
    _check_numbers(term, prev_index + count, prev_term, commit, attempt)
    rows = list(_ENTRY.iter_unpack(view[_APPEND.size : table_end]))
    ends = list(accumulate((size for _, _, size in rows), initial=table_end))
    if ends[-1] != len(view):
        raise BadMessage(f"the entries end at {ends[-1]} of {len(view)} bytes")
    entries, term_before = [], prev_term
    for place, (entry_term, kind, _) in enumerate(rows):
        if not term_before <= entry_term <= term:
            raise BadMessage(f"an entry of term {entry_term} after one of {term_before}, in term {term}")
        term_before = entry_term
        try:
            entry_kind = EntryKind(kind)
        except ValueError as error:
            raise BadMessage(f"no entry is of kind {kind}") from error
        payload = bytes(view[ends[place] : ends[place + 1]])
        entries.append(Entry(prev_index + 1 + place, entry_term, entry_kind, payload))
    return Append(term, prev_index, prev_term, entries, commit, attempt)


def _decode_chunk(view: memoryview) -> SnapshotChunk:
    _, term, index, entry_term, size, position, last, configuration_size, part_size = _CHUNK.unpack_from(view)
    _check_numbers(term, index, entry_term, size, position)
    is_last = _boolean(last)
    start = _CHUNK.size + configuration_size
    if start + part_size != len(view):
        raise BadMessage(f"a configuration of {configuration_size} and {part_size} bytes in {len(view)}")
    try:
        configuration = configuration_from_bytes(bytes(view[_CHUNK.size : start]))
    except BadConfiguration as error:
        raise BadMessage(str(error)) from error
    part = bytes(view[start:])
    if position + len(part) > size or is_last != (position + len(part) == size):
        raise BadMessage(f"{len(part)} bytes at {position} of a snapshot of {size}, is_last={is_last}")
    snapshot = Snapshot(index, entry_term, configuration, size)
    return SnapshotChunk(term, snapshot, position, part, is_last)


def _decode_transfer(view: memoryview) -> TransferRequest:
    _, term, size = _TRANSFER.unpack_from(view)
    _check_numbers(term)
    name = bytes(view[_TRANSFER.size :])
    if len(name) != size:
        raise BadMessage(f"a node's name of {size} bytes in {len(name)}")
    try:
        to = name.decode()
    except UnicodeDecodeError as error:
        raise BadMessage(f"a node's name is not UTF-8: {name[:100]!r}") from error
    if not 0 < len(to) <= NODE_NAME_CHARACTERS_MAX:
        raise BadMessage(f"a node's name has 1 to {NODE_NAME_CHARACTERS_MAX} characters, not {len(to)}")
    return TransferRequest(term, to)
