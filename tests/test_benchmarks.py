"""The figures in the documents are those that were recorded, and the benchmarks of a cluster run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import cluster, compare
from bench.aims import aims_table, beside_etcd
from bench.cluster_case import Sizes, by_role
from bench.peers import redis
from bench.peers.etcd import message_types
from bench.peers.nats import Connection
from bench.peers.peer import ServerMissing, program, version_of
from bench.processes import processor_s, resident_mib, size_of_files, written_bytes
from bench.report import DOCUMENTS, chaos_table, cluster_table, compare_table, filled_in, merged
from logstore.benchmark.measure import Series, as_json

TINY = Sizes(seconds=0.05, consumed=2_000, singles=3, idle_s=0.1, kills=1, gigabytes=1)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_the_document_are_those_of_the_results(path: Path) -> None:
    document = path.read_text()

    assert filled_in(document) == document


# ── of a cluster ────────────────────────────────────────────────────────────────────────────────────


def test_time_without_a_leader_is_measured_in_a_cluster_that_is_gone_afterwards(tmp_path: Path) -> None:
    series = cluster.measure(tmp_path, ["kills"], runs=1, sizes=TINY, tell=lambda text: None)

    assert [one.case for one in series] == ["kill_until_leader", "kill_until_acknowledged"]
    assert all(len(one.rates) == 1 and one.rates[0] > 0 for one in series)
    assert list(tmp_path.iterdir()) == []


def test_of_followers_the_highest_value_counts() -> None:
    assert by_role({"n1": 5.0, "n2": 1.0, "n3": 2.0}, "n1") == {"leader": 5.0, "a follower": 2.0}


def test_what_is_measured_again_takes_the_place_of_what_was_recorded(tmp_path: Path) -> None:
    recorded = tmp_path / "cluster.json"
    before = as_json(
        [Series("idle", "leader", "%", "-", [1.0]), Series("consume", "lists", "1/s", "-", [2.0])]
    )
    recorded.write_text(json.dumps(before))
    again = as_json([Series("idle", "leader", "%", "-", [3.0])])

    both = merged(recorded, again)

    assert {one["case"]: one["median"] for one in both["results"]} == {"consume": 2.0, "idle": 3.0}
    assert both["machine"] == before["machine"]
    assert [one["time"] for one in both["again"]] == [again["machine"]["time"]]


def test_what_was_never_recorded_is_all_there_is(tmp_path: Path) -> None:
    measured = as_json([Series("idle", "leader", "%", "-", [3.0])])

    assert merged(tmp_path / "cluster.json", measured) == measured


def test_the_table_of_a_cluster_shows_how_many_values_there_are() -> None:
    measured = as_json([Series("kill", "leader", "s", "-", [0.25, 0.5, 2.0])])

    assert list(cluster_table(measured))[2:] == ["| kill | leader | s | - | 3 | 0.5 | 0.25 | 2 |"]


def test_aims_that_were_missed_or_not_measured_say_so() -> None:
    measured = as_json(
        [
            Series("idle", "leader", "% of a core", "-", [1.0]),
            Series("idle", "a follower", "% of a core", "-", [3.0]),
            Series("kill_until_acknowledged", "first record", "s", "-", [0.5, 1.5, 0.25]),
            Series("batches_100_b", "1,000 x 100 B", "records/s", "-", [500_000]),
            Series("batches_100_b", "10,000 x 100 B", "records/s", "-", [100]),
        ]
    )

    lines = list(aims_table(measured["results"]))

    assert "| 100 B, merging producer: 200,000 records/s | not measured |" in lines
    assert "| 100 B, ready batches of 1,000: 500,000 records/s | 500,000/s |" in lines
    assert "| the same: better a million | 500,000/s: **missed** |" in lines
    assert "| SIGKILL of the leader: less than 2 s without one, at most | 1.5 s |" in lines
    assert "| idle: under 3 % of a core per node | 3 %: **missed** |" in lines


@pytest.mark.parametrize(("ours", "end"), [(101.0, "100/s."), (100.0, "100/s: **missed**.")])
def test_one_record_at_a_time_is_to_be_ahead_of_etcd(ours: float, end: str) -> None:
    series = [
        Series("one_at_a_time", name, "records/s", "power, quorum", [rate])
        for name, rate in (("raftlog", ours), ("etcd", 100.0))
    ]

    said = next(beside_etcd(as_json(series)["results"]))

    assert said == f"One record at a time was to be ahead of etcd's: {ours:.0f}/s against {end}"
    assert list(beside_etcd(as_json(series[:1])["results"])) == []


def test_the_table_of_faults_says_what_was_found_wrong() -> None:
    fault = {"name": "SIGKILL", "times": 2, "median_s": 0.5, "max_s": 1.25}
    measured = {
        "seed": 1,
        "acknowledged": 1000,
        "consumed": 2000,
        "findings": ["a lost record"],
        "faults": [fault],
    }

    lines = list(chaos_table(measured))

    assert "| SIGKILL | 2 | 0.50 s | 1.25 s |" in lines
    assert lines[-1].endswith("Found wrong: a lost record.")


# ── what the system says of a process ───────────────────────────────────────────────────────────────


def test_memory_and_processor_time_of_this_process_are_found() -> None:
    process_id = os.getpid()

    assert processor_s(process_id) > 0
    assert resident_mib(process_id) > 1
    assert written_bytes(process_id) >= 0


def test_the_size_of_files_counts_those_in_folders(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two").write_bytes(b"678")

    assert size_of_files(tmp_path) == 8


# ── compared with others ────────────────────────────────────────────────────────────────────────────


def test_what_is_not_installed_is_left_out_and_the_table_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        return program("no-such-server", "its-package")

    absent = compare.SUBJECTS[2]._replace(version=missing)
    monkeypatch.setattr(compare, "SUBJECTS", (compare.SUBJECTS[0], absent))

    measured = compare.measure(tmp_path, (), runs=1, seconds=0.05, tell=lambda text: None)

    assert {one["subject"] for one in measured["results"]} == {"raftlog"}
    assert {one["case"] for one in measured["results"]} == {
        "one_at_a_time", "one_at_a_time_p50", "one_at_a_time_p99", "64_in_flight", "many", "read_back",
    }  # fmt: skip
    assert list(compare_table(measured))[-1] == (
        "| etcd | left out: there is no no-such-server; `apt-get install its-package` installs it | |"
    )


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ServerMissing, match="no-such-server"):
        program("no-such-server", "its-package")


def test_the_version_is_the_first_number_that_a_program_says() -> None:
    assert version_of("Echo", ["echo", "echo v=7.0.15 build=1.2"]) == "Echo 7.0.15"


def test_redis_commands_and_answers_are_coded_as_its_protocol_says() -> None:
    entries = b"*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nv\r\n$2\r\n\r\n\r\n:1\r\n"

    assert redis.encoded(b"XADD", b"log") == b"*2\r\n$4\r\nXADD\r\n$3\r\nlog\r\n"
    assert redis.decoded(entries, 0) == ([[b"1-0", [b"v", b"\r\n"]]], len(entries) - 4)
    assert redis.decoded(entries, len(entries) - 4) == (1, len(entries))
    with pytest.raises(RuntimeError, match="ERR no"):
        redis.decoded(b"-ERR no\r\n", 0)


def test_messages_of_etcd_are_coded_as_its_descriptions_say() -> None:
    types = message_types()
    request = types["TxnRequest"]()
    request.success.add().request_put.CopyFrom(types["PutRequest"](key=b"k", value=b"v"))

    assert request.SerializeToString() == bytes.fromhex("12 08 12 06 0a 01 6b 12 01 76")
    assert types["RangeResponse"].FromString(bytes.fromhex("12 03 2a 01 76")).kvs[0].value == b"v"


async def _delivered(parts: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    written: list[bytes] = []

    class Transport:
        def write(self, data: bytes) -> None:
            written.append(data)

    connection = Connection()
    connection.transport = Transport()
    for part in parts:
        connection.data_received(part)
    return connection.values, written


def test_records_of_jetstream_are_found_however_the_bytes_are_cut() -> None:
    sent = b"PING\r\nMSG deliver 2 ack 3\r\na\r\n\r\nMSG deliver 2 ack 0\r\n\r\nHMSG deliver 2 flow 12 12\r\nNATS/1.0 100\r\n"
    whole = cluster.run_async(_delivered([sent]))
    one_by_one = cluster.run_async(_delivered([sent[place : place + 1] for place in range(len(sent))]))

    assert whole == one_by_one == ([b"a\r\n", b""], [b"PONG\r\n", b"PUB flow 0\r\n\r\n"])
