"""Whole states over streams, question by question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.engine import Answered, Asked, Unanswered
from raftlog.serf.messages import (
    Ack,
    Dead,
    ErrorReply,
    NodeState,
    Ping,
    PushPull,
    State,
    Suspect,
    UserMessage,
    Versions,
)
from tests.raftlog.serf.swim.one import ELSEWHERE, ME, QUIET, SPOKEN, One, alive, at


@pytest.fixture
def one() -> One:
    one = One()
    one.know("a", "b")
    return one


def state_of(name: str, incarnation: int = 1, state: State = State.ALIVE) -> NodeState:
    return NodeState(name, at(name), b"", incarnation, state, SPOKEN)


def push_pull(*nodes: NodeState, user_state: bytes = b"", is_join: bool = False) -> PushPull:
    return PushPull(nodes, user_state, is_join)


def nodes(state: PushPull) -> list[NodeState]:
    return sorted(state.nodes)


def test_join_asks_with_the_own_state_and_takes_in_the_answer() -> None:
    one, outcomes = One(), list[str]()
    one.told.own_state = b"mine"
    one.node.join(at("a"), outcomes.append, 0.0)
    asked = one.said()

    one.answer(push_pull(state_of("a"), state_of("b", 3), user_state=b"theirs", is_join=True), request=1)

    assert asked == [("ask", at("a"), push_pull(state_of(ME), user_state=b"mine", is_join=True))]
    assert outcomes == [""]
    assert (one.known("a"), one.known("b")) == ((State.ALIVE, 1), (State.ALIVE, 3))
    assert one.told.states == [(b"theirs", True)]
    assert one.told.news == [("joined", ME), ("joined", "a"), ("joined", "b")]


def test_who_asks_is_answered_with_the_state_before_and_then_taken_in(one: One) -> None:
    one.told.own_state = b"mine"

    one.ask(push_pull(state_of("c"), user_state=b"theirs", is_join=True))

    [(_, answer), *_] = one.said()
    assert nodes(answer) == [state_of("a"), state_of("b"), state_of(ME)]
    assert (answer.user_state, answer.is_join) == (b"mine", True)
    assert one.known("c") == (State.ALIVE, 1)
    assert one.told.states == [(b"theirs", True)]


def test_dead_by_hearsay_is_suspected_and_left_is_left(one: One) -> None:
    one.ask(push_pull(state_of("a", 1, State.DEAD), state_of("b", 1, State.LEFT)))

    assert (one.known("a"), one.known("b")) == ((State.SUSPECT, 1), (State.LEFT, 1))
    assert one.rumours() == [Dead(1, "b", accuser="b"), Suspect(1, "a", accuser=ME)]


def test_own_death_in_a_state_is_refuted(one: One) -> None:
    one.ask(push_pull(state_of(ME, 5, State.DEAD)))

    assert one.node.incarnation == 6


@pytest.mark.parametrize("user_state", [b"", b"theirs"])
def test_no_user_state_is_told_where_there_is_none(one: One, user_state: bytes) -> None:
    one.ask(push_pull(user_state=user_state))

    assert one.told.states == ([(user_state, False)] if user_state else [])


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        (
            SPOKEN._replace(protocol_min=3, protocol=5),
            "'c' speaks version 5 of memberlist and understands 3 to 5;",
        ),
        (
            SPOKEN._replace(protocol=6, protocol_max=6),
            "'c' speaks version 6 of memberlist and understands 1 to 6;",
        ),
        (SPOKEN._replace(serf_min=5, serf=5), "'c' speaks version 5 of Serf and understands 5 to 5;"),
        (SPOKEN._replace(serf=6, serf_max=6), "'c' speaks version 6 of Serf and understands 2 to 6;"),
    ],
)
def test_state_with_a_member_that_is_not_understood_is_not_taken_in(versions: Versions, text: str) -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)
    one.said()

    stranger = state_of("c")._replace(versions=versions)
    one.answer(push_pull(state_of("a"), stranger, user_state=b"theirs", is_join=True), request=1)

    [outcome] = outcomes
    assert outcome.startswith(text)
    assert list(one.node.members) == [ME]
    assert one.told.states == []


def test_versions_of_the_dead_do_not_matter() -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)

    stranger = state_of("c", state=State.DEAD)._replace(versions=SPOKEN._replace(protocol_min=5, protocol=5))
    one.answer(push_pull(state_of("a"), stranger), request=1)

    assert outcomes == [""]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ErrorReply("no"), f"{at('a')} answers: no"),
        (Ack(1), f"{at('a')} answers with Ack, not with its state"),
    ],
)
def test_join_tells_why_not(answer: ErrorReply | Ack, text: str) -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)

    one.answer(answer, request=1)

    assert outcomes == [text]


def test_join_without_an_answer_tells_why_not() -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)

    one.node.step(Unanswered(1, "connection refused"), 1.0)
    one.node.step(Unanswered(1, "connection refused"), 1.0)

    assert outcomes == [f"{at('a')}: connection refused"]


def test_join_answered_with_nonsense_tells_why_not() -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)

    one.node.step(Answered(1, b"\xff"), 1.0)

    assert len(outcomes) == 1
    assert outcomes[0].startswith(f"{at('a')} answers: ")
    assert one.node.refused == {"bad stream": 1}


def test_reason_of_another_cannot_pass_for_lines_of_ours() -> None:
    one, outcomes = One(), list[str]()
    one.node.join(at("a"), outcomes.append, 0.0)

    one.answer(ErrorReply("no\nroom"), request=1)

    assert outcomes == [rf"{at('a')} answers: 'no\nroom'"]


def test_joins_at_once_are_limited() -> None:
    one, outcomes = One(), list[str]()

    for _ in range(65):
        one.node.join(at("a"), outcomes.append, 0.0)

    assert outcomes == ["64 exchanges are under way, the limit is 64: try again later"]
    assert len(one.said()) == 64


def test_states_are_exchanged_with_one_that_lives_every_interval() -> None:
    one = One(replace(QUIET, push_pull_interval_s=30.0, probe_interval_s=1e6))
    one.know("a", "b", "c")
    one.hear(Dead(1, "a", accuser="c"), Suspect(1, "b", accuser="c"))
    one.tell_all()

    asked = []
    while one.now < 100.0:
        one.wake()
        asked += [(one.now, effect[1]) for effect in one.said() if effect[0] == "ask"]
        one.answer(push_pull(), request=one.questions[-1] if one.questions else 0)

    times = [time for time, _ in asked]
    assert [to for _, to in asked] == [at("c")] * len(asked)
    assert 30.0 <= times[0] <= 60.0
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == pytest.approx([30.0] * (len(times) - 1))


def test_no_second_exchange_begins_while_one_hangs() -> None:
    one = One(replace(QUIET, push_pull_interval_s=30.0, probe_interval_s=1e6))
    one.know("a")

    while one.now < 100.0:
        one.wake()

    assert len(one.said()) == 1
    one.node.step(Unanswered(1, "timed out"), one.now)
    one.said()
    assert one.notes == ["exchange of states failed"]


def test_ping_by_a_stream_is_answered_by_it(one: One) -> None:
    one.ask(Ping(9, ME))

    assert one.said() == [("reply", Ack(9))]


def test_stream_that_deserves_no_answer_is_closed(one: One) -> None:
    for message in (Ping(9, "other"), Ack(9), UserMessage(b"hello")):
        one.ask(message)

    assert one.said() == [("reply", None)] * 3
    assert one.told.user == [b"hello"]
    assert one.node.refused == {"ping for another": 1, "not for streams": 2}


def test_stream_of_nonsense_is_told_so(one: One) -> None:
    one.node.step(Asked(7, ELSEWHERE, b"\xff\xff"), one.now)

    [(_, answer)] = one.said()
    assert isinstance(answer, ErrorReply)
    assert one.node.refused == {"bad stream": 1}


def test_answer_nobody_asked_for_is_nothing(one: One) -> None:
    one.answer(push_pull(state_of("c")), request=99)

    assert "c" not in one.node.members


def test_state_of_strangers_in_a_question_is_counted(one: One) -> None:
    one.ask(push_pull(state_of("c")._replace(versions=SPOKEN._replace(protocol_min=5, protocol=5))))

    assert one.node.refused == {"state of another": 1}
    assert one.said()[0][0] == "reply"
    assert alive("c").node not in one.node.members
