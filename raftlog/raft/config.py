"""The limits and times of a node."""

from __future__ import annotations

from dataclasses import dataclass

from raftlog.engine import NodeId

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Times are in seconds of the node's clock; sizes count the entries' data."""

    heartbeat_interval_s: float = 0.1
    # Also: how long a follower that hears a leader gives no vote to another, a leader leads without a quorum, a hand-over
    # may take, and a chunk of a snapshot may be without an answer.
    election_timeout_s_min: float = 1.0
    election_timeout_s_max: float = 2.0  # each is drawn from min..max; without pre_vote at least 1.5 min
    persist_timeout_s: float = 5.0  # a leader whose write takes longer hands over

    append_bytes_max: int = MIB  # per message; one entry may exceed it
    inflight_messages_max: int = 256  # appends on their way to one follower; then it waits for replies
    inflight_bytes_max: int = 8 * MIB  # the same in bytes; the append that reaches the bound is still sent
    uncommitted_bytes_max: int = 64 * MIB  # at a leader; beyond it proposals are refused
    apply_bytes_max: int = 8 * MIB  # handed out and not yet applied; beyond it nothing more is handed out
    snapshot_chunk_bytes: int = MIB
    requests_max: int = 65_536  # proposals, and reads, that wait for their outcome; more are refused
    promotion_lag_max: int = 1_000  # entries that a learner may be behind when it is promoted

    pre_vote: bool = True
    check_quorum: bool = True  # a leader that hears of no quorum for an election timeout steps down
    step_down_on_removal: bool = True  # off only to compare with cores that do not
    validate_changes: bool = True  # off only to compare: refuse changes that are not possible now
    lease_reads: bool = False  # read without asking a quorum: trusts that clocks run alike to clock_drift_max
    clock_drift_max: float = 0.1  # by which part two clocks may differ in speed
    first_leader: NodeId | None = None  # this node campaigns at once when nothing has ever happened
    check_invariants: bool = False  # after every step; docs/benchmarks.md tells what it costs

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_interval_s < self.election_timeout_s_min <= self.election_timeout_s_max:
            raise ValueError(
                "0 < heartbeat_interval_s < election_timeout_s_min <= election_timeout_s_max must hold"
            )
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads needs check_quorum")
        if not 0 <= self.clock_drift_max < 1:
            raise ValueError("clock_drift_max must be at least 0 and below 1")
        if self.inflight_bytes_max < self.append_bytes_max:
            raise ValueError("inflight_bytes_max must not be below append_bytes_max")
        for name in ("persist_timeout_s", "append_bytes_max", "inflight_messages_max", "uncommitted_bytes_max",
                     "apply_bytes_max", "snapshot_chunk_bytes", "requests_max"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
