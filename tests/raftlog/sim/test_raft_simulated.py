"""Our Raft in the simulated world, and that the world notices when something in it is broken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raftlog.raft import RaftNode
from raftlog.raft.follower import Follower
from raftlog.raft.leader import Leader
from raftlog.raft.log import RaftLog
from raftlog.sim.cli import run_command_line
from raftlog.sim.protocols import protocol
from raftlog.sim.shrink import shrink
from raftlog.sim.simulation import Result, Scenario, draw_scenario, run

RAFT = protocol("raft")
SEEDS = 150  # of 3 nodes, and as many of 5; docs/simulator.md has the command for more
SEEDS_AT_ONCE = 10  # in one test: enough tests for every core of a machine
COMMAND = ("-m", "raftlog.sim", "run", "--protocol", "raft", "--nodes", "3", "--seeds", "0:6", "--json")


def scenario_of(seed: int, nodes: int = 3, steps: int = 1_500) -> Scenario:
    return draw_scenario(RAFT, nodes=nodes, seed=seed, steps=steps)


def first_failure(seeds: range) -> Result:
    for seed in seeds:
        result = run(RAFT, scenario_of(seed))
        if result.failure is not None:
            print(f"seed {seed}: {result.failure}")
            return result
    raise AssertionError(f"nothing found in {seeds}")


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
@pytest.mark.parametrize("nodes", [3, 5])
def test_raft_survives_the_world(nodes: int, first: int) -> None:
    code = run_command_line(["run", f"--nodes={nodes}", f"--seeds={first}:{first + SEEDS_AT_ONCE}"])

    assert code == 0, "what is printed says which seeds failed, and how to replay them"


@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_raft_survives_the_world_with_few_nodes_or_many(nodes: int) -> None:
    code = run_command_line(["run", f"--nodes={nodes}", "--seeds=0:10"])

    assert code == 0, "what is printed says which seeds failed, and how to replay them"


def test_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    outputs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, *COMMAND], env=environment, capture_output=True, check=True, text=True
        )
        outputs.append([line for line in done.stdout.splitlines() if "per_second" not in line])

    assert outputs[0] == outputs[1]
    assert any("digest" in line for line in outputs[0])


def test_reply_that_does_not_wait_for_the_disk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftNode, "send_when_durable", RaftNode.send)

    failure = first_failure(range(5)).failure

    assert failure is not None and failure.kind == "vouched for too early"


def test_follower_that_does_not_look_for_the_entry_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "matches", lambda log, index, term: index <= log.last_index)

    failure = first_failure(range(100)).failure

    assert failure is not None and failure.kind in (
        "log matching",
        "state machine safety",
    )  # whichever is met first


def test_leader_that_answers_reads_without_a_quorum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_has_lease", True)

    failure = first_failure(range(100)).failure

    assert failure is not None and failure.kind == "stale read"


def test_follower_that_answers_no_heartbeat_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def append_only(follower: Follower, sender: object, message: object) -> None:
        if type(message).__name__ == "Append":
            receive(follower, sender, message)  # type: ignore[arg-type]

    receive = Follower.receive
    monkeypatch.setattr(Follower, "receive", append_only)

    failure = first_failure(range(20)).failure

    assert failure is not None and failure.kind == "no convergence"


def test_failing_scenario_is_made_shorter_and_fails_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_has_lease", True)
    failing = first_failure(range(100))
    scenario = scenario_of(failing.seed)

    shrunk = shrink(RAFT, scenario, failing, runs_max=200)

    assert shrunk.result.failure is not None and failing.failure is not None
    assert shrunk.result.failure.kind == failing.failure.kind
    assert run(RAFT, shrunk.scenario) == shrunk.result
    assert len(shrunk.scenario.errands) < len(scenario.errands) / 2
    assert shrunk.runs <= 200
