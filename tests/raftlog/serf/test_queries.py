"""Queries: what is known and bounded, and as stories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.serf import queries
from raftlog.serf.config import FAST, LAN
from raftlog.serf.events import QueryCame, QueryResult, Respond, SendQuery, SetTags
from raftlog.serf.messages import Address, Query, QueryResponse, TagFilter
from raftlog.serf.queries import IDS_PER_TIME_MAX, OPEN_MAX, Queries, is_for
from tests.raftlog.serf.post import Post, Running

QUERY = Query(1, 7, Address("127.0.0.1:1"), "n1", "load", b"", timeout_s=5.0)


def answer(post: Post, *nodes: Running, payload: bytes = b"") -> None:
    """Have all answer what they were asked: with the payload, or their names."""
    for node in nodes:
        for came in node.tells(QueryCame):
            post.ask(node, Respond(came.id, came.time, payload or node.name.encode()))


def asked(*nodes: Running) -> list[str]:
    return [node.name for node in nodes if node.tells(QueryCame)]


def test_a_query_is_taken_once_by_time_and_id() -> None:
    known = Queries(8)

    assert known.take(QUERY)
    assert not known.take(QUERY)
    assert known.take(replace(QUERY, id=8))
    assert known.take(replace(QUERY, time=2))
    assert known.clock.time == 3


def test_queries_older_than_the_buffer_are_taken_for_known() -> None:
    known = Queries(8)
    for time in range(1, 21):
        assert known.take(replace(QUERY, time=time))

    assert not known.take(replace(QUERY, time=12, id=9))
    assert known.take(replace(QUERY, time=13, id=9))


def test_only_so_many_queries_of_one_time_are_taken() -> None:
    known = Queries(8)

    taken = [known.take(replace(QUERY, id=id)) for id in range(IDS_PER_TIME_MAX + 1)]

    assert taken == [True] * IDS_PER_TIME_MAX + [False]


def test_a_query_is_answered_once_and_in_time() -> None:
    known = Queries(8)
    known.open(QUERY, 10.0, timeout_s=5.0)
    known.open(replace(QUERY, id=8), 10.0, timeout_s=5.0)

    assert known.close(1, 7, 14.9) == QUERY
    assert known.close(1, 7, 14.9) is None
    assert known.close(1, 8, 15.0) is None
    assert known.close(1, 9, 10.0) is None


def test_of_too_many_open_queries_the_oldest_can_not_be_answered() -> None:
    known = Queries(8)
    for id in range(OPEN_MAX + 1):
        known.open(replace(QUERY, id=id), 10.0, timeout_s=5.0)

    assert known.close(1, 0, 10.0) is None
    assert known.close(1, 1, 10.0) is not None


def test_the_timeout_grows_with_the_cluster_as_in_serf() -> None:
    assert queries.timeout_s(LAN, 1) == pytest.approx(0.2 * 16)
    assert queries.timeout_s(LAN, 9) == pytest.approx(0.2 * 16)
    assert queries.timeout_s(LAN, 10) == pytest.approx(0.2 * 16 * 2)


@pytest.mark.parametrize(
    ("nodes", "tags", "expected"),
    [
        ((), (), True),
        ((("n1", "n2"),), (), True),
        ((("n2",),), (), False),
        ((("n1",), ("n2",)), (), False),
        ((), (TagFilter("role", "^log$"),), True),
        ((), (TagFilter("role", "og"),), True),
        ((), (TagFilter("role", "^web"),), False),
        ((), (TagFilter("zone", "^$"),), True),
        ((), (TagFilter("role", "log"), TagFilter("role", "web")), False),
        ((("n1",),), (TagFilter("role", "web"),), False),
        ((), (TagFilter("role", "(log"),), False),
        ((), (TagFilter("role", "l" * 257),), False),
    ],
)
def test_all_filters_must_match(
    nodes: tuple[tuple[str, ...], ...], tags: tuple[TagFilter, ...], expected: bool
) -> None:
    query = replace(QUERY, node_filters=nodes, tag_filters=tags)

    assert is_for(query, "n1", {"role": "log"}) is expected


def test_all_members_are_asked_once_and_the_asker_has_all_answers() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3", "n4", "n5")

    request = post.ask(nodes[0], SendQuery(post.number(), "load", b"?", wants_ack=True))
    post.until(lambda: len(asked(*nodes)) == 5)
    answer(post, *nodes)
    post.until(lambda: request in post.outcomes)

    result = post.outcomes[request]
    assert isinstance(result, QueryResult)
    assert result.responses == {name: name.encode() for name in ("n1", "n2", "n3", "n4", "n5")}
    assert sorted(result.acks) == ["n1", "n2", "n3", "n4", "n5"]
    post.run(5.0)
    assert [len(node.tells(QueryCame)) for node in nodes] == [1] * 5
    came = nodes[3].tells(QueryCame)[0]
    assert (came.name, came.payload, came.source_node) == ("load", b"?", "n1")


def test_a_query_for_some_nodes_is_told_to_these_only_and_over_when_they_have_answered() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3", "n4")

    began = post.now
    request = post.ask(nodes[0], SendQuery(post.number(), "load", b"", nodes=("n2", "n4"), timeout_s=30.0))
    post.until(lambda: len(asked(*nodes)) == 2)
    answer(post, *nodes)
    post.until(lambda: request in post.outcomes)

    assert asked(*nodes) == ["n2", "n4"]
    assert sorted(post.outcomes[request].responses) == ["n2", "n4"]
    assert post.now - began < 5.0


def test_a_query_by_tags_is_over_when_its_time_is() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2", tags={"role": "log"})
    n3 = post.start("n3", {"role": "web"})
    post.join(n3, n1)

    began = post.now
    tags = (TagFilter("role", "^log$"),)
    request = post.ask(n3, SendQuery(post.number(), "load", b"", tags=tags, timeout_s=3.0))
    post.until(lambda: asked(n1, n2) == ["n1", "n2"])
    answer(post, n1, n2)
    post.until(lambda: request in post.outcomes)

    assert sorted(post.outcomes[request].responses) == ["n1", "n2"]
    assert asked(n3) == []
    assert post.now - began == pytest.approx(3.0)


def test_a_query_by_tags_goes_by_those_that_a_node_has_now() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2", tags={"role": "log"})
    post.outcome(n2, SetTags(post.number(), {"role": "web"}))

    tags = (TagFilter("role", "^web$"),)
    post.outcome(n1, SendQuery(post.number(), "load", b"", tags=tags, timeout_s=2.0))

    assert asked(n1, n2) == ["n2"]


def test_an_answer_at_the_end_of_the_time_is_dropped() -> None:
    known = Queries(8)
    running = queries.Running(
        QUERY, 10.0, names_max=1, expected=frozenset({"n2"}), on_end=lambda result: None
    )
    known.begin(running)
    answer = QueryResponse(1, 7, "n2", payload=b"x")

    assert known.answered(answer, 10.0) is None
    assert running.responses == {}
    assert known.answered(answer, 9.9) is running


def test_who_is_silent_acknowledges_but_has_no_answer_in_the_end() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3")

    began = post.now
    result = post.outcome(nodes[0], SendQuery(post.number(), "load", b"", wants_ack=True))

    assert sorted(result.acks) == ["n1", "n2", "n3"]
    assert result.responses == {}
    assert post.now - began == pytest.approx(queries.timeout_s(FAST, 3))


def test_an_answer_that_comes_too_late_is_dropped_and_noted() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    result = post.outcome(n1, SendQuery(post.number(), "load", b"", timeout_s=1.0))
    post.run(1.0)

    answer(post, n2)

    assert result.responses == {}
    assert n2.noted("serf_answer_too_late")


def test_a_second_answer_is_dropped() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    request = post.ask(n1, SendQuery(post.number(), "load", b"", timeout_s=2.0))
    post.until(lambda: asked(n2) == ["n2"])

    answer(post, n2, payload=b"first")
    answer(post, n2, payload=b"second")
    post.until(lambda: request in post.outcomes)

    assert post.outcomes[request].responses == {"n2": b"first"}


def test_an_answer_that_is_too_large_is_dropped_and_noted() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")
    request = post.ask(n1, SendQuery(post.number(), "load", b"", timeout_s=2.0))
    post.until(lambda: asked(n2) == ["n2"])

    answer(post, n2, payload=bytes(2000))
    post.until(lambda: request in post.outcomes)

    assert post.outcomes[request].responses == {}
    assert n2.noted("serf_answer_too_large")


@pytest.mark.parametrize(
    "query",
    [
        SendQuery(1, "load", bytes(2000)),
        SendQuery(1, "_serf_install-key", b""),
        SendQuery(1, "load", b"", timeout_s=0.0),
        SendQuery(1, "load", b"", timeout_s=1e9),
        SendQuery(1, "load", b"", timeout_s=float("nan")),
        SendQuery(1, "load", b"", relay_factor=256),
        SendQuery(1, "load", b"", relay_factor=-1),
    ],
)
def test_a_query_that_cannot_be_is_refused(query: SendQuery) -> None:
    post = Post()
    n1 = post.start("n1")

    outcome = post.outcome(n1, replace(query, request=post.number()))

    assert isinstance(outcome, ValueError)
    assert asked(n1) == []


def test_the_ping_of_serf_is_acknowledged_and_not_told() -> None:
    post = Post()
    n1, n2 = post.cluster("n1", "n2")

    result = post.outcome(n1, SendQuery(post.number(), "_serf_ping", b"", wants_ack=True, timeout_s=1.0))

    assert sorted(result.acks) == ["n1", "n2"]
    assert asked(n1, n2) == []


def test_relayed_answers_come_where_the_direct_way_is_cut() -> None:
    post = Post()
    nodes = post.cluster("n1", "n2", "n3", "n4", "n5")
    post.cut = {frozenset((post.address(nodes[0]), post.address(nodes[4])))}

    request = post.ask(nodes[0], SendQuery(post.number(), "load", b"", wants_ack=True, relay_factor=3))
    post.until(lambda: len(asked(*nodes)) == 5)
    answer(post, *nodes)
    post.until(lambda: request in post.outcomes)

    assert "n5" in post.outcomes[request].acks
    assert post.outcomes[request].responses["n5"] == b"n5"


def test_answers_of_more_names_than_there_are_members_are_dropped() -> None:
    running = queries.Running(QUERY, 10.0, names_max=2, expected=None, on_end=lambda result: None)

    taken = [running.take(QueryResponse(1, 7, name, payload=b"")) for name in ("n1", "n2", "n2", "x")]

    assert taken == [True, True, False, False]


def test_acks_that_were_not_asked_for_are_dropped() -> None:
    running = queries.Running(QUERY, 10.0, names_max=2, expected=None, on_end=lambda result: None)

    assert not running.take(QueryResponse(1, 7, "n1", is_ack=True))
