"""Nodes of Serf in the simulated world, and that the world notices when something in them is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest

from raftlog.engine import NodeId
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import FAST
from raftlog.serf.events import Status
from raftlog.serf.lamport import LamportClock
from raftlog.serf.members import MemberTable
from raftlog.serf.node import SerfNode
from raftlog.serf.swim import claims
from raftlog.serf.swim.claims import Claims
from raftlog.serf.swim.precedence import Verdict
from raftlog.serf.user_events import UserEvents
from raftlog.sim.cli import run_command_line
from raftlog.sim.cluster import Cluster
from raftlog.sim.faults import Act, Drift, Planned
from raftlog.sim.network import PERFECT
from raftlog.sim.protocols import protocol
from raftlog.sim.serf import subject as subject_module
from raftlog.sim.serf.subject import SerfSubject
from raftlog.sim.simulation import Failure, Scenario, draw_scenario, run
from raftlog.sim.world import SECOND

SERF = protocol("serf")
SEEDS = 30  # of 3 nodes, and as many of 5; docs/gossip.md has the command for more
SEEDS_AT_ONCE = 10
COMMAND = ("-m", "raftlog.sim", "run", "--protocol", "serf", "--nodes", "3", "--seeds", "0:6", "--json")
CALM_ACTS = ("leave", "come back", "join", "set tags", "user event", "query", "rotate key")


def scenario_of(seed: int, nodes: int = 3, steps: int = 1_500) -> Scenario:
    return draw_scenario(SERF, nodes=nodes, seed=seed, steps=steps)


def first_failure(seeds: range) -> Failure:
    for seed in seeds:
        failure = run(SERF, scenario_of(seed)).failure
        if failure is not None:
            print(f"seed {seed}: {failure}")
            return failure
    raise AssertionError(f"nothing found in {seeds}")


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
@pytest.mark.parametrize("nodes", [3, 5])
def test_serf_survives_the_world(nodes: int, first: int) -> None:
    seeds = f"--seeds={first}:{first + SEEDS_AT_ONCE}"

    code = run_command_line(["run", "--protocol=serf", f"--nodes={nodes}", seeds])

    assert code == 0, "what is printed says which seeds failed, and how to replay them"


@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_serf_survives_the_world_with_few_nodes_or_many(nodes: int) -> None:
    code = run_command_line(["run", "--protocol=serf", f"--nodes={nodes}", "--seeds=0:5"])

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


@pytest.mark.parametrize("seed", range(8))
def test_where_a_twentieth_is_lost_and_nobody_crashes_nobody_is_said_to_have_failed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects: list[SerfSubject] = []

    def make(cluster: Cluster, node_count: int, random: Random) -> SerfSubject:
        subjects.append(SerfSubject(cluster, node_count, random))
        return subjects[0]

    def all_that_stay(subject: SerfSubject, random: Random) -> list[NodeId]:
        return [process.node for process in subject._up()]

    monkeypatch.setattr(subject_module, "draw_config", lambda random: FAST)
    monkeypatch.setattr(SerfSubject, "cores", all_that_stay)
    scenario = scenario_of(seed, nodes=5, steps=6_000)
    random = Random(seed)
    times = sorted(random.randrange(4 * SECOND) for _ in range(30))
    faults: list[Planned] = [
        *(planned for planned in scenario.plan.faults if isinstance(planned.fault, Drift)),
        *(Planned(time, Act(random.choice(CALM_ACTS), random.getrandbits(32))) for time in times),
    ]
    plan = scenario.plan._replace(weather=replace(PERFECT, lost=0.05, repeated=0.05), faults=faults)

    result = run(SERF._replace(make=make), scenario._replace(plan=plan))

    print(f"seed {seed}: {result}")
    assert result.failure is None
    assert subjects[0].checks.failures_told == 0


# ── broken in one place ──


def test_a_node_that_refutes_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claims, "_refute", lambda claims, incarnation: None)

    assert first_failure(range(10)).kind == "no convergence"


def test_a_claim_that_beats_newer_ones_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "verdict", lambda claim, claimed, **known: Verdict.TAKE)

    assert first_failure(range(10)).kind == "an incarnation went back"


def test_a_clock_that_goes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def witness(clock: LamportClock, time: int) -> None:
        clock.time = time + 1

    monkeypatch.setattr(LamportClock, "witness", witness)

    assert first_failure(range(10)).kind == "a Lamport clock went back"


def test_an_event_that_is_told_whenever_it_comes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UserEvents, "take", lambda events, event: True)

    assert first_failure(range(10)).kind == "a user event came twice"


def test_packets_larger_than_they_may_be_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codec, "overhead", lambda codec: -2_000)

    assert first_failure(range(30)).kind == "a packet above its limit"


def test_a_node_that_goes_on_after_its_goodbye_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerfNode, "has_left", False)

    assert first_failure(range(30)).kind == "spoke after it had left"


def test_a_goodbye_that_is_taken_for_a_failure_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = MemberTable.gone

    def forgetful(table: MemberTable, name: str, *, said_so: bool, now: float) -> None:
        member = table.get(name)
        if member is not None and member.status is Status.LEAVING:
            member.status = Status.ALIVE
        gone(table, name, said_so=False, now=now)

    monkeypatch.setattr(MemberTable, "gone", forgetful)

    assert first_failure(range(30)).kind == "who was leaving is said to have failed"
