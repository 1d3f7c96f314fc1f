from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from struct import Struct
from typing import Any

import pytest

from logstore import Base
from logstore.checksum import crc32c
from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration
from raftlog.storage import snapshot_file
from raftlog.storage.snapshot_file import BadSnapshot, NewerSnapshot, ViewsSnapshot, decode, encode

SEED = 20_140_814
ONE, TWO = Configuration((NodeId("n1"),)), Configuration((NodeId("n1"), NodeId("n2")))
SMALL = ViewsSnapshot(9, 2, ((1, ONE), (7, TWO)), {"members": b"abc", "cursors": b"", "producers": b"x" * 40})
SENT = replace(
    SMALL, base=Base(index=5, term=1, offset=30, time=1_700_000_000_000_000_000, chain=0xFFFF_FFFF)
)


def with_content(
    content: Mapping[str, Any], sections: bytes = b"abc" + b"x" * 40, *, version: int = 1
) -> bytes:
    """A file whose checksum is right, whatever it says."""
    header = json.dumps(content).encode()
    covered = Struct("<III").pack(version, len(header), 0) + header + sections
    return b"RAFTSNAP" + crc32c(0, covered).to_bytes(4, "little") + covered


CONTENT = {
    "index": 9,
    "term": 2,
    "base": [5, 1, 30, 0, 7],
    "configurations": [[1, {"voters": ["n1"], "outgoing": [], "learners": [], "learners_next": [], "auto_leave": False}]],
    "sections": [["members", 3], ["producers", 40]],
}  # fmt: skip


@pytest.mark.parametrize("snapshot", [SMALL, SENT, ViewsSnapshot(0, 0, (), {})])
def test_snapshot_comes_back_from_its_bytes(snapshot: ViewsSnapshot) -> None:
    assert decode(encode(snapshot)) == snapshot


def test_the_order_of_views_makes_no_difference() -> None:
    reordered = replace(SMALL, sections=dict(sorted(SMALL.sections.items(), reverse=True)))

    assert encode(reordered) == encode(SMALL)


def test_configuration_at_an_entry_is_the_last_that_was_put_in_force() -> None:
    found = [SMALL.configuration_at(index) for index in (0, 1, 6, 7, 9)]

    assert found == [Configuration(), ONE, ONE, TWO, TWO]


def test_every_changed_byte_and_every_length_is_found() -> None:
    data = encode(SENT)

    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x04
        with pytest.raises(BadSnapshot):
            decode(bytes(changed))
        with pytest.raises(BadSnapshot):
            decode(data[:position])
    with pytest.raises(BadSnapshot):
        decode(data + b"\0")


def test_builder_of_this_test_makes_good_ones() -> None:
    assert decode(with_content(CONTENT)).sections == {"members": b"abc", "producers": b"x" * 40}


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": "9"},
        {"index": True},
        {"index": 1 << 63},
        {"index": 4},  # the log would begin behind the views
        {"term": 0},
        {"term": None},
        {"base": [5, 1, 30, 0]},
        {"base": [5, 1, 30, 0, -1]},
        {"base": 5},
        {"base": [0, 0, 0, 0, 0]},  # the configuration there is not known
        {"configurations": []},
        {"configurations": [[1, {}]]},
        {"configurations": [[9, CONTENT["configurations"][0][1]], [1, CONTENT["configurations"][0][1]]]},  # type: ignore[index]
        {"configurations": [[1, CONTENT["configurations"][0][1]], [10, CONTENT["configurations"][0][1]]]},  # type: ignore[index]
        {"configurations": {}},
        {"sections": [["members", 3], ["members", 40]]},
        {"sections": [["members", 43], ["producers", 1]]},
        {"sections": [["members", 3]]},
        {"sections": [["members", -3], ["producers", 46]]},
        {"sections": [[3, 3], ["producers", 40]]},
        {"sections": None},
    ],
)
def test_header_that_says_something_impossible_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadSnapshot):
        decode(with_content({**CONTENT, **change}))


@pytest.mark.parametrize("key", CONTENT)
def test_header_that_lacks_something_is_refused(key: str) -> None:
    with pytest.raises(BadSnapshot):
        decode(with_content({name: value for name, value in CONTENT.items() if name != key}))


def test_newer_format_is_told_apart_from_damage() -> None:
    with pytest.raises(NewerSnapshot, match="format 2"):
        decode(with_content(CONTENT, version=2))


def test_snapshot_over_the_limit_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(encode(SMALL))
    monkeypatch.setattr(snapshot_file, "SNAPSHOT_BYTES_MAX", size)
    encode(SMALL)

    with pytest.raises(ValueError, match="is over"):
        encode(replace(SMALL, sections={**SMALL.sections, "members": b"abcd"}))


def test_any_bytes_are_read_or_refused() -> None:
    print(f"seed {SEED}")
    rng = Random(SEED)
    base = with_content(CONTENT)

    for _ in range(1_000):
        covered = bytearray(base[12:])
        for _ in range(rng.randint(1, 4)):
            covered[rng.randrange(len(covered))] = rng.randrange(256)
        try:
            decode(base[:8] + crc32c(0, bytes(covered)).to_bytes(4, "little") + bytes(covered))
        except (BadSnapshot, NewerSnapshot):
            pass
