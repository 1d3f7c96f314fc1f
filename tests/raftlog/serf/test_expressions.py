"""Regular expressions of filters: what Python's `re` says, in bounded time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.serf.expressions import BadExpression, search

TEXTS = ["", "a", "b", "ab", "aab", "abab", "web-1", "web-12.eu", "log", "a\nb", "[", "-", "\\", "0 9"]


@pytest.mark.parametrize(
    "expression",
    [
        "", "a", "^a", "a$", "^$", "^a*$", "a+b", "^(ab)+$", "^(?:a|b){2}$", "^(a|ab)(b|)$", ".", "^.*$", "a.b",
        "^web-[0-9]+$", r"^web-\d+\.(eu|us)$", r"\w-\w", r"[^a-z]", r"[\d-]", r"\S\s\S", r"^[]a]", r"[\]\\]",
        "a{2}", "^a{1,}b", "^(a{0,1}b){2}$", "a??", "a*?b", "(a|b|)*$", r"\Aab", "()", "|", "(^a|b$)", "[a-]", "x{0}",
    ],
)  # fmt: skip
def test_it_finds_what_python_finds(expression: str) -> None:
    flags = re.ASCII
    assert [search(expression, text) for text in TEXTS] == [
        re.search(expression, text, flags) is not None if not text.endswith("\n") else False for text in TEXTS
    ]


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "^", "$", r"\w"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.text("ab", max_size=8))
def test_of_any_expression_it_finds_what_python_finds(expression: str, text: str) -> None:
    assert search(expression, text) == (re.search(expression, text) is not None)


@pytest.mark.parametrize(
    "expression",
    [
        "(", ")", "a)", "(a", "[", "[a", "[z-a]", "*", "+a", "?", "a**", "a{2}{3}", "a{3,2}", "a{1000}", "a{x}", "a{",
        "\\", r"\b", r"\q", "(?i)a", "(?P<n>a)", "[[:alpha:]]", "(" * 40 + ")" * 40, "((a{200}){200})",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(expression: str) -> None:
    with pytest.raises(BadExpression):
        search(expression, "a")


@given(st.text("ab()[]{}|*+?^$.\\-,0123456789dwsAz:", max_size=20), st.text(max_size=10))
def test_any_expression_is_searched_for_or_refused(expression: str, text: str) -> None:
    try:
        search(expression, text)
    except BadExpression:
        pass


@pytest.mark.parametrize(
    "expression", ["^(a+)+$", "(a|a)*b", "a*a*a*a*a*a*b", "(a?){64}a{64}", "((a|b)*){64}c"]
)
def test_what_takes_other_engines_for_ever_takes_a_moment(expression: str) -> None:
    began = time.process_time()

    search(expression, "a" * 512 + "!")

    assert time.process_time() - began < 2.0
