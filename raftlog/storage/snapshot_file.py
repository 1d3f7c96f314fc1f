"""A snapshot of the views <-> bytes. Pure; docs/FORMATS.md has the layout.

The same bytes lie on a node's own disk and travel to a follower. Only what travels, and what a cluster begins with, has a
`base`: the place where the log begins that comes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from logstore import Base
from logstore.checksum import crc32c
from raftlog.raft.configuration import Configuration
from raftlog.wire.configurations import configuration_content, configuration_from_content

MAGIC: Final = b"RAFTSNAP"
FORMAT_VERSION: Final = 1
SNAPSHOT_BYTES_MAX: Final = 1024 * 1024 * 1024  # held in memory; a larger one is neither written nor read
HEADER_BYTES_MAX: Final = 16 * 1024 * 1024  # some ten thousand configurations; more is not even parsed
_FIELDS: Final = Struct("<8sIIII")  # magic, CRC, format version, bytes of the JSON, zero
_CRC_START: Final = 12
_LIMIT: Final = 1 << 63  # indexes, terms, offsets and times are below it


class BadSnapshot(ValueError):
    """These bytes are not a whole snapshot."""


class NewerSnapshot(Exception):
    """Written in a format that this program does not know."""


@dataclass(frozen=True, slots=True)
class ViewsSnapshot:
    """The state of the views after an entry, and the configurations up to there."""

    index: int  # of the last entry that the views contain
    term: int  # of that entry
    # (entry that put it in force, configuration), ascending, from the one in force at the log's base on
    configurations: tuple[tuple[int, Configuration], ...]
    sections: Mapping[str, bytes]  # by view
    base: Base | None = None  # base.index <= index

    def configuration_at(self, index: int) -> Configuration:
        """In force after entry `index`; one without members if that is not known."""
        found = [each for first, each in self.configurations if first <= index]
        return found[-1] if found else Configuration()


def encode(snapshot: ViewsSnapshot) -> bytes:
    """ValueError if it is over a limit."""
    names = sorted(snapshot.sections)
    content = {
        "index": snapshot.index,
        "term": snapshot.term,
        "configurations": [[first, configuration_content(each)] for first, each in snapshot.configurations],
        "sections": [[name, len(snapshot.sections[name])] for name in names],
        "base": None if snapshot.base is None else list(snapshot.base),
    }
    header = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    if len(header) > HEADER_BYTES_MAX:
        raise ValueError(f"a snapshot's header of {len(header)} bytes is over {HEADER_BYTES_MAX}")
    fields = _FIELDS.pack(MAGIC, 0, FORMAT_VERSION, len(header), 0)
    covered = b"".join((fields[_CRC_START:], header, *(snapshot.sections[name] for name in names)))
    if len(covered) + _CRC_START > SNAPSHOT_BYTES_MAX:
        raise ValueError(f"a snapshot of {len(covered) + _CRC_START} bytes is over {SNAPSHOT_BYTES_MAX}")
    return MAGIC + crc32c(0, covered).to_bytes(4, "little") + covered


def decode(data: bytes) -> ViewsSnapshot:
    """What `encode` gave these bytes for. Raises BadSnapshot or NewerSnapshot for all others."""
    if len(data) < _FIELDS.size:
        raise BadSnapshot(f"{len(data)} bytes are too few for a snapshot")
    magic, crc, version, header_bytes, zero = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise BadSnapshot(f"no snapshot: it begins with {magic!r}")
    computed = crc32c(0, data[_CRC_START:])
    if crc != computed:
        raise BadSnapshot(f"checksum {crc:#010x}, computed {computed:#010x}")
    if version != FORMAT_VERSION:
        raise NewerSnapshot(f"format {version}; this program knows {FORMAT_VERSION}")
    if zero or header_bytes > min(HEADER_BYTES_MAX, len(data) - _FIELDS.size):
        raise BadSnapshot(f"a header of {header_bytes} bytes in {len(data)}")
    position = _FIELDS.size + header_bytes
    try:
        content = json.loads(data[_FIELDS.size : position])
        sections, end = {}, position
        for name, size in content["sections"]:
            sections[_text(name)] = data[end : end + _number(size)]
            end += size
        snapshot = ViewsSnapshot(
            _number(content["index"]),
            _number(content["term"]),
            tuple(
                (_number(first), configuration_from_content(each))
                for first, each in content["configurations"]
            ),
            sections,
            None if content["base"] is None else Base(*map(_number, content["base"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadSnapshot(f"its header says nothing: {error}") from error
    if end != len(data) or len(sections) != len(content["sections"]):
        raise BadSnapshot(f"sections to byte {end}, {len(data)} bytes are there")
    _check_order(snapshot)
    return snapshot


def _check_order(snapshot: ViewsSnapshot) -> None:
    indexes = [first for first, _ in snapshot.configurations]
    if sorted(set(indexes)) != indexes or (indexes and indexes[-1] > snapshot.index):
        raise BadSnapshot(f"configurations of entries {indexes[:10]} in a snapshot of entry {snapshot.index}")
    base = snapshot.base
    if base is None:
        return
    if base.index > snapshot.index or base.term > snapshot.term or not indexes or indexes[0] > base.index:
        raise BadSnapshot(f"a log that begins after entry {base.index} for views of entry {snapshot.index}")


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LIMIT:
        raise TypeError(f"{value!r:.100} is not a number from 0 to before 2**63")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is not a name")
    return value
