"""At its end, a run of Raft is judged by its log as appenders and nodes saw it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.engine import NodeId
from raftlog.raft import proposals
from raftlog.raft.events import Dropped, Propose
from raftlog.raft.leader import Leader
from raftlog.raft.messages import Entry, EntryKind
from raftlog.sim.log_checker import Disagreement, Duplicate, LostWrite
from raftlog.sim.protocols import protocol
from raftlog.sim.raft.checks import Checks
from raftlog.sim.raft.log_witness import LogWitness
from raftlog.sim.simulation import draw_scenario, run
from raftlog.sim.subject import Violation

RAFT = protocol("raft")
N1, N2 = NodeId("n1"), NodeId("n2")


def command(index: int, data: bytes) -> Entry:
    return Entry(index, 1, EntryKind.COMMAND, data)


def no_op(index: int) -> Entry:
    return Entry(index, 1, EntryKind.NO_OP, b"")


def agreeing() -> LogWitness:
    """n1 has applied three entries, n2 has the first two from a snapshot; x was acknowledged at 2, y is open."""
    witness = LogWitness()
    witness.begins(N1, 0)
    witness.asked(7, b"x")
    witness.asked(8, b"y")
    witness.applied(N1, no_op(1))
    witness.applied(N1, command(2, b"x"))
    witness.told_committed(7, 2)
    witness.snapshot_made(N1, 2)
    witness.applied(N1, command(3, b"y"))
    witness.begins(N2, 2)
    witness.applied(N2, command(3, b"y"))
    return witness


def kinds_found(steps: int = 1_500) -> list[str]:
    """What is wrong with each of some runs."""
    scenarios = (draw_scenario(RAFT, nodes=3, seed=seed, steps=steps) for seed in range(20))
    return [failure.kind for scenario in scenarios if (failure := run(RAFT, scenario).failure) is not None]


@pytest.mark.parametrize("node", [N1, N2])
def test_nodes_that_agree_are_well_whether_by_entries_or_by_a_snapshot(node: NodeId) -> None:
    witness = agreeing()

    assert witness.findings(node) == []


def test_acknowledged_entry_that_the_cluster_does_not_have_at_the_end_is_lost() -> None:
    witness = agreeing()
    witness.asked(9, b"z")
    witness.told_committed(9, 4)

    assert witness.findings(N2) == [LostWrite(4, "z", "request 9", "the log at the end")]


def test_entry_at_two_indexes_is_a_duplicate() -> None:
    witness = agreeing()
    witness.applied(N2, command(4, b"x"))

    assert witness.findings(N2) == [Duplicate("x", (2, 4))]


def test_nodes_that_disagree_about_an_index_are_found_even_if_one_of_them_began_anew() -> None:
    witness = agreeing()
    witness.asked(9, b"z")
    witness.begins(N1, 2)
    witness.applied(N1, command(3, b"z"))

    assert witness.findings(N1) == [Disagreement(3, (("y", "n1"), ("z", "n1")))]


def test_entry_that_was_told_to_be_dropped_and_is_applied_ends_the_run() -> None:
    witness = agreeing()
    witness.told_dropped(8)

    with pytest.raises(Violation, match=r"^the log: aborted read: .*request 8.* 3 findings in all$"):
        witness.finish(N1)


def test_core_that_appends_twice_is_found_by_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def propose_twice(leader: Leader, event: Propose) -> None:
        propose(leader, replace(event, payloads=[*event.payloads, *event.payloads]))

    propose = Leader.propose
    monkeypatch.setattr(Leader, "propose", propose_twice)

    found = kinds_found(steps=300)

    assert set(found) == {"the log: duplicate"}


def test_core_that_calls_dropped_what_may_be_committed_is_found_by_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposals, "Unknown", Dropped)
    monkeypatch.setattr(Checks, "told_dropped", lambda *_: None)  # it would see that, too, and at once

    found = kinds_found()

    assert set(found) == {"the log: aborted read"}
