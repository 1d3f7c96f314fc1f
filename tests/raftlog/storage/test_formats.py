"""docs/FORMATS.md is the same as the code, and what was written once can be read for ever."""

from __future__ import annotations

import json
from struct import Struct

import pytest

from logstore import Base
from logstore.checksum import crc32c
from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration
from raftlog.raft.storage import HardState
from raftlog.storage import commit_file, hard_state, identity, snapshot_file
from raftlog.storage.identity import Identity, Stage
from raftlog.storage.snapshot_file import ViewsSnapshot
from tests.logstore.test_formats import CODES, FORMATS, tables_in

PART = FORMATS.read_text().partition("\n# The data directory of a node\n")[2].partition("\n# ")[0]
TABLES = tables_in(PART)
STRUCTS = {
    "Hard state": hard_state._FIELDS,
    "Commit index": commit_file._FIELDS,
    "Snapshot": snapshot_file._FIELDS,
}
N1, N2 = NodeId("n1"), NodeId("n2")


def test_every_byte_table_is_of_a_struct_in_the_code() -> None:
    assert list(TABLES) == list(STRUCTS)


@pytest.mark.parametrize("heading", STRUCTS)
def test_rows_of_a_table_are_the_fields_of_its_struct_without_a_gap(heading: str) -> None:
    rows, struct = TABLES[heading], STRUCTS[heading]

    assert "<" + "".join(CODES[kind] for _, _, kind in rows) == struct.format
    assert [position for position, _, _ in rows] == [
        sum(width for _, width, _ in rows[:row]) for row in range(len(rows))
    ]
    assert sum(width for _, width, _ in rows) == struct.size


def with_crc(magic: bytes, covered: bytes) -> bytes:
    return magic + Struct("<I").pack(crc32c(0, covered)) + covered


def test_hard_state_of_format_1_is_read_and_written() -> None:
    covered = (Struct("<IQQI").pack(1, 7, 3, 2) + b"n2").ljust(500, b"\0")
    data = with_crc(b"RAFTSTA\n", covered)

    assert hard_state.parse(data).state == HardState(3, N2)
    assert hard_state.pack(7, HardState(3, N2)) == data


def test_commit_index_of_format_1_is_read() -> None:
    assert commit_file._parse(with_crc(b"RAFTCOM\n", Struct("<IQ").pack(1, 99))) == 99


def test_snapshot_of_format_1_is_read_and_written() -> None:
    header = (
        b'{"base":[5,1,30,1700000000000000000,4294967295],"configurations":[[1,{"auto_leave":false,"learners":[],'
        b'"learners_next":[],"outgoing":[],"voters":["n1","n2"]}]],"index":9,"sections":[["a",2],["b",1]],"term":2}'
    )
    data = with_crc(b"RAFTSNAP", Struct("<III").pack(1, len(header), 0) + header + b"AAB")
    snapshot = ViewsSnapshot(
        9,
        2,
        ((1, Configuration((N1, N2))),),
        {"a": b"AA", "b": b"B"},
        Base(5, 1, 30, 1_700_000_000_000_000_000, 0xFFFF_FFFF),
    )

    assert snapshot_file.decode(data) == snapshot
    assert snapshot_file.encode(snapshot) == data


def test_identity_of_format_1_is_read_and_written() -> None:
    content = {
        "format": 1, "node": "n1", "cluster_id": "c", "directory_id": "d", "stage": "ready",
        "members": {"n1": "n1.test:8400"}, "aside": "",
    }  # fmt: skip

    def text(of: dict[str, object]) -> bytes:
        return (json.dumps(of, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()

    data = text({**content, "crc32c": f"{crc32c(0, text(content)):08x}"})
    known = Identity(N1, "c", "d", Stage.READY, {N1: "n1.test:8400"})

    assert identity.from_bytes(data, "node.json") == known
    assert identity.to_bytes(known) == data


def test_stages_are_those_that_the_page_names() -> None:
    assert all(f"`{stage.value}`" in PART for stage in Stage)
