"""The bugs of PySyncObj that the simulator has to find, each reached by hand, and what the witness says of it."""

from __future__ import annotations

import pytest

pytest.importorskip("pysyncobj", reason="the optional extra pysyncobj is not installed")

from raftlog.engine import NodeId
from raftlog.sim.pysyncobj.node import Settings
from raftlog.sim.pysyncobj.requests import AddMember, Compact, TransferLeadership
from raftlog.sim.pysyncobj.witness import Broken, Bug
from tests.raftlog.sim.pysyncobj_story import LATE, N1, N2, N3, N4, N5, SOON, Story


def led_by_n1(*names: NodeId, settings: Settings | None = None) -> Story:
    """A cluster that n1 leads; n2 would be the next candidate."""
    story = Story(*names, soon=N1, settings=settings)
    story.run_until(lambda: story.leads(N1))
    story.chances[N1].value, story.chances[N2].value = LATE, SOON
    story.run(0.3)
    return story


def first_finding(story: Story) -> tuple[Broken, Bug, str]:
    finding = story.witness.findings[0]
    return finding.broken, finding.bug, finding.detail


def test_healthy_cluster_breaks_no_promise() -> None:
    story = led_by_n1(N1, N2, N3)

    requests = [story.append(N1, f"v{number}") for number in range(5)]
    story.run(1.0)

    assert story.is_done(*requests)
    assert [story.value(name) for name in (N1, N2, N3)] == [["v0", "v1", "v2", "v3", "v4"]] * 3
    assert story.witness.findings == []


def test_crashed_nodes_with_journals_come_back_with_everything() -> None:
    story = led_by_n1(N1, N2, N3, settings=Settings(compaction_entries_min=3))
    requests = [story.append(N1, f"v{number}") for number in range(5)]
    story.run(1.0)

    for name in (N1, N2, N3):
        story.crash(name)
    for name in (N1, N2, N3):
        story.start(name, (N1, N2, N3))
    story.run(5.0)

    assert story.is_done(*requests)
    assert story.value(N3) == ["v0", "v1", "v2", "v3", "v4"]
    assert story.witness.findings == []


def test_exception_in_a_handler_is_noted_and_the_node_goes_on() -> None:
    story = led_by_n1(N1, N2, N3)
    story.hold(N1, N2)
    requests = [story.append(N1, "v")]
    story.run(0.12)

    story.garble(N1, N2, (("type", "apply_command_response"),))
    story.release(N1, N2)
    requests.append(story.append(N1, "w"))
    story.run(2.0)

    assert story.errors == ["n2 KeyError: 'request_id'"]
    assert story.is_done(*requests)
    assert story.value(N2) == ["v", "w"]


def test_voter_that_forgot_its_vote_at_a_restart_gives_another() -> None:
    """n1's vote from n2 is under way while n2, which keeps nothing, restarts and votes for n3 in the same term."""
    story = Story(N1, N2, N3, soon=N1, keeps=False)
    story.chances[N1].value = LATE
    story.run(0.2)
    for link in ((N1, N3), (N2, N1), (N3, N1)):
        story.hold(*link)

    story.run(0.4)
    story.crash(N2)
    story.start(N2, (N1, N2, N3))
    story.run_until(lambda: story.leads(N3))
    story.release(N2, N1)
    story.run(0.05)

    assert first_finding(story) == (
        Broken.ONE_LEADER,
        Bug.DOUBLE_VOTE,
        "n3 and n1 in term 1; n2 voted for n1 and n3",
    )


def test_follower_takes_commit_index_with_a_snapshot_and_reports_success_for_what_was_never_committed() -> (
    None
):
    """n1 was cut off with writes of its own; the first piece of n2's dump makes it commit them."""
    story = led_by_n1(N1, N2, N3)
    story.cut([N1], [N2, N3])
    lost = [story.append(N1, f"lost{number}") for number in range(3)]
    story.run_until(lambda: story.leads(N2))
    kept = [story.append(N2, f"kept{number}") for number in range(8)]
    story.run(4.0)  # until the connections to n1 are given up
    story.ask(N2, lambda _: Compact())
    story.run(0.5)

    story.mend()
    story.run(3.0)

    assert story.is_done(*lost, *kept)
    assert story.value(N1) == [f"kept{number}" for number in range(8)]
    assert first_finding(story)[:2] == (Broken.ONLY_COMMITTED, Bug.FALSE_COMMIT)


def test_acknowledgement_of_an_old_term_is_counted_in_a_new_one() -> None:
    """n5 acknowledged entries of n1's first term, lost them to n2, and is counted for n1's entries of a later term."""
    story = led_by_n1(N1, N2, N3, N4, N5)
    story.cut([N1], [N2, N3, N4])
    story.hold(N5, N1)
    for number in range(6):
        story.append(N1, f"old{number}")
    story.run_until(lambda: story.leads(N2))
    story.mend()
    story.run_until(lambda: story.disks[N1].entries[-1] == story.disks[N2].entries[-1])
    story.hold(N1, N5)
    story.chances[N1].value, story.chances[N2].value = SOON, LATE
    while not story.is_done(story.ask(N2, lambda request: TransferLeadership(request, N1))):
        story.run(0.01)
    story.run_until(lambda: story.leads(N1))
    story.cut([N1], [N3, N4])

    request = story.append(N1, "new")
    story.run(0.05)
    story.release(N5, N1)
    story.run(0.3)

    assert story.is_done(request)
    broken, bug, detail = first_finding(story)
    assert (broken, bug) == (Broken.MAJORITY, Bug.STALE_ACKNOWLEDGEMENT)
    assert "only on {n1, n2}; n5 is counted for it but never had it" in detail


def test_follower_cuts_off_entries_that_it_acknowledged() -> None:
    """After a reconnection n1 sends the same entries twice, in two messages each; after the first message of the second
    time n2 has lost what n1 committed between them, and n1 crashes."""
    story = led_by_n1(N1, N2, N3, settings=Settings(batch_bytes=100, retry_s=0.1))
    story.crash(N3)
    story.hold(N1, N2)
    requests = [story.append(N1, f"e{number}") for number in range(6)]
    story.run(0.12)
    story.release(N1, N2)
    story.reset(N1, N2)
    story.run(0.02)
    story.run_until(lambda: story.nodes[N2].streams.is_connected(N1))
    story.hold(N2, N1)
    story.run_until(lambda: story.waiting(N2, N1) >= 2)  # two replies, both say where to go on
    story.pass_one(N2, N1)
    story.run(0.12)
    story.hold(N1, N2)
    story.pass_one(N2, N1)
    story.run(0.12)
    story.release(N2, N1)
    story.run(0.06)

    is_done = story.is_done(*requests)
    story.pass_one(N1, N2)
    story.crash(N1)
    story.start(N3, (N1, N2, N3))
    story.run(5.0)

    assert is_done
    assert first_finding(story)[:2] == (Broken.COMMITTED_STAYS, Bug.CUT_OFF)
    assert "e5" not in story.value(N2) + story.value(N3)


def test_two_additions_at_once_make_two_majorities_that_do_not_meet() -> None:
    story = led_by_n1(N1, N2, N3)
    story.cut([N1, N4, N5], [N2, N3])
    for name in (N4, N5):
        story.start(name, (N1, N2, N3, name))

    additions = [
        story.ask(N1, lambda request: AddMember(request, N4)),
        story.ask(N1, lambda request: AddMember(request, N5)),
    ]
    story.run(1.0)
    left = story.append(N1, "left")
    story.run_until(lambda: story.leads(N2))
    right = story.append(N2, "right")
    story.run(1.0)

    assert story.is_done(*additions, left, right)
    assert (story.value(N1), story.value(N2)) == (["left"], ["right"])
    broken, bug, detail = first_finding(story)
    assert (broken, bug) == (Broken.LEADER_HAS_ALL, Bug.SPLIT_BRAIN)
    assert "by votes of {n2, n3} of {n1, n2, n3}" in detail
    assert "committed on {n1, n4, n5} of {n1, n2, n3, n4, n5}" in detail
    assert "n1 took up changes of the members at once, 3:1 and 4:1" in detail
