"""Probes told effect by effect. Source: SWIM 3.1 and 4.3, Lifeguard IV-A and IV-C."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.serf.messages import Ack, IndirectPing, Nack, Ping, State, Suspect
from raftlog.serf.swim.probing import Sequence
from tests.raftlog.serf.swim.one import ME, SPOKEN, One, alive, at


@pytest.fixture
def one() -> One:
    return One()


def probe(one: One) -> Ping:
    """Wait for the next ping of somebody, which must be all that happens."""
    one.wake()
    [(to, ping)] = one.said()
    assert to == at(ping.node)
    assert isinstance(ping, Ping)
    return ping


def test_alone_it_waits_for_nothing_but_the_next_exchange(one: One) -> None:
    assert one.node.deadline() > 1e5


def test_ping_is_answered_where_it_says(one: One) -> None:
    one.hear(Ping(5, ME, at("b"), "b"), sender=at("x"))

    assert one.said()[0][:2] == (at("b"), Ack(5, b"payload"))


def test_ping_without_a_source_is_answered_where_it_came_from(one: One) -> None:
    one.know("b")

    one.hear(Ping(5, ""), sender=at("x"))

    assert one.said() == [(at("x"), Ack(5, b"payload"))]


def test_ping_for_another_name_is_not_answered(one: One) -> None:
    one.know("b")

    one.hear(Ping(5, "other", at("b"), "b"))

    assert one.said() == []
    assert one.node.refused == {"ping for another": 1}


def test_probe_that_is_acked_ends_and_tells_the_time(one: One) -> None:
    one.know("b")
    ping = probe(one)
    one.now += 0.25

    one.hear(Ack(ping.sequence, b"coordinates"))

    assert one.said() == []
    assert one.told.pings == [("b", 0.25, b"coordinates")]
    assert one.node.deadline() == pytest.approx(one.now + 0.75)


def test_members_are_probed_in_rounds_each_once(one: One) -> None:
    one.know(*"abcdef")
    rounds = []

    for _ in range(4):
        names = []
        for _ in range(6):
            ping = probe(one)
            names.append(ping.node)
            one.hear(Ack(ping.sequence))
        rounds.append(names)

    # The first may be cut short: who is taken in while a round goes on is put at a place drawn by chance.
    assert all(sorted(names) == list("abcdef") for names in rounds[1:])
    assert len(set(map(tuple, rounds[1:]))) > 1


def test_silent_member_is_pinged_by_others_and_by_a_stream_then_suspected(one: One) -> None:
    one.know("a", "b")
    ping = probe(one)
    silent, helper = ping.node, "a" if ping.node == "b" else "b"

    one.wake(one.now + 0.5)

    question = IndirectPing(ping.sequence, at(silent), silent, True, at(ME), ME)
    assert one.said() == [(at(helper), question), ("ask", at(silent), ping)]

    one.wake(one.now + 0.5)

    suspicion = Suspect(1, silent, accuser=ME)
    [first, *rest] = one.said()
    assert first[1:] == (Ping(ping.sequence + 1, first[1].node, at(ME), ME), suspicion)
    assert rest == []
    assert one.node.members[silent].state is State.SUSPECT


def test_three_others_at_most_are_asked(one: One) -> None:
    one.know(*"abcdef")
    ping = probe(one)

    one.wake(one.now + 0.5)

    said = one.said()
    asked = [effect for effect in said if isinstance(effect[1], IndirectPing)]
    assert len(asked) == len({effect[0] for effect in asked}) == 3
    assert at(ping.node) not in [effect[0] for effect in asked]
    assert len(said) == 4


@pytest.mark.parametrize("by", ["another", "stream"])
def test_member_that_others_or_a_stream_reach_is_not_suspected(one: One, by: str) -> None:
    one.know("a", "b")
    ping = probe(one)
    one.wake(one.now + 0.5)
    one.said()

    if by == "another":
        one.hear(Ack(ping.sequence))
    else:
        one.answer(Ack(ping.sequence), request=one.questions[0])
    one.wake(one.now + 0.5)

    assert one.node.members[ping.node].state is State.ALIVE
    assert one.node.health_score == 0
    assert one.told.pings == []  # nothing was learnt of the way there
    one.said()
    assert one.notes == ([] if by == "another" else ["member answers by streams only"])


def test_stream_answer_with_another_number_does_not_count(one: One) -> None:
    one.know("a", "b")
    ping = probe(one)
    one.wake(one.now + 0.5)
    one.said()

    one.answer(Ack(ping.sequence + 1), request=one.questions[0])
    one.wake(one.now + 0.5)

    assert one.node.members[ping.node].state is State.SUSPECT


def test_ack_of_an_old_probe_does_not_end_a_new_one(one: One) -> None:
    one.know("a", "b")
    old = probe(one)
    one.hear(Ack(old.sequence))
    new = probe(one)

    one.hear(Ack(old.sequence))
    one.wake(one.now + 0.5)
    one.wake(one.now + 0.5)

    assert one.node.members[new.node].state is State.SUSPECT


@pytest.mark.parametrize(("nacks", "score"), [(0, 2), (1, 1), (2, 0)])
def test_missing_nacks_speak_of_own_bad_health(one: One, nacks: int, score: int) -> None:
    one.know("a", "b", "c")
    ping = probe(one)
    one.wake(one.now + 0.5)

    for _ in range(nacks):
        one.hear(Nack(ping.sequence))
    one.wake(one.now + 0.5)

    assert one.node.health_score == score


def test_failed_probe_with_nobody_to_ask_worsens_health_by_one(one: One) -> None:
    one.know("b")
    probe(one)
    one.wake(one.now + 0.5)
    one.wake(one.now + 0.5)

    assert one.node.health_score == 1


@pytest.mark.parametrize("by", ["packet", "stream"])
def test_each_probe_that_succeeds_improves_health(one: One, by: str) -> None:
    one.know("a", "b", "c")
    one.hear(Suspect(1, ME, accuser="x"), Suspect(2, ME, accuser="x"))
    one.tell_all()
    assert one.node.health_score == 2
    ping = probe(one)

    if by == "packet":
        one.hear(Ack(ping.sequence))
    else:
        one.wake(one.now + 0.5)
        one.said()
        one.answer(Ack(ping.sequence), request=one.questions[0])
        one.wake(one.now + 2.5)

    assert one.node.health_score == 1


def test_in_bad_health_others_get_longer_to_answer(one: One) -> None:
    one.know("a", "b", "c")
    probe(one)
    one.wake(one.now + 0.5)
    one.wake(one.now + 0.5)  # two nacks are missing: the score is 2, the interval three times as long
    one.said()
    began = one.now

    one.wake(began + 0.5)
    one.said()

    assert one.node.deadline() == pytest.approx(began + 3.0)


def test_node_that_slept_gives_others_the_time_to_answer_for_the_silent(one: One) -> None:
    one.know("a", "b")
    ping = probe(one)

    one.wake(one.now + 60.0)

    assert IndirectPing in [type(effect[1]) for effect in one.said()]
    assert one.node.members[ping.node].state is State.ALIVE
    assert one.node.deadline() == pytest.approx(one.now + 0.5)


def test_who_was_alone_begins_to_probe_at_a_time_drawn_by_chance() -> None:
    """Else all who find each other at one moment would ping at one moment for ever."""
    waits = set()
    for seed in range(20):
        one = One(seed=seed)
        one.now = 100.0
        one.know("a")
        waits.add(one.node.deadline() - one.now)
        one.wake()
        assert [type(effect[1]) for effect in one.said()] == [Ping]

    assert len(waits) == 20
    assert all(0.0 <= wait <= 1.0 for wait in waits)


def test_suspected_member_is_told_so_with_the_ping(one: One) -> None:
    one.know("b")
    one.hear(Suspect(1, "b", accuser="c"))
    one.tell_all()

    one.wake()

    [(to, *messages)] = one.said()
    assert to == at("b")
    assert [type(message) for message in messages] == [Ping, Suspect]
    assert messages[1] == Suspect(1, "b", accuser=ME)


def test_pinging_for_another_passes_the_ack_on(one: One) -> None:
    one.know("a", "b")

    one.hear_from("a", IndirectPing(9, at("b"), "b", True, at("a"), "a"))
    [(to, ping)] = one.said()
    for _ in range(2):
        one.hear_from("b", Ack(ping.sequence, b"coordinates"))

    assert (to, ping) == (at("b"), Ping(ping.sequence, "b", at(ME), ME))
    assert one.said() == [(at("a"), Ack(9))]


def test_pinging_for_another_answers_where_it_says(one: One) -> None:
    one.know("b")

    one.hear_from("x", IndirectPing(9, at("b"), "b", True, at("a"), "a"))
    [(_, ping)] = one.said()
    one.hear_from("b", Ack(ping.sequence))

    assert one.said() == [(at("a"), Ack(9))]


@pytest.mark.parametrize("wants_nack", [True, False])
def test_pinging_for_another_without_an_answer_says_so_if_wanted(one: One, wants_nack: bool) -> None:
    one.know("a", "b")
    one.hear_from("x", IndirectPing(9, at("b"), "b", wants_nack))
    [(_, ping)] = one.said()

    one.wake(one.now + 0.5)
    said = one.said()
    one.hear_from("b", Ack(ping.sequence))

    nacks = [effect for effect in said if isinstance(effect[1], Nack)]
    assert nacks == ([(at("x"), Nack(9))] if wants_nack else [])
    assert one.said() == []  # the ack came too late


def test_pings_for_others_are_limited() -> None:
    one = One()
    one.know("a")

    for number in range(1025):
        one.hear_from("a", IndirectPing(number, at("b"), "b"))

    assert one.node.refused == {"too many indirect pings": 1}


def test_member_without_streams_or_nacks_in_its_protocol_gets_none(one: One) -> None:
    old = SPOKEN._replace(protocol_max=2)
    one.hear(alive("a", versions=old), alive("b", versions=old))
    one.tell_all()
    ping = probe(one)

    one.wake(one.now + 0.5)

    helper = "a" if ping.node == "b" else "b"
    assert one.said() == [
        (at(helper), IndirectPing(ping.sequence, at(ping.node), ping.node, False, at(ME), ME))
    ]


def test_sequence_begins_anywhere() -> None:
    sequence = Sequence(Random(1))
    first = sequence.next()
    for _ in range(3):
        assert sequence.next() == (first := (first + 1) % 2**32)
    assert Sequence(Random(1)).next() != Sequence(Random(2)).next()
