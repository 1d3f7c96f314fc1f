"""Bugs that bbengfort/raft has, and that this core does not.

Each test is named for what holds here; its docstring says what went wrong there. The numbers are those
of the protocol's defects; what its client, command line and benchmarks get wrong is not here.
"""

from __future__ import annotations

import pytest

from raftlog.engine import Receive, Send, Wake
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.events import (
    Campaign,
    Committed,
    Dropped,
    Propose,
    Refused,
    Unknown,
    Why,
)
from raftlog.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HigherTerm,
    Vote,
    VoteReply,
)
from tests.raftlog.raft.builders import (
    N1,
    N2,
    N3,
    entries,
    make_node,
    payloads,
    react,
    storage_with,
)
from tests.raftlog.raft.cluster import Cluster, led

ADD, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.REMOVE
VOTERS = Configuration((N1, N2, N3))


# ── bbengfort/raft ──────────────────────────────────────────────────────────────────────────────────


def test_restart_keeps_term_vote_and_log() -> None:
    """Defect 1: all three were in memory only."""
    cluster = led()
    cluster.propose(N1, b"kept")
    cluster.settle()
    for name in (N1, N2, N3):
        cluster.crash(name)

    for name in (N1, N2, N3):
        cluster.restart(name)
    before = [(cluster[name].term, cluster[name].vote) for name in (N1, N2, N3)]
    cluster.elect(N2)

    assert before == [(1, N1)] * 3
    assert payloads(cluster.servers[N3].applied) == [b"kept"]


@pytest.mark.parametrize("is_elected", [False, True])
def test_candidate_and_leader_vote_for_no_other_in_their_term(is_elected: bool) -> None:
    """Defect 2: the vote for oneself was not recorded, so there could be two leaders in a term."""
    cluster = Cluster(3, pre_vote=False, check_quorum=False)
    cluster.step(N1, Campaign())
    if is_elected:
        cluster.settle()
    cluster.letters.clear()

    cluster.step(N1, Receive(N2, Vote(1, 9, 1)))

    (reply,) = [letter.message for letter in cluster.letters]
    assert isinstance(reply, VoteReply)
    assert not reply.is_granted


def test_deposed_leader_refuses_proposals_before_it_hears_of_the_next() -> None:
    """Defect 3: it still took itself for the leader; the next proposal, or a heartbeat that was due, ended the process."""
    cluster = led()
    cluster.step(N1, Receive(N3, HigherTerm(2)))

    request = cluster.propose(N1)
    cluster.step(N1, Wake())

    assert cluster.outcome(N1, request) == Refused(Why.NOT_LEADER, None)
    assert cluster.on_the_way(Heartbeat, sender=N1) == []


def test_conflict_at_the_last_entry_is_resolved() -> None:
    """Defect 4: the leader tried the same entry for ever."""
    cluster = Cluster(3, storages={N1: storage_with(VOTERS, 1, 1, 3), N2: storage_with(VOTERS, 1, 1, 2)})
    cluster.crash(N3)
    cluster.now += 3.0
    cluster.step(N1, Campaign())

    count = cluster.settle()

    assert cluster.log(N2) == cluster.log(N1)
    assert count < 20


def test_follower_with_a_longer_log_than_the_leaders_is_no_surprise() -> None:
    """Defect 4: a reply with an index above the leader's log ended the leader's process."""
    cluster = Cluster(
        3, storages={N1: storage_with(VOTERS, 1, 3), N2: storage_with(VOTERS, 1, 2, 2, 2, 2, 2)}
    )
    cluster.crash(N3)
    cluster.now += 3.0
    cluster.step(N1, Campaign())

    cluster.settle()

    assert cluster.log(N2) == cluster.log(N1)


def test_acknowledgement_above_the_leaders_log_is_not_believed() -> None:
    cluster = led()

    cluster.step(N1, Receive(N2, AppendReply(1, match=50)))

    assert cluster.progress(N1, N2).match == 1
    assert cluster.notes(N1, "impossible_reply") == [{"sender": N2, "match": 50, "last": 1}]


def test_leader_that_probes_below_what_the_follower_has_committed_is_answered() -> None:
    """Defect 5: it was refused although the logs matched."""
    node = make_node(N1, 1, 1, 1, 1, commit=4)

    effects = react(node, Receive(N2, Append(1, 2, 1, entries(1, 1, 1, first=3), commit=4)))

    assert [e.message for e in effects if isinstance(e, Send)] == [AppendReply(1, match=4)]


def test_single_node_elects_itself_and_commits() -> None:
    """Defect 6: votes and commits were counted only when a reply came."""
    cluster = Cluster(1)
    cluster.advance(3.0)

    request = cluster.propose(N1)

    assert cluster.outcome(N1, request) == Committed(2, 2, term=1)


def test_candidate_gives_way_to_the_leader_of_its_term() -> None:
    """Defect 7."""
    cluster = Cluster(3, pre_vote=False, check_quorum=False)
    cluster.step(N3, Campaign())
    cluster.take()
    cluster.step(N1, Campaign())
    cluster.settle()

    assert cluster.roles() == {N1: Role.LEADER, N2: Role.FOLLOWER, N3: Role.FOLLOWER}
    assert cluster[N3].term == 1


def test_write_of_an_isolated_leader_ends() -> None:
    """Defect 8: no check-quorum, so it was accepted and never finished."""
    cluster = led(5)
    cluster.isolate(N1, N2)
    request = cluster.propose(N1)

    cluster.advance(10.0)
    waiting = cluster.outcome(N1, request)
    late = cluster.propose(N1)

    assert waiting == Unknown()
    assert getattr(cluster.outcome(N1, late), "why", None) is Why.NOT_LEADER


def test_entries_on_their_way_are_not_sent_with_every_proposal_again() -> None:
    """A2: next moved with replies only, so a hundred proposals in flight sent 5,050 entries."""
    cluster = led()
    cluster.isolate(N3)

    for _ in range(100):
        cluster.propose(N1)

    sent = [letter.message for letter in cluster.on_the_way(Append, to=N2)]
    assert sum(len(append.entries) for append in sent if isinstance(append, Append)) == 100


def test_client_of_a_truncated_entry_is_not_told_that_it_failed() -> None:
    """A2: cutting an entry answered its client "could not be committed", though another node could still commit it."""
    cluster = Cluster(3, pre_vote=False, check_quorum=False)
    cluster.step(N1, Campaign())
    cluster.settle()
    request = cluster.propose(N1, b"x")
    cluster.take()

    cluster.step(N1, Receive(N2, Append(2, 1, 1, entries(2, first=2), commit=1)))
    cut = cluster.outcome(N1, request)
    cluster.step(N1, Receive(N2, Append(2, 2, 2, (), commit=2)))

    assert (cut, cluster.outcome(N1, request)) == (None, Dropped())


def test_proposals_that_wait_are_bounded() -> None:
    """A2: the bound of a batch was that of the queue alone."""
    cluster = led(requests_max=10)
    for request in range(12):
        cluster[N1].step(Propose(900 + request, [b"x"]), cluster.now)

    cluster.drain(N1)

    assert [cluster.outcome(N1, 900 + i) for i in range(12)] == [None] * 10 + [
        Refused(Why.OVERLOADED, N1)
    ] * 2
