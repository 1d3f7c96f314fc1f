"""Limits and times that contradict each other are refused, by name."""

from __future__ import annotations

import pytest

from raftlog.raft import RaftConfig


def test_defaults_are_valid() -> None:
    config = RaftConfig()

    assert config.heartbeat_interval_s < config.election_timeout_s_min <= config.election_timeout_s_max


@pytest.mark.parametrize(
    "times",
    [
        {"heartbeat_interval_s": 0.0},
        {"heartbeat_interval_s": -1.0},
        {"heartbeat_interval_s": 1.0},
        {"election_timeout_s_min": 2.5},
        {"election_timeout_s_max": 0.9},
    ],
)
def test_times_that_contradict_each_other_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match="heartbeat_interval_s < election_timeout_s_min <= election_timeout_s_max"
    ):
        RaftConfig(**times)  # type: ignore[arg-type]


def test_election_timeouts_may_be_the_same() -> None:
    assert RaftConfig(election_timeout_s_min=1.5, election_timeout_s_max=1.5).election_timeout_s_max == 1.5


def test_leases_rest_on_check_quorum() -> None:
    with pytest.raises(ValueError, match="lease_reads needs check_quorum"):
        RaftConfig(lease_reads=True, check_quorum=False)


def test_window_holds_at_least_one_append() -> None:
    with pytest.raises(ValueError, match="inflight_bytes_max must not be below append_bytes_max"):
        RaftConfig(append_bytes_max=101, inflight_bytes_max=100)


@pytest.mark.parametrize(
    "name",
    [
        "persist_timeout_s",
        "append_bytes_max",
        "inflight_messages_max",
        "uncommitted_bytes_max",
        "apply_bytes_max",
        "snapshot_chunk_bytes",
        "requests_max",
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_above_0(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be above 0$"):
        RaftConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("drift", [-0.1, 1.0])
def test_clock_drift_is_a_part_of_one(drift: float) -> None:
    """Below 0 a lease would outlast the promises that it rests on; at 1 there would be none."""
    with pytest.raises(ValueError, match="clock_drift_max"):
        RaftConfig(clock_drift_max=drift)
