"""What HashiCorp's programs made is understood."""

from __future__ import annotations

import hashlib
import os

import pytest

from raftlog.serf.codec import envelopes, kinds, lzw, serf, streams, swim
from raftlog.serf.codec.framing import StreamReader
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.messages import (
    Ack,
    Address,
    Alive,
    ConflictResponse,
    Dead,
    ErrorReply,
    EventRecord,
    EventsAt,
    IndirectPing,
    JoinIntent,
    KeyRequest,
    KeyResponse,
    LeaveIntent,
    Nack,
    NodeState,
    Ping,
    PushPull,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    State,
    Suspect,
    SwimMessage,
    TagFilter,
    UserEvent,
    UserMessage,
    Versions,
)
from tests.raftlog.serf.codec.made_by_go import KEY, MEMBERLIST, NOISE_COMPRESSED_SHA256, SERF

N1, N2 = Address("10.0.0.1:7946"), Address("10.0.0.2:7946")
NONE = Versions(0, 0, 0, 0, 0, 0)
PING = Ping(7, "n2", N1, "n1")
ALIVE = Alive(300, "n2", N2, b"\xffmeta", Versions(1, 5, 2, 2, 5, 4))
PARTS = [PING, ALIVE, UserMessage(b"user")]


def codec(*, is_encrypted: bool = False, label: str = "") -> Codec:
    return Codec(Keyring([KEY] if is_encrypted else []), nonce=os.urandom, label=label)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ping", PING),
        ("ping_bare", Ping(7, "n2")),
        ("indirect_ping", IndirectPing(2**32 - 1, Address("[fe80::2]:7947"), "n3", True, N1, "n1")),
        ("ack", Ack(70000, b"pay")),
        ("ack_nil", Ack(7)),
        ("nack", Nack(9)),
        ("suspect", Suspect(3, "n2", "n1")),
        ("alive", ALIVE),
        ("alive_mapped", Alive(1, "n2", N2, b"", NONE)),
        ("dead", Dead(3, "n2", "n2")),
    ],
)
def test_message_of_memberlist_is_understood(name: str, message: SwimMessage) -> None:
    assert swim.decode(MEMBERLIST[name]) == message


def test_error_of_memberlist_is_understood() -> None:
    assert streams.decode(MEMBERLIST["error"]) == ErrorReply("not encrypted")


@pytest.mark.parametrize("name", ["compound", "crc"])
def test_plain_packet_of_memberlist_is_understood(name: str) -> None:
    assert codec().open_packet(MEMBERLIST[name]) == PARTS


@pytest.mark.parametrize("version", [0, 1])
def test_encrypted_packet_of_memberlist_is_understood(version: int) -> None:
    assert codec(is_encrypted=True).open_packet(MEMBERLIST[f"encrypted_{version}"]) == PARTS


@pytest.mark.parametrize("version", [0, 1])
def test_labelled_packet_of_memberlist_is_understood(version: int) -> None:
    assert codec(is_encrypted=True, label="blue").open_packet(MEMBERLIST[f"labelled_{version}"]) == PARTS


def test_compressed_packet_of_memberlist_is_understood() -> None:
    text = b"\x08abcabcabc" * 60

    assert codec().open_packet(MEMBERLIST["compressed"]) == [UserMessage(text[1:])]


def test_compression_makes_the_same_bytes_as_memberlist() -> None:
    text = b"\x08abcabcabc" * 60

    assert envelopes.compressed(text) == MEMBERLIST["compressed"]


def test_compression_with_all_widths_and_clears_makes_the_same_bytes_as_memberlist() -> None:
    noise, number = bytearray(), 1
    for _ in range(30_000):
        number = (number * 1664525 + 1013904223) % 2**32
        noise.append(number >> 24 & 0x3F)

    made = envelopes.compressed(bytes(noise))

    assert hashlib.sha256(made).hexdigest() == NOISE_COMPRESSED_SHA256
    assert lzw.decompress(lzw.compress(bytes(noise)), bytes_max=30_000) == noise


@pytest.mark.parametrize(
    ("name", "is_encrypted", "label"),
    [("state_0", False, ""), ("state_1", False, ""), ("state_2", True, ""), ("state_3", True, "blue")],
)
def test_whole_state_of_memberlist_is_understood(name: str, is_encrypted: bool, label: str) -> None:
    reader = StreamReader()
    assert reader.feed(MEMBERLIST[name])

    state = codec(is_encrypted=is_encrypted, label=label).open_stream(reader.message_bytes)

    assert isinstance(state, PushPull)
    assert (state.is_join, state.user_state) == (True, b"the state above")
    by_name = {node.node: node for node in state.nodes}
    left = NodeState("n2", Address("[2001:db8::2]:7947"), b"m2", 5, State.LEFT, Versions(1, 5, 2, 2, 5, 4))
    assert by_name["n2"] == left
    assert (by_name["n1"].address, by_name["n1"].state) == (Address("127.0.0.1:1"), State.ALIVE)


RESPONSE = QueryResponse(3, 5, "n2", False, b"up")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leave", LeaveIntent(9, "n2", True)),
        ("join", JoinIntent(1 << 40, "n2")),
        (
            "state",
            SerfState(
                12,
                {"n1": 4, "n2": 5},
                ("n3",),
                7,
                (EventsAt(6, (EventRecord("deploy", b"v1"), EventRecord("empty", b""))),),
                2,
            ),
        ),
        ("state_nil", SerfState(1, {}, (), 0, (), 0)),
        ("user_event", UserEvent(8, "deploy", b"\x00\x01\xff", True)),
        (
            "query",
            Query(
                3, 4_000_000_000, N1, "n1", "uptime", b"p", 15.0, (("n1", "n2"),), (TagFilter("role", "^web"),),
                wants_ack=True, is_broadcast=False, relay_factor=2,
            ),
        ),
        ("query_bare", Query(3, 1, N1, "", "uptime", b"", 1.5)),
        ("query_response", RESPONSE),
        ("query_ack", QueryResponse(3, 5, "n2", True)),
        ("conflict", ConflictResponse("n2", N2, {"role": "web"})),
        ("conflict_nobody", ConflictResponse("", Address(""))),
        ("key_request", KeyRequest(KEY)),
        ("key_response", KeyResponse(True, "", ("MDEyMzQ1Njc4OWFiY2RlZg==",), "MDEyMzQ1Njc4OWFiY2RlZg==")),
        ("key_refusal", KeyResponse(False, "no")),
    ],
)  # fmt: skip
def test_message_of_serf_is_understood(name: str, message: SerfMessage) -> None:
    assert serf.decode(SERF[name]) == message


def test_relay_of_serf_carries_the_response() -> None:
    relay = serf.decode(SERF["relay"])

    assert relay == Relay(N1, "n1", SERF["query_response"])
    assert serf.decode(SERF["query_response"]) == RESPONSE


def test_tags_of_serf_are_understood_and_made_alike() -> None:
    assert serf.decode_tags(SERF["tags"]) == {"role": "web"}
    assert serf.encode_tags({"role": "web"}) == SERF["tags"]


def test_first_byte_of_an_encrypted_stream_of_memberlist_says_so() -> None:
    assert MEMBERLIST["state_2"][0] == kinds.ENCRYPTED
