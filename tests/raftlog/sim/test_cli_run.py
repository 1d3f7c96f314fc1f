"""`python -m raftlog.sim run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raftlog.raft import RaftNode
from raftlog.sim.cli import run as run_module
from raftlog.sim.cli import run_command_line


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command_line(["run", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_seeds_that_pass_give_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = printed(capsys, "--nodes", "3", "--seeds", "0:3", "--steps", "300")

    assert code == 0
    assert len(out.splitlines()) == 1
    assert out.startswith("raft, 3 nodes: 3 seeds, 0 failed, ")


def test_digest_is_the_same_however_many_processes_share_the_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("--nodes", "3", "--seeds", "0:6", "--steps", "200", "--json")

    _, alone, _ = printed(capsys, *arguments)
    _, shared, _ = printed(capsys, *arguments, "--jobs", "2")

    assert json.loads(alone)["digest"] == json.loads(shared)["digest"]


def test_failing_seed_is_told_with_how_to_replay_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RaftNode, "send_when_durable", RaftNode.send)

    code, out, _ = printed(capsys, "--nodes", "3", "--seeds", "7", "--steps", "300")

    assert code == 1
    assert out.startswith("seed 7: vouched for too early: ")
    assert "replay: python -m raftlog.sim run --protocol raft --nodes 3 --steps 300 --seeds 7 --trace" in out
    assert "1 seeds, 1 failed" in out
    assert out.endswith("\n    1 vouched for too early\n")


def test_json_names_the_failures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftNode, "send_when_durable", RaftNode.send)

    code, out, _ = printed(capsys, "--nodes", "3", "--seeds", "7:9", "--steps", "300", "--json")

    assert code == 1
    assert [failure["seed"] for failure in json.loads(out)["failures"]] == [7, 8]


def test_trace_is_a_chart_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = printed(capsys, "--nodes", "3", "--seeds", "1", "--steps", "100", "--trace")

    assert code == 0
    assert "ms  n1        n2        n3" in out
    assert "n1 started" in out
    assert ">|" in out or "->" in out
    assert "digest" in out.splitlines()[-1]


@pytest.mark.parametrize("seeds", ["", "x", "1:x", "-1:3", ":", "3:3", "5:3"])
def test_seeds_that_are_none_are_refused(capsys: pytest.CaptureFixture[str], seeds: str) -> None:
    code, _, err = printed(capsys, f"--seeds={seeds}")

    assert code == 2
    assert "--seeds" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nodes", "0"),
        ("--nodes", "10"),
        ("--steps", "0"),
        ("--jobs", "0"),
        ("--trace", "--json"),
        ("--trace", "--jobs", "2"),
        ("--as-drawn",),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = printed(capsys, *arguments)

    assert code == 2
    assert out == ""
    assert any(argument in err.splitlines()[-1] for argument in arguments)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("paxos", "neither one of raft, "),
        ("no_such_module:PAXOS", "No module named 'no_such_module'"),
        ("json:", "nor MODULE:NAME of your own"),
        (".json:PAXOS", "nor MODULE:NAME of your own"),
        ("json:PAXOS", "expected a ProtocolUnderTest, found None"),
    ],
)
def test_protocol_that_is_none_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    code, out, err = printed(capsys, "--protocol", name)

    assert (code, out) == (2, "")
    assert err.startswith(f"run: {name}: ")
    assert why in err
    assert err.count("\n") == 1


def test_protocol_whose_package_is_missing_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.startswith("raftlog.sim.pysyncobj")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pysyncobj", None)

    code, _, err = printed(capsys, "--protocol", "pysyncobj")

    assert code == 2
    assert err == "run: pysyncobj: PySyncObj is not installed: pip install 'raftlog[pysyncobj]'\n"


def test_protocol_of_ones_own_is_run_by_the_name_of_its_module(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "tests.raftlog.sim.primary_backup:PRIMARY_BACKUP"

    code, out, _ = printed(capsys, "--protocol", name, "--nodes", "3", "--seeds", "0:2", "--steps", "200")

    assert code == 0
    assert out.startswith(f"{name}, 3 nodes: 2 seeds, 0 failed, ")


def test_interrupted_run_says_what_was_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds_run: list[int] = []

    def run_two(settings: object, seed: int) -> object:
        if seeds_run:
            raise KeyboardInterrupt
        seeds_run.append(seed)
        return original(settings, seed)

    original: Any = run_module._run_one
    monkeypatch.setattr(run_module, "_run_one", run_two)

    code, out, _ = printed(capsys, "--nodes", "3", "--seeds", "0:5", "--steps", "100")

    assert code == 130
    assert "1 seeds, 0 failed" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_no_verdict_on_the_protocol() -> None:
    command = [sys.executable, "-m", "raftlog.sim", "run", "--nodes=3", "--seeds=0", "--steps=10"]

    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "python -m raftlog.sim: [Errno 28] No space left on device\n"
