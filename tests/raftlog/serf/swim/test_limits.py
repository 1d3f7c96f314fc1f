"""Everything has a limit, and an answer at the limit."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raftlog.engine import Asked, Note, Receive, Send
from raftlog.serf.codec import kinds
from raftlog.serf.codec.envelopes import CRC_BYTES
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.swim import PacketMessage, encode
from raftlog.serf.messages import Ack, Alive, Dead, Ping, Suspect, UserMessage
from raftlog.serf.swim.node import Swim
from tests.raftlog.serf.swim.one import ELSEWHERE, ME, QUIET, SPOKEN, One, alive, at
from tests.raftlog.serf.swim.town import Told, codec


def test_meta_too_large_from_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="meta has 513 bytes"):
        Swim(QUIET, ME, at(ME), b"x" * 513, codec(Random(1)), Random(1), Told())


def test_no_more_members_than_there_is_room_for_are_taken_in() -> None:
    one = One(replace(QUIET, members_max=3))

    one.hear(alive("a"), alive("b"), alive("c"))

    assert sorted(one.node.members) == ["a", "b", ME]
    assert one.node.refused == {"no room for more members": 1}
    assert one.told.news == [("joined", ME), ("joined", "a"), ("joined", "b")]


def test_who_has_been_gone_the_longest_makes_room_for_a_newcomer() -> None:
    one = One(replace(QUIET, members_max=4))
    one.know("a", "b", "c")
    one.hear(Dead(1, "b", accuser="b"))
    one.now = 1.0
    one.hear(Dead(1, "a", accuser="a"))

    one.hear(alive("d"))

    assert sorted(one.node.members) == ["a", "c", "d", ME]


def test_no_more_rumours_than_there_is_room_for_wait() -> None:
    one = One(replace(QUIET, rumours_max=2))
    one.know("a", "b", "c")

    one.hear(*(alive(name, 2) for name in "abc"))

    assert one.node.rumours_waiting == 2
    one.said()
    one.node.send(at("z"), b"", one.now)
    assert one.said() == [(at("z"), UserMessage(b""), alive("c", 2), alive("b", 2))]


def test_packets_beyond_so_many_in_a_second_are_dropped_unread() -> None:
    one = One(replace(QUIET, packets_per_second_max=3))
    one.know("a")  # one packet
    one.now = 5.0

    for number in range(4):
        one.hear(Ping(number, ME))
    one.node.step(Asked(7, ELSEWHERE, b""), one.now)

    acks = [effect for effect in one.said() if effect[0] == ELSEWHERE]
    assert acks == [(ELSEWHERE, Ack(number, b"payload")) for number in range(3)]
    assert one.node.refused == {"too many packets": 2}
    one.now = 6.0
    one.hear(Ping(9, ME))
    assert (ELSEWHERE, Ack(9, b"payload")) in one.said()


def test_refusals_are_all_counted_and_seldom_noted() -> None:
    one = One()
    one.node.drain()

    for tenth in range(150):
        one.now = tenth / 10
        one.node.step(Receive(ELSEWHERE, b"\xff"), one.now)

    notes = [effect for effect in one.node.drain() if isinstance(effect, Note)]
    assert one.node.refused == {"bad packet": 150}
    assert [(note.event, note.fields["refused_so_far"]) for note in notes] == [
        ("gossip refused", 1),
        ("gossip refused", 101),
    ]
    assert notes[0].fields["why"] == "bad packet"
    assert notes[0].fields["sender"] == ELSEWHERE


def test_names_of_others_cannot_pass_for_lines_of_a_log() -> None:
    one = One()
    one.node.drain()

    one.hear(Ping(1, "other\nerror: all is lost"))

    (note,) = [effect for effect in one.node.drain() if isinstance(effect, Note)]
    assert note.fields["detail"] == r"'other\nerror: all is lost'"


def test_packets_are_filled_up_to_their_limit_and_no_further() -> None:
    """Without compression, checksum and key: what is kept free for them is left over."""
    one = One()
    one.codec = Codec(Keyring(), nonce=Random(1).randbytes, compression=False)
    one.node = Swim(QUIET, ME, at(ME), b"", one.codec, Random(1), one.told)
    one.node.start(0.0)
    one.hear(*(Alive(1, f"member {n:03}", at("a"), b"t" * 100, SPOKEN) for n in range(100)))
    one.told.waiting = [b"event"] * 100
    one.node.drain()

    sizes = []
    for _ in range(60):
        one.node.send(at("z"), b"hello", one.now)
        [packet] = one.node.drain()
        assert isinstance(packet, Send)
        sizes.append(len(packet.message) + CRC_BYTES)

    assert max(sizes) <= QUIET.packet_bytes_max
    assert sizes[0] > QUIET.packet_bytes_max - 150


@pytest.mark.parametrize(("protocol_max", "has_checksum"), [(4, False), (5, True)])
def test_packets_have_a_checksum_for_whoever_understands_it(protocol_max: int, has_checksum: bool) -> None:
    one = One()
    one.hear(alive("a", versions=SPOKEN._replace(protocol_max=protocol_max)))
    one.tell_all()

    one.node.send(at("a"), b"hello", one.now)
    one.node.send(ELSEWHERE, b"hello", one.now)

    kinds_sent = [effect.message[0] for effect in one.node.drain() if isinstance(effect, Send)]
    assert kinds_sent == [kinds.CRC if has_checksum else kinds.USER, kinds.USER]


def test_packet_has_255_parts_at_most() -> None:
    one = One()
    one.told.waiting = [b""] * 400

    one.node.send(at("z"), b"hello", one.now)

    [(_, *parts)] = [effect for effect in one.said() if effect[0] == at("z")]
    assert len(parts) == 255


def test_rumours_of_the_protocol_above_go_out_in_rounds_too() -> None:
    one = One(replace(QUIET, gossip_interval_s=0.2))
    one.know("a", "b", "c", "d")
    one.told.waiting = [b"event"]

    assert one.node.deadline() == pytest.approx(0.2)
    one.wake()

    assert [effect[1:] for effect in one.said()] == [(UserMessage(b"event"),)]


def test_with_nobody_to_tell_rumours_wait_and_nothing_spins() -> None:
    one = One(replace(QUIET, gossip_interval_s=0.2))
    one.told.waiting = [b"event"]

    assert one.node.deadline() > 1e5
    one.hear(alive("a"))
    one.hear(Dead(1, "a", accuser="a"))
    one.said()
    wakes = 0
    while one.now < 10.0:
        one.wake()
        wakes += 1

    assert wakes <= 10 * (5 + 1) + 2  # five rounds of gossip and a probe in a second
    assert one.said() == []


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_nothing_raises_and_no_other_member_changes(seed: int) -> None:
    """Random bytes, and good packets cut, lengthened and with bytes changed."""
    print(f"seed {seed}")
    random = Random(seed)
    one = One(replace(QUIET, packets_per_second_max=10**9), seed=seed)
    packets: list[list[PacketMessage]] = [
        [Ping(1, ME, at("a"), "a")],
        [Suspect(1, "a", accuser="b"), alive("a", 9, meta=b"x" * 200)],
        [Dead(1, "b", accuser="b"), UserMessage(b"hello")],
    ]
    good = [
        one.codec.packet(list(map(encode, messages)), has_crc=has_crc)
        for has_crc in (True, False)
        for messages in packets
    ]

    for step in range(400):
        packet = bytearray(
            random.choice(good) if random.random() < 0.8 else random.randbytes(random.randrange(300))
        )
        for _ in range(random.randrange(3)):
            if packet:
                packet[random.randrange(len(packet))] = random.randrange(256)
        cut = bytes(packet[: random.randrange(len(packet) + 1)])
        one.now = step * 0.01
        event = Receive(ELSEWHERE, cut) if random.random() < 0.7 else Asked(7, ELSEWHERE, cut)
        one.node.step(event, one.now)
        one.node.drain()

    assert one.node.refused["bad packet"] > 0
    assert one.node.members[ME].address == at(ME)
    assert all(len(name.encode()) <= 255 for name in one.node.members)


@pytest.mark.parametrize("seed", range(4))
def test_with_a_key_nothing_that_lacks_it_changes_anything(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    told = Told()
    node = Swim(QUIET, ME, at(ME), b"", codec(random, b"k" * 16), random, told)
    node.start(0.0)
    others = [codec(random), codec(random, b"w" * 16)]

    for step in range(100):
        packet = random.choice(others).packet([encode(alive("a", step + 1))], has_crc=False)
        node.step(Receive(ELSEWHERE, packet), float(step))

    assert list(node.members) == [ME]
    assert told.news == [("joined", ME)]
    assert node.refused == {"bad packet": 100}
