"""Two nodes with one name."""

from __future__ import annotations

from raftlog.engine import Receive
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.serf import encode
from raftlog.serf.codec.swim import encode as encode_swim
from raftlog.serf.conflicts import QUERY, has_lost
from raftlog.serf.events import NameTaken, Status
from raftlog.serf.messages import Address, ConflictResponse, JoinIntent, Query, UserMessage
from tests.raftlog.serf.post import Post

HERE, THERE = Address("127.0.0.1:1"), Address("127.0.0.1:2")
FOR = encode(ConflictResponse("n1", HERE))
AGAINST = encode(ConflictResponse("n1", THERE))
NOBODY = encode(ConflictResponse("", Address("")))


def test_the_majority_of_answers_decides_and_a_tie_is_lost() -> None:
    assert not has_lost({"a": FOR, "b": FOR, "c": AGAINST}, HERE)
    assert has_lost({"a": FOR, "b": AGAINST, "c": AGAINST}, HERE)
    assert has_lost({"a": FOR, "b": AGAINST}, HERE)
    assert has_lost({"a": NOBODY}, HERE)


def test_without_an_answer_that_is_understood_nothing_is_lost() -> None:
    assert not has_lost({}, HERE)
    assert not has_lost({"a": b"\xff", "b": encode(JoinIntent(1, "n1"))}, HERE)
    assert not has_lost({"a": b"\xff", "b": FOR}, HERE)


def test_the_second_of_a_name_is_told_and_the_first_goes_on() -> None:
    post = Post()
    n1, n2, n3 = post.cluster("n1", "n2", "n3")

    second = post.start("n3")
    post.join(second, n1)

    post.until(lambda: bool(second.tells(NameTaken)))
    assert second.tells(NameTaken)[0].other == post.address(n3)
    assert second.noted("serf_name_conflict")
    post.run(10.0)
    assert n3.tells(NameTaken) == []
    assert post.member(n1, "n3").address == post.member(n2, "n3").address == post.address(n3)
    assert post.statuses(n1)["n3"] is Status.ALIVE


def test_a_conflict_is_asked_about_once_in_a_while_however_often_it_is_claimed() -> None:
    post = Post()
    n1, _, n3 = post.cluster("n1", "n2", "n3")
    second = post.start("n3")
    post.join(second, n1)

    post.run(20.0)

    assert len(n3.noted("serf_name_conflict")) <= 1
    assert len(second.noted("serf_name_conflict")) <= 1


def test_with_nobody_to_ask_both_stay() -> None:
    post = Post()
    first, second = post.start("n1"), post.start("n1")

    post.join(second, first)
    post.run(20.0)

    assert first.noted("serf_name_conflict") or second.noted("serf_name_conflict")
    assert first.tells(NameTaken) == second.tells(NameTaken) == []


def test_of_who_is_gone_nobody_claims_to_know_the_address() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    post.run(5.0)
    plain = Codec(Keyring(), nonce=lambda count: bytes(count))
    answers = []

    for id in (1, 2):
        query = Query(9, id, THERE, "n2", QUERY, b"n2", timeout_s=5.0, is_broadcast=False)
        before = post.packets["n1"]
        post.ask(n1, Receive(THERE, plain.packet([encode_swim(UserMessage(encode(query)))], has_crc=False)))
        answers.append(post.packets["n1"] - before)
        post.crash(n2)
        post.until(lambda: post.statuses(n1)["n2"] is Status.FAILED)
        post.run(5.0)

    assert answers == [1, 0]
