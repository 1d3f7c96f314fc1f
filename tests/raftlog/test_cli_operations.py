"""Commands for those who run a cluster, against one of three servers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from raftlog.cli import run
from raftlog.client.client import Client
from raftlog.local_cluster import LocalCluster, local_cluster

Command = Callable[..., str]
COMMAND_S_MAX = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """It holds the records 0 to 999, and then more, as tests go on."""
    with local_cluster(tmp_path_factory.mktemp("cluster"), 3) as cluster:
        with Client(list(cluster.addresses.values()), tls=cluster.tls) as client:
            client.append_batch([b"%d" % number for number in range(1000)])
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(list(cluster.addresses.values()), tls=cluster.tls) as client:
        yield client


@pytest.fixture(autouse=True)
def environment(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_CLIENT_ADDR", ",".join(cluster.addresses.values()))
    monkeypatch.setenv("RAFTLOG_CLIENT_CERTS", str(cluster.certs))


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command that succeeds; its output."""

    def run_command(*arguments: str, code: int = 0) -> str:
        found = run(list(arguments))
        output, errors = capfd.readouterr()
        assert (found, errors) == (code, ""), output
        return output

    return run_command


def lines_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


# ── what there is ───────────────────────────────────────────────────────────────────────────────────


def test_servers_say_who_leads_and_who_votes(cluster: LocalCluster, command: Command) -> None:
    found = re.findall(r"^(n\d)  (\S+)  (\w+)$", command("servers"), re.MULTILINE)

    assert [(name, address) for name, address, _ in found] == list(cluster.addresses.items())
    assert sorted(role for *_, role in found) == ["leader", "voter", "voter"]


def test_status_tells_of_each_server_what_it_believes(cluster: LocalCluster, command: Command) -> None:
    rows = lines_of(command("status", "--json"))
    text = command("status")

    assert [(row["name"], row["address"]) for row in rows] == list(cluster.addresses.items())
    assert sorted(row["role"] for row in rows) == ["follower", "follower", "leader"]
    assert len({row["cluster_id"] for row in rows}) == 1
    for row in rows:
        assert row["error"] is None
        assert row["lag"] >= 0
        assert row["match_index"] > 0
        assert row["commit_index"] <= row["last_index"]
        assert [member["name"] for member in row["members"]] == ["n1", "n2", "n3"]
    assert text.splitlines()[0].split()[:4] == ["server", "address", "role", "term"]
    assert f"cluster {rows[0]['cluster_id']}, voters=(n1 n2 n3), engine raft" in text


def test_status_tells_of_a_server_that_does_not_answer(cluster: LocalCluster, command: Command) -> None:
    leader = next(row["name"] for row in lines_of(command("servers", "--json")) if row["is_leader"])
    silent = next(name for name in cluster.servers if name != leader)
    cluster.servers[silent].pause()
    try:
        text = command("status", "--timeout", "4")  # enough to find another server to ask for the list
    finally:
        cluster.servers[silent].resume()

    assert re.search(rf"^{silent} .* unreachable", text, re.MULTILINE)
    assert re.search(rf"^{leader} .* leader", text, re.MULTILINE)
    assert f"\n{silent}: DEADLINE_EXCEEDED" in text


# ── groups ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_goes_on_where_it_left_off(command: Command, client: Client) -> None:
    consume = ("consume", "--group", "readers", "--format", "raw")
    start = str(client.bounds().end - 3)
    first = command(*consume, "--from", start).splitlines()
    client.append(b"one more")

    assert len(first) == 3
    assert command(*consume).splitlines() == ["one more"]
    assert command(*consume, "--from", "0") == ""  # it is known, so it goes on


def test_groups_are_listed_with_their_lag(command: Command, client: Client) -> None:
    end = client.bounds().end
    client.commit_cursor("far [behind]", end - 7)

    row = next(each for each in lines_of(command("groups", "--json")) if each["group"] == "far [behind]")
    text = command("groups")

    assert (row["next_offset"], row["lag"]) == (end - 7, 7)
    assert re.search(rf"^far \[behind\] +{end - 7:,} +7 ", text, re.MULTILINE)


def test_a_linearizable_read_has_what_was_acknowledged(command: Command, client: Client) -> None:
    offset = client.append(b"just now")

    assert command("consume", "--linearizable", "--from", str(offset), "--format", "raw") == "just now\n"


# ── members and leadership ──────────────────────────────────────────────────────────────────────────


def test_leadership_is_handed_over(command: Command) -> None:
    before = next(row["name"] for row in lines_of(command("servers", "--json")) if row["is_leader"])
    other = next(name for name in ("n1", "n2", "n3") if name != before)

    assert command("transfer", other) == f"{other} leads\n"
    assert command("transfer") != f"{other} leads\n"


def test_a_server_leaves_and_joins_again_and_votes(
    cluster: LocalCluster, command: Command, until: Callable[[Callable[[], bool]], None]
) -> None:
    def members() -> dict[str, bool]:
        return {row["name"]: row["is_voter"] for row in lines_of(command("servers", "--json"))}

    assert command("leave", "n3").splitlines()[0] == "n3 is no member"
    assert command("leave", "n3") == "n3 was no member; `raftlog servers` lists them\n"
    assert members() == {"n1": True, "n2": True}

    joined = command("join", "n3", cluster.addresses["n3"])

    assert re.fullmatch(rf"n3 at {cluster.addresses['n3']} is a (learner|voter)\n", joined)
    until(lambda: members() == {"n1": True, "n2": True, "n3": True})


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["promote", "n9"], 1, "FAILED_PRECONDITION: n9 is not .*"),
        (["transfer", "n9"], 1, "FAILED_PRECONDITION: n9 is not a voter"),
        (["join", "n9", "nowhere"], 1, "INVALID_ARGUMENT: rpc_addr: 'nowhere': not host:port.*"),
        (["snapshot", "n9"], 2, "n9 is no member; `raftlog servers` lists them"),
        (["truncate", "999999999"], 1, "offset 999999999 is outside of the log, which holds .*"),
        (["consume", "--group", "g", "--to", "3"], 2, "--group goes on to the end of the log; leave .*"),
        (["servers", "--addr", ","], 2, "--addr: no address; give host:port"),
        (["status", "--as", "nobody-client", "--addr", "127.0.0.1:1"], 1, "127.0.0.1:1: Connection refused"),
        (["truncate", "1", "--as", "nobody-client"], 1, "PERMISSION_DENIED: nobody not permitted to admin to .*"),
        (["backup", "/proc/none"], 1, ".*/proc/none.*"),
        (["restore", "/nowhere/at/all"], 1, ".*/nowhere/at/all.*"),
        (["recover", "/nowhere"], 2, "say what is to be done: --force-new-cluster"),
        (["recover", "/nowhere", "--force-new-cluster"], 1, "/nowhere is no server's data directory: .*"),
        (["mirror", "--from", "127.0.0.1:1", "--to", "127.0.0.1:1"], 1, "127.0.0.1:1: Connection refused"),
        (["bench", "consume", "--addr", "127.0.0.1:1"], 1, "127.0.0.1:1: Connection refused"),
        (["cluster", "down", "--dir", "/nowhere"], 2, "/nowhere holds no cluster; `raftlog cluster up.*"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, line: str
) -> None:
    assert run(arguments) == code

    output, errors = capfd.readouterr()
    assert output == ""
    assert re.fullmatch(f"raftlog: {line}\n", errors)


def test_each_address_that_does_not_answer_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["servers", "--addr", "127.0.0.1:1,127.0.0.1:2"]) == 1

    refused = "raftlog: 127.0.0.1:{}: Connection refused\n"
    assert capfd.readouterr().err == refused.format(1) + refused.format(2)


def test_one_address_that_answers_is_enough(cluster: LocalCluster, command: Command) -> None:
    assert (
        len(lines_of(command("servers", "--json", "--addr", f"127.0.0.1:1,{cluster.addresses['n2']}"))) == 3
    )


# ── snapshots, records ──────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_is_taken_where_it_is_asked_for(command: Command) -> None:
    (taken,) = lines_of(command("snapshot", "n2", "--json"))

    assert taken["entry_index"] > 0
    assert taken["bytes"] > 0
    assert re.fullmatch(r"snapshot up to entry [\d,]+, [\d,]+ bytes\n", command("snapshot"))


def test_the_oldest_records_are_forgotten(command: Command, client: Client) -> None:
    assert command("truncate", "10") == "the log starts at 10\n"
    assert lines_of(command("truncate", "12", "--json")) == [{"start": 12}]

    assert client.bounds().start == 12
    assert command("consume", "--to", "13", "--format", "raw") == "12\n"


def test_a_backup_is_made_and_restored_elsewhere(
    cluster: LocalCluster, command: Command, client: Client, tmp_path: Path
) -> None:
    (done,) = lines_of(command("backup", str(tmp_path / "copy"), "--json"))
    bounds = client.bounds()
    with local_cluster(tmp_path / "other", 1) as other:
        there = ("--addr", other.addresses["n1"], "--certs", str(other.certs))
        restored = command("restore", str(tmp_path / "copy"), "--renumber", *there)
        both = ("--from", cluster.addresses["n1"], "--to", other.addresses["n1"])
        certs = ("--from-certs", str(cluster.certs), "--to-certs", str(other.certs))
        (copied,) = lines_of(command("mirror", *both, *certs, "--json"))
        again = command("mirror", *both, *certs)

    count = bounds.end - bounds.start
    assert (done["start"], done["end"]) == tuple(bounds)
    assert restored == f"stored {count:,} records; the log holds offsets 0 to before {count:,}\n"
    assert copied == {"copied": count, "next_offset": bounds.end, "missed": 0}
    assert again == f"copied 0 records; the next is at offset {bounds.end:,} of the source\n"
    assert command("backup", str(tmp_path / "copy")).startswith("copied 0 records; ")


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("batch", "in_flight", "stored"), [("100", "4", 1000), ("1", "1", 20), ("1", "50", 500)]
)
def test_figures_of_producing(
    command: Command, client: Client, batch: str, in_flight: str, stored: int
) -> None:
    before = client.bounds().end
    options = ("--records", str(stored), "--batch", batch, "--in-flight", in_flight, "--size", "10")

    (figures,) = lines_of(command("bench", "produce", "--json", *options))

    assert (figures["records"], figures["bytes"]) == (stored, 10 * stored)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert figures["records_per_s"] > 0
    assert client.bounds(linearizable=True).end == before + stored + int(batch)  # one more, to begin with


def test_figures_are_told_to_people(command: Command) -> None:
    produced = command("bench", "produce", "--records", "100", "--batch", "10")
    consumed = command("bench", "consume", "--records", "50")

    assert re.match(r"100 records of 100 B in [\d.]+ s: [\d,]+ records/s, [\d.,]+ MB/s\n", produced)
    assert re.search(r"acknowledged after [\d.]+ ms \(median\), [\d.]+ ms \(99 %\)", produced)
    assert re.match(r"50 records in [\d.]+ s: [\d,]+ records/s, .*; the first after [\d.]+ ms\n", consumed)


def test_figures_of_consuming(command: Command, client: Client) -> None:
    bounds = client.bounds()

    (figures,) = lines_of(command("bench", "consume", "--json"))

    assert figures["records"] == bounds.end - bounds.start
    assert figures["bytes"] == sum(len(record.value) for record in client.scan())


# ── ended by Ctrl-C ─────────────────────────────────────────────────────────────────────────────────


class Running:
    """A command in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftlog", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> tuple[int, bytes]:
        """(exit code, errors)"""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=COMMAND_S_MAX)
        return self.process.returncode, errors


def test_a_group_that_follows_keeps_its_place_when_it_is_ended(client: Client, command: Command) -> None:
    offset = client.append_batch([b"first", b"second"])[0]
    with Running("consume", "--group", "tail", "--from", str(offset), "--follow", "--format", "raw") as tail:
        assert [tail.line(), tail.line()] == [b"first\n", b"second\n"]

        assert tail.interrupt() == (130, b"")

    kept = {cursor.group: cursor.offset for cursor in client.cursors(linearizable=True)}["tail"]
    assert offset + 1 <= kept <= offset + 2  # the last may not have been asked to be followed by another yet


def test_a_mirror_that_follows_ends_quietly(
    cluster: LocalCluster, client: Client, tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    with local_cluster(tmp_path, 1) as other, Client(other.addresses["n1"], tls=other.tls) as there:
        certs = ("--from-certs", str(cluster.certs), "--to-certs", str(other.certs))
        with Running(
            "mirror", "--from", cluster.addresses["n1"], "--to", other.addresses["n1"], "--follow", *certs
        ) as copying:
            until(lambda: there.bounds().end > 0)
            client.append(b"while it copies")
            until(lambda: there.read(there.bounds().end - 1).value == b"while it copies")

            assert copying.interrupt() == (130, b"")


def test_a_measurement_ends_quietly(client: Client, until: Callable[[Callable[[], bool]], None]) -> None:
    before = client.bounds().end
    with Running("bench", "produce", "--records", "1000000000", "--batch", "10") as measuring:
        until(lambda: client.bounds().end > before)

        assert measuring.interrupt() == (130, b"")
