"""What comes from the network and is not as it should be: refused, bounded, and never the end of a node."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raftlog.engine import Ask, Asked, Receive
from raftlog.serf.asking import ANSWERS_PER_SECOND_MAX, RELAY_FACTOR_MAX
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.serf import decode, encode
from raftlog.serf.codec.swim import encode as encode_swim
from raftlog.serf.config import FAST
from raftlog.serf.events import (
    ChangeKeys,
    KeyAction,
    Leave,
    MemberFailed,
    MemberLeft,
    QueryCame,
    Respond,
    SendUserEvent,
    SetTags,
    Status,
    UserEventCame,
)
from raftlog.serf.home import NOTES_MAX
from raftlog.serf.lamport import TIME_MAX
from raftlog.serf.messages import (
    Address,
    Alive,
    EventRecord,
    EventsAt,
    JoinIntent,
    KeyRequest,
    LeaveIntent,
    PushPull,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    UserEvent,
    UserMessage,
)
from tests.raftlog.serf.post import Post, Running

STRANGER = Address("10.9.9.9:1")
PLAIN = Codec(Keyring(), nonce=lambda count: bytes(count))
QUERY = Query(1, 7, STRANGER, "stranger", "load", b"", timeout_s=5.0, wants_ack=True)


def inject(post: Post, node: Running, *messages: SerfMessage | bytes) -> None:
    """One packet that holds these of Serf's messages."""
    datas = [message if isinstance(message, bytes) else encode(message) for message in messages]
    parts = [encode_swim(UserMessage(data)) for data in datas]
    post.ask(node, Receive(STRANGER, PLAIN.packet(parts, has_crc=False)))


def exchange(post: Post, node: Running, state: SerfState | bytes) -> SerfState:
    """Ask the node for its state with one's own; what it told."""
    data = state if isinstance(state, bytes) else encode(state)
    number = post.number()
    post.ask(node, Asked(number, STRANGER, PLAIN.stream(PushPull((), data, is_join=False))))
    answer = PLAIN.open_stream(post.outcomes.pop(number), is_reply=True)
    assert isinstance(answer, PushPull)
    told = decode(answer.user_state)
    assert isinstance(told, SerfState)
    return told


EMPTY = SerfState(0, {}, (), 0, (), 0)


def test_a_forged_leave_of_a_living_member_is_refuted_for_all() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    inject(post, n1, LeaveIntent(1000, "n3", is_pruned=True))

    assert post.statuses(n1)["n3"] is Status.LEAVING
    everyone = dict.fromkeys(("n1", "n2", "n3"), Status.ALIVE)
    post.until(lambda: n3.noted("serf_leave_refuted") != [])
    post.until(lambda: all(post.statuses(node) == everyone for node in (n1, n2, n3)))
    post.run(10.0)
    assert n1.tells(MemberLeft) == []
    assert n1.node.counts()["intent_time"] > 1000


def test_a_leave_of_this_node_is_refuted_at_once() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")

    inject(post, n1, LeaveIntent(1000, "n1"))

    assert n1.node.local.status is Status.ALIVE
    assert n1.noted("serf_leave_refuted")
    assert n1.node.counts()["rumours_waiting"] > 0


@pytest.mark.parametrize(
    "message",
    [
        LeaveIntent(TIME_MAX + 1, "n1"),
        JoinIntent(TIME_MAX + 1, "n2"),
        UserEvent(TIME_MAX + 1, "deploy", b""),
        replace(QUERY, time=TIME_MAX + 1),
        KeyRequest(bytes(16)),
        SerfState(1, {}, (), 1, (), 1),
        b"",
        b"\xff",
        b"\x00\xc1",
        encode(QUERY)[:-3],
    ],
)
def test_what_nobody_may_say_is_refused_and_counted(message: SerfMessage | bytes) -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    before = dict(n1.node.counts())

    inject(post, n1, message)

    after = dict(n1.node.counts())
    assert (
        after["refused_messages"] + after["refused_packets"]
        > before["refused_messages"] + before["refused_packets"]
    )
    assert (after["intent_time"], after["event_time"], after["query_time"]) == (
        before["intent_time"],
        before["event_time"],
        before["query_time"],
    )
    assert n1.tells(UserEventCame) == []
    assert n1.tells(QueryCame) == []


@pytest.mark.parametrize(
    "state",
    [
        SerfState(TIME_MAX + 1, {}, (), 1, (), 1),
        SerfState(5, {"n2": TIME_MAX + 1}, (), 1, (), 1),
        SerfState(5, {}, (), TIME_MAX + 1, (), 1),
        SerfState(5, {}, (), 1, (), TIME_MAX + 1),
    ],
)
def test_a_state_with_impossible_times_changes_nothing(state: SerfState) -> None:
    post = Post()
    n1 = post.start("n1")

    exchange(post, n1, state)

    counts = n1.node.counts()
    assert (counts["intent_time"], counts["event_time"], counts["query_time"]) == (1, 1, 1)
    assert counts["refused_messages"] == 1


@pytest.mark.parametrize("data", [b"\x02\xc1", b"\xff", encode(JoinIntent(1, "n1"))])
def test_what_is_no_state_is_refused_in_an_exchange(data: bytes) -> None:
    post = Post()
    n1 = post.start("n1")

    exchange(post, n1, data)

    assert n1.node.counts()["refused_messages"] == 1


def test_a_state_brings_clocks_intents_and_events() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    event = EventsAt(59, (EventRecord("deploy", b"v2"),))

    exchange(post, n1, SerfState(50, {"n2": 40}, (), 60, (event,), 70))

    told = exchange(post, n1, EMPTY)
    assert (told.time, told.event_time, told.query_time) == (50, 60, 70)
    assert told.status_times["n2"] == 40
    assert told.events == (event,)
    post.until(lambda: n1.tells(UserEventCame) == [UserEventCame("deploy", b"v2", 59)])


def test_members_that_left_by_the_state_of_another_are_left() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.crash(n3)
    post.until(lambda: post.statuses(n1)["n3"] is Status.FAILED)
    time = exchange(post, n1, EMPTY).status_times["n3"]

    exchange(post, n1, SerfState(time + 5, {"n3": time}, ("n3",), 1, (), 1))

    assert post.statuses(n1)["n3"] is Status.LEFT
    assert exchange(post, n1, EMPTY).left_members == ("n3",)


def test_a_message_that_is_larger_than_any_of_ours_is_heard_and_not_passed_on() -> None:
    post = Post()
    n1 = post.start("n1")
    before = n1.node.counts()["rumours_waiting"]

    inject(post, n1, UserEvent(3, "deploy", bytes(1100)))

    assert len(n1.tells(UserEventCame)) == 1
    assert n1.noted("serf_message_not_passed_on")
    assert n1.node.counts()["rumours_waiting"] == before


def test_only_so_many_queries_are_answered_in_a_second() -> None:
    post = Post()
    n1 = post.start("n1")
    before = post.packets["n1"]

    for id in range(ANSWERS_PER_SECOND_MAX + 50):
        inject(post, n1, replace(QUERY, time=1 + id // 100, id=id))
    assert post.packets["n1"] - before == ANSWERS_PER_SECOND_MAX

    post.run(1.0)
    inject(post, n1, replace(QUERY, time=100, id=1))
    assert post.packets["n1"] - before == ANSWERS_PER_SECOND_MAX + 1


def test_a_query_with_a_wild_relay_factor_is_relayed_by_few() -> None:
    post = Post()
    n1 = post.start("n1")
    for number in range(30):
        alive = Alive(1, f"m{number}", Address(f"10.0.0.{number}:1"), b"")
        post.ask(n1, Receive(STRANGER, PLAIN.packet([encode_swim(alive)], has_crc=False)))
    before = post.packets["n1"]

    inject(post, n1, replace(QUERY, relay_factor=255))

    sent = post.packets["n1"] - before
    assert 1 + RELAY_FACTOR_MAX <= sent <= 1 + RELAY_FACTOR_MAX + FAST.swim.gossip_nodes


def test_an_internal_query_that_is_not_known_is_noted_and_not_told() -> None:
    post = Post()
    n1 = post.start("n1")

    inject(post, n1, replace(QUERY, name="_serf_self-destruct\nerror: all is lost", wants_ack=False))

    assert n1.tells(QueryCame) == []
    assert [note.fields["query"] for note in n1.noted("serf_query_unknown")] == [
        r"'_serf_self-destruct\nerror: all is lost'"
    ]


def test_an_answer_is_not_relayed_where_there_are_hardly_as_many_members() -> None:
    post = Post()
    n1, _ = post.cluster("n1", "n2")
    post.run(5.0)
    before = post.packets["n1"]

    inject(post, n1, replace(QUERY, relay_factor=2, is_broadcast=False))

    assert post.packets["n1"] == before + 1


def test_an_answer_is_relayed_neither_by_the_asker_nor_by_the_node_itself() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.run(5.0)
    before = post.packets["n1"]

    query = replace(
        QUERY, source_address=post.address(n2), source_node="n2", relay_factor=1, is_broadcast=False
    )
    inject(post, n1, query)

    assert post.packets["n1"] == before + 1


def test_an_answer_that_is_too_large_to_be_relayed_goes_the_direct_way_alone() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.run(5.0)
    before = post.packets["n1"]

    inject(post, n1, replace(QUERY, relay_factor=1, is_broadcast=False, wants_ack=False))
    post.ask(n1, Respond(QUERY.id, QUERY.time, bytes(950)))

    assert post.packets["n1"] == before + 1


def test_a_conflict_of_others_is_noted() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")

    packet = PLAIN.packet([encode_swim(Alive(9, "n2", STRANGER, b""))], has_crc=False)
    post.ask(n1, Receive(STRANGER, packet))

    assert [note.fields for note in n1.noted("serf_name_conflict_of_others")] == [
        {"name": "n2", "one": post.address(n2), "other": STRANGER}
    ]
    assert post.member(n1, "n2").address == post.address(n2)


def test_answers_are_relayed_to_members_only() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.run(5.0)
    response = encode(QueryResponse(1, 7, "n1"))
    before = post.packets["n1"]

    inject(post, n1, Relay(STRANGER, "stranger", response))
    assert post.packets["n1"] == before
    assert n1.noted("serf_relay_refused")

    inject(post, n1, Relay(post.address(n2), "n2", response))
    assert post.packets["n1"] == before + 1


def test_an_answer_to_nothing_is_dropped() -> None:
    post = Post()
    n1 = post.start("n1")

    inject(post, n1, QueryResponse(1, 7, "n2", payload=b"x"))

    assert n1.told == n1.told[:1]


def test_one_packet_makes_a_bounded_number_of_notes() -> None:
    post = Post()
    n1 = post.start("n1")
    n1.notes.clear()

    inject(post, n1, *[b"\xff"] * 200)

    assert len(n1.notes) <= NOTES_MAX + 1
    assert n1.node.counts()["refused_messages"] == 200


@pytest.mark.parametrize("name", ["two\nlines", "n" * 129])
def test_a_member_with_an_unprintable_or_too_long_name_is_not_taken_in(name: str) -> None:
    post = Post()
    n1 = post.start("n1")

    packet = PLAIN.packet([encode_swim(Alive(1, name, STRANGER, b""))], has_crc=False)
    post.ask(n1, Receive(STRANGER, packet))

    assert list(post.statuses(n1)) == ["n1"]


def test_a_member_whose_tags_are_not_understood_is_there_without_any() -> None:
    post = Post()
    n1 = post.start("n1")

    packet = PLAIN.packet([encode_swim(Alive(1, "n2", STRANGER, b"\xff\xc1"))], has_crc=False)
    post.ask(n1, Receive(STRANGER, packet))

    assert post.member(n1, "n2").tags == {}
    assert n1.node.counts()["refused_messages"] == 1


def test_old_packets_sent_again_change_nothing() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    post.recorded = []
    post.outcome(n3, Leave(post.number()))
    heard = [(to, event) for to, event in post.recorded if to == post.address(n1)]
    post.restart(n3)
    n3 = post.nodes[post.address(n3)]
    post.join(n3, n1)
    post.until(lambda: all(post.statuses(node)["n3"] is Status.ALIVE for node in (n1, n2)))
    post.run(5.0)
    told = len(n1.told)

    assert heard
    for _, event in heard:
        post.ask(n1, event)

    assert post.statuses(n1) == dict.fromkeys(("n1", "n2", "n3"), Status.ALIVE)
    assert n1.told[told:] == []


class Wiretap(Post):
    """Keeps questions that were asked by streams, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.recorded = []
        self.questions: list[tuple[Address, bytes]] = []

    def _ask(self, asker: Running, sender: Address, ask: Ask[bytes]) -> None:
        self.questions.append((ask.to, ask.message))
        super()._ask(asker, sender, ask)


def test_whoever_has_no_key_changes_nothing_by_sending_again_what_it_heard() -> None:
    """Packets and streams of a history in which members joined, changed, left, failed and came back."""
    key, new_key = bytes(16), bytes(range(16))
    post = Wiretap(keys=(key,))
    n1, n2, n3 = post.cluster("n1", "n2", "n3", tags={"role": "joining"})
    for action in (KeyAction.INSTALL, KeyAction.USE):
        post.outcome(n1, ChangeKeys(post.number(), action, new_key))
    post.outcome(n2, SendUserEvent(post.number(), "deploy", b""))
    post.outcome(n3, Leave(post.number()))
    kept = n1.node.keyring.keys
    n3 = post.start("n3", {"role": "member"}, address=post.address(n3), keys=kept)
    post.join(n3, n1)
    post.crash(n2)
    post.until(lambda: post.statuses(n1)["n2"] is Status.FAILED)
    n2 = post.start("n2", {"role": "member"}, address=post.address(n2), keys=kept)
    post.join(n2, n1)
    post.outcome(n1, SetTags(post.number(), {"role": "member"}))
    everyone = dict.fromkeys(("n1", "n2", "n3"), Status.ALIVE)
    post.until(lambda: all(post.statuses(node) == everyone for node in (n1, n2, n3)))
    post.run(10.0)
    assert post.recorded is not None
    heard = [Receive(STRANGER, event.message) for to, event in post.recorded if to == post.address(n1)]
    asked = [message for to, message in post.questions if to == post.address(n1)]
    members, told = n1.node.members(), len(n1.told)
    assert {member.tags["role"] for member in members} == {"member"}
    assert len(asked) > 5

    for message in asked:
        post.ask(n1, Asked(post.number(), STRANGER, message))
    for event in heard:
        post.ask(n1, event)
    post.run(20.0)

    assert n1.node.members() == members
    assert n1.node.keyring.keys == kept
    assert n1.told[told:] == []
    assert all(post.statuses(node) == everyone for node in (n1, n2, n3))


def test_random_and_mutated_packets_never_end_a_node() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")
    random = Random(7)
    print("seed=7")
    messages: list[SerfMessage] = [
        LeaveIntent(9, "n2"),
        JoinIntent(9, "n2"),
        UserEvent(9, "deploy", b"v2"),
        replace(QUERY, time=9, relay_factor=2),
        QueryResponse(9, 7, "n2", payload=b"x"),
        Relay(STRANGER, "n2", b"\x05"),
        SerfState(9, {"n2": 8}, ("n2",), 9, (), 9),
    ]
    for _ in range(1000):
        data = bytearray(encode(random.choice(messages)))
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.randrange(256)
        inject(post, n1, bytes(data[: random.randrange(1, len(data) + 1)]))
        post.ask(n1, Receive(STRANGER, random.randbytes(random.randrange(64))))

    post.run(30.0)

    assert post.statuses(n1)["n1"] is Status.ALIVE
    assert n1.node.counts()["refused_messages"] > 100


def test_with_a_key_nothing_without_it_is_heard() -> None:
    post = Post(keys=(bytes(32),))
    n1, n2 = post.cluster("n1", "n2")

    inject(post, n1, LeaveIntent(1000, "n2"), UserEvent(5, "deploy", b""), QUERY)

    assert post.statuses(n1) == {"n1": Status.ALIVE, "n2": Status.ALIVE}
    assert n1.node.counts()["intent_time"] < 1000
    assert n1.tells(UserEventCame) == []
    assert n1.tells(QueryCame) == []
    assert n1.tells(MemberFailed) == []


def test_a_leave_with_the_time_of_this_node_s_own_join_is_refuted_too() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    time = exchange(post, n1, EMPTY).status_times["n1"]

    inject(post, n1, LeaveIntent(time, "n1"))

    assert exchange(post, n1, EMPTY).status_times["n1"] > time
    assert n1.noted("serf_leave_refuted")
