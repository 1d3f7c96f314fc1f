"""The settings of the nodes of a run, drawn from its seed: small limits, so that each is met."""

from __future__ import annotations

from random import Random

from raftlog.engine import NodeId
from raftlog.raft import RaftConfig


def draw_config(random: Random, first: NodeId) -> RaftConfig:
    heartbeat_s = random.choice((0.02, 0.04))
    election_s = heartbeat_s * random.choice((1.1, 1.5, 2, 4))
    check_quorum = random.random() < 0.9
    return RaftConfig(
        heartbeat_interval_s=heartbeat_s,
        election_timeout_s_min=election_s,
        # close to each other, a vote splits for ever
        election_timeout_s_max=election_s * random.choice((1.5, 2)),
        persist_timeout_s=random.choice((0.1, 0.3, 5.0)),
        append_bytes_max=random.choice((1, 200, 100_000)),
        inflight_messages_max=random.choice((1, 2, 4, 256)),
        inflight_bytes_max=random.choice((100_000, 1_000_000)),
        uncommitted_bytes_max=random.choice((300, 1_000_000)),
        apply_bytes_max=random.choice((1, 200, 1_000_000)),
        snapshot_chunk_bytes=random.choice((20, 100, 100_000)),
        requests_max=random.choice((3, 1_000)),
        promotion_lag_max=random.choice((0, 5, 1_000)),
        pre_vote=random.random() < 0.75,
        check_quorum=check_quorum,
        lease_reads=check_quorum and random.random() < 0.2,
        clock_drift_max=0.2,  # clocks run at 0.9 to 1.1 (raftlog/sim/faults.py)
        first_leader=first if random.random() < 0.3 else None,
        check_invariants=True,
    )
