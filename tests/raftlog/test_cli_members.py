"""`raftlog members`, `autopilot`, and what `leave` tells the server, against a server of stand-ins."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from raftlog.cli import run
from raftlog.cli.members import shown_duration
from raftlog.server.gossip_keys import key_id
from tests.raftlog.fake_cluster_log import FakeMember
from tests.raftlog.fake_membership import (
    NOW,
    Command,
    FakeActionReport,
    FakeAutopilot,
    FakeCandidate,
    FakeKeyrings,
    FakeReport,
    FakeServerReport,
    FakeSource,
    MembershipServer,
    Serve,
)

OLD = b"o" * 16
CLEAR = FakeKeyrings(one=[], two=[])


# ── members ─────────────────────────────────────────────────────────────────────────────────────────

FOUND = (
    FakeCandidate("one", "", "directory", gossip_address="10.0.0.1:8401", since=NOW - 7200),
    FakeCandidate("three", "three:8400", gossip_address="10.0.0.3:8401", status="failed", since=NOW - 45),
    FakeCandidate("four", "four:8400", role="joining", gossip_address="10.0.0.4:8401"),
    FakeCandidate("web [1]", "", cluster_id="", version="", gossip_address="10.0.0.9:7946"),
)
AUTOPILOT = FakeReport(
    servers=(
        FakeServerReport("one", is_leader=True, reason="it leads"),
        FakeServerReport("four", is_member=False, is_voter=False, reason="its certificate is not trusted"),
    )
)


@pytest.fixture
def found(serve: Serve) -> MembershipServer:
    server = serve(source=FakeSource(*FOUND), autopilot=FakeAutopilot(AUTOPILOT))
    server.log.members += (FakeMember("two", "two:8400"), FakeMember("three", "three:8400"))
    return server


def test_members_are_a_table_and_what_does_not_fit(found: MembershipServer, command: Command) -> None:
    head, four, one, three, two, web, *remarks = command("members").splitlines()

    assert head.split() == ["server", "address", "gossip", "seen", "raft", "version"]
    assert re.fullmatch(rf"one +{found.address} +10.0.0.1:8401 +alive for 2h +leader +0.1.0 *", one)
    assert re.fullmatch(r"two +two:8400 +no +voter *", two)
    assert re.fullmatch(r"three +three:8400 +10.0.0.3:8401 +failed for 45s +voter +0.1.0 *", three)
    assert re.fullmatch(r"four +four:8400 +10.0.0.4:8401 +alive +no member +0.1.0 *", four)
    assert re.fullmatch(r"web \[1\] +\? +10.0.0.9:7946 +alive +no member *", web)
    assert remarks == [
        "four: not a member yet: it waits to be let in",
        "four: its certificate is not trusted",
        "three: failed, still counts for the quorum",
        "two: a member, not found by discovery",
        "web [1]: no server of raftlog: it tells no rpc_addr",
        "as one sees it; cluster cluster",
    ]


def test_members_are_lines_of_json_for_programs(found: MembershipServer, command: Command) -> None:
    rows = {row["name"]: row for row in map(json.loads, command("members", "one", "--json").splitlines())}

    assert list(rows) == ["four", "one", "three", "two", "web [1]"]
    assert rows["four"] == {
        "name": "four", "address": "four:8400", "gossip_address": "10.0.0.4:8401", "status": "alive",
        "status_s": 0.0, "raft_role": "", "version": "0.1.0", "directory_id": "", "cluster_id": "cluster",
        "remarks": ["not a member yet: it waits to be let in"], "reason": "its certificate is not trusted",
    }  # fmt: skip
    assert (rows["three"]["status"], rows["three"]["status_s"], rows["three"]["raft_role"]) == (
        "failed",
        45,
        "voter",
    )


def test_a_server_of_another_cluster_is_remarked_once(serve: Serve, command: Command) -> None:
    stranger = FakeServerReport(
        "x", is_member=False, is_voter=False, reason="it is of cluster other, this is cluster"
    )
    serve(
        source=FakeSource(FakeCandidate("x", "x:8400", cluster_id="other")),
        autopilot=FakeAutopilot(FakeReport(servers=(stranger,))),
    )

    assert [line for line in command("members").splitlines() if line.startswith("x:")] == [
        "x: of another cluster: other"
    ]


def test_members_are_told_also_where_nobody_says_why(serve: Serve, command: Command) -> None:
    serve(source=FakeSource(*FOUND), autopilot=None)

    assert "four: not a member yet: it waits to be let in" in command("members")


@pytest.mark.parametrize(
    ("asked", "arguments", "code", "line"),
    [
        ({"source": None}, ["members"], 1, "UNIMPLEMENTED: this server does not look for others .*"),
        ({}, ["members", "nine"], 2, "nine is no member; `raftlog servers` lists them"),
        ({"autopilot": None}, ["autopilot"], 1, "UNIMPLEMENTED: this cluster's engine has no autopilot: .*"),
        ({"autopilot": None}, ["autopilot", "off"], 1, "UNIMPLEMENTED: this cluster's engine has no autopilot: .*"),
        ({"gossip": CLEAR}, ["keys", "list"], 1, "FAILED_PRECONDITION: the gossip is not encrypted, so there are .*"),
        ({"gossip": CLEAR}, ["keys", "rotate", key_id(OLD)], 1, "FAILED_PRECONDITION: the gossip is not encrypted, .*"),
        ({"gossip": None}, ["keys", "list"], 1, "UNIMPLEMENTED: this server does not gossip, so there are no keys .*"),
        ({"gossip": None}, ["keys", "rotate", key_id(OLD)], 1, "UNIMPLEMENTED: this server does not gossip, .*"),
    ],
)  # fmt: skip
def test_what_the_server_lacks_is_one_line(
    serve: Serve,
    capfd: pytest.CaptureFixture[str],
    asked: dict[str, Any],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    serve(**asked)

    assert run([*arguments, "--insecure"]) == code

    output, errors = capfd.readouterr()
    assert output == ""
    assert re.fullmatch(f"raftlog: {line}\n", errors)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.4, "0s"),
        (119.4, "119s"),
        (120.0, "2m"),
        (7199.0, "119m"),
        (7200.0, "2h"),
        (172_800.0, "2d"),
    ],
)
def test_how_long_is_told_in_one_unit(seconds: float, text: str) -> None:
    assert shown_duration(seconds) == text


# ── the autopilot ───────────────────────────────────────────────────────────────────────────────────

REPORT = FakeReport(
    is_healthy=False,
    voters_max=5,
    servers=(
        FakeServerReport("four", "four:8400", "alive", is_member=False, is_voter=False, last_contact_s=None,
                         trailing_entries=None, reason="it is of another cluster"),
        FakeServerReport("one", "one:8400", is_leader=True, healthy_since_s=7200.0, last_contact_s=0.0, reason="leads"),
        FakeServerReport("three", "three:8400", "failed", is_healthy=False, healthy_since_s=45.0, last_contact_s=46.0,
                         trailing_entries=1200, reason="not heard of for 46 s"),
        FakeServerReport("two", "two:8400", "", last_contact_s=0.05, trailing_entries=3, reason="healthy"),
    ),
    advice=("three stays [for now]: it is removed after 24 h",),
    last_actions=tuple(FakeActionReport(number, f"action {number}") for number in range(11))
    + (FakeActionReport(10**18, "let four in", "it did not answer"),),
)  # fmt: skip


def test_the_autopilot_says_what_it_thinks_and_why(serve: Serve, command: Command) -> None:
    serve(autopilot=FakeAutopilot(REPORT))

    lines = command("autopilot").splitlines()

    assert lines[:2] == [
        "the autopilot acts",
        "NOT every member is healthy; 1 voter may fail without loss of the quorum; at most 5 vote",
    ]
    assert lines[2].split() == ["server", "address", "role", "health", "last", "contact", "behind", "seen"]
    assert re.fullmatch(r"four +four:8400 +no member +- +\? +\? +alive *", lines[3])
    assert re.fullmatch(r"one +one:8400 +leader +healthy for 2h +- +0 +alive *", lines[4])
    assert re.fullmatch(r"three +three:8400 +voter +NOT healthy for 45s +46s ago +1,200 +failed *", lines[5])
    assert re.fullmatch(r"two +two:8400 +voter +healthy for 60s +0.1s ago +3 +no *", lines[6])
    assert lines[7:12] == [
        "four: it is of another cluster",
        "three: not heard of for 46 s",
        "",
        "next:",
        "- three stays [for now]: it is removed after 24 h",
    ]
    assert lines[12:14] == ["", "done:"]
    assert len(lines[14:]) == 10
    assert lines[-1] == "- 2001-09-09T01:46:40.000Z  let four in; failed: it did not answer"


def test_the_autopilot_is_an_object_of_json_for_programs(serve: Serve, command: Command) -> None:
    serve(autopilot=FakeAutopilot(REPORT))

    found = json.loads(command("autopilot", "show", "--json"))

    assert (found["mode"], found["is_healthy"], found["failure_tolerance"], found["voters_max"]) == (
        "act",
        False,
        1,
        5,
    )
    assert [(one["name"], one["last_contact_s"]) for one in found["servers"]] == [
        ("four", None), ("one", 0.0), ("three", 46.0), ("two", 0.05),
    ]  # fmt: skip
    assert len(found["last_actions"]) == 12
    assert found["last_actions"][-1] == {"time": 10**18, "text": "let four in", "error": "it did not answer"}


@pytest.mark.parametrize(
    ("tolerance", "line"),
    [
        (0, "every member is healthy; no voter may fail without loss of the quorum"),
        (2, "every member is healthy; 2 voters may fail without loss of the quorum"),
    ],
)
def test_how_many_may_fail_is_said(serve: Serve, command: Command, tolerance: int, line: str) -> None:
    serve(autopilot=FakeAutopilot(AUTOPILOT._replace(failure_tolerance=tolerance)))

    assert command("autopilot").splitlines()[1] == line


def test_one_that_only_advises_says_what_it_would_do(serve: Serve, command: Command) -> None:
    serve(autopilot=FakeAutopilot(AUTOPILOT._replace(mode="advise", advice=("would let four in",))))

    assert command("autopilot").endswith("\nwhat it would do, and what holds it back:\n- would let four in\n")


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            FakeReport(mode="off", is_healthy=False, advice=("it is off",)),
            "the autopilot is off: members are changed, and learners promoted, by hand\n",
        ),
        (
            FakeReport(is_healthy=False, failure_tolerance=0, advice=("this server has just begun to lead",)),
            "the autopilot acts\nthis server has just begun to lead\n",
        ),
    ],
)
def test_one_that_has_judged_nobody_calls_nobody_unhealthy(
    serve: Serve, command: Command, report: FakeReport, text: str
) -> None:
    serve(autopilot=FakeAutopilot(report))

    assert command("autopilot") == text


def test_the_autopilot_is_switched(serve: Serve, command: Command) -> None:
    server = serve()
    assert server.autopilot is not None

    assert command("autopilot", "advise") == "the autopilot only advises: members are changed by hand\n"
    assert server.autopilot.now.mode == "advise"
    assert json.loads(command("autopilot", "act", "--json")) == {"mode": "act"}
    assert server.autopilot.now.mode == "act"


# ── leaving ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_leaves_is_told(serve: Serve, command: Command) -> None:
    server = serve()

    assert command("leave", "one") == (
        f"one is no member\none at {server.address} was told: it serves no more and has left the gossip; "
        "stop it when you like\n"
    )
    assert (server.log.asked, server.departed) == ([("leave", "one")], 1)


def test_a_server_that_cannot_be_told_is_removed_all_the_same(serve: Serve, command: Command) -> None:
    server = serve()
    server.log.members += (FakeMember("two", server.address),)  # where another one is now

    assert command("leave", "two") == (
        f"two is no member\ntwo at {server.address} could not be told: INVALID_ARGUMENT: id: this server is one, not "
        "two: ask that one; if it runs, stop it\n"
    )
    assert (server.log.asked, server.departed) == ([("leave", "two")], 0)


def test_a_server_that_is_down_is_removed_without_a_wait(serve: Serve, command: Command) -> None:
    server = serve()
    server.log.members += (FakeMember("two", "127.0.0.1:1"),)

    assert command("leave", "two") == (
        "two is no member\ntwo at 127.0.0.1:1 could not be told: 127.0.0.1:1: Connection refused; if it runs, stop it\n"
    )


def test_one_that_is_no_member_is_not_told(serve: Serve, command: Command) -> None:
    server = serve()

    assert command("leave", "nine") == "nine was no member; `raftlog servers` lists them\n"
    assert server.departed == 0
