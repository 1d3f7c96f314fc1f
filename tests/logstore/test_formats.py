"""docs/FORMATS.md is the same as the code, and enough for a reader that knows nothing else."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from itertools import count
from pathlib import Path
from struct import Struct

import pytest

from logstore import Config, Kind, Log, Record, RecordBatch
from logstore import repair as repairing
from logstore.column import encode_headers
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.frame import (
    COMPACTED_HEADER,
    FRAME_HEADER,
    HOLE,
    LINK,
    MARK,
    PRODUCER,
    SEGMENT,
    STAMP,
    Codec,
    Section,
)
from logstore.fsck import examine
from logstore.index import _HEADER as INDEX_HEADER
from logstore.index import _ROW as INDEX_ROW
from tests.logstore import plain_reader
from tests.logstore.entries import append_other, append_records

FORMATS = Path(__file__).parents[2] / "docs" / "FORMATS.md"
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "u8[8]": "8s", "u8[4]": "4x"}
READER_LINES_MAX = 60

# In the order in which they stand there; a heading may have more than one.
STRUCTS = {
    "Segment header": SEGMENT.format,
    "Frame": LINK.format + STAMP.format[1:] + PRODUCER.format[1:],
    "Columns of a body": "<HI",
    "Compacted frame": COMPACTED_HEADER.format,
    "Hole": HOLE.format,
    "Mark": MARK.format,
    "Index file": INDEX_HEADER.format,
    "Index file, 2": INDEX_ROW.format,
}


def tables() -> dict[str, list[tuple[int, int, str]]]:
    """Those of a log."""
    return tables_in(FORMATS.read_text().partition("\n# The data directory of a node\n")[0])


def tables_in(text: str) -> dict[str, list[tuple[int, int, str]]]:
    """(position, width, type) of each row of the byte tables, by the heading that they stand under."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| position | width"):
            heading += ", 2" * (heading in found)
            found[heading] = []
        elif row := re.fullmatch(r"\| (\d+) \| (\d+) \| (\S+) \| .+ \|", line):
            found[heading].append((int(row[1]), int(row[2]), row[3]))
    return found


def test_every_byte_table_is_of_a_struct_in_the_code() -> None:
    assert list(tables()) == list(STRUCTS)
    assert FRAME_HEADER.format == STRUCTS["Frame"]


@pytest.mark.parametrize("heading", STRUCTS)
def test_rows_of_a_table_are_the_fields_of_its_struct_without_a_gap(heading: str) -> None:
    rows = tables()[heading]

    assert "<" + "".join(CODES[kind] for _, _, kind in rows) == STRUCTS[heading]
    assert [width for _, width, _ in rows] == [Struct("<" + CODES[kind]).size for _, _, kind in rows]
    assert [position for position, _, _ in rows] == [
        sum(width for _, width, _ in rows[:row]) for row in range(len(rows))
    ]
    assert sum(width for _, width, _ in rows) == Struct(STRUCTS[heading]).size


def test_numbers_of_kinds_sections_and_codecs_are_those_of_the_code() -> None:
    text = FORMATS.read_text()

    kinds = {Kind.RECORDS: "records", Kind.COMMAND: "command", Kind.NOOP: "no-op"}
    kinds[Kind.CONFIGURATION] = "configuration"
    for names, choices in (
        (", ".join(f"{kind.value} {kinds[kind]}" for kind in Kind), "kind"),
        (", ".join(f"{one.value} {one.name.lower()}" for one in Section), "sections, bits"),
        (", ".join(f"{one.value} {one.name.lower()}" for one in Codec), "codec of the values"),
    ):
        assert f"{choices}: {names}" in text


def test_header_of_a_record_is_made_of_the_two_lengths_of_its_table() -> None:
    assert (
        encode_headers((("name", b"value"),))
        == Struct(STRUCTS["Columns of a body"]).pack(4, 5) + b"namevalue"
    )


def test_plain_reader_is_short_and_imports_nothing_but_python() -> None:
    source = Path(plain_reader.__file__).read_text()
    tree = ast.parse(source)

    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if name is not None
    }
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"zstandard"}
    lines = [line for line in source.splitlines() if line.strip()]
    texts = {
        ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.FunctionDef))
    }
    assert len(lines) - len(texts - {None}) <= READER_LINES_MAX


# ── the plain reader beside ours ────────────────────────────────────────────────────────────────────

CONFIG = Config(segment_bytes_max=1200)
HEADERS = (("name", b"value"), ("", b""), ("näme", b"\xff"))


def write_log(path: Path) -> list[Record]:
    """A log with everything that can be in one but damage; what it holds."""
    with Log(path, CONFIG, clock=count(5000, 7).__next__) as log:
        for number in range(30):
            log.append(b"single %d" % number)
        log.append_batch([b"of", b"", b"one batch"])
        log.append_batch(
            [
                Record(b"full", b"key", 5, HEADERS),
                Record(b"headers", headers=HEADERS),
                b"bare",
                Record(b"", b"gone"),
                Record(b"t", timestamp=9),
            ]
        )
        append_other(log, Kind.CONFIGURATION, b"nodes", term=2)
        append_other(log, Kind.COMMAND, b"command", term=2)
        append_records(log, RecordBatch.encode([b"z" * 300, b"y" * 300], compression="zstd"), term=2)
        keyed = [
            Record(b"%d" % number * 60, key=b"k%d" % (number % 3), timestamp=number) for number in range(12)
        ]
        log.append_batch(keyed)
        log.append_batch(RecordBatch.encode(keyed, compression="zstd"))
        log.append_batch([Record(b"last of its key", key=b"key"), *keyed[:3]])
        for number in range(12):
            log.append(b"cut %d" % number)
        log.append_batch([b"stays", b"goes", b"goes"])
        log.compact()
        log.truncate_suffix(log.end - 2)
        log.append(Record(b"behind the cut", key=b"k"))
        log.truncate(12)
        for number in range(20):
            log.append(b"in a recycled file %d" % number)  # its older life had the same sizes
        return list(log.scan())


def test_plain_reader_reads_sealed_compacted_compressed_marked_and_recycled_parts(tmp_path: Path) -> None:
    records = write_log(tmp_path)

    stores = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.store")))
    for there in (b"LfrM", b"LmrK", b"LcmP", b"\x28\xb5\x2f\xfd", b"nodes"):
        assert there in stores
    assert any(tmp_path.glob("*.index")) and len(records) > 60
    assert any(
        int.from_bytes(path.read_bytes()[80:88], "little") for path in tmp_path.glob("*.store")
    )  # recycled
    assert list(plain_reader.read_log(tmp_path)) == records


@pytest.mark.parametrize("cut", [1, 20, 60, 111])
def test_plain_reader_stops_before_a_torn_tail_where_recovery_cuts(tmp_path: Path, cut: int) -> None:
    write_log(tmp_path / "log")
    with Log(tmp_path / "log", CONFIG) as log:
        log.append(b"8 bytes.")
        log.append(b"8 bytes!")  # the last frame, above the last mark
        records = list(log.scan())
        shutil.copytree(tmp_path / "log", tmp_path / "torn")  # as a power loss leaves it
    last = max((tmp_path / "torn").glob("*.store"))
    with last.open("r+b") as file:
        file.truncate(last.read_bytes().index(b"8 bytes!") + 8 - cut)

    assert list(plain_reader.read_log(tmp_path / "torn")) == records[:-1]
    with Log(tmp_path / "torn", CONFIG) as log:
        assert [repair.action for repair in log.repairs] == ["cut the tail at the last whole frame"]
        assert list(log.scan()) == records[:-1]


def test_plain_reader_steps_over_a_hole_that_repair_left(tmp_path: Path) -> None:
    records = write_log(tmp_path)
    path, *_ = sorted(tmp_path.glob("*.store"))
    data = bytearray(path.read_bytes())
    at = data.index(b"single 1")
    data[at] ^= 1
    path.write_bytes(data)
    directory = Directory(OsFileSystem(), str(tmp_path))
    stores, findings = examine(directory)

    repairing.repair(directory, stores)

    lost = {finding.first_offset for finding in findings}
    assert len(lost) == 1 and b"LhoL" in path.read_bytes()
    assert list(plain_reader.read_log(tmp_path)) == [
        record for record in records if record.offset not in lost
    ]
