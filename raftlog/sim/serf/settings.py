"""The settings of the gossip of a run, drawn from its seed: quick, as the faults of the world are short."""

from __future__ import annotations

from random import Random

from raftlog.serf.config import SerfConfig, SwimConfig

KEPT_S = 24 * 3600.0  # longer than any run


def draw_config(random: Random) -> SerfConfig:
    probe_interval_s = random.choice((0.05, 0.1, 0.2))
    gossip_to_the_dead_s = random.choice((0.3, 3.0, KEPT_S))
    swim = SwimConfig(
        probe_interval_s=probe_interval_s,
        probe_timeout_s=probe_interval_s * random.choice((0.25, 0.5)),
        indirect_checks=random.choice((0, 1, 3)),
        suspicion_mult=random.choice((2, 3, 4)),
        suspicion_max_timeout_mult=random.choice((1, 2, 6)),
        awareness_max=random.choice((1, 4, 8)),
        retransmit_mult=random.choice((2, 3, 4)),
        gossip_interval_s=random.choice((0.01, 0.02, 0.05)),
        gossip_nodes=random.choice((1, 3)),
        gossip_to_the_dead_s=gossip_to_the_dead_s,
        # a node that moved gets its name back while the run lasts
        dead_reclaim_s=random.choice((0.3, 1.0, 1.0 if gossip_to_the_dead_s == KEPT_S else 0.0)),
        push_pull_interval_s=random.choice((0.2, 0.5, 1.0)),
        stream_timeout_s=random.choice((0.1, 0.5)),
        packet_bytes_max=random.choice((400, 1400)),  # the smaller is full before all rumours are in it
    )
    return SerfConfig(
        swim=swim,
        broadcast_timeout_s=0.5,
        leave_propagate_s=random.choice((0.02, 0.1)),
        reap_interval_s=0.2,
        reconnect_interval_s=random.choice((0.1, 0.3, 0.5)),
        reconnect_timeout_s=KEPT_S,
        tombstone_timeout_s=KEPT_S,
        event_buffer=random.choice((8, 512)),
        query_timeout_mult=random.choice((16, 32)),
    )
