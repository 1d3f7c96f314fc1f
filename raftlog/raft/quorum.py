"""What a majority has stored, and how a vote stands: for one set of voters, and for a joint pair.

A joint decision needs a majority of each half (dissertation 4.3). A half without voters agrees to everything, so a
configuration that is not joint is a pair with an empty half.

Called for each reply to an append, with one to seven voters: plain lists are quickest there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import TypeVar

V = TypeVar("V")  # a voter's name

ALL = (1 << 64) - 1  # above every index: what a set without voters has committed


class VoteResult(Enum):
    PENDING = "pending"  # both outcomes are possible still
    WON = "won"
    LOST = "lost"


def committed_index(voters: Collection[V], acknowledged: Mapping[V, int]) -> int:
    """The highest index that a majority of these voters has acknowledged; who is missing has acknowledged 0."""
    if not voters:
        return ALL
    get = acknowledged.get
    indexes = [get(voter, 0) for voter in voters]
    indexes.sort()
    # Of 3, the middle one; of 4, the second lowest: a majority is at or above it.
    return indexes[(len(indexes) - 1) // 2]


def vote_result(voters: Collection[V], votes: Mapping[V, bool]) -> VoteResult:
    """How the vote stands among these voters; who is missing has not voted yet, others do not count."""
    if not voters:
        return VoteResult.WON
    granted = missing = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            missing += 1
        elif vote:
            granted += 1
    majority = len(voters) // 2 + 1
    if granted >= majority:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= majority else VoteResult.LOST


def joint_committed_index(
    incoming: Collection[V], outgoing: Collection[V], acknowledged: Mapping[V, int]
) -> int:
    """The highest index that both halves have committed."""
    index = committed_index(incoming, acknowledged)
    return min(index, committed_index(outgoing, acknowledged)) if outgoing else index


def joint_vote_result(
    incoming: Collection[V], outgoing: Collection[V], votes: Mapping[V, bool]
) -> VoteResult:
    """Won if both halves are won, lost if one is lost."""
    results = (vote_result(incoming, votes), vote_result(outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    if VoteResult.PENDING in results:
        return VoteResult.PENDING
    return VoteResult.WON
