"""Importing what proglog wrote: https://github.com/travisjeffery/proglog, folder WriteALogPackage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logstore import Log
from logstore.proglog import ProglogDamage, read_records, stores
from tests.logstore.shell import logstore

INDEX_BYTES_MAX = 1024  # proglog's default: 85 entries of 12 bytes, and 4 bytes over


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def record(offset: int, value: bytes) -> bytes:
    """A protobuf Record {value = 1, offset = 2}; proto3 leaves out what is empty or 0."""
    data = b"\x0a" + varint(len(value)) + value if value else b""
    return data + (b"\x10" + varint(offset) if offset else b"")


def stored(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def write_segment(directory: Path, base: int, values: list[bytes], *, clean: bool = True) -> Path:
    """As proglog's segment does; not `clean` as a crash leaves it: the index has its full size, padded with zeros."""
    directory.mkdir(exist_ok=True)
    store, index = b"", b""
    for number, value in enumerate(values):
        index += number.to_bytes(4, "big") + len(store).to_bytes(8, "big")
        store += stored(record(base + number, value))
    path = directory / f"{base}.store"
    path.write_bytes(store)
    (directory / f"{base}.index").write_bytes(index if clean else index.ljust(INDEX_BYTES_MAX, b"\0"))
    return path


VALUES = [b"hello world", b"", b"\x00\xff" * 200, b"x" * 300, *(b"%d" % number for number in range(200))]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Segments whose names sort differently as text, the last one not closed."""
    directory = tmp_path / "proglog"
    write_segment(directory, 0, VALUES[:9])
    write_segment(directory, 9, VALUES[9:100])
    write_segment(directory, 100, VALUES[100:], clean=False)
    return directory


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def values_of(directory: Path) -> list[bytes]:
    with Log(directory, read_only=True) as log:
        return [one.value for one in log.scan()]


def test_every_record_is_imported_under_its_offset_and_the_source_is_not_touched(
    source: Path, tmp_path: Path
) -> None:
    before = files(source)

    done = logstore("import-proglog", source, tmp_path / "log")

    assert done == (0, "imported 204 records, offsets 0 to before 204\n", "")
    assert files(source) == before
    with Log(tmp_path / "log") as log:
        assert [(one.offset, one.value) for one in log.scan()] == list(enumerate(VALUES))
        assert log.append(b"and on") == 204


def test_log_whose_front_was_truncated_keeps_its_first_offset(source: Path, tmp_path: Path) -> None:
    for name in ("0.store", "0.index"):
        (source / name).unlink()

    done = logstore("import-proglog", source, tmp_path / "log", "--json")

    assert json.loads(done.out) == {"first_offset": 9, "end_offset": 204, "records": 195}
    assert values_of(tmp_path / "log") == VALUES[9:]


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 13])
def test_torn_last_record_is_left_out(source: Path, tmp_path: Path, cut: int) -> None:
    path = source / "100.store"
    path.write_bytes(path.read_bytes()[:-cut])  # the last record is 8 + 8 bytes

    assert logstore("import-proglog", source, tmp_path / "log").code == 0
    assert values_of(tmp_path / "log") == VALUES[:-1]


def test_empty_last_segment_is_no_damage(source: Path) -> None:
    write_segment(source, 204, [], clean=False)

    assert [one.value for one in read_records(source)] == VALUES


def test_fields_that_raft_uses_are_skipped(tmp_path: Path) -> None:
    term_and_type = b"\x18\x96\x01\x20\x03"
    unknown = b"\x29" + bytes(8) + b"\x35" + bytes(4) + b"\x3a\x02xx"
    (tmp_path / "0.store").write_bytes(stored(unknown + record(0, b"value") + term_and_type))

    assert list(read_records(tmp_path)) == [(0, b"value")]


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x05abc", b"\x0a", b"\x10\x80", b"\x10" + b"\x80" * 10, b"\x0b", b"\x29\0\0\0", b"\x35\0"],
    ids=[
        "value cut",
        "length missing",
        "varint cut",
        "varint endless",
        "group",
        "fixed64 cut",
        "fixed32 cut",
    ],
)
def test_record_that_is_not_protobuf_is_damage_with_its_place(tmp_path: Path, data: bytes) -> None:
    first = stored(record(0, b"fine"))
    path = tmp_path / "0.store"
    path.write_bytes(first + stored(data))

    with pytest.raises(
        ProglogDamage, match=f"{path}: the record at byte {len(first)} is not a protobuf Record"
    ):
        list(read_records(tmp_path))


def test_record_that_is_cut_short_in_front_of_another_segment_is_damage(source: Path) -> None:
    path = source / "9.store"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ProglogDamage, match=f"{path}: the record at byte .* is cut short"):
        list(read_records(source))


def test_length_that_is_noise_is_damage_and_reads_nothing(source: Path) -> None:
    path = source / "0.store"
    path.write_bytes(b"\xff" * 8 + path.read_bytes())

    with pytest.raises(ProglogDamage, match="the record at byte 0 is cut short"):
        list(read_records(source))


def test_missing_segment_is_damage(source: Path) -> None:
    (source / "9.store").unlink()

    with pytest.raises(ProglogDamage, match="starts at offset 100, but 9 is next: a file is missing"):
        list(read_records(source))


def test_record_with_another_offset_than_the_next_is_damage(tmp_path: Path) -> None:
    (tmp_path / "0.store").write_bytes(stored(record(0, b"a")) + stored(record(7, b"b")))

    with pytest.raises(ProglogDamage, match="holds offset 7 where 1 is next"):
        list(read_records(tmp_path))


def test_what_comes_before_damage_is_imported_and_the_message_says_how_far(
    source: Path, tmp_path: Path
) -> None:
    (source / "100.store").unlink()
    write_segment(source, 150, [b"behind a gap"])
    target = tmp_path / "log"

    done = logstore("import-proglog", source, target)

    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"logstore: {source}/150.store: starts at offset 150, but 100 is next: a file is missing; "
        f"only what comes before was imported into {target}: offsets 0 to before 100\n"
    )
    assert values_of(target) == VALUES[:100]


@pytest.mark.parametrize("records", [[], [b"x"]])
def test_import_into_a_log_that_holds_something_is_refused(
    source: Path, tmp_path: Path, records: list[bytes]
) -> None:
    with Log(tmp_path / "log") as log:
        log.reset(start=5)
        for value in records:
            log.append(value)

    done = logstore("import-proglog", source, tmp_path / "log")

    assert done.code == 1
    assert done.err == f"logstore: {tmp_path}/log already holds a log; import into a new directory\n"
    assert values_of(tmp_path / "log") == records


@pytest.mark.parametrize("names", [[], ["00000000000000000001.store", "0.index", "x.store", "0.store.tmp"]])
def test_directory_without_files_of_proglog_is_refused_and_nothing_is_made(
    tmp_path: Path, names: list[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in names:
        (source / name).touch()

    done = logstore("import-proglog", source, tmp_path / "log")

    assert done == (1, "", f"logstore: {source} holds no files of proglog, such as 0.store\n")
    assert not (tmp_path / "log").exists()
    with pytest.raises(ProglogDamage):
        stores(source)


def test_many_records_are_imported_in_batches(tmp_path: Path) -> None:
    values = [b"v" * 1000] * 2500
    write_segment(tmp_path / "proglog", 0, values)

    assert logstore("import-proglog", tmp_path / "proglog", tmp_path / "log").code == 0

    with Log(tmp_path / "log") as log:
        assert [len(batch) for batch in log.batches()] == [1037, 1037, 426]
