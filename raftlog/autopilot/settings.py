"""How the reconciler judges, and when it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ACT: Final = "act"
ADVISE: Final = "advise"  # it says what it would do, and does nothing
OFF: Final = "off"  # it does not even judge
MODES: Final = (ACT, ADVISE, OFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotSettings:
    """Of one server; they count while it leads, so all servers should have the same. (Consul's are the model.)"""

    mode: str = ACT  # until somebody has said another one to the cluster (`raftlog autopilot advise`)
    last_contact_s_max: float = 1.0  # a server that answered no later than this is healthy
    trailing_entries_max: int = 250  # committed entries that a healthy server may lack
    stabilisation_s: float = 10.0  # that a learner is healthy before it votes; see `waived_s`
    voters_max: int | None = None  # more members than these stay learners; None: all vote
    voters_min: int = 3  # a failed voter stays one if fewer would be left
    remove_failed_after_s: float = 24 * 3600.0  # of silence; infinite: never
    left_s: float = 5.0  # that a member must have left before it is removed: one that is let in again needs time to say so
    unheard_learner_s: float = 600.0  # after which a learner that never connected is removed

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        for name in ("last_contact_s_max", "remove_failed_after_s", "unheard_learner_s", "voters_min"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("trailing_entries_max", "stabilisation_s", "left_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0")
        if self.voters_max is not None and self.voters_max < 1:
            raise ValueError("voters_max must be at least 1")

    @property
    def waived_s(self) -> float:
        """For so long a new leader asks for no stabilisation: it has watched nobody long enough, and a cluster that was
        just begun is not to wait for its voters."""
        return 1.1 * self.stabilisation_s
