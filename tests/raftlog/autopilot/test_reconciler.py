"""Real servers whose leader looks after its members, and a source that says what the test wants."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

import raftlog.raft_engine
from raftlog.discovery.source import Candidate
from raftlog.engine import NodeId
from raftlog.errors import InvalidRequest
from raftlog.joining import LEADER_S_MAX
from raftlog.net.handshake import Welcome
from tests.raftlog.autopilot.grown import FakeSource, Servers

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_servers_that_are_found_become_voters(tmp_path: Path, monkeypatch: Patch, tls: bool) -> None:
    with Servers(tmp_path, monkeypatch, tls=tls) as servers:
        servers.grow("n2", "n3")

        assert servers.configuration.voters == ("n1", "n2", "n3")
        servers.until(lambda: servers.report().failure_tolerance == 1)
        report = servers.report()
        assert (report.mode, report.failure_tolerance, report.advice) == ("act", 1, ())
        assert [(one.name, one.is_voter, one.is_healthy) for one in report.servers] == [
            ("n1", True, True), ("n2", True, True), ("n3", True, True)
        ]  # fmt: skip
        assert [one.text.split(":")[0] for one in report.last_actions if not one.error][0].startswith(
            "add n2 at "
        )
        assert servers.report("n2").advice == ("n1 leads; it is the one to ask",)


def test_of_an_address_without_a_name_the_name_is_found_out(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.source.say(Candidate(name="", address="127.0.0.1:1"))  # nobody
        servers.source.say(Candidate(name="", address=servers.start("n2").address))
        servers.source.say(Candidate(name="", address=servers.address("n1")))

        servers.until(lambda: servers.configuration.voters == ("n1", "n2"))


def test_nobody_becomes_a_member_under_anothers_name(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        real = servers.start("n2")
        servers.source.say(replace(real, name="n3", directory_id=""))

        servers.until(lambda: "this is n2, not n3" in servers.reason("n3"))

        assert servers.configuration.members == ("n1",)
        assert "this is n2, not n3" in servers.report().last_actions[-1].error


def test_a_server_with_another_directory_than_was_said_does_not_come(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.source.say(replace(servers.start("n2"), directory_id="another"))

        servers.until(lambda: "not 'another'" in servers.reason("n2"))

        assert servers.configuration.members == ("n1",)


def test_members_beyond_the_wanted_voters_learn_until_one_is_needed(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch, voters_max=3, last_contact_s_max=1.0) as servers:
        servers.grow("n2", "n3")
        servers.source.say(servers.start("n4"))
        servers.until(lambda: "stays a learner" in servers.reason("n4"))

        servers.say("n2", status="left")
        servers.kill("n2")

        servers.until(lambda: servers.configuration.voters == ("n1", "n3", "n4"))


def test_who_left_goes_once_it_is_silent_and_who_comes_back_comes_back(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch, last_contact_s_max=1.0) as servers:
        servers.grow("n2", "n3")
        servers.say("n3", status="left")
        servers.until(lambda: "but Raft hears it" in servers.reason("n3"))
        servers.until(servers.looks_since())
        assert "n3" in servers.configuration.voters
        servers.kill("n3")
        servers.until(lambda: servers.configuration.members == ("n1", "n2"))

        # Surely after its removal was seen.
        servers.source.say(replace(servers.start("n3"), since=time.monotonic() + 1.0))

        servers.until(lambda: servers.configuration.voters == ("n1", "n2", "n3"))


def test_who_has_itself_removed_is_not_added_while_gossip_does_not_know_yet(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2", "n3")
        servers.call(lambda log: log.leave("n3", is_barred=False))

        servers.until(lambda: "removed a moment ago" in servers.reason("n3"))
        servers.say("n3", status="left")
        servers.until(servers.looks_since())

        assert servers.configuration.members == ("n1", "n2")


def test_who_was_removed_on_purpose_stays_out_under_every_leader_until_it_is_asked_for(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2", "n3")
        servers.call(lambda log: log.leave("n3"))

        servers.until(servers.looks_since())
        assert "removed on purpose" in servers.reason("n3")
        servers.call(lambda log: log.transfer_leadership("n2"))
        servers.until(lambda: servers.leader == "n2" and "removed on purpose" in servers.reason("n3"))
        servers.until(servers.looks_since())
        assert servers.configuration.members == ("n1", "n2")

        servers.call(lambda log: log.join("n3", servers.address("n3")))

        servers.until(lambda: servers.configuration.voters == ("n1", "n2", "n3"))


def test_a_failed_voter_goes_after_the_time_and_not_before(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(
        tmp_path, monkeypatch, last_contact_s_max=1.0, remove_failed_after_s=4.0, voters_min=3
    ) as servers:
        servers.grow("n2", "n3", "n4")
        servers.say("n4", status="failed")
        servers.kill("n4")

        servers.until(lambda: "removed after 4 s of silence" in servers.reason("n4"))
        assert "n4" in servers.configuration.voters
        servers.until(lambda: servers.configuration.members == ("n1", "n2", "n3"))


def test_a_replaced_disk_comes_back_as_a_learner_and_votes(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch, last_contact_s_max=1.0) as servers:
        servers.grow("n2", "n3")
        for number in range(20):
            servers.call(lambda log, number=number: log.append(b"%d" % number))  # type: ignore[misc]
        servers.kill("n3")
        shutil.rmtree(tmp_path / "n3")

        candidate = servers.start("n3")
        servers.source.say(candidate)

        servers.until(
            lambda: any(one.id == "n3" and one.directory_id == candidate.directory_id and one.is_voter
                        for one in servers.call(_servers))
        )  # fmt: skip
        assert any("whose disk was replaced" in one.text for one in servers.report().last_actions)
        servers.until(lambda: servers._running["n3"].high_watermark == 20)


async def _servers(log):  # type: ignore[no-untyped-def]
    return log.get_servers()


def test_told_to_advise_it_says_what_it_would_do_and_does_nothing_under_every_leader(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2")
        servers.set_mode("advise")
        servers.source.say(servers.start("n3"))

        servers.until(lambda: any(one.startswith("would add n3 at") for one in servers.report().advice))
        servers.call(lambda log: log.transfer_leadership("n2"))
        servers.until(lambda: servers.leader == "n2")
        servers.until(lambda: any(one.startswith("would add n3 at") for one in servers.report().advice))
        servers.until(servers.looks_since())
        assert servers.configuration.members == ("n1", "n2")
        assert not servers._running["n3"].is_member  # it was not even called

        servers.set_mode("act")

        servers.until(lambda: servers.configuration.voters == ("n1", "n2", "n3"))


def test_turned_off_it_leaves_all_to_people(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.set_mode("off")

        servers.until(lambda: servers.report().advice == ("it is off: members are changed by people alone",))
        assert servers.report().servers == ()
        with pytest.raises(InvalidRequest, match="act, advise, off"):
            servers.set_mode("on")


def test_a_server_that_was_removed_while_it_was_away_finds_out(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2", "n3")
        servers.kill("n3")
        servers.call(lambda log: log.leave("n3"))

        servers.start("n3")

        servers.until(lambda: servers.removed("n3").endswith("says so"))


def test_a_running_server_that_is_removed_finds_out_and_one_that_is_only_alone_does_not(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2", "n3")

        servers.call(lambda log: log.leave("n3"))

        servers.until(lambda: servers.removed("n3"))
        servers.kill("n1")
        end = time.monotonic() + 2 * LEADER_S_MAX
        servers.until(lambda: time.monotonic() > end)  # n2 asks in vain
        assert servers.removed("n2") == ""


def test_a_source_that_fails_does_not_end_it(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        failures: list[int] = []
        members = servers.source.members

        def fail() -> None:
            failures.append(1)
            raise RuntimeError("it is broken")

        monkeypatch.setattr(servers.source, "members", fail)
        servers.until(lambda: len(failures) > 1)
        monkeypatch.setattr(servers.source, "members", members)

        servers.grow("n2")


@pytest.mark.parametrize("is_barred", [True, False])
def test_who_is_removed_on_purpose_departs_and_who_failed_is_seen_a_while_longer(
    tmp_path: Path, monkeypatch: Patch, is_barred: bool
) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        servers.grow("n2", "n3")
        departed: list[float] = []

        async def leave() -> None:
            departed.append(time.monotonic())

        seen_by_others = FakeSource()
        monkeypatch.setattr(seen_by_others, "leave", leave)
        monkeypatch.setattr(servers._running["n3"]._engine, "_source", seen_by_others)
        monkeypatch.setattr(raftlog.raft_engine, "LET_IN_S", 2.0)
        servers.set_mode("advise")
        start = time.monotonic()

        servers.call(lambda log: log.leave("n3", is_barred=is_barred))

        servers.until(lambda: departed)
        assert servers.removed("n3")
        assert is_barred or departed[0] - start >= 2.0


def test_what_was_begun_before_it_was_turned_off_is_not_done(tmp_path: Path, monkeypatch: Patch) -> None:
    with Servers(tmp_path, monkeypatch) as servers:
        reconciler = servers._running["n1"]._engine.autopilot
        check = reconciler._links.check
        checked: list[str] = []

        async def turn_off_and_check(node: NodeId, address: str, directory_id: str = "") -> Welcome:
            await reconciler.set_mode("off")
            checked.append(node)
            return await check(node, address, directory_id)

        monkeypatch.setattr(reconciler._links, "check", turn_off_and_check)
        servers.source.say(servers.start("n2"))

        servers.until(
            lambda: any("not to act any more" in one.error for one in servers.report().last_actions)
        )
        assert (checked, servers.configuration.members) == (["n2"], ("n1",))
