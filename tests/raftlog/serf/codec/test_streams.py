"""Sides of streams: their envelopes, where they end, and their limits."""

from __future__ import annotations

import random

import pytest

from raftlog.serf.codec import envelopes, kinds, streams
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.framing import StreamReader
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import COMPRESSED_IN_BYTES_MAX, Codec
from raftlog.serf.codec.streams import NODES_MAX
from raftlog.serf.codec.values import pack
from raftlog.serf.messages import Address, NodeState, Ping, PushPull, State, UserMessage, Versions

KEY = b"k" * 16
NODE = NodeState("n1", Address("10.0.0.1:7946"), b"meta", 1, State.ALIVE, Versions())
STATE = PushPull((NODE, NODE._replace(node="n2")), b"above", True)
MANY = PushPull(tuple(NODE._replace(node=f"n{number}") for number in range(1000)), b"above", False)


def codec(*keys: bytes, label: str = "", compression: bool = True, verify_incoming: bool = True) -> Codec:
    nonce = random.Random(7).randbytes
    ring = Keyring(keys)
    return Codec(ring, nonce=nonce, label=label, compression=compression, verify_incoming=verify_incoming)


def state_of(*members: dict[str, object], user: bytes = b"", declared: int | None = None) -> bytes:
    header = {
        "Nodes": len(members),
        "UserStateLen": len(user) if declared is None else declared,
        "Join": False,
    }
    return bytes([kinds.PUSH_PULL]) + pack(header) + b"".join(map(pack, members)) + user


MEMBER: dict[str, object] = {"Name": "n1", "Addr": b"\n\0\0\1", "Port": 7946, "Incarnation": 1, "State": 0}


# ── envelopes ──


def test_answer_carries_no_label_but_is_vouched_for_with_it() -> None:
    """As memberlist answers: only whoever opened the stream sends the label."""
    one = codec(KEY, label="blue")

    answer = one.stream(STATE, is_reply=True)

    assert answer[0] == kinds.ENCRYPTED
    assert one.open_stream(answer, is_reply=True) == STATE
    with pytest.raises(BadPacket, match="label"):
        one.open_stream(answer)
    with pytest.raises(BadPacket, match="none of 1 keys"):
        codec(KEY, label="grey").open_stream(answer, is_reply=True)


def test_small_side_and_a_huge_one_are_not_compressed() -> None:
    assert codec().stream(STATE)[0] == kinds.PUSH_PULL
    assert codec().stream(MANY)[0] == kinds.PUSH_PULL


def test_side_in_between_is_compressed() -> None:
    some = PushPull(MANY.nodes[:100], b"above", False)

    assert codec().stream(some)[0] == kinds.COMPRESSED
    assert codec(compression=False).stream(some)[0] == kinds.PUSH_PULL


def test_plain_side_is_refused_where_there_is_a_key() -> None:
    with pytest.raises(BadPacket, match="expected an encrypted one"):
        codec(KEY).open_stream(codec().stream(STATE))
    assert codec(KEY, verify_incoming=False).open_stream(codec().stream(STATE)) == STATE


def test_encrypted_side_is_refused_where_there_is_no_key() -> None:
    with pytest.raises(BadPacket, match="there is no key"):
        codec().open_stream(codec(KEY).stream(STATE))


def test_every_changed_byte_of_an_encrypted_side_is_refused() -> None:
    one = codec(KEY)
    sent = one.stream(STATE)

    for at in range(len(sent)):
        if at == 5:  # the version: test_packets.py
            continue
        changed = bytearray(sent)
        changed[at] ^= 0x40
        with pytest.raises(BadPacket):
            one.open_stream(bytes(changed))


@pytest.mark.parametrize("end", [0, 1, 4, 5, 6, 30, -1])
def test_encrypted_side_that_is_cut_off_is_refused(end: int) -> None:
    one = codec(KEY)

    with pytest.raises(BadPacket):
        one.open_stream(one.stream(STATE)[:end])


def test_bomb_is_refused() -> None:
    with pytest.raises(BadPacket, match="4194304 bytes at most"):
        codec().open_stream(envelopes.compressed(bytes(4 * 1024 * 1024 + 1)))


def test_huge_compressed_side_is_refused_before_it_is_looked_at() -> None:
    huge = b"\x09" + pack({"Algo": 0, "Buf": bytes(COMPRESSED_IN_BYTES_MAX)})

    with pytest.raises(BadPacket, match="1048576 compressed bytes at most"):
        codec().open_stream(huge)


@pytest.mark.parametrize("header", [b"\x81\xa5Nodes\x01\x81\xa4Meta", b"\x81\xa4Join"])
def test_more_lists_than_any_state_has_are_refused(header: bytes) -> None:
    """In a member or in the header, which also whoever looks for the end of the state reads."""
    lists = b"\x90"
    for _ in range(3):
        lists = b"\xdc\x00\x40" + lists * 64
    data = bytes([kinds.PUSH_PULL]) + header + lists

    with pytest.raises(BadPacket, match="no msgpack within the limits"):
        codec().open_stream(data)


# ── messages ──


def test_member_that_cannot_be_held_is_left_out_of_a_whole_state() -> None:
    strangers: list[dict[str, object]] = [
        {"Name": b"\xff"},
        {"Name": "x" * 256},
        {"Addr": b""},
        {"Addr": b"\xe0\0\0\1"},
        {"Port": 0},
        {"Meta": bytes(513)},
        {"State": 4},
        {"Incarnation": 1 << 32},
    ]
    side = state_of(*(MEMBER | stranger for stranger in strangers), MEMBER, user=b"above")

    state = codec().open_stream(side)

    assert isinstance(state, PushPull)
    assert [node.node for node in state.nodes] == ["n1"]
    assert state.user_state == b"above"


@pytest.mark.parametrize(
    "side",
    [
        b"",
        b"\x06",
        b"\x06\x01",
        state_of(MEMBER, user=b"abc", declared=4),
        state_of(MEMBER, user=b"abc", declared=2),
        state_of(MEMBER, user=b"abc", declared=-1),
        state_of(MEMBER)[:-3],
        b"\x06" + pack({"Nodes": NODES_MAX + 1}),
        b"\x06" + pack({"Nodes": 2**63}),
        b"\x06" + pack({"Nodes": 1}) + pack([1]),
        b"\x08" + pack({"UserMsgLen": 2**40}),
        b"\x08" + pack({"UserMsgLen": 5}) + b"1234",
        b"\x03" + pack({"Node": "n1"}),
        b"\x0d" + pack({"Error": "x" * 5000}),
    ],
)
def test_side_that_is_no_message_is_refused(side: bytes) -> None:
    with pytest.raises(BadPacket):
        codec().open_stream(side)


def test_user_message_of_a_stream_has_a_length() -> None:
    assert streams.encode(UserMessage(b"abc")) == b"\x08\x81\xaaUserMsgLen\x03abc"


# ── where they end ──


def test_reader_refuses_an_encrypted_side_by_its_header() -> None:
    reader = StreamReader(bytes_max=1000)

    with pytest.raises(BadPacket, match="1000 bytes at most"):
        reader.feed(b"\x0a\xff\xff\xff\xff")


def test_reader_takes_an_encrypted_side_of_exactly_its_limit() -> None:
    reader = StreamReader(bytes_max=105)

    assert not reader.feed(b"\x0a\x00\x00\x00\x64")
    assert reader.feed(bytes(100))


@pytest.mark.parametrize(
    "header",
    [b"\x06" + pack({"Nodes": 0, "UserStateLen": 4_000_000_000}), b"\x08" + pack({"UserMsgLen": 2000})],
)
def test_reader_refuses_a_plain_side_by_its_header(header: bytes) -> None:
    with pytest.raises(BadPacket, match="1000 bytes at most"):
        StreamReader(bytes_max=1000).feed(header)


def test_reader_refuses_what_has_no_end_within_its_limit() -> None:
    reader = StreamReader(bytes_max=1000)
    assert not reader.feed(b"\x09\x82\xa3Buf\xdb\xff\xff\xff\xff")

    with pytest.raises(BadPacket, match="1000 bytes at most"):
        reader.feed(bytes(1000))


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x80",
        b"\xff",
        b"\x06\xc1",
        b"\x06\x01",
        b"\x00" + b"\x91" * 2000,
        b"\x06" + pack({"Nodes": NODES_MAX + 1}),
        b"\xf4\x04blue\x07",
    ],
)
def test_reader_refuses_what_is_no_side_at_once(data: bytes) -> None:
    with pytest.raises(BadPacket):
        StreamReader().feed(data)


def test_reader_leaves_out_what_comes_behind() -> None:
    sent = codec(KEY, label="blue").stream(Ping(1, "n2"))
    reader = StreamReader()

    assert reader.feed(sent + b"behind")
    assert reader.message_bytes == sent


def test_reader_of_a_large_side_is_quick_however_it_comes() -> None:
    """Each byte is looked at once: 160 kB in 20,000 pieces would take minutes if the whole were read anew for each."""
    sent = codec(compression=False).stream(MANY)
    reader = StreamReader()

    whole = [reader.feed(sent[at : at + 8]) for at in range(0, len(sent), 8)]

    assert whole.count(True) == 1
    assert codec().open_stream(reader.message_bytes) == MANY
