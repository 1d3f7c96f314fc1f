"""How healthy this node thinks it is itself."""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to below `score_end`: the local health multiplier. Source: Lifeguard IV-A.

    A slow node takes the silence of others for their death when it is itself that hears nothing. So what speaks of its
    own trouble (probes that failed, nacks that did not come, having to refute) makes it wait longer.
    """

    def __init__(self, score_end: int) -> None:
        if score_end < 1:
            raise ValueError(f"score_end is {score_end}; at least 1 is needed for a score of 0")
        self._score_end = score_end
        self.score = 0  # moved by `change` only; 0 <= score < score_end

    def change(self, by: int) -> None:
        self.score = min(max(self.score + by, 0), self._score_end - 1)

    def scaled(self, seconds: float) -> float:
        return seconds * (self.score + 1)
