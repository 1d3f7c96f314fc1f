"""When a server of a cluster serves."""

from __future__ import annotations

import pytest

from raftlog.server.health import Health, Serving
from raftlog.server.readiness import LEADERLESS_S_MAX, Readiness


def look(readiness: Readiness, now: float, *, failure: str = "", leader_id: str = "") -> None:
    readiness.look(failure=failure, leader_id=leader_id, now=now)


def test_a_server_serves_from_when_it_knows_a_leader() -> None:
    health = Health()
    readiness = Readiness(health)

    look(readiness, 100.0)
    assert health.state == Serving(False, "no leader is known yet")
    look(readiness, 101.0, leader_id="two")
    assert health.is_serving


def test_a_server_that_finds_no_leader_warns_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    readiness = Readiness(health)

    with caplog.at_level("INFO"):
        look(readiness, 100.0)
        look(readiness, 100.1 + LEADERLESS_S_MAX)

    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert health.state == Serving(False, "no leader has been known for 10 s")


def test_an_election_does_not_take_a_server_out_but_a_long_one_does_until_it_ends() -> None:
    health = Health()
    readiness = Readiness(health)
    look(readiness, 0.0, leader_id="two")

    look(readiness, LEADERLESS_S_MAX)
    assert health.is_serving
    look(readiness, LEADERLESS_S_MAX + 0.1)
    assert health.state == Serving(False, "no leader has been known for 10 s")
    look(readiness, 20.0, leader_id="three")
    assert health.is_serving


def test_a_log_that_failed_takes_a_server_out_whoever_leads() -> None:
    health = Health()
    readiness = Readiness(health)

    look(readiness, 0.0, leader_id="two", failure="the disk failed")

    assert health.state == Serving(False, "the disk failed")
