"""Keys of the encryption: what one node does with a request, and a rotation while all goes on."""

from __future__ import annotations

from base64 import b64encode

import pytest

from raftlog.serf import keys
from raftlog.serf.codec.keyring import KEYS_MAX, Keyring
from raftlog.serf.codec.serf import decode, encode
from raftlog.serf.config import FAST
from raftlog.serf.events import (
    ChangeKeys,
    KeyAction,
    KeysChanged,
    KeysResult,
    Leave,
    MemberFailed,
    SendUserEvent,
    UserEventCame,
)
from raftlog.serf.messages import JoinIntent, KeyRequest, KeyResponse
from tests.raftlog.serf.post import Post, Running

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def text(key: bytes) -> str:
    return b64encode(key).decode()


def change(post: Post, node: Running, action: KeyAction, key: bytes = b"") -> KeysResult:
    result = post.outcome(node, ChangeKeys(post.number(), action, key))
    assert isinstance(result, KeysResult)
    return result


@pytest.mark.parametrize("action", list(KeyAction))
def test_without_encryption_nothing_is_changed(action: KeyAction) -> None:
    keyring = Keyring()

    response = keys.answer(action, encode(KeyRequest(NEW)), keyring)

    assert not response.is_done
    assert "encryption not enabled" in response.message
    assert keyring.is_empty


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        (KeyAction.INSTALL, encode(KeyRequest(b"short"))),
        (KeyAction.INSTALL, b""),
        (KeyAction.INSTALL, encode(JoinIntent(1, "n1"))),
        (KeyAction.USE, encode(KeyRequest(NEW))),
        (KeyAction.REMOVE, encode(KeyRequest(OLD))),
    ],
)
def test_a_request_that_cannot_be_done_says_why_and_changes_nothing(
    action: KeyAction, payload: bytes
) -> None:
    keyring = Keyring([OLD])

    response = keys.answer(action, payload, keyring)

    assert not response.is_done
    assert response.message
    assert keyring.keys == (OLD,)


def test_a_list_of_keys_that_is_too_long_is_cut_and_says_so() -> None:
    response = KeyResponse(True, "", tuple(text(bytes([n]) * 32) for n in range(30)), text(bytes(32)))

    data = keys.fit(response, fits=lambda data: len(data) <= 500)

    cut = decode(data)
    assert isinstance(cut, KeyResponse)
    assert len(data) <= 500
    assert 0 < len(cut.keys) < 30
    assert cut.message == f"truncated key list response, showing first {len(cut.keys)} of 30 keys"
    assert keys.fit(response, fits=lambda data: True) == encode(response)


def test_answers_are_counted_and_those_not_understood_are_errors() -> None:
    answers = {
        "n1": encode(KeyResponse(True, "", (text(OLD), text(NEW)), text(OLD))),
        "n2": encode(KeyResponse(True, "", (text(OLD),), text(OLD))),
        "n3": encode(KeyResponse(False, "no")),
        "n4": b"\xff",
        "n5": encode(JoinIntent(1, "n5")),
        "n6": encode(KeyResponse(False, "")),
    }

    result = keys.tally(answers, members=7)

    assert (result.members, result.answers) == (7, 6)
    assert sorted(result.errors) == ["n3", "n4", "n5", "n6"]
    assert result.errors["n3"] == "no"
    assert result.keys == {text(OLD): 2, text(NEW): 1}
    assert result.primary_keys == {text(OLD): 2}


def test_keys_are_rotated_without_a_gap() -> None:
    post = Post(keys=(OLD,))
    nodes = post.cluster("n1", "n2", "n3", "n4")
    n1 = nodes[0]

    for action, key in (
        (KeyAction.INSTALL, NEW),
        (KeyAction.USE, NEW),
        (KeyAction.REMOVE, OLD),
    ):
        result = change(post, n1, action, key)
        assert (result.members, result.answers, result.errors) == (4, 4, {})
        post.run(5.0)
        post.outcome(n1, SendUserEvent(post.number(), action.value, b""))
        post.until(
            lambda: all(len(node.tells(UserEventCame)) == len(n1.tells(UserEventCame)) for node in nodes)
        )

    assert all(node.node.keyring.keys == (NEW,) for node in nodes)
    assert all(len(node.tells(KeysChanged)) == 3 for node in nodes)
    assert all(node.tells(MemberFailed) == [] for node in nodes)
    assert all(node.node.counts()["refused_packets"] == 0 for node in nodes)


def test_keys_are_listed_with_how_many_have_them() -> None:
    post = Post(keys=(OLD, NEW))
    n1 = post.start("n1")
    n2 = post.start("n2", keys=(OLD,))
    post.join(n2, n1)

    result = change(post, n2, KeyAction.LIST)

    assert result.keys == {text(OLD): 2, text(NEW): 1}
    assert result.primary_keys == {text(OLD): 2}
    assert n1.tells(KeysChanged) == n2.tells(KeysChanged) == []


def test_what_a_node_refuses_is_told_as_its_error() -> None:
    post = Post(keys=(OLD,))
    n1 = post.start("n1")
    n2 = post.start("n2", keys=(OLD, *(bytes([number]) * 16 for number in range(KEYS_MAX - 1))))
    post.join(n2, n1)

    result = change(post, n1, KeyAction.INSTALL, NEW)

    assert result.answers == 2
    assert list(result.errors) == ["n2"]
    assert n1.node.keyring.keys == (OLD, NEW)


def test_what_is_done_already_is_done() -> None:
    keyring = Keyring([OLD])

    assert keys.answer(KeyAction.INSTALL, encode(KeyRequest(OLD)), keyring).is_done
    assert keys.answer(KeyAction.REMOVE, encode(KeyRequest(NEW)), keyring).is_done
    assert keys.answer(KeyAction.USE, encode(KeyRequest(OLD)), keyring).is_done
    assert keyring.keys == (OLD,)


def test_a_member_that_was_not_reached_is_asked_again() -> None:
    post = Post(keys=(OLD,))
    nodes = post.cluster("n1", "n2", "n3")
    post.cut_off(nodes[2])

    request = post.ask(nodes[0], ChangeKeys(post.number(), KeyAction.INSTALL, NEW))
    post.run(0.7)  # longer than one query
    assert request not in post.outcomes
    post.cut.clear()
    post.until(lambda: request in post.outcomes)

    assert (post.outcomes[request].answers, post.outcomes[request].errors) == (3, {})
    assert nodes[2].node.keyring.keys == (OLD, NEW)


def test_a_member_that_never_answers_is_missing_in_the_result() -> None:
    post = Post(keys=(OLD,))
    nodes = post.cluster("n1", "n2", "n3")
    post.crash(nodes[2])

    result = change(post, nodes[0], KeyAction.LIST)

    assert result.answers == 2


def test_a_key_that_no_query_could_carry_is_refused() -> None:
    post = Post(keys=(OLD,))
    (n1,) = post.cluster("n1")

    outcome = post.outcome(n1, ChangeKeys(post.number(), KeyAction.INSTALL, bytes(1000)))

    assert isinstance(outcome, ValueError)
    assert "1024 bytes at most" in str(outcome)


def test_missing_members_whose_names_do_not_fit_into_a_query_are_asked_again_with_all() -> None:
    """128 bytes each: the engine ended of eight of them that had not answered."""
    post = Post(keys=(OLD,))
    names = [f"n{number}".ljust(FAST.name_bytes_max, "x") for number in range(9)]
    nodes = post.cluster(*names)
    post.cut_off(nodes[0])

    request = post.ask(nodes[0], ChangeKeys(post.number(), KeyAction.INSTALL, NEW))
    post.run(0.7)  # longer than one query
    assert request not in post.outcomes
    post.cut.clear()
    post.until(lambda: request in post.outcomes)

    assert (post.outcomes[request].answers, post.outcomes[request].errors) == (9, {})
    assert all(node.node.keyring.keys == (OLD, NEW) for node in nodes)


def test_a_node_that_is_saying_goodbye_can_still_be_asked_for_its_keys() -> None:
    """Nobody is alive for it any more, itself included."""
    post = Post(keys=(OLD,))
    (n1,) = post.cluster("n1")
    leaving = post.ask(n1, Leave(post.number()))
    assert n1.node.swim.alive_count == 0
    assert not n1.node.has_left

    listing = post.ask(n1, ChangeKeys(post.number(), KeyAction.LIST))
    post.until(lambda: leaving in post.outcomes)

    assert post.outcomes[listing].keys == {text(OLD): 1}


def test_who_has_another_key_does_not_join() -> None:
    post = Post(keys=(OLD,))
    n1 = post.start("n1")
    stranger = post.start("n2", keys=(NEW,))

    assert post.join(stranger, n1)[post.address(n1)] != ""
    assert list(post.statuses(n1)) == ["n1"]
    assert n1.node.counts()["refused_packets"] > 0
