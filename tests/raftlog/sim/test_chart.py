"""A run as a chart: what a reader sees of each thing that happens."""

from __future__ import annotations

from typing import Any

import pytest

from raftlog.engine import NodeId, Note, Persisted, Receive, Token, Wake
from raftlog.raft.messages import Append, Entry, EntryKind, TimeoutNow
from raftlog.sim.chart import TEXT_CHARACTERS_MAX, Chart, text_of
from raftlog.sim.models import CompareAndSet
from raftlog.sim.network import Lost, Sent

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
ENTRIES = tuple(Entry(index, 2, EntryKind.COMMAND, b"x") for index in (4, 5, 6))


def chart_of(*events: tuple[int, str, Any]) -> list[str]:
    lines: list[str] = []
    chart = Chart([N1, N2, N3], lines.append)
    for event in events:
        chart(*event)
    return lines


STARTED = ((0, N1, "started"), (0, N2, "started"), (0, N3, "started"))


def test_a_message_is_an_arrow_that_ends_where_it_arrives() -> None:
    lines = chart_of(
        *STARTED,
        (1_500, N1, Sent(N1, N3, TimeoutNow(2), 2_000)),
        (2_000, N3, Receive(N1, TimeoutNow(2))),
        (2_100, N3, Lost(N3, N2, TimeoutNow(2), "cut")),
        (2_200, N3, Wake()),
    )

    assert lines[4:] == [
        "       2.000  |------------------>|           TimeoutNow term=2",
        "       2.100  |         |x--------|           TimeoutNow term=2 (cut)",
    ]


def test_a_column_shows_whether_its_node_is_up() -> None:
    lines = chart_of(
        *STARTED,
        (1_000, N1, "paused"),
        (2_000, N2, "crashed"),
        (3_000, N3, Persisted(Token(7))),
    )

    assert lines[-1] == "       3.000  :                   *           n3 Persisted token=7"


def test_a_node_that_comes_later_gets_a_column() -> None:
    lines = chart_of(*STARTED, (1_000, NodeId("n4"), "started"))

    assert lines[-2:] == [
        "          ms  n1        n2        n3        n4",
        "       1.000  |         |         |         *           n4 started",
    ]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (Note("became_leader", {"term": 3}), "became_leader term=3"),
        (CompareAndSet("k", "a", "b"), "compare-and-set k 'a' to 'b'"),
        (
            Append(term=2, prev_index=3, prev_term=1, entries=ENTRIES, commit=3),
            "Append term=2 prev_index=3 prev_term=1 entries=[4..6] commit=3",
        ),
        (
            Append(term=2, prev_index=3, prev_term=1, entries=ENTRIES[:1], commit=3),
            "Append term=2 prev_index=3 prev_term=1 entries=[4 2 COMMAND b'x'] commit=3",
        ),
        (
            Append(term=2, prev_index=3, prev_term=1, entries=(), commit=3),
            "Append term=2 prev_index=3 prev_term=1 entries=() commit=3",
        ),
    ],
)
def test_text_is_short_and_names_what_it_shows(what: Any, text: str) -> None:
    assert text_of(what) == text


def test_text_that_is_too_long_is_cut() -> None:
    text = text_of("x" * (TEXT_CHARACTERS_MAX + 1))

    assert len(text) == TEXT_CHARACTERS_MAX
    assert text.endswith("x...")
