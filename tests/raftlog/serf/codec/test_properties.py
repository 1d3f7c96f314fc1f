"""Whatever is said is understood as it was meant, and whatever comes is understood or refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftlog.serf.codec import envelopes, lzw, serf, streams, swim
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.framing import StreamReader
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.streams import StreamMessage
from raftlog.serf.codec.swim import PacketMessage
from raftlog.serf.messages import ConflictResponse, SerfMessage
from tests.raftlog.serf.codec.made_by_go import KEY, MEMBERLIST, SERF
from tests.raftlog.serf.codec.strategies import packet_messages, serf_messages, stream_messages

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for a loaded machine
THOROUGH = settings(RELAXED, max_examples=400)

KINDS = st.sampled_from([*range(16), 244, 255])
LIKE_PACKETS = st.builds(lambda kind, body: bytes([kind]) + body, KINDS, st.binary(max_size=200))
MADE = st.sampled_from([*MEMBERLIST.values(), *SERF.values()])


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """Real bytes with some changed, cut or repeated."""
    data = bytearray(draw(MADE))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.sampled_from(["set", "cut", "insert", "repeat"])):
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                data[at:at] = data[at : at + 20]
    return bytes(data)


ANYTHING = st.one_of(st.binary(max_size=300), LIKE_PACKETS, changed())


def codec(keys: int, label: str = "", *, compression: bool = True) -> Codec:
    ring = Keyring([bytes([number]) * 32 for number in range(keys)])
    return Codec(ring, nonce=random.Random(7).randbytes, label=label, compression=compression)


def understood_or_refused(act: Callable[[], object]) -> None:
    try:
        act()
    except BadPacket as error:
        assert str(error)


@RELAXED
@given(packet_messages)
def test_message_of_a_packet_comes_back(message: PacketMessage) -> None:
    assert swim.decode(swim.encode(message)) == message


@RELAXED
@given(stream_messages)
def test_message_of_a_stream_comes_back(message: StreamMessage) -> None:
    assert streams.decode(streams.encode(message)) == message


@RELAXED
@given(serf_messages)
def test_message_of_serf_comes_back(message: SerfMessage) -> None:
    assert serf.decode(serf.encode(message)) == message


@RELAXED
@given(
    st.lists(packet_messages, min_size=1, max_size=30),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["", "blue"]),
)
def test_packet_comes_back(messages: list[PacketMessage], has_crc: bool, keys: int, label: str) -> None:
    one = codec(keys, label)
    parts = [swim.encode(message) for message in messages]

    packet = one.packet(parts, has_crc=has_crc)

    assert one.open_packet(packet) == messages
    assert len(packet) <= sum(map(len, parts)) + one.overhead() + envelopes.PART_BYTES * len(parts)


@RELAXED
@given(stream_messages, st.integers(0, 1), st.sampled_from(["", "blue"]), st.booleans(), st.data())
def test_stream_comes_back_in_whatever_pieces(
    message: StreamMessage, keys: int, label: str, compression: bool, data: st.DataObject
) -> None:
    one = codec(keys, label, compression=compression)
    sent = one.stream(message)
    reader = StreamReader()
    cuts = sorted(data.draw(st.lists(st.integers(1, len(sent)), max_size=10)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    whole = [reader.feed(piece) for piece in [*pieces, b"behind"]]

    assert whole[-1]
    assert reader.message_bytes == sent
    assert one.open_stream(reader.message_bytes) == message


@RELAXED
@given(stream_messages, st.integers(0, 1))
def test_stream_is_not_whole_before_its_last_byte(message: StreamMessage, keys: int) -> None:
    sent = codec(keys).stream(message)
    reader = StreamReader()

    assert [reader.feed(sent[at : at + 1]) for at in range(len(sent))] == [False] * (len(sent) - 1) + [True]


@RELAXED
@given(st.binary(max_size=5000) | st.text("ab", max_size=5000).map(str.encode))
def test_compressed_bytes_come_back(data: bytes) -> None:
    assert lzw.decompress(lzw.compress(data), bytes_max=len(data)) == data


@THOROUGH
@given(ANYTHING)
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    for one in (codec(0), codec(0, "blue"), codec(1)):
        understood_or_refused(lambda one=one: one.open_packet(data))  # type: ignore[misc]


@THOROUGH
@given(ANYTHING)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    understood_or_refused(lambda: swim.decode(data))
    understood_or_refused(lambda: serf.decode(data))
    understood_or_refused(lambda: serf.decode_tags(data))


@THOROUGH
@given(ANYTHING)
def test_any_bytes_are_a_side_of_a_stream_or_refused(data: bytes) -> None:
    understood_or_refused(lambda: codec(0).open_stream(data))
    understood_or_refused(lambda: StreamReader().feed(data))


@RELAXED
@given(st.binary(max_size=500))
def test_any_bytes_are_compressed_or_refused(data: bytes) -> None:
    understood_or_refused(lambda: lzw.decompress(data, bytes_max=10_000))


@RELAXED
@given(ANYTHING)
def test_whatever_serf_understood_can_be_said_again(data: bytes) -> None:
    """So a node that passes a message on never fails at what it took in."""
    try:
        message = serf.decode(data)
    except BadPacket:
        return
    if isinstance(message, ConflictResponse) and not message.address:
        return  # never passed on
    assert serf.decode(serf.encode(message)) == message


@RELAXED
@given(st.binary(min_size=1, max_size=60), st.sampled_from(["", "blue"]))
def test_every_changed_byte_of_an_encrypted_packet_is_refused(body: bytes, label: str) -> None:
    """All but the version, which memberlist does not vouch for: test_packets.py."""
    one = Codec(Keyring([KEY]), nonce=random.Random(7).randbytes, label=label)
    packet = one.packet([b"\x08" + body], has_crc=False)
    version = len(envelopes.with_label(b"", label.encode()))

    for at in range(len(packet)):
        if at == version:
            continue
        flipped = bytearray(packet)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(BadPacket):
            one.open_packet(bytes(flipped))


@RELAXED
@given(st.binary(min_size=1, max_size=60))
def test_every_cut_of_an_encrypted_packet_is_refused(body: bytes) -> None:
    one = codec(1)
    packet = one.packet([b"\x08" + body], has_crc=True)

    for end in range(len(packet)):
        with pytest.raises(BadPacket):
            one.open_packet(packet[:end])
