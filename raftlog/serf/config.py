"""Settings of the gossip: the profiles of memberlist and the defaults of Serf, with all their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

META_BYTES_MAX: Final = 512  # of a member's tags, encoded; memberlist refuses more


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimConfig:
    """memberlist's. Times in seconds."""

    probe_interval_s: float = 1.0  # one other member is pinged so often
    probe_timeout_s: float = 0.5  # for an ack; then others are asked to ping, and a stream is tried
    indirect_checks: int = 3  # how many others are asked
    # Suspicion lasts suspicion_mult * max(1, log10(members)) * probe_interval_s at least
    suspicion_mult: int = 4
    suspicion_max_timeout_mult: int = 6  # and so many times longer while nobody confirms it
    awareness_max: int = 8  # local health is below it; intervals and timeouts grow by it (Lifeguard)
    retransmit_mult: int = 4  # a rumour is sent retransmit_mult * ceil(log10(members + 1)) times
    gossip_interval_s: float = 0.2
    gossip_nodes: int = 3  # that get rumours each time
    gossip_to_the_dead_s: float = 30.0  # a dead member is still sent rumours for so long: it may refute
    push_pull_interval_s: float = 30.0  # whole states are exchanged with one member; longer beyond 32 members
    # After a start or a join sooner: about 1, 2, 4, 8, 16 s; memberlist has no such thing
    push_pull_first_s: float = 1.0
    stream_timeout_s: float = 10.0  # for one exchange over a stream
    packet_bytes_max: int = 1400  # of a packet, rumours included
    # After so long another address may take a dead member's name; 0: after gossip_to_the_dead_s. After it left: at once.
    dead_reclaim_s: float = 0.0
    members_max: int = 4096  # more are not taken in: a limit of this implementation
    rumours_max: int = 4096  # that wait to be sent; the oldest, most sent ones are dropped first
    packets_per_second_max: int = 10_000  # more are dropped unread


@dataclass(frozen=True, slots=True, kw_only=True)
class SerfConfig:
    """Serf's, above memberlist's. Times in seconds."""

    swim: SwimConfig = SwimConfig()
    broadcast_timeout_s: float = 5.0  # for a leave to be heard
    leave_propagate_s: float = 1.0  # that a leaving node stays after its leave was sent
    reap_interval_s: float = 15.0
    reconnect_interval_s: float = 30.0
    reconnect_timeout_s: float = 24 * 3600.0  # a failed member is forgotten after it
    tombstone_timeout_s: float = 24 * 3600.0  # and one that left
    # A join or leave of somebody not known yet is remembered for so long
    recent_intent_timeout_s: float = 300.0
    event_buffer: int = 512  # Lamport times in which events, and queries, are remembered
    query_timeout_mult: int = 16  # a query lasts gossip_interval_s * mult * ceil(log10(members + 1))
    query_bytes_max: int = 1024
    query_response_bytes_max: int = 1024
    user_event_bytes_max: int = 512
    name_bytes_max: int = 128


LAN: Final = SerfConfig()
WAN: Final = SerfConfig(
    swim=SwimConfig(
        probe_interval_s=5.0, probe_timeout_s=3.0, suspicion_mult=6, gossip_interval_s=0.5, gossip_nodes=4,
        gossip_to_the_dead_s=60.0, push_pull_interval_s=60.0, push_pull_first_s=5.0, stream_timeout_s=30.0,
    )
)  # fmt: skip
LOCAL: Final = SerfConfig(  # for the loopback interface: memberlist's profile of this name
    swim=replace(
        LAN.swim,
        probe_timeout_s=0.2, indirect_checks=1, suspicion_mult=3, retransmit_mult=2, gossip_interval_s=0.1,
        gossip_to_the_dead_s=15.0, push_pull_interval_s=15.0, stream_timeout_s=1.0,
    )
)  # fmt: skip
FAST: Final = SerfConfig(  # for tests: ten times as quick as LOCAL
    swim=replace(
        LOCAL.swim,
        retransmit_mult=4,  # with 2 a rumour misses one of five now and then, though nothing is lost
        probe_interval_s=0.2, probe_timeout_s=0.1, gossip_interval_s=0.02, gossip_to_the_dead_s=5.0,
        push_pull_interval_s=1.0, push_pull_first_s=0.2,
    ),
    leave_propagate_s=0.1, reap_interval_s=0.5, reconnect_interval_s=0.5, query_timeout_mult=32,
)  # fmt: skip

PROFILES: Final = {"lan": LAN, "wan": WAN, "local": LOCAL, "fast": FAST}
