"""User events: once on each node, in the buffer and in stories."""

from __future__ import annotations

from raftlog.serf.events import SendUserEvent, UserEventCame
from raftlog.serf.messages import EventRecord, EventsAt, UserEvent
from raftlog.serf.user_events import BUFFER_BYTES_MAX, EVENT_BYTES_MAX, UserEvents
from tests.raftlog.serf.post import Post, Running


def names(node: Running) -> list[str]:
    return [came.name for came in node.tells(UserEventCame)]


def test_an_event_is_taken_once() -> None:
    events = UserEvents(8)

    assert events.take(UserEvent(3, "deploy", b"1"))
    assert not events.take(UserEvent(3, "deploy", b"1"))
    assert events.take(UserEvent(3, "deploy", b"2"))
    assert events.take(UserEvent(3, "build", b"1"))
    assert events.take(UserEvent(4, "deploy", b"1"))
    assert events.clock.time == 5
    assert events.remembered() == (
        EventsAt(3, (EventRecord("deploy", b"1"), EventRecord("deploy", b"2"), EventRecord("build", b"1"))),
        EventsAt(4, (EventRecord("deploy", b"1"),)),
    )


def test_events_older_than_the_buffer_are_taken_for_known() -> None:
    events = UserEvents(8)
    for time in range(1, 21):
        assert events.take(UserEvent(time, "e", b""))

    assert not events.take(UserEvent(12, "late", b""))
    assert events.take(UserEvent(13, "late", b""))
    assert len(events.remembered()) <= 9


def test_events_before_the_minimum_are_ignored() -> None:
    events = UserEvents(8)
    events.ignore_before(5)
    events.ignore_before(3)

    assert not events.take(UserEvent(4, "e", b""))
    assert events.take(UserEvent(5, "e", b""))


def test_an_event_that_is_too_large_is_not_taken() -> None:
    events = UserEvents(8)

    assert events.take(UserEvent(1, "e", bytes(EVENT_BYTES_MAX - 1)))
    assert not events.take(UserEvent(1, "e", bytes(EVENT_BYTES_MAX)))


def test_the_bytes_that_are_remembered_are_bounded_and_nothing_comes_twice_for_it() -> None:
    events = UserEvents(512)
    payloads = [number.to_bytes(4) + bytes(8000) for number in range(300)]
    for number, payload in enumerate(payloads):
        events.take(UserEvent(1 + number // 2, "e", payload))

    kept = [event for at in events.remembered() for event in at.events]
    assert sum(len(event.payload) for event in kept) <= BUFFER_BYTES_MAX
    assert len(kept) > 100
    assert not any(events.take(UserEvent(1 + number // 2, "e", p)) for number, p in enumerate(payloads))


def test_an_event_comes_once_on_each_node() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3", "n4", "n5")

    assert post.outcome(nodes[1], SendUserEvent(post.number(), "deploy", b"v2")) is None

    post.until(lambda: all(names(node) for node in nodes))
    post.run(10.0)  # exchanges of states tell of it again
    assert [names(node) for node in nodes] == [["deploy"]] * 5
    came = nodes[4].tells(UserEventCame)[0]
    assert (came.payload, came.time) == (b"v2", 1)


def test_events_of_one_node_come_with_ascending_times() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")

    for name in ("a", "b", "c"):
        post.outcome(n1, SendUserEvent(post.number(), name, b""))

    post.until(lambda: len(names(n2)) == 3)
    assert sorted((came.time, came.name) for came in n2.tells(UserEventCame)) == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]


def test_an_event_that_is_too_large_is_refused() -> None:
    post = Post()
    n1 = post.start("n1")

    outcome = post.outcome(n1, SendUserEvent(post.number(), "deploy", bytes(600)))

    assert isinstance(outcome, ValueError)
    assert names(n1) == []


def test_who_joins_is_not_told_of_events_from_before() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.outcome(n1, SendUserEvent(post.number(), "old", b""))
    post.until(lambda: names(n2) == ["old"])

    late = post.start("n3")
    post.join(late, n1)
    post.outcome(n1, SendUserEvent(post.number(), "new", b""))

    post.until(lambda: "new" in names(late))
    post.run(10.0)
    assert names(late) == ["new"]


def test_an_event_missed_for_a_partition_comes_with_the_next_exchange_of_states() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.loss = 1.0  # of packets: only streams are left
    post.outcome(n1, SendUserEvent(post.number(), "deploy", b""))

    post.until(lambda: names(n2) == names(n3) == ["deploy"])
