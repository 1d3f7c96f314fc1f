"""Packets: what is around messages, and its limits."""

from __future__ import annotations

import random

import pytest

from raftlog.serf.codec import encryption, envelopes, kinds, packets, swim
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.messages import Ack, Nack, Ping, UserMessage

KEY = b"k" * 32
PING = Ping(1, "n2")
LARGE = UserMessage(b"abcdefgh" * 100)


def codec(
    *keys: bytes,
    label: str = "",
    compression: bool = True,
    verify_incoming: bool = True,
    verify_outgoing: bool = True,
) -> Codec:
    return Codec(
        Keyring(keys),
        nonce=random.Random(7).randbytes,
        label=label,
        compression=compression,
        verify_incoming=verify_incoming,
        verify_outgoing=verify_outgoing,
    )


def nested(data: bytes, depth: int) -> bytes:
    for _ in range(depth):
        data = envelopes.compound([data])
    return data


# ── sent ──


def test_one_message_without_anything_around_it_is_bare() -> None:
    assert codec().packet([swim.encode(PING)], has_crc=False) == swim.encode(PING)


def test_several_messages_are_a_compound() -> None:
    packet = codec().packet([b"\x08a", b"\x08bc"], has_crc=False)

    assert packet == b"\x07\x02" + b"\x00\x02\x00\x03" + b"\x08a\x08bc"


def test_checksum_is_over_all_that_follows_it() -> None:
    packet = codec().packet([b"\x08a"], has_crc=True)

    assert packet == b"\x0c\xb3\xb5\xc9\x39\x08a"


def test_label_is_in_front_of_everything() -> None:
    assert codec(KEY, label="blue").packet([b"\x08a"], has_crc=True)[:7] == b"\xf4\x04blue\x01"


def test_encrypted_packet_costs_the_known_overhead() -> None:
    one = codec(KEY, label="blue")

    packet = one.packet([b"\x08a", b"\x08b"], has_crc=True)

    assert len(packet) == one.overhead() + 2 * envelopes.PART_BYTES + 4


@pytest.mark.parametrize(
    ("one", "overhead"),
    [
        (codec(), 7),
        (codec(KEY), 36),
        (codec(KEY, verify_outgoing=False), 7),
        (codec(KEY, label="blue"), 42),
    ],
)
def test_overhead_counts_what_is_sent(one: Codec, overhead: int) -> None:
    assert one.overhead() == overhead


def test_large_packet_that_shrinks_is_compressed() -> None:
    packet = codec().packet([swim.encode(LARGE)], has_crc=False)

    assert packet[0] == kinds.COMPRESSED
    assert len(packet) < len(LARGE.data) // 3


@pytest.mark.parametrize("data", [b"abcdefgh" * 63, random.Random(1).randbytes(1000)])
def test_small_packet_and_one_that_would_grow_are_not_compressed(data: bytes) -> None:
    assert codec().packet([b"\x08" + data], has_crc=False) == b"\x08" + data


def test_nothing_is_compressed_without_compression() -> None:
    sent = swim.encode(LARGE)

    assert codec(compression=False).packet([sent], has_crc=False) == sent


def test_no_nonce_comes_twice() -> None:
    one = codec(KEY)

    sent = [one.packet([b"\x08a"], has_crc=False) for _ in range(100)]

    assert len({packet[1:13] for packet in sent}) == 100


@pytest.mark.parametrize("parts", [[b"\x0b\x80"] * 256, [b"\x0b\x80", bytes(65536)]])
def test_compound_beyond_its_limits_is_the_callers_mistake(parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match="at most"):
        codec().packet(parts, has_crc=False)


def test_compound_of_as_many_parts_as_fit_comes_back() -> None:
    one = codec()

    assert one.open_packet(one.packet([b"\x0b\x80"] * 255, has_crc=True)) == [Nack(0)] * 255


def test_label_above_its_limit_is_the_callers_mistake() -> None:
    codec(label="x" * 255)
    with pytest.raises(ValueError, match="255 bytes at most, found 256"):
        codec(label="x" * 256)


# ── come: keys and labels ──


def test_packet_with_another_key_is_refused() -> None:
    with pytest.raises(BadPacket, match="none of 2 keys fits"):
        codec(b"x" * 32, b"y" * 16).open_packet(codec(KEY).packet([b"\x08a"], has_crc=False))


def test_plain_packet_is_refused_where_there_is_a_key() -> None:
    with pytest.raises(BadPacket):
        codec(KEY).open_packet(codec().packet([swim.encode(PING)], has_crc=True))


def test_plain_packet_is_taken_in_while_moving_to_encryption() -> None:
    moving = codec(KEY, verify_incoming=False, verify_outgoing=False)
    sent = moving.packet([swim.encode(PING)], has_crc=True)

    assert sent == codec().packet([swim.encode(PING)], has_crc=True)
    assert moving.open_packet(sent) == [PING]
    assert moving.open_packet(codec(KEY).packet([swim.encode(PING)], has_crc=True)) == [PING]


def test_encrypted_packet_is_refused_where_there_is_no_key() -> None:
    with pytest.raises(BadPacket):
        codec().open_packet(codec(KEY).packet([swim.encode(PING)], has_crc=True))


@pytest.mark.parametrize(
    ("sent", "expected"), [("blue", "green"), ("blue", ""), ("", "blue"), ("blue", "blu")]
)
@pytest.mark.parametrize("keys", [[], [KEY]])
def test_packet_with_another_label_is_refused(sent: str, expected: str, keys: list[bytes]) -> None:
    packet = codec(*keys, label=sent).packet([swim.encode(PING)], has_crc=False)

    with pytest.raises(BadPacket, match="label"):
        codec(*keys, label=expected).open_packet(packet)


def test_label_is_vouched_for_by_the_key() -> None:
    packet = codec(KEY, label="blue").packet([b"\x08a"], has_crc=False)

    with pytest.raises(BadPacket, match="none of 1 keys"):
        codec(KEY, label="grey").open_packet(packet.replace(b"blue", b"grey"))


def test_changed_version_of_the_encryption_is_refused_unless_what_is_in_it_looks_padded() -> None:
    """memberlist does not vouch for this byte. All that can be had by changing it is the loss of a packet's end."""
    text = bytearray(codec(KEY).packet([b"\x08" + b"a" * 31], has_crc=False))
    looks_padded = bytearray(codec(KEY).packet([b"\x08" + b"a" * 30 + b"\x01"], has_crc=False))
    text[0] = looks_padded[0] = encryption.PADDED

    with pytest.raises(BadPacket, match="padding"):
        codec(KEY).open_packet(bytes(text))
    assert codec(KEY).open_packet(bytes(looks_padded)) == [UserMessage(b"a" * 30)]


def test_unknown_version_of_the_encryption_is_refused() -> None:
    packet = bytearray(codec(KEY).packet([b"\x08a"], has_crc=False))
    packet[0] = 2

    with pytest.raises(BadPacket, match="version 0 or 1, found 2"):
        codec(KEY).open_packet(bytes(packet))


def test_encrypted_packet_with_nothing_in_it_is_refused() -> None:
    ring = Keyring([KEY])

    with pytest.raises(BadPacket):
        codec(KEY).open_packet(encryption.encrypt(ring, bytes(12), b"", b""))


# ── come: everything else ──


@pytest.mark.parametrize(
    "data", [b"", b"\x07", b"\x07\x00", b"\x07\x02\x00", b"\x09", b"\x0c\x00", b"\xff", b"\x06\x80"]
)
def test_packet_without_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        codec().open_packet(data)


def test_wrong_checksum_is_refused() -> None:
    packet = bytearray(codec().packet([b"\x08a"], has_crc=True))
    packet[-1] ^= 1

    with pytest.raises(BadPacket, match="checksum: stored 0xb3b5c939, computed"):
        codec().open_packet(bytes(packet))


def test_part_that_is_not_understood_costs_only_itself() -> None:
    one = codec()
    packet = one.packet([b"\x02\x81\xa5SeqNo\x05", b"\x63what", b"\x04\xc1"], has_crc=True)

    assert one.open_packet(packet) == [Ack(5)]
    assert one.left_out == 2


def test_compound_that_is_cut_off_costs_only_what_is_missing() -> None:
    one = codec()
    packet = one.packet([b"\x08first", b"\x08second", b"\x08third"], has_crc=False)

    assert one.open_packet(packet[:-7]) == [UserMessage(b"first")]
    assert one.left_out == 2


def test_packet_of_nothing_understood_tells_the_first_reason() -> None:
    with pytest.raises(BadPacket, match="found kind 99"):
        codec().open_packet(envelopes.compound([b"\x63", b"\x64"]))


def test_compounds_in_each_other_are_understood_to_their_limit() -> None:
    assert codec().open_packet(nested(b"\x08a", packets.DEPTH_MAX)) == [UserMessage(b"a")]
    with pytest.raises(BadPacket, match="4 deep at most"):
        codec().open_packet(nested(b"\x08a", packets.DEPTH_MAX + 1))


def test_compression_in_compression_is_understood_to_its_limit() -> None:
    data = b"\x08a"
    for _ in range(packets.DEPTH_MAX):
        data = envelopes.compressed(data)
    assert codec().open_packet(data) == [UserMessage(b"a")]

    with pytest.raises(BadPacket, match="4 deep at most"):
        codec().open_packet(envelopes.compressed(data))


def test_messages_beyond_the_limit_are_left_out() -> None:
    one = codec()
    inner = envelopes.compound([b"\x0b\x80"] * 255)

    found = one.open_packet(envelopes.compound([inner] * 6))

    assert len(found) == packets.MESSAGES_MAX - 5  # four inner compounds, and the outer one
    assert one.left_out == 3  # of the fourth one message, and two that were not opened


def test_bomb_is_refused() -> None:
    bomb = envelopes.compressed(b"\x08" + bytes(packets.PACKET_BYTES_MAX))

    with pytest.raises(BadPacket, match="65536 bytes at most"):
        codec().open_packet(bomb)


def test_bombs_in_one_packet_have_one_limit_together() -> None:
    one = codec()
    bomb = envelopes.compressed(b"\x08" + bytes(40_000))

    assert len(one.open_packet(envelopes.compound([bomb] * 10))) == 1
    assert one.left_out == 9


def test_unknown_compression_is_refused() -> None:
    with pytest.raises(BadPacket, match="expected algorithm 0, LZW, found 1"):
        codec().open_packet(b"\x09\x82\xa4Algo\x01\xa3Buf\xa0")
