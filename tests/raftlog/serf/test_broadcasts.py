"""What rides along with memberlist's packets: in which order, how often, in how many bytes."""

from __future__ import annotations

from raftlog.serf.broadcasts import Broadcasts, Kind


def broadcasts(mult: int = 2, rumours_max: int = 8) -> Broadcasts:
    return Broadcasts(retransmit_mult=mult, rumours_max=rumours_max)


def test_intents_go_before_queries_and_these_before_events() -> None:
    waiting = broadcasts()
    waiting.put(Kind.EVENT, b"event")
    waiting.put(Kind.QUERY, b"query")
    waiting.put(Kind.INTENT, b"intent")

    assert waiting.take(2, 100, members=3) == [b"intent", b"query", b"event"]
    assert waiting.take(2, 15, members=3) == [b"intent", b"query"]


def test_messages_fit_with_their_overhead_or_wait() -> None:
    waiting = broadcasts()
    waiting.put(Kind.INTENT, b"0123456789")
    waiting.put(Kind.EVENT, b"01234")

    assert waiting.take(2, 11, members=3) == [b"01234"]
    assert waiting.take(2, 12, members=3) == [b"0123456789"]
    assert waiting.take(2, 19, members=3) == [b"0123456789", b"01234"]


def test_a_message_is_sent_so_often_and_no_more() -> None:
    waiting = broadcasts(mult=3)
    ticket = waiting.put(Kind.INTENT, b"x")

    taken = []
    while waiting.is_waiting(ticket):
        taken += waiting.take(2, 100, members=5)

    assert taken == [b"x"] * 3
    assert len(waiting) == 0
    assert waiting.take(2, 100, members=5) == []


def test_beyond_the_limit_the_one_sent_most_is_dropped() -> None:
    waiting = broadcasts(rumours_max=2)
    old = waiting.put(Kind.INTENT, b"old")
    waiting.take(0, 100, members=5)
    new = [waiting.put(Kind.INTENT, b"new"), waiting.put(Kind.INTENT, b"newer")]
    other = waiting.put(Kind.EVENT, b"other")

    assert not waiting.is_waiting(old)
    assert all(map(waiting.is_waiting, [*new, other]))
    assert len(waiting) == 3
