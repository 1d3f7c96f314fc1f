"""A batch as bytes: what is made here is read there, and what a stranger sends is believed only once it is checked."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore import (
    BatchTooLarge,
    Config,
    CorruptBatch,
    EmptyBatch,
    LogError,
    Record,
    RecordBatch,
    RecordTooLarge,
    UnsupportedFormat,
)
from logstore.checksum import crc32c, seed_of
from logstore.column import pack_strings
from logstore.config import BATCH_BYTES_LIMIT
from logstore.encode import check_payload, encode_batch
from logstore.frame import BODY_CRC_AT, BODY_CRC_START, FRAME_HEADER, FrameHeader, wire_frame

SEARCH = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
LIMITS = Config(record_bytes_max=10_000, batch_bytes_max=50_000)

HEADERS = st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9)), max_size=2).map(tuple)
RECORDS = st.lists(
    st.tuples(
        st.binary(max_size=40),
        st.just(b"") | st.binary(max_size=9),
        st.just(0) | st.integers(-(1 << 63), (1 << 63) - 1),
        st.just(()) | HEADERS,
    ).map(lambda fields: Record(*fields))
    | st.binary(max_size=40),
    min_size=1,
    max_size=12,
)


def as_record(value: Record | bytes, offset: int) -> Record:
    record = value if isinstance(value, Record) else Record(value)
    return record._replace(offset=offset)


@SEARCH
@given(RECORDS, st.sampled_from(["none", "zstd"]))
def test_batch_comes_back_from_its_bytes_as_it_was(values: list[Record | bytes], compression: Any) -> None:
    expected = [as_record(value, offset) for offset, value in enumerate(values)]

    batch = RecordBatch.encode(values, compression=compression)
    back = RecordBatch.from_bytes(batch.to_bytes())

    assert list(batch) == list(back) == expected
    assert back.to_bytes() == batch.to_bytes()
    assert [list(back.between(i, i + 1)) for i in range(len(values))] == [[record] for record in expected]
    assert RecordBatch.from_bytes(back.between(0, 1).to_bytes()).to_pylist() == [expected[0].value]


def test_compression_is_used_only_where_it_makes_a_batch_smaller() -> None:
    alike = RecordBatch.encode([b"a" * 1000] * 3, compression="zstd")
    tiny = RecordBatch.encode([b"a"], compression="zstd")

    assert len(alike.to_bytes()) < 300 and list(alike.values.data[:3]) == [97] * 3
    assert tiny.to_bytes() == RecordBatch.encode([b"a"]).to_bytes()


def test_producer_fields_travel_with_the_batch() -> None:
    frame = wire_frame(encode_batch([b"a", b"b"], producer_id=7, producer_epoch=8, first_sequence=9))

    batch = RecordBatch.from_bytes(frame)

    assert (batch.producer_id, batch.producer_epoch, batch.first_sequence) == (7, 8, 9)
    assert batch.between(1, 2).first_sequence == 10


# ── from strangers ──────────────────────────────────────────────────────────────────────────────────

KEYED = [Record(b"value", key=b"k", timestamp=5, headers=(("n", b"h"),)), Record(b"", key=b"kk"), b"xyz"]


def forged(data: bytes, **fields: int) -> bytes:
    """The batch with other header fields, under a checksum that matches."""
    header = FrameHeader._make(FRAME_HEADER.unpack_from(data))._replace(**fields)
    return sealed(FRAME_HEADER.pack(*header) + data[FRAME_HEADER.size :])


def sealed(data: bytes) -> bytes:
    crc = crc32c(0, data[BODY_CRC_START:])
    return data[:BODY_CRC_AT] + struct.pack("<I", crc) + data[BODY_CRC_START:]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_flipped_bit_is_found_or_changes_no_record(compression: Any) -> None:
    data = RecordBatch.encode([*KEYED, b"z" * 200], compression=compression).to_bytes()
    records = list(RecordBatch.from_bytes(data))

    harmless = set()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        try:
            batch = RecordBatch.from_bytes(bytes(damaged))
        except (CorruptBatch, UnsupportedFormat):
            continue
        harmless.add(position)
        assert batch.to_pylist() == [record.value for record in records]

    # What the leader stamps anew: header CRC, entry, term, first offset (up to its highest bit), time, stream.
    assert harmless <= {*range(4, 31), *range(32, 42)}


@pytest.mark.parametrize("length", [0, 1, 8, 95, 96, 97, -8, -1])
def test_batch_that_is_not_whole_is_refused(length: int) -> None:
    data = RecordBatch.encode(KEYED).to_bytes()

    with pytest.raises(CorruptBatch):
        RecordBatch.from_bytes(data[:length])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": 0}, "a batch starts with magic 0x4d72664c, this one with 0x00000000"),
        ({"length": 8}, "a batch says it has 8 bytes"),
        ({"kind": 2}, "kind 2, codec 0, sections 7; not known here"),
        ({"codec": 2}, "codec 2, sections 7; not known here"),
        ({"sections": 8}, "sections 8; not known here"),
        ({"span": 2}, "a batch of 3 records says it takes 2 offsets from 0"),
        ({"first_offset": (1 << 63) - 2}, "a batch of 3 records says it takes 3 offsets from 9223372036854775806"),
        ({"record_count": 1 << 31, "span": 1 << 31}, "2147483648 records that do not fit"),
        ({"values_stored": 1 << 31}, "3 records that do not fit"),
        ({"values_raw": 9}, "8 bytes of values are 9 bytes"),
        ({"values_stored": 7, "values_raw": 7}, "columns that do not ascend, or that end elsewhere"),
        ({"sections": 3}, "columns that do not ascend, or that end elsewhere"),
        ({"sections": 0}, "columns that do not ascend, or that end elsewhere"),
        ({"record_count": 2, "span": 2}, "columns that do not ascend, or that end elsewhere"),
        ({"codec": 1}, "compressed values"),
    ],
)  # fmt: skip
def test_header_that_does_not_fit_its_batch_is_refused(fields: dict[str, int], message: str) -> None:
    data = RecordBatch.encode(KEYED).to_bytes()

    with pytest.raises(CorruptBatch, match=message):
        RecordBatch.from_bytes(forged(data, **fields))


def test_length_that_is_no_multiple_of_eight_is_refused() -> None:
    data = RecordBatch.encode([b"abc"]).to_bytes() + b"\0"

    with pytest.raises(CorruptBatch, match="a batch says it has 113 bytes; 113 came"):
        RecordBatch.from_bytes(forged(data, length=len(data)))


def test_batch_without_records_is_refused_as_empty() -> None:
    with pytest.raises(EmptyBatch):
        RecordBatch.from_bytes(forged(RecordBatch.encode([b"a"]).to_bytes(), record_count=0, span=0))


def test_batch_of_a_newer_version_is_refused_as_such() -> None:
    with pytest.raises(UnsupportedFormat, match="a batch: format version 2, this program reads 1"):
        RecordBatch.from_bytes(forged(RecordBatch.encode([b"a"]).to_bytes(), version=2))


@pytest.mark.parametrize("offsets", [(1, 2, 3), (0, 3, 2), (0, 1, 4), (0, (1 << 32) - 1, 3)])
def test_value_offsets_that_do_not_ascend_from_zero_to_the_end_are_refused(offsets: tuple[int, ...]) -> None:
    data = RecordBatch.encode([b"a", b"bc"]).to_bytes()
    data = data[:96] + struct.pack("<3I", *offsets) + data[96 + 12 :]

    with pytest.raises(CorruptBatch, match="columns that do not ascend"):
        RecordBatch.from_bytes(sealed(data))


@pytest.mark.parametrize("raw", [99, 101, 0])
def test_compressed_values_must_be_as_many_bytes_as_declared(raw: int) -> None:
    data = RecordBatch.encode([b"a" * 100], compression="zstd").to_bytes()
    data = forged(data, values_raw=raw)
    data = sealed(data[:100] + struct.pack("<I", raw) + data[104:])

    with pytest.raises(CorruptBatch, match=f"compressed values do not hold the {raw} bytes"):
        RecordBatch.from_bytes(data)


def with_body(stored: bytes, raw: int) -> bytes:
    """A compressed batch of one record with these bytes as its compressed values."""
    data = RecordBatch.encode([b"a" * 100], compression="zstd").to_bytes()
    body = struct.pack("<II", 0, raw) + stored + bytes(-len(stored) % 8)
    return forged(data[:96] + body, length=96 + len(body), values_stored=len(stored), values_raw=raw)


def test_compressed_values_that_are_damaged_or_of_unknown_size_are_refused() -> None:
    whole = zstandard.compress(b"ab" * 500)
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(b"ab" * 500)

    assert RecordBatch.from_bytes(with_body(whole, 1000)).to_pylist() == [b"ab" * 500]
    for stored, message in (
        (whole[:-4], "compressed values cannot be read"),
        (b"not zstd", "compressed values cannot be read"),
        (unknown, "compressed values do not hold the 1000 bytes"),
    ):
        with pytest.raises(CorruptBatch, match=message):
            RecordBatch.from_bytes(with_body(stored, 1000))


def test_bomb_is_refused_before_it_is_unpacked() -> None:
    stored = zstandard.compress(bytes(60_000))

    with pytest.raises(BatchTooLarge, match="over batch_bytes_max, 50000 bytes"):
        RecordBatch.from_bytes(with_body(stored, 60_000), config=LIMITS)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (b"\1", "headers end in the middle of a length"),
        (struct.pack("<HI", 1, 5) + b"nabc", "header at byte 0 says it ends at 12 of 10"),
        (struct.pack("<HI", 1, 0) + b"\xff", "header name at byte 0 is not UTF-8"),
    ],
)
def test_headers_that_cannot_be_decoded_are_refused(headers: bytes, message: str) -> None:
    good = RecordBatch.encode([Record(b"v", headers=(("n", b"h"),))]).to_bytes()
    body = struct.pack("<4I", 0, 1, 0, len(headers)) + b"v" + headers
    padded = body + bytes(-len(body) % 8)

    with pytest.raises(CorruptBatch, match=message):
        RecordBatch.from_bytes(forged(good[:96] + padded, length=96 + len(padded)))


def is_documented(data: bytes) -> bool:
    """Whether the bytes are a batch that can be read to its end, or an error that the docstring names."""
    try:
        batch = RecordBatch.from_bytes(data, config=LIMITS)
        records = list(batch)
    except (EmptyBatch, RecordTooLarge, BatchTooLarge, UnsupportedFormat, CorruptBatch):
        return True
    columns = (batch.offsets, batch.timestamps, batch.to_pylist(), batch.headers, batch.to_arrow())
    return {len(column) for column in columns} == {len(batch), len(records)}


@SEARCH
@given(st.binary(max_size=300))
def test_noise_is_never_anything_but_a_documented_error(data: bytes) -> None:
    assert is_documented(data)


FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "first_offset", "span", "record_count", "values_stored", "values_raw", "sections", "codec", "kind",
            "reserved_16", "producer_id", "length",
        ]
    ),
    st.integers(0, 40) | st.sampled_from([0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 62, (1 << 64) - 1]),
    max_size=3,
)  # fmt: skip


@settings(SEARCH, max_examples=300)
@given(
    RECORDS,
    st.sampled_from(["none", "zstd"]),
    FIELDS,
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
)
def test_forged_batch_with_a_good_checksum_is_never_anything_but_a_documented_error(
    values: list[Record | bytes], compression: Any, fields: dict[str, int], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(RecordBatch.encode(values, compression=compression).to_bytes())
    for position, byte in changes:
        data[96 + position % (len(data) - 96)] = byte
    narrow = {"sections": 0xFF, "codec": 0xFF, "kind": 0xFF, "reserved_16": 0xFFFF}
    wide = {"first_offset", "producer_id"}
    cut = {
        name: value & (narrow.get(name, ~0 if name in wide else 0xFFFF_FFFF))
        for name, value in fields.items()
    }

    assert is_documented(forged(bytes(data), **cut))


# ── limits of what is made here ─────────────────────────────────────────────────────────────────────


def test_payload_made_under_other_limits_is_checked_against_these() -> None:
    payload = encode_batch([b"v" * 1000])

    check_payload(payload, Config(batch_bytes_max=96 + 8 + 1000))
    with pytest.raises(BatchTooLarge):
        check_payload(payload, Config(batch_bytes_max=96 + 8 + 999))


def test_strings_beyond_what_the_format_can_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logstore.column.BATCH_BYTES_LIMIT", 10)
    assert BATCH_BYTES_LIMIT == 1 << 30

    assert pack_strings([b"12345", b"67890"]).data == b"1234567890"
    with pytest.raises(BatchTooLarge):
        pack_strings([b"12345", b"678901"])


# ── checksums ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_gives_the_known_answers(data: bytes, crc: int) -> None:
    """Source: RFC 3720, B.4, and the check value of CRC-32C."""
    assert crc32c(0, data) == crc


@SEARCH
@given(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=80))
def test_seed_can_be_found_again_from_a_checksum_and_its_bytes(seed: int, data: bytes) -> None:
    assert seed_of(crc32c(seed, data), data) == seed


@SEARCH
@given(st.binary(max_size=50), st.binary(max_size=50))
def test_checksum_may_be_computed_in_pieces(a: bytes, b: bytes) -> None:
    assert crc32c(crc32c(0, a), b) == crc32c(0, a + b)


def test_errors_of_a_batch_are_errors_of_the_log_and_of_the_value() -> None:
    for error in (RecordTooLarge, BatchTooLarge, EmptyBatch, CorruptBatch):
        assert issubclass(error, LogError) and issubclass(error, ValueError)
