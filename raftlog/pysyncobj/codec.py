"""What PySyncObj's nodes say to each other, as bytes. Nothing is ever unpickled.

PySyncObj knows more messages than these; the others are neither sent nor taken:

    apply_command, and its response   commands go to the leader by our own means
    append_entries with `serialized`  a dump; the log begins at its first entry, so nobody needs one
    append_entries with `transmission` an entry in pickled pieces; one entry is always one piece here

Little-endian. A message is a type and fixed fields, and of an append its entries:

    type               fields
    1  request_vote    term u64, last_log_index u64, last_log_term u64
    2  response_vote   term u64
    3  append_entries  term u64, commit_index u64, prevLogIdx u64, prevLogTerm u64, count u32
                       then of each entry: term u64, bytes u32; then the commands, back to back
    4  next_node_idx   term u64, next_node_idx u64, reset u8, success u8; PySyncObj's has no term
    5  timeout_now     term u64

The entries of an append have the indexes behind prevLogIdx. A command is one byte that says what it is, and its data:

    0  records      a frame (docs/FORMATS.md)
    1  nothing      a leader's first entry, or one that a read waits for
    2  membership   JSON: the change
"""

from __future__ import annotations

import json
from struct import Struct, error
from typing import Any, Final, NamedTuple

from logstore import Config, LogError
from logstore.batch import check_wire_frame
from raftlog.engine import NodeId
from raftlog.net.addresses import split_address
from raftlog.net.handshake import PYSYNCOBJ_MESSAGE, TEXT_CHARACTERS_MAX
from raftlog.net.peer_links import Language
from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX
from raftlog.wire.raft_messages import BadMessage

RECORDS: Final = 0  # PySyncObj's command types
NOTHING: Final = 1
MEMBERSHIP: Final = 2

CHANGE_BYTES_MAX: Final = 4096  # of a membership command
FIRST_INDEX: Final = 1  # of the log, on every node; that entry is nothing, of term 0
ENTRIES_MAX: Final = 100_000  # of one append

Fields = dict[str, Any]  # a message as PySyncObj has it
Entry = tuple[bytes, int, int]  # likewise: command, index, term

_APPEND: Final = 3
_ENTRY: Final = Struct("<QI")
_SHAPES: Final = {  # name: type, layout, keys
    "request_vote": (1, Struct("<BQQQ"), ("term", "last_log_index", "last_log_term")),
    "response_vote": (2, Struct("<BQ"), ("term",)),
    "append_entries": (
        _APPEND, Struct("<BQQQQI"), ("term", "commit_index", "prevLogIdx", "prevLogTerm", "entries"),
    ),
    "next_node_idx": (4, Struct("<BQQ??"), ("term", "next_node_idx", "reset", "success")),
    "timeout_now": (5, Struct("<BQ"), ("term",)),
}  # fmt: skip
_NAMES: Final = {number: name for name, (number, _, _) in _SHAPES.items()}
_LIMIT: Final = 1 << 63  # of indexes and terms


class Change(NamedTuple):
    """One server joins or leaves."""

    adds: bool
    node: NodeId
    address: str
    directory_id: str  # "": not known


def language(config: Config) -> Language:
    """For links between nodes whose logs have these limits."""
    return Language(
        PYSYNCOBJ_MESSAGE, encode, lambda data: decode(data, config), lambda fields: fields["type"] == "append_entries"
    )  # fmt: skip


def is_known(fields: Fields) -> bool:
    """Whether this message can travel."""
    is_dump = "serialized" in fields or "transmission" in fields
    return fields["type"] in _SHAPES and not is_dump


def encode(fields: Fields) -> list[bytes]:
    """The bytes of a known message, in pieces: commands are not copied."""
    name = fields["type"]
    number, shape, keys = _SHAPES[name]
    if number != _APPEND:
        return [shape.pack(number, *(fields[key] for key in keys))]
    entries = list(fields["entries"])
    # PySyncObj says None where its log does not reach; index 0 is answered in the same way, "begin further back".
    index, term = fields["prevLogIdx"] or 0, fields["prevLogTerm"] or 0
    head = shape.pack(number, fields["term"], fields["commit_index"], index, term, len(entries))
    return [
        head,
        b"".join(_ENTRY.pack(term, len(command)) for command, _, term in entries),
        *(command for command, _, _ in entries),
    ]


def decode(data: memoryview, config: Config) -> Fields:
    """The message in these bytes, every value checked. BadMessage for anything else."""
    name = _NAMES.get(data[0] if data else 0)
    if name is None:
        raise BadMessage(f"no message of this engine: {bytes(data[:20])!r}")
    _, shape, keys = _SHAPES[name]
    try:
        _, *values = shape.unpack_from(data)
        if any(value >= _LIMIT for value in values):
            raise BadMessage(f"{name} with numbers that cannot be: {values}")
        fields = {"type": name, **dict(zip(keys, values, strict=True))}
        end = shape.size
        if name == "append_entries":
            fields["entries"], end = _decode_entries(data, shape.size, fields, config)
    except error as problem:
        raise BadMessage(f"{name} of {len(data)} bytes: {problem}") from problem
    if name == "next_node_idx" and fields["next_node_idx"] < FIRST_INDEX + 1:
        raise BadMessage("entries are asked for that every node has")
    if end != len(data):
        raise BadMessage(f"{name} of {len(data)} bytes, of which {end} have a meaning")
    return fields


def _decode_entries(data: memoryview, at: int, fields: Fields, config: Config) -> tuple[list[Entry], int]:
    """The entries whose sizes begin at this position, and where they end."""
    count = fields["entries"]
    if count > ENTRIES_MAX:
        raise BadMessage(f"{count} entries at once; at most {ENTRIES_MAX} are taken")
    position = at + count * _ENTRY.size
    last_term = fields["prevLogTerm"]
    entries: list[Entry] = []
    for number in range(count):
        term, size = _ENTRY.unpack_from(data, at + number * _ENTRY.size)
        index = fields["prevLogIdx"] + 1 + number
        if not last_term <= term <= fields["term"]:
            raise BadMessage(
                f"entry {index} of term {term} behind one of {last_term} from a leader of {fields['term']}"
            )
        if len(data) - position < size:
            raise BadMessage(f"entry {index} has {size} bytes; {len(data) - position} came")
        command = bytes(data[position : position + size])
        _check_command(command, index, config)
        entries.append((command, index, term))
        position, last_term = position + size, term
    return entries, position


def _check_command(command: bytes, index: int, config: Config) -> None:
    kind = command[0] if command else -1
    if kind == RECORDS:
        try:
            check_wire_frame(command[1:], config)
        except LogError as problem:
            raise BadMessage(f"entry {index}: {problem}") from problem
    elif kind == MEMBERSHIP:
        decode_change(command)
    elif kind != NOTHING or len(command) != 1:
        raise BadMessage(f"entry {index} is a command that is not known here: {command[:20]!r}")


# ── changes of the membership ───────────────────────────────────────────────────────────────────────


def encode_change(change: Change) -> bytes:
    """A command, as PySyncObj has it in its log."""
    return bytes([MEMBERSHIP]) + json.dumps(change._asdict(), sort_keys=True).encode()


def decode_change(command: bytes) -> Change:
    """BadMessage if the command is none."""
    if command[:1] != bytes([MEMBERSHIP]) or len(command) > CHANGE_BYTES_MAX:
        raise BadMessage(f"not a change of the membership: {command[:100]!r}")
    try:
        change = Change(**json.loads(command[1:]))
        if change.adds.__class__ is not bool or not all(isinstance(value, str) for value in change[1:]):
            raise TypeError("a value of another type")
        if (
            not 0 < len(change.node) <= NODE_NAME_CHARACTERS_MAX
            or len(change.directory_id) > TEXT_CHARACTERS_MAX
        ):
            raise ValueError("a name that is empty or too long")
        split_address(change.address)
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise BadMessage(f"not a change of the membership ({problem}): {command[:100]!r}") from problem
    return change
