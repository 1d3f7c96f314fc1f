"""What must be on the disk before it is said (paper, figure 2 "persistent state"; dissertation 3.8)."""

from __future__ import annotations

import pytest

from raftlog.engine import Persist, Persisted, Receive, Send, Token, Wake
from raftlog.raft import Role
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Campaign, Committed
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from raftlog.raft.storage import HardState, SnapshotPart, Write
from tests.raftlog.raft.builders import N1, N2, N3, entries, make_node, payloads, react
from tests.raftlog.raft.cluster import Cluster

FIRST, SECOND = Token(1), Token(2)


def test_vote_waits_for_the_disk() -> None:
    node = make_node(N1)

    effects = react(node, Receive(N2, Vote(term=1, last_index=0, last_term=0)))

    assert effects == [
        Persist(FIRST, Write(HardState(1, N2), entries=[])),
        Send(N2, VoteReply(1, is_granted=True), after=FIRST),
    ]


def test_refused_vote_waits_for_the_term_on_the_disk() -> None:
    node = make_node(N1, 1)

    effects = react(node, Receive(N2, Vote(term=2, last_index=0, last_term=0)))

    assert effects == [
        Persist(FIRST, Write(HardState(2, None), entries=[])),
        Send(N2, VoteReply(2, is_granted=False), after=FIRST),
    ]


def test_acknowledgement_waits_for_the_entries_on_the_disk() -> None:
    node, sent = make_node(N1, term=1), entries(1, 1)

    effects = react(node, Receive(N2, Append(1, prev_index=0, prev_term=0, entries=sent, commit=1)))

    assert effects == [
        Persist(FIRST, Write(entries=sent, commit=1)),
        Send(N2, AppendReply(1, match=2), after=FIRST),
    ]


def test_repeated_append_is_acknowledged_only_when_the_first_is_durable() -> None:
    node, append = make_node(N1, term=1), Append(1, 0, 0, entries(1, 1), commit=0)
    react(node, Receive(N2, append))

    effects = react(node, Receive(N2, append))

    assert effects == [Send(N2, AppendReply(1, match=2), after=FIRST)]


def test_repeated_append_is_acknowledged_at_once_when_all_is_durable() -> None:
    node, append = make_node(N1, 1, 1), Append(1, 0, 0, entries(1, 1), commit=0)

    effects = react(node, Receive(N2, append))

    assert effects == [Send(N2, AppendReply(1, match=2))]


def test_what_arrives_together_is_written_together() -> None:
    """Group commit: one write, and every reply waits for it."""
    node = make_node(N1, term=1)

    effects = react(
        node,
        Receive(N2, Append(1, 0, 0, entries(1, 1), commit=0)),
        Receive(N2, Append(1, 2, 1, entries(1, first=3), commit=0)),
    )

    assert effects == [
        Persist(FIRST, Write(entries=entries(1, 1, 1))),
        Send(N2, AppendReply(1, match=2), after=FIRST),
        Send(N2, AppendReply(1, match=3), after=FIRST),
    ]


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (Append(2, 5, 2, (), commit=0), AppendRejected(2, prev_index=5, hint_index=1, hint_term=1)),
        (
            SnapshotChunk(2, Snapshot(9, 2, Configuration((N1, N2, N3)), 4), 0, b"ab", is_last=False),
            SnapshotReply(2, 9, 2),
        ),
        (
            SnapshotChunk(2, Snapshot(9, 2, Configuration((N1, N2, N3)), 4), 0, b"abcd", is_last=True),
            AppendReply(2, 9),
        ),
    ],
)
def test_whatever_else_vouches_for_the_disk_waits_for_it(message: Message, reply: Message) -> None:
    node = make_node(N1, 1)

    effects = react(node, Receive(N2, message))

    assert isinstance(effects[0], Persist)
    assert effects[1:] == [Send(N2, reply, after=FIRST)]


def test_later_term_is_told_only_when_it_is_durable() -> None:
    node = make_node(N1)
    react(node, Receive(N2, Vote(term=5, last_index=0, last_term=0)))

    effects = react(node, Receive(N3, Append(4, 0, 0, (), commit=0)))

    assert effects == [Send(N3, HigherTerm(5), after=FIRST)]


def test_pre_vote_writes_nothing() -> None:
    """9.6: neither the term nor the vote of who is asked moves."""
    node = make_node(N1)

    effects = react(node, Receive(N2, PreVote(term=1, last_index=0, last_term=0)))

    assert effects == [Send(N2, PreVoteReply(1, is_granted=True))]
    assert (node.term, node.vote) == (0, None)


def test_parts_of_a_snapshot_are_written_in_order() -> None:
    node = make_node(N1, term=1)
    snapshot = Snapshot(9, 1, Configuration((N1, N2, N3)), 4)

    effects = react(
        node,
        Receive(N2, SnapshotChunk(1, snapshot, 0, b"ab", is_last=False)),
        Receive(N2, SnapshotChunk(1, snapshot, 2, b"cd", is_last=True)),
        Receive(N2, Append(1, 9, 1, entries(1, first=10), commit=9)),
    )

    persists = [effect for effect in effects if isinstance(effect, Persist)]
    assert [(p.write.snapshot, list(p.write.entries)) for p in persists] == [
        (SnapshotPart(snapshot, 0, b"ab", is_last=False), []),
        (SnapshotPart(snapshot, 2, b"cd", is_last=True), entries(1, first=10)),
    ]


def test_crash_before_the_write_forgets_the_vote_that_nobody_was_told_of() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.hold_disk(N3)
    cluster.campaign(N1)
    cluster.settle(until=lambda: cluster[N3].vote == N1)
    told = cluster.on_the_way(VoteReply, sender=N3)
    cluster.crash(N3)

    cluster.restart(N3)

    assert told == []
    assert (cluster[N3].term, cluster[N3].vote) == (0, None)


def test_crash_after_the_write_does_not_allow_a_second_vote_in_the_term() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.campaign(N1)
    cluster.settle()
    cluster.crash(N3)
    cluster.restart(N3)

    reply = react(cluster[N3], Receive(N2, Vote(term=1, last_index=9, last_term=1)))

    assert cluster[N3].vote == N1
    assert reply == [Send(N2, VoteReply(1, is_granted=False))]


def test_candidate_does_not_lead_before_its_own_vote_is_durable() -> None:
    """3.8. Otherwise it could forget that it led, be elected in the same term again, and number other entries alike:

    1. n1 is elected by n2 and n3 in term 1 while its own disk is slow, and n2 gets its entries (1, no-op), (2, "a").
    2. n1 crashes and remembers nothing of it. n3 votes for it once more in term 1: it has voted for n1 before.
    3. n1 appends (1, no-op), (2, "b") and asks n2, which has entries of the same indexes and terms, and keeps "a".
    """
    cluster = Cluster(3, pre_vote=False)
    cluster.hold_disk(N1)
    cluster.campaign(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(Append)))
    if cluster[N1].role.name is Role.LEADER:
        cluster.propose(N1, b"a")
        cluster.take(to=N3)
        cluster.settle()
    cluster.crash(N1)
    cluster.letters.clear()

    cluster.restart(N1)
    cluster.campaign(N1)
    cluster.settle()
    if cluster[N1].role.name is not Role.LEADER:
        cluster.elect(N1)
    cluster.propose(N1, b"b")
    cluster.settle()

    assert cluster.log(N2) == cluster.log(N1)


def test_candidate_asks_for_votes_once_its_own_is_durable() -> None:
    """3.8, the rule itself."""
    node = make_node(N1, 1, 1, pre_vote=False)

    effects = react(node, Campaign())

    assert effects == [
        Persist(FIRST, Write(HardState(2, N1), entries=[])),
        Send(N2, Vote(2, 2, 1), after=FIRST),
        Send(N3, Vote(2, 2, 1), after=FIRST),
    ]


def test_vote_given_for_a_log_that_the_candidate_lost_does_not_elect_it() -> None:
    """3.8. A candidate asks once per term, restarts included, so a vote is always of the log that it asked with:

    1. n3 leads term 1; n1 and n2 get entry 2, which n1 does not have on its disk yet. n2 and n3 commit it.
    2. n1 campaigns in term 2, and n2 grants; n1 crashes, and remembers neither entry 2 nor term 2.
    3. n1 campaigns in term 2 again, without entry 2. n2 refuses that, but its grant arrives now.
    """
    cluster = Cluster(3, pre_vote=False)
    cluster.elect(N3)
    cluster.hold_disk(N1)
    cluster.propose(N3, b"committed")
    cluster.settle()
    cluster.isolate(N3)
    cluster.campaign(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(VoteReply, to=N1)))
    late = cluster.take(VoteReply, to=N1)
    cluster.crash(N1)

    cluster.restart(N1)
    cluster.campaign(N1)
    for letter in late:
        cluster.deliver(letter)
    cluster.settle()

    assert payloads(cluster.log(N1)) == []  # it was lost
    assert cluster[N1].role.name is not Role.LEADER


def test_leader_sends_while_it_writes_and_counts_itself_when_that_is_done() -> None:
    """10.2.1: the leader writes in parallel with its followers."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)
    cluster.hold_disk(N1)
    request = cluster.propose(N1)
    cluster.settle()
    before = cluster[N1].log.committed

    cluster.release_disk(N1)

    assert (before, cluster[N1].log.committed) == (1, 2)
    assert cluster.outcome(N1, request) == Committed(2, 2, term=1)


def test_entry_on_a_quorum_of_others_is_committed_and_applied_here_when_it_is_durable_here() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.hold_disk(N1)
    request = cluster.propose(N1)
    cluster.settle()
    before = (cluster.outcome(N1, request), cluster[N1].log.applied)

    cluster.release_disk(N1)

    assert before == (Committed(2, 2, term=1), 1)
    assert cluster[N1].log.applied == 2


def test_late_write_of_a_deposed_leader_is_no_vote_for_what_took_its_place() -> None:
    """The token of a write says what it vouches for: what was cut since, it vouches for no more."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.hold_disk(N1)
    cluster.propose(N1, b"lost")
    cluster.take()
    cluster.elect(N2)
    cluster.propose(N2, b"kept")
    cluster.settle()

    cluster.persist(N1, 1)  # entry 2 of term 1, and no more
    late = (cluster[N1].log.durable, cluster[N1].log.applied)
    cluster.release_disk(N1)
    cluster.settle()

    assert late == (1, 1)
    assert cluster.log(N1) == cluster.log(N2)
    assert cluster[N1].log.durable == 3


def test_leader_whose_disk_stalls_hands_over() -> None:
    cluster = Cluster(3, persist_timeout_s=0.5)
    cluster.elect(N1)
    cluster.hold_disk(N1)
    cluster.propose(N1)
    cluster.settle()

    cluster.advance(0.4)
    before = cluster[N1].role.name
    cluster.advance(0.1)

    assert before is Role.LEADER
    assert sorted(name for name, role in cluster.roles().items() if role is Role.LEADER) in ([N2], [N3])
    assert [note["why"] for note in cluster.notes(N1, "stepping_down")] == ["the disk stalls"]


def test_stalled_leader_hands_over_to_the_voter_that_has_most() -> None:
    cluster = Cluster(3, persist_timeout_s=0.5)
    cluster.elect(N1)
    cluster.isolate(N2)
    cluster.propose(N1)
    cluster.settle()
    cluster.hold_disk(N1)
    cluster.propose(N1)
    cluster.settle()
    cluster.now += 0.5

    cluster.step(N1, Wake())

    assert [letter.to for letter in cluster.on_the_way(TimeoutNow)] == [N3]


def test_node_whose_disk_stalls_does_not_campaign() -> None:
    cluster = Cluster(3, persist_timeout_s=0.5)
    cluster.elect(N1)
    cluster.hold_disk(N2)
    cluster.propose(N1)
    cluster.settle()
    cluster.isolate(N1)

    cluster.advance(5.0)

    assert cluster[N2].role.name is Role.FOLLOWER
    assert cluster.notes(N2, "became_pre_candidate") == []


def test_single_node_commits_when_its_own_disk_has_it() -> None:
    cluster = Cluster(1)
    cluster.elect(N1)
    cluster.hold_disk(N1)
    request = cluster.propose(N1)
    before = cluster.outcome(N1, request)

    cluster.release_disk(N1)

    assert (before, cluster.outcome(N1, request)) == (None, Committed(2, 2, term=1))


def test_writes_may_become_durable_together() -> None:
    """`Persisted(token)` stands for all writes before it."""
    node = make_node(N1, term=1)
    react(node, Receive(N2, Append(1, 0, 0, entries(1), commit=0)))
    react(node, Receive(N2, Append(1, 1, 1, entries(1, first=2), commit=0)))

    node.step(Persisted(SECOND), 0.0)

    assert node.log.durable == 2
