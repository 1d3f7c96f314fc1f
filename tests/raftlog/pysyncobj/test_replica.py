"""Where PySyncObj would lose what it acknowledged: the shortest story of each, in which it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import Config
from raftlog.engine import NodeId
from raftlog.errors import NodeFailed
from raftlog.pysyncobj.codec import Fields
from raftlog.pysyncobj.journal import Journal
from raftlog.pysyncobj.replica import Replica

N1, N2, N3, STRANGER = NodeId("n1"), NodeId("n2"), NodeId("n3"), NodeId("n9")
NOTHING = b"\1"


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Node n1 of three, which campaigns only if it is told to."""
    members = {N1: "h:1", N2: "h:2", N3: "h:3"}
    journal = Journal(tmp_path, Config(), node=N1, cluster_id="c", members=members)
    replica = Replica(journal, election_timeout_s_min=60.0, election_timeout_s_max=61.0, may_campaign=True)
    yield replica
    replica.destroy()


def append(*terms: int, before: tuple[int, int], committed: int = 1, term: int = 5) -> Fields:
    """From a leader of `term`, of entries of these terms, behind the entry with this index and term."""
    index, before_term = before
    entries = [(NOTHING, index + number, of) for number, of in enumerate(terms, 1)]
    return {
        "type": "append_entries", "term": term, "commit_index": committed, "prevLogIdx": index, "prevLogTerm": before_term,
        "entries": entries,
    }  # fmt: skip


def terms(replica: Replica) -> list[int]:
    """Of the entries behind the first."""
    return [term for _, _, term in replica.journal[1:]]


def answers(replica: Replica) -> list[tuple[int, bool]]:
    """Of each answer up to where it says that the log is the leader's, and whether it says so."""
    return [(fields["next_node_idx"] - 1, fields["success"]) for _, fields in replica.outbox.take()]


def test_an_append_that_comes_again_cuts_off_nothing_that_was_acknowledged(replica: Replica) -> None:
    replica.receive(N2, append(4, 4, 5, before=(1, 0)))
    replica.receive(N2, append(4, before=(1, 0)))
    replica.receive(N2, append(before=(2, 4)))

    assert terms(replica) == [4, 4, 5]
    assert answers(replica) == [(4, True), (2, True), (2, True)]


def test_an_append_that_overlaps_adds_what_is_new(replica: Replica) -> None:
    replica.receive(N2, append(4, 4, before=(1, 0)))
    replica.receive(N2, append(4, 5, 5, before=(2, 4)))

    assert terms(replica) == [4, 4, 5, 5]
    assert answers(replica) == [(3, True), (5, True)]


def test_what_contradicts_the_leader_is_cut_off(replica: Replica) -> None:
    replica.receive(N2, append(3, 3, 3, before=(1, 0), term=3))
    replica.receive(N3, append(3, 4, before=(1, 0), term=4))

    assert terms(replica) == [3, 4]
    assert answers(replica) == [(4, True), (3, True)]


def test_entries_of_which_the_leader_says_nothing_are_not_committed(replica: Replica) -> None:
    replica.receive(N2, append(3, 3, 3, before=(1, 0), term=3))

    replica.receive(N3, append(before=(2, 3), committed=4, term=4))

    assert (terms(replica), replica.raftCommitIndex) == ([3, 3, 3], 2)


def test_an_append_that_does_not_fit_is_asked_for_from_further_back(replica: Replica) -> None:
    replica.receive(N2, append(4, before=(1, 0)))
    replica.receive(N2, append(5, before=(9, 5)))
    replica.receive(N2, append(5, before=(2, 5)))  # of another term there: from one entry before

    assert answers(replica) == [(2, True), (2, False), (1, False)]


def test_a_leader_that_contradicts_what_is_committed_stops_the_node(replica: Replica) -> None:
    replica.receive(N2, append(4, 4, before=(1, 0), committed=3))

    with pytest.raises(NodeFailed, match="entry 3"):
        replica.receive(N3, append(4, 5, before=(1, 0), committed=3))

    assert terms(replica) == [4, 4]


def elect(replica: Replica, voter: NodeId) -> None:
    replica._SyncObj__raftElectionDeadline = 0.0
    replica.outbox.connected(voter)
    replica.tick()
    replica.receive(voter, {"type": "response_vote", "term": replica.raftCurrentTerm})
    assert replica._isLeader()
    replica.journal.flush()


def acknowledgement(up_to: int, term: int) -> Fields:
    return {
        "type": "next_node_idx",
        "term": term,
        "next_node_idx": up_to + 1,
        "reset": False,
        "success": True,
    }


def test_an_acknowledgement_of_another_term_counts_for_nothing(replica: Replica) -> None:
    elect(replica, N2)
    replica.receive(N2, append(5, before=(1, 0), term=5))  # another leads meanwhile
    elect(replica, N2)
    assert replica.raftCurrentTerm == 6

    for term in (1, 7):
        replica.receive(N3, acknowledgement(3, term))
        replica.tick()
    assert replica.raftCommitIndex == 1

    replica.receive(N3, acknowledgement(3, 6))
    replica.tick()
    assert replica.raftCommitIndex == 3


def test_who_is_no_member_is_heard_only_as_a_leader(replica: Replica) -> None:
    replica.receive(STRANGER, {"type": "request_vote", "term": 99, "last_log_index": 9, "last_log_term": 9})
    replica.receive(STRANGER, acknowledgement(9, 0))

    assert (replica.raftCurrentTerm, replica.outbox.take()) == (0, [])
    replica.receive(STRANGER, append(5, before=(1, 0)))
    assert (replica.raftCurrentTerm, replica.leader, terms(replica)) == (5, STRANGER, [5])


def test_a_command_that_would_go_to_the_leader_is_refused_instead(replica: Replica) -> None:
    replica.receive(N2, append(before=(1, 0)))
    told: list[int] = []

    replica.append_nothing(lambda _, reason: told.append(reason))
    replica.tick()
    replica.tick()

    assert told == [4]  # FAIL_REASON.NOT_LEADER
    assert [fields["type"] for _, fields in replica.outbox.take()] == ["next_node_idx"]
