"""Messages out of bytes: what stands for what, and what is refused."""

from __future__ import annotations

import tracemalloc

import pytest

from raftlog.serf.codec import serf, swim
from raftlog.serf.codec.addresses import from_wire, to_wire
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import ITEMS_MAX, NAME_BYTES_MAX, pack
from raftlog.serf.messages import (
    Ack,
    Address,
    Alive,
    ConflictResponse,
    IndirectPing,
    Nack,
    Ping,
    Query,
    SerfState,
    Suspect,
    Versions,
)

MEMBER: dict[str, object] = {"Node": "n1", "Addr": b"\n\0\0\1", "Port": 7946, "Incarnation": 1}


def alive(**fields: object) -> bytes:
    return b"\x04" + pack(MEMBER | fields)


# ── fields ──


def test_missing_fields_and_nil_stand_for_zero() -> None:
    assert swim.decode(b"\x0b\x80") == Nack(0)
    assert swim.decode(b"\x0b\xc0") == Nack(0)
    assert swim.decode(b"\x03" + pack({"Node": None, "From": None})) == Suspect(0, "", "")


def test_unknown_fields_are_ignored() -> None:
    assert swim.decode(b"\x02" + pack({"SeqNo": 1, "New": [{"x": 1.5}]})) == Ack(1)


def test_last_of_a_repeated_field_counts() -> None:
    assert swim.decode(b"\x0b\x82\xa5SeqNo\x01\xa5SeqNo\x02") == Nack(2)


def test_newer_forms_of_text_and_bytes_are_understood() -> None:
    assert swim.decode(b"\x02\x82\xd9\x05SeqNo\x01\xa7Payload\xc4\x02hi") == Ack(1, b"hi")


@pytest.mark.parametrize(
    "fields",
    [
        {"SeqNo": -1},
        {"SeqNo": 1 << 32},
        {"SeqNo": "1"},
        {"SeqNo": 1.0},
        {"SeqNo": True},
        {"Node": 1},
        {"Node": b"\xff\xfe"},
        {"Node": "x" * (NAME_BYTES_MAX + 1)},
        {"SourceAddr": b"123", "SourcePort": 1},
        {"SourceAddr": "text", "SourcePort": 1 << 16},
    ],
)
def test_field_of_another_type_or_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadPacket, match="expected"):
        swim.decode(b"\x00" + pack(fields))


def test_name_of_exactly_its_limit_is_understood() -> None:
    assert swim.decode(swim.encode(Ping(1, "x" * NAME_BYTES_MAX))) == Ping(1, "x" * NAME_BYTES_MAX)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x90",
        b"\xa1x",
        b"\x80\x80",
        b"\x81",
        b"\x81\x01\x01",
        b"\x81\x90\x01",
        b"\x81\xa1x\xd4\x01\x01",
        b"\x81\xa1x\xc7\x0c\xff" + b"\xff" * 12,
        b"\x81\xa1x\xdb\xff\xff\xff\xff",
        b"\x81\xa1x\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x" + b"\xdd\x7f\xff\xff\xff" * 400,
        b"\x81\xa1x" + b"\x91" * 5000,
        b"\xc1",
    ],
)
def test_body_that_is_no_map_is_refused(body: bytes) -> None:
    with pytest.raises(BadPacket):
        swim.decode(b"\x00" + body)


def test_list_beyond_its_limit_is_refused_before_it_is_allotted() -> None:
    assert swim.decode(b"\x0b" + pack({"New": [0] * ITEMS_MAX})) == Nack(0)
    with pytest.raises(BadPacket):
        swim.decode(b"\x0b" + pack({"New": [0] * (ITEMS_MAX + 1)}))


def test_refusal_says_nothing_of_what_the_bytes_carry() -> None:
    for data in (
        alive(Node=b"secret\xff"),
        alive(Addr="secret"),
        b"\x00\xa6secret",
        b"\x00\x81\xa1x\xa6secret!",
    ):
        with pytest.raises(BadPacket) as refusal:
            swim.decode(data)
        assert "secret" not in str(refusal.value)


# ── members ──


def test_versions_of_a_member_that_says_too_few_are_not_known() -> None:
    for sent in (b"", b"\x01\x05\x02"):
        message = swim.decode(alive(Vsn=sent))
        assert isinstance(message, Alive)
        assert message.versions == Versions(0, 0, 0, 0, 0, 0)


def test_tags_of_exactly_the_limit_are_understood_and_one_byte_more_is_refused() -> None:
    message = swim.decode(alive(Meta=bytes(512)))

    assert isinstance(message, Alive)
    assert len(message.meta) == 512
    with pytest.raises(BadPacket, match="512 bytes at most, found 513"):
        swim.decode(alive(Meta=bytes(513)))


def test_ping_without_a_whole_source_is_answered_to_where_it_came_from() -> None:
    assert swim.decode(b"\x00" + pack({"SourceAddr": b"\n\0\0\1", "SourceNode": "n1"})) == Ping(
        0, "", None, "n1"
    )


def test_indirect_ping_without_a_target_is_refused() -> None:
    with pytest.raises(BadPacket, match="address: expected"):
        swim.decode(b"\x01" + pack({"SeqNo": 1, "Node": "n3"}))
    asked = IndirectPing(1, Address("10.0.0.3:7946"), "n3")
    assert swim.decode(swim.encode(asked)) == asked


# ── addresses ──


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("10.0.0.1:7946", b"\n\0\0\1"),
        ("[::1]:1", bytes(15) + b"\1"),
        ("[2001:db8::5]:65535", b"\x20\x01\x0d\xb8" + bytes(11) + b"\5"),
    ],
)
def test_address_comes_back(text: str, ip: bytes) -> None:
    packed, port = to_wire(Address(text))

    assert packed == ip
    assert from_wire(packed, port) == text


def test_ipv4_address_mapped_into_ipv6_is_ipv4() -> None:
    assert from_wire(bytes(10) + b"\xff\xff\n\0\0\1", 7946) == "10.0.0.1:7946"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:x",
        "name:7946",
        "[fe80::1%eth0]:1",
        ":1",
    ],
)
def test_text_that_is_no_address_is_the_callers_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="address|appear"):
        to_wire(Address(text))


@pytest.mark.parametrize(
    ("ip", "port"),
    [
        (b"", 1),
        (b"\n\0\0", 1),
        (bytes(5), 1),
        (bytes(17), 1),
        (b"\n\0\0\1", 0),
        (bytes(4), 1),
        (bytes(16), 1),
        (b"\xe0\0\0\1", 1),
        (b"\xff\xff\xff\xff", 1),
        (b"\xff\x02" + bytes(13) + b"\1", 1),
        (bytes(10) + b"\xff\xff\xe0\0\0\1", 1),
    ],
)
def test_address_of_no_one_host_is_refused(ip: bytes, port: int) -> None:
    with pytest.raises(BadPacket, match="address: expected"):
        from_wire(ip, port)


# ── Serf ──


def query(**fields: object) -> bytes:
    return b"\x04" + pack({"Addr": b"\n\0\0\1", "Port": 7946} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"Filters": [b""]},
        {"Filters": [b"\x02\x90"]},
        {"Filters": [b"\x00\xc1"]},
        {"Filters": [b"\x00" + pack(["n"] * 1025)]},
        {"Filters": [1]},
        {"Filters": [b"\x00\x90"] * 65},
        {"Filters": {}},
        {"Timeout": -1},
        {"RelayFactor": 256},
        {"Addr": b""},
    ],
)
def test_query_beyond_its_limits_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadPacket):
        serf.decode(query(**fields))


def test_query_without_fields_is_one_for_all() -> None:
    assert serf.decode(query()) == Query(0, 0, Address("10.0.0.1:7946"), "", "", b"", 0.0)


def test_longest_time_of_a_query_comes_back() -> None:
    message = serf.decode(query(Timeout=2**63 - 1))

    assert serf.decode(serf.encode(message)) == message


def test_members_that_cannot_be_named_are_left_out_of_the_state() -> None:
    fields = {"StatusLTimes": {"n1": 1, b"\xff": 2}, "LeftMembers": ["n2", b"\xff", "x" * 256]}

    assert serf.decode(b"\x02" + pack(fields)) == SerfState(0, {"n1": 1}, ("n2",), 0, (), 0)


def test_state_of_many_members_is_understood() -> None:
    state = SerfState(1, {f"n{number}": number for number in range(5000)}, ("n1",) * 5000, 0, (), 0)

    assert serf.decode(serf.encode(state)) == state


@pytest.mark.parametrize(
    "data", [b"", b"\x0a\x80", b"\xff\x80", b"\x09", b"\x09\x80", b"\x02\xdd\x00\x00\x20\x01"]
)
def test_bytes_that_are_no_message_of_serf_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        serf.decode(data)


def test_lists_that_declare_more_than_is_there_are_refused_before_they_are_allotted() -> None:
    """500 lists in each other, each of 8192: 32 MiB and 17 ms for each small packet, were they begun."""
    data = b"\x02\x81\xa1x" + b"\xdc\x20\x00" * 500
    tracemalloc.start()
    try:
        with pytest.raises(BadPacket):
            serf.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1024 * 1024


def test_more_lists_than_any_message_has_are_refused_before_all_are_made() -> None:
    """4 MiB of empty ones, 20 KiB when compressed, would be 300 MiB and two seconds."""
    lists = b"\xdc\x02\x00" + b"\x90" * 512
    data = b"\x02\x81\xa6Events" + b"\xdc\x1f\x40" + lists * 8000
    tracemalloc.start()
    try:
        with pytest.raises(BadPacket, match="Serf state: no msgpack within the limits"):
            serf.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(data) + 8 * 1024 * 1024


def test_conflict_response_of_nobody_comes_back() -> None:
    nobody = ConflictResponse("", Address(""))

    assert serf.decode(serf.encode(nobody)) == nobody


# ── tags ──


def test_tags_come_back() -> None:
    tags = {"rpc_addr": "10.0.0.1:8400", "role": "member", "empty": ""}

    assert serf.decode_tags(serf.encode_tags(tags)) == tags


def test_as_many_tags_as_fit_come_back() -> None:
    tags = {f"t{number}": "" for number in range(100)}
    vote = ConflictResponse("n1", Address("10.0.0.1:7946"), tags)

    assert serf.decode_tags(serf.encode_tags(tags)) == tags
    assert serf.decode(serf.encode(vote)) == vote


def test_meta_without_the_mark_of_tags_is_the_role() -> None:
    assert serf.decode_tags(b"web") == {"role": "web"}
    assert serf.decode_tags(b"") == {}


def test_tags_of_exactly_the_limit_are_sent_and_one_byte_more_is_the_callers_mistake() -> None:
    fits = 512 - len(serf.encode_tags({"t": "x" * 300})) + 300

    assert len(serf.encode_tags({"t": "x" * fits})) == 512
    with pytest.raises(ValueError, match="512 bytes at most when encoded, found 513"):
        serf.encode_tags({"t": "x" * (fits + 1)})


@pytest.mark.parametrize(
    "meta", [b"\xff", b"\xff\x01", b"\xff\x81\xa1x\x01", b"\xff\x81\x01\xa1x", b"\xfe\xfe"]
)
def test_meta_that_is_neither_is_refused(meta: bytes) -> None:
    with pytest.raises(BadPacket):
        serf.decode_tags(meta)
