"""Questions over streams in the simulated world, by a toy protocol: each node answers with what it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raftlog.engine import Answered, Ask, Asked, Effect, Emit, NodeId, Receive, Reply, Send, Unanswered
from raftlog.sim.cluster import Cluster
from raftlog.sim.disk import DiskSpeed
from raftlog.sim.models import Request
from raftlog.sim.network import PERFECT, Weather, both_ways
from raftlog.sim.process import Process
from raftlog.sim.simulation import draw_scenario as drawn
from raftlog.sim.simulation import node_names, run
from raftlog.sim.subject import Claims, ProtocolUnderTest, Violation
from raftlog.sim.world import MILLISECOND, SECOND, World

N1, N2 = NodeId("n1"), NodeId("n2")
TIMEOUT_S = 0.1


class Echo:
    """Asks what it is told to (`Ask` as an event), answers with what it is asked, and emits what becomes of it all."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []

    def step(self, event: Any, now: float) -> None:
        match event:
            case Ask() | Send():
                self.effects.append(event)
            case Asked(request=request, message=message):
                self.effects += [Emit(event), Reply(request, message)]
            case _:
                self.effects.append(Emit(event))

    def drain(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def deadline(self) -> float | None:
        return None


class Nothing:
    """What is on the disks."""

    def write(self, write: Any) -> None:
        raise AssertionError(write)

    def write_torn(self, write: Any, random: Random) -> None:
        raise AssertionError(write)


class EchoSubject:
    def __init__(self, cluster: Cluster, node_count: int, random: Random) -> None:
        self.cluster = cluster
        self.names = node_names(node_count)
        self.told: list[tuple[int, NodeId, Any]] = []  # time in microseconds, who, what

    def first_nodes(self) -> Sequence[NodeId]:
        return self.names

    def make_image(self, node: NodeId) -> Nothing:
        return Nothing()

    def start(self, process: Process, now: float, random: Random) -> Echo:
        return Echo()

    def stopped(self, process: Process) -> None:
        pass

    def submit(self, process: Process, request: int, operation: Request) -> None:
        raise AssertionError(operation)

    def replied(self, process: Process, reply: Reply) -> None:
        raise AssertionError(reply)

    def emitted(self, process: Process, event: Any) -> None:
        self.told.append((self.cluster.world.now_us, process.node, event))

    def apply(self, process: Process, entries: Sequence[Any]) -> int:
        raise AssertionError(entries)

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        pass

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        pass

    def leader(self) -> NodeId | None:
        return None

    def act(self, name: str, choice: int) -> None:
        raise AssertionError(name)

    def cores(self, random: Random) -> Sequence[NodeId]:
        return self.names

    def bears_the_deaf(self) -> bool:
        return True

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        return True

    def may_have_happened(self, request: int) -> bool:
        return True

    def finish(self) -> None:
        pass


ECHO = ProtocolUnderTest(Claims(serves_clients=False), EchoSubject)


class Stage:
    """Two nodes that are up."""

    def __init__(self, weather: Weather = PERFECT, seed: int = 1) -> None:
        speed = DiskSpeed(sync_us=1, jitter_us=1)
        self.cluster = Cluster(World(seed), ECHO, 2, weather=weather, disk_speed=speed)
        for node in (N1, N2):
            self.cluster.start(node)

    @property
    def told(self) -> list[tuple[NodeId, Any]]:
        assert isinstance(self.cluster.subject, EchoSubject)
        return [(node, event) for _, node, event in self.cluster.subject.told]

    def ask(self, request: int, to: NodeId = N2) -> None:
        self.cluster.processes[N1].happen(Ask(request, to, f"question {request}", TIMEOUT_S))

    def wait(self, seconds: float = 1.0) -> None:
        world = self.cluster.world
        world.run(until_us=world.now_us + int(seconds * SECOND))


UNANSWERED = (N1, Unanswered(1, "no answer in time"))


def test_an_answer_comes_to_whoever_asked_once_for_each_question() -> None:
    stage = Stage()

    stage.ask(1)
    stage.ask(7)
    stage.wait()

    assert [event for node, event in stage.told if node == N2] == [
        Asked(-1, N1, "question 1"),
        Asked(-2, N1, "question 7"),
    ]
    assert [event for node, event in stage.told if node == N1] == [
        Answered(1, "question 1"),
        Answered(7, "question 7"),
    ]


def test_questions_and_answers_are_not_repeated_where_messages_are() -> None:
    stage = Stage(replace(PERFECT, repeated=1.0))

    stage.ask(1)
    stage.cluster.processes[N1].happen(Send(N2, "message"))
    stage.wait()

    assert stage.told.count((N1, Answered(1, "question 1"))) == 1
    assert stage.told.count((N2, Asked(-1, N1, "question 1"))) == 1
    assert stage.told.count((N2, Receive(N1, "message"))) == 2


def test_a_lost_question_is_unanswered_when_the_patience_is_over_by_the_clock_of_the_asker() -> None:
    stage = Stage(replace(PERFECT, lost=1.0))
    stage.cluster.processes[N1].set_clock_rate(2.0)

    stage.ask(1)
    stage.wait()

    assert isinstance(stage.cluster.subject, EchoSubject)
    assert stage.cluster.subject.told == [(int(TIMEOUT_S / 2.0 * SECOND), *UNANSWERED)]


@pytest.mark.parametrize("cut", [[(N1, N2)], [(N2, N1)]], ids=["there", "back"])
def test_a_question_or_an_answer_that_meets_a_cut_is_unanswered(cut: list[tuple[NodeId, NodeId]]) -> None:
    stage = Stage()
    stage.cluster.network.cut(cut)

    stage.ask(1)
    stage.wait()

    assert stage.told[-1] == UNANSWERED


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    stage = Stage(Weather(delay_us=80 * MILLISECOND, jitter_us=0))

    stage.ask(1)
    stage.wait()

    assert stage.told == [(N2, Asked(-1, N1, "question 1")), UNANSWERED]


def test_a_process_that_is_down_refuses_or_its_machine_is_silent() -> None:
    outcomes = set()
    for seed in range(20):
        stage = Stage(seed=seed)
        stage.cluster.processes[N2].crash()
        stage.ask(1)
        stage.wait()
        outcomes.update(stage.told)

    assert outcomes == {(N1, Unanswered(1, "connection refused")), UNANSWERED}


def test_nobody_answers_for_a_node_that_is_not_there() -> None:
    stage = Stage()

    stage.ask(1, to=NodeId("n9"))
    stage.wait()

    assert stage.told == [UNANSWERED]


def test_a_paused_process_answers_after_the_pause() -> None:
    stage = Stage()
    stage.cluster.processes[N2].pause()

    stage.ask(1)
    stage.wait(TIMEOUT_S / 2)
    stage.cluster.processes[N2].resume()
    stage.wait()

    assert stage.told == [(N2, Asked(-1, N1, "question 1")), (N1, Answered(1, "question 1"))]


def test_a_process_that_began_anew_is_not_told_of_what_it_asked_before() -> None:
    stage = Stage()

    stage.ask(1)
    stage.cluster.processes[N1].crash()
    stage.cluster.start(N1)
    stage.ask(1)
    stage.wait()

    assert stage.told.count((N1, Answered(1, "question 1"))) == 1
    assert stage.told.count((N2, Asked(-2, N1, "question 1"))) == 1
    assert len(stage.told) == 3


def test_an_answer_of_a_process_that_began_anew_in_between_never_comes() -> None:
    stage = Stage()
    stage.cluster.processes[N2].pause()

    stage.ask(1)
    stage.wait(TIMEOUT_S / 2)
    stage.cluster.processes[N2].crash()
    stage.cluster.start(N2)
    stage.wait()

    assert stage.told == [UNANSWERED]


def test_a_protocol_without_clients_is_asked_nothing_and_still_has_to_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = drawn(ECHO, nodes=3, seed=1, steps=100)
    assert scenario.errands == []
    assert run(ECHO, scenario).failure is None

    monkeypatch.setattr(EchoSubject, "has_converged", lambda subject, core: False)

    failure = run(ECHO, scenario).failure
    assert failure is not None and failure.kind == "no convergence"


def test_what_a_protocol_finds_in_what_it_is_told_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def emitted(subject: EchoSubject, process: Process, event: Any) -> None:
        raise Violation("told", repr(event))

    monkeypatch.setattr(EchoSubject, "emitted", emitted)
    stage = Stage()
    stage.ask(1)

    with pytest.raises(Violation, match="question 1"):
        stage.wait()


def test_a_cut_both_ways_keeps_questions_back_as_it_does_messages() -> None:
    stage = Stage(replace(PERFECT, kept=1.0))
    cut = stage.cluster.network.cut(both_ways([N1], [N2]))

    stage.ask(1)
    stage.wait(TIMEOUT_S / 2)
    stage.cluster.network.mend(cut)
    stage.wait()

    assert stage.told[-1] == (N1, Answered(1, "question 1"))
