"""Which claim about a member beats what is known of it.

Source: SWIM 4.2, "order of preference": a member counts its own incarnations; alive beats what is older, suspicion also
what is as old, death everything that lives. Death is not for ever here (memberlist): alive with a newer incarnation brings
a member back. Suspicion of somebody gone says nothing new.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from raftlog.serf.messages import State


class Verdict(Enum):
    IGNORE = "ignore"
    TAKE = "take"
    CONFIRM = "confirm"  # the suspicion that is known already


_I, _T, _C = Verdict.IGNORE, Verdict.TAKE, Verdict.CONFIRM

# Claim, known -> verdict if the claim's incarnation is (older than, the same as, newer than) the known one.
PRECEDENCE: Final = {
    (State.ALIVE, State.ALIVE): (_I, _I, _T),
    (State.ALIVE, State.SUSPECT): (_I, _I, _T),
    (State.ALIVE, State.DEAD): (_I, _I, _T),
    (State.ALIVE, State.LEFT): (_I, _I, _T),
    (State.SUSPECT, State.ALIVE): (_I, _T, _T),
    # Newer: it was alive after it was suspected here, and is suspected again. memberlist only confirms the old one.
    (State.SUSPECT, State.SUSPECT): (_I, _C, _T),
    (State.SUSPECT, State.DEAD): (_I, _I, _I),
    (State.SUSPECT, State.LEFT): (_I, _I, _I),
    (State.DEAD, State.ALIVE): (_I, _T, _T),
    (State.DEAD, State.SUSPECT): (_I, _T, _T),
    (State.DEAD, State.DEAD): (_I, _I, _I),
    (State.DEAD, State.LEFT): (_I, _I, _I),
    (State.LEFT, State.ALIVE): (_I, _T, _T),
    (State.LEFT, State.SUSPECT): (_I, _T, _T),
    (State.LEFT, State.DEAD): (_I, _I, _I),
    (State.LEFT, State.LEFT): (_I, _I, _I),
}


def verdict(claim: State, claimed: int, *, known: State, incarnation: int) -> Verdict:
    """Of a claim with the incarnation `claimed` about a member that is known so, at this incarnation."""
    older, same, newer = PRECEDENCE[claim, known]
    if claimed < incarnation:
        return older
    return same if claimed == incarnation else newer
