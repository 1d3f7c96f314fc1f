"""Keys of the gossip, and their rotation."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.keyring import KEYS_MAX, Keyring
from raftlog.serf.codec.packets import Codec

OLD, NEW, OTHER = b"o" * 16, b"n" * 24, b"x" * 32
MESSAGE = b"\x08hello"


def codec(ring: Keyring, seed: int = 1) -> Codec:
    return Codec(ring, nonce=random.Random(seed).randbytes)


def is_heard(sender: Keyring, receiver: Keyring) -> bool:
    try:
        return bool(codec(receiver).open_packet(codec(sender).packet([MESSAGE], has_crc=True)))
    except BadPacket:
        return False


def test_first_key_is_primary() -> None:
    ring = Keyring([OLD, NEW])

    assert (ring.primary, ring.keys, ring.is_empty) == (OLD, (OLD, NEW), False)


def test_ring_without_keys_is_empty_and_has_no_primary() -> None:
    ring = Keyring()

    assert ring.is_empty
    with pytest.raises(ValueError, match="there is no key"):
        _ = ring.primary


@pytest.mark.parametrize("length", [0, 15, 17, 31, 33])
def test_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"16, 24 or 32 bytes, found {length}"):
        Keyring([b"k" * length])


def test_key_installed_again_changes_nothing() -> None:
    ring = Keyring([OLD, NEW])

    ring.install(NEW)

    assert ring.keys == (OLD, NEW)


def test_ring_is_full_at_its_limit() -> None:
    ring = Keyring([number.to_bytes(16, "big") for number in range(KEYS_MAX)])

    with pytest.raises(ValueError, match=f"{KEYS_MAX} keys at most"):
        ring.install(OLD)
    assert len(ring.keys) == KEYS_MAX


def test_used_key_becomes_primary_and_the_others_keep_their_order() -> None:
    ring = Keyring([OLD, OTHER, NEW])

    ring.use(NEW)

    assert ring.keys == (NEW, OLD, OTHER)


def test_key_that_is_not_installed_is_neither_used_nor_removed() -> None:
    ring = Keyring([OLD])

    with pytest.raises(ValueError, match="not installed"):
        ring.use(NEW)
    with pytest.raises(ValueError, match="not installed"):
        ring.remove(NEW)
    assert ring.keys == (OLD,)


def test_primary_key_is_not_removed() -> None:
    ring = Keyring([OLD, NEW])

    with pytest.raises(ValueError, match="primary key cannot be removed"):
        ring.remove(OLD)
    assert ring.keys == (OLD, NEW)


def test_members_hear_each_other_at_every_step_of_a_rotation() -> None:
    n1, n2 = Keyring([OLD]), Keyring([OLD])
    steps: list[Callable[[], None]] = [
        lambda: n1.install(NEW),
        lambda: n2.install(NEW),
        lambda: n1.use(NEW),
        lambda: n2.use(NEW),
        lambda: n1.remove(OLD),
        lambda: n2.remove(OLD),
    ]

    for step in steps:
        step()
        assert is_heard(n1, n2)
        assert is_heard(n2, n1)
    assert not is_heard(Keyring([OLD]), n1)


def test_key_used_before_all_have_it_is_not_heard() -> None:
    assert not is_heard(Keyring([NEW, OLD]), Keyring([OLD]))


def test_codec_follows_a_change_of_its_ring() -> None:
    ring = Keyring([OLD, NEW])
    one = codec(ring)
    ring.use(NEW)
    ring.remove(OLD)

    packet = one.packet([MESSAGE], has_crc=False)

    assert codec(Keyring([NEW])).open_packet(packet)


def test_ring_comes_back_from_the_form_of_serfs_keyring_file() -> None:
    text = Keyring([NEW, OLD]).to_json()

    assert text.split() == ["[", '"bm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5u",', '"b29vb29vb29vb29vb29vbw=="', "]"]
    assert Keyring.from_json(text).keys == (NEW, OLD)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "found no JSON"),
        ("[" * 100_000, "found no JSON"),
        ('{"a": 1}', "a JSON list"),
        ("[1]", "a JSON list"),
        ('["secret!"]', "in base64, found one that is not"),
        ('["c2hvcnQ="]', "16, 24 or 32 bytes, found 5"),
    ],
)
def test_what_is_no_keyring_is_refused_without_a_word_of_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        Keyring.from_json(text)
    assert "secret" not in str(refusal.value)
