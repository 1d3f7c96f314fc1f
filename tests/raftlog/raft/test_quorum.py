from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from raftlog.raft.quorum import (
    ALL,
    VoteResult,
    committed_index,
    joint_committed_index,
    joint_vote_result,
    vote_result,
)
from tests.raftlog.raft.datadriven import Directive, read_directives, vector_files

SEED = 20_140_814
CASES = 10_000


@pytest.mark.parametrize(
    ("acknowledged", "committed"),
    [
        ({}, 0),
        ({"n1": 7}, 0),
        ({"n1": 7, "n2": 5}, 5),
        ({"n1": 7, "n2": 5, "n3": 6}, 6),
        ({"n1": 7, "n2": 7, "n4": 9}, 7),
    ],
)
def test_majority_of_three_commits_the_middle_index(acknowledged: dict[str, int], committed: int) -> None:
    index = committed_index(("n1", "n2", "n3"), acknowledged)

    assert index == committed


def test_two_of_four_are_no_majority() -> None:
    index = committed_index(("n1", "n2", "n3", "n4"), {"n1": 9, "n2": 9, "n3": 4, "n4": 2})

    assert index == 4


def test_no_voters_commit_everything_and_elect_anyone() -> None:
    assert committed_index((), {"n1": 3}) == ALL
    assert vote_result((), {"n1": False}) is VoteResult.WON


def test_joint_index_is_the_lower_half() -> None:
    acknowledged = {"n1": 9, "n2": 9, "n3": 3, "n4": 3}

    index = joint_committed_index(("n1", "n2"), ("n2", "n3", "n4"), acknowledged)

    assert index == 3


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({}, VoteResult.PENDING),
        ({"n1": True, "n2": False}, VoteResult.PENDING),
        ({"n1": True, "n2": True}, VoteResult.WON),
        ({"n1": False, "n3": False}, VoteResult.LOST),
        ({"n1": True, "n4": True}, VoteResult.PENDING),
    ],
)
def test_vote_of_three_needs_two(votes: dict[str, bool], result: VoteResult) -> None:
    assert vote_result(("n1", "n2", "n3"), votes) is result


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({"n1": True, "n2": True}, VoteResult.PENDING),
        ({"n1": True, "n2": True, "n3": True}, VoteResult.WON),
        ({"n3": False, "n4": False}, VoteResult.LOST),
    ],
)
def test_joint_vote_needs_both_halves(votes: dict[str, bool], result: VoteResult) -> None:
    assert joint_vote_result(("n1", "n2"), ("n2", "n3", "n4"), votes) is result


def test_random_quorums_agree_with_counting() -> None:
    random = Random(SEED)
    for case in range(CASES):
        incoming = random.sample(range(1, 12), random.randrange(8))
        outgoing = random.sample(range(1, 12), random.randrange(8))
        heard = random.sample(range(1, 12), random.randrange(12))
        acknowledged = {voter: random.randrange(12) for voter in heard}
        votes = {voter: random.random() < 0.5 for voter in heard}

        told = f"seed {SEED}, case {case}: {incoming} && {outgoing}, {acknowledged}, {votes}"
        assert joint_committed_index(incoming, outgoing, acknowledged) == min(
            counted_index(incoming, acknowledged), counted_index(outgoing, acknowledged)
        ), told
        assert joint_vote_result(incoming, outgoing, votes) is counted_vote(incoming, outgoing, votes), told


def counted_index(voters: Collection[int], acknowledged: Mapping[int, int]) -> int:
    """The highest index that more than half of the voters have, found by trying all."""
    if not voters:
        return ALL
    index = 0
    while 2 * sum(acknowledged.get(voter, 0) >= index + 1 for voter in voters) > len(voters):
        index += 1
    return index


def counted_vote(incoming: Sequence[int], outgoing: Sequence[int], votes: Mapping[int, bool]) -> VoteResult:
    """Won if it is even when all the others say no; lost if it is not won even when they all say yes."""

    def is_won(others: bool) -> bool:
        return all(
            not half or 2 * sum(votes.get(voter, others) for voter in half) > len(half)
            for half in (incoming, outgoing)
        )

    if is_won(others=False):
        return VoteResult.WON
    return VoteResult.PENDING if is_won(others=True) else VoteResult.LOST


# ── the public vectors ──────────────────────────────────────────────────────────────────────────────

VOTE_RESULT_TEXTS = {
    VoteResult.PENDING: "VotePending",
    VoteResult.WON: "VoteWon",
    VoteResult.LOST: "VoteLost",
}

VOTES = {"y": True, "n": False}


@pytest.mark.parametrize("path", vector_files("quorum"))
def test_public_quorum_vectors(path: Path) -> None:
    for directive in read_directives(path):
        printed = run(directive)

        assert printed == directive.expected, f"{path}:{directive.line}"


def run(directive: Directive) -> str:
    incoming, outgoing = halves(directive)
    voters = list(dict.fromkeys([*incoming, *outgoing]))
    inputs = directive.values("votes" if directive.command == "vote" else "idx") or ()
    if len(inputs) != len(voters):
        return mismatch(voters, inputs)
    match directive.command:
        case "committed":
            acknowledged = {
                voter: int(text) for voter, text in zip(voters, inputs, strict=True) if text != "_"
            }
            committed = joint_committed_index(incoming, outgoing, acknowledged)
            assert committed == joint_committed_index(outgoing, incoming, acknowledged)
            if not outgoing:
                assert committed == committed_index(incoming, acknowledged)
                assert committed == joint_committed_index(incoming, incoming, acknowledged)
            return drawing(sorted(voters), acknowledged) + ("∞" if committed == ALL else str(committed))
        case "vote":
            votes = {voter: VOTES[text] for voter, text in zip(voters, inputs, strict=True) if text != "_"}
            result = joint_vote_result(incoming, outgoing, votes)
            assert result is joint_vote_result(outgoing, incoming, votes)
            if not outgoing:
                assert result is vote_result(incoming, votes)
            return VOTE_RESULT_TEXTS[result]
    raise ValueError(f"line {directive.line}: unknown command {directive.command}")


def mismatch(voters: Sequence[int], inputs: Sequence[str]) -> str:
    """What is printed of a directive that has not one input per voter: a Go map, and numbers."""
    numbers = {"_": "0", "n": "1", "y": "2"}
    left = " ".join(f"{voter}:{{}}" for voter in sorted(voters))
    right = " ".join(numbers.get(text, text) for text in inputs)
    return f"error: mismatched input (explicit or _) for voters map[{left}]: [{right}]"


def halves(directive: Directive) -> tuple[list[int], list[int]]:
    """cfg and cfgj, each without repetition; `zero` asks for a joint pair with an empty half."""
    unknown = {argument.key for argument in directive.arguments} - {"cfg", "cfgj", "idx", "votes"}
    if unknown:
        raise ValueError(f"line {directive.line}: unknown arguments {sorted(unknown)}")
    outgoing = directive.values("cfgj") or ()
    if outgoing == ("zero",):
        outgoing = ()
    incoming = directive.values("cfg") or ()
    return list(dict.fromkeys(map(int, incoming))), list(dict.fromkeys(map(int, outgoing)))


def drawing(voters: Sequence[int], acknowledged: Mapping[int, int]) -> str:
    """A row per voter, with a bar as long as there are voters that acknowledged less."""
    if not voters:
        return "<empty majority quorum>"
    width = len(voters)
    indexes = sorted(acknowledged.get(voter, 0) for voter in voters)
    rows = [" " * width + "    idx\n"]
    for voter in voters:
        index = acknowledged.get(voter, 0)
        bar = "x" * indexes.index(index) + ">" if voter in acknowledged else "?"
        rows.append(f"{bar:<{width + 1}} {index:5}    (id={voter:x})\n")
    return "".join(rows)
