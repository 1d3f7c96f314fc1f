"""Bugs that PySyncObj 0.3.17 has, and that this core does not.

Each test is named for what holds here; its docstring says what went wrong there. What went wrong in its files, sockets and
pickles, and not in its protocol, is not here.
"""

from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import Persist, Receive, Send
from raftlog.raft import RaftNode, Role
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.events import (
    Campaign,
    Committed,
    Refused,
    TransferLeadership,
    Unknown,
    Why,
)
from raftlog.raft.log import LostEntries
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HigherTerm,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
    Vote,
    VoteReply,
)
from raftlog.raft.storage import HardState, Write
from tests.raftlog.raft.builders import (
    CONFIG,
    N1,
    N2,
    N3,
    N4,
    N5,
    SEED,
    change,
    entries,
    make_node,
    payloads,
    react,
    storage_with,
)
from tests.raftlog.raft.cluster import Cluster, led

ADD, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.REMOVE
VOTERS = Configuration((N1, N2, N3))


# ── PySyncObj ───────────────────────────────────────────────────────────────────────────────────────


def test_node_that_was_killed_does_not_vote_twice() -> None:
    """PySyncObj d1: term and vote were forgotten, or written without a sync."""
    storage = MemoryStorage(VOTERS)
    node = RaftNode(N3, CONFIG, storage, Random(SEED))
    for effect in react(node, Receive(N1, Vote(1, 0, 0))):
        if isinstance(effect, Persist):
            storage.write(effect.write)

    again = react(RaftNode(N3, CONFIG, storage, Random(SEED)), Receive(N2, Vote(1, 5, 1)))

    assert again == [Send(N2, VoteReply(1, is_granted=False))]


def test_snapshot_commits_nothing_of_the_followers_own_tail() -> None:
    """PySyncObj d2: the first chunk carried a commit index, and the follower committed its own, never committed entries."""
    node = make_node(N1, 1, 1, 1, 1, 1, term=2)
    snapshot = Snapshot(9, 2, VOTERS, 8)

    for position in (0, 4):
        react(node, Receive(N2, Heartbeat(2, commit=0, round=1)))
        effects = react(
            node, Receive(N2, SnapshotChunk(2, snapshot, position, b"abcd", is_last=position == 4))
        )
        if position == 0:
            assert (node.log.committed, node.log.applying) == (0, 0)
            assert [e.message for e in effects if isinstance(e, Send)] == [SnapshotReply(2, 9, 4)]

    assert (node.log.first_index, node.log.last_index) == (10, 9)


def test_acknowledgement_of_an_earlier_term_is_not_counted() -> None:
    """PySyncObj d3: the acknowledgement of term 1 had no term, was delayed, and counted in term 3."""
    cluster = Cluster(5, pre_vote=False, check_quorum=False)
    cluster.step(N1, Campaign())
    cluster.settle()
    cluster.propose(N1, b"old")
    cluster.settle(until=lambda: bool(cluster.on_the_way(AppendReply, sender=N3)))
    late = cluster.take(AppendReply, sender=N3)
    cluster.take()
    cluster.step(N1, Receive(N2, HigherTerm(2)))
    cluster.step(N1, Campaign())
    cluster.settle(until=lambda: cluster[N1].role.name is Role.LEADER)
    cluster.take()

    cluster.deliver(late[0])

    assert (cluster[N1].term, late[0].message.term) == (3, 1)
    assert cluster.progress(N1, N3).match == 0


def test_repeated_rejections_make_nobody_cut_what_was_acknowledged() -> None:
    """PySyncObj d4: two `reset` replies made the leader send again, and the follower cut everything after the first entry."""
    cluster = led()
    for payload in (b"a", b"b", b"c"):
        cluster.propose(N1, payload)
        cluster.settle()
    rejection = AppendRejected(1, prev_index=4, hint_index=1, hint_term=1)

    for _ in range(2):
        cluster.step(N1, Receive(N2, rejection))
    for _ in range(2):
        cluster.step(N2, Receive(N1, Append(1, 1, 1, cluster.log(N1)[1:2], commit=1)))
    cluster.settle()

    assert payloads(cluster.log(N2)) == [b"a", b"b", b"c"]


def test_two_additions_back_to_back_do_not_split_the_cluster() -> None:
    """PySyncObj d5: the guard was never set, so (n1 n4 n5) and (n2 n3) both committed."""
    cluster = Cluster(3, outside=[N4, N5])
    cluster.elect(N1)

    first = cluster.change(N1, change((ADD, N4)))
    second = cluster.change(N1, change((ADD, N5)))
    cluster.settle()

    assert isinstance(cluster.outcome(N1, first), Committed)
    assert getattr(cluster.outcome(N1, second), "why", None) is Why.CHANGE_PENDING
    assert str(cluster[N1].configuration) == "voters=(n1 n2 n3 n4)"


def test_log_that_begins_above_what_the_views_hold_is_refused() -> None:
    """PySyncObj d6, d7: entries were gone and their snapshot was not there; it went on with nothing."""
    storage = MemoryStorage(VOTERS)
    storage.write(Write(HardState(1), entries=entries(1, 1, 1, 1)))
    storage.compact(Snapshot(3, 1, VOTERS, 0), b"")
    storage._snapshot = Snapshot(1, 1, VOTERS, 0)  # an older one came back

    with pytest.raises(LostEntries, match=r"holds entries 4\.\.4, but .* 1 applied"):
        RaftNode(N1, CONFIG, storage, Random(SEED))


def test_commit_index_beyond_the_log_is_refused_at_the_start() -> None:
    """PySyncObj d12: a node alone applied and acknowledged whatever came, because "it was committed already"."""
    storage = storage_with(VOTERS, 1, 1, commit=7)

    with pytest.raises(LostEntries, match=r"holds entries 1\.\.2, but 7 was committed"):
        RaftNode(N1, CONFIG, storage, Random(SEED))


def test_commit_index_beyond_the_log_is_refused_while_running() -> None:
    """A heartbeat tells only what this node has acknowledged; a log that is shorter has lost entries."""
    node = make_node(N1, 1, 1)

    with pytest.raises(LostEntries, match="entries up to 3 are committed and were durable here"):
        node.step(Receive(N2, Heartbeat(1, commit=3, round=1)), 0.0)


def test_stale_leader_is_told() -> None:
    """PySyncObj d8 (c): an append of an earlier term was ignored, so its sender never learned of the newer one."""
    cluster = led()
    cluster.isolate(N1)
    cluster.elect(N2)
    cluster.heal()
    cluster.propose(N1, b"x")

    cluster.settle()

    assert (cluster[N1].role.name, cluster[N1].term) == (Role.FOLLOWER, 2)


def test_late_acknowledgement_of_a_removed_node_changes_nothing() -> None:
    """PySyncObj d8 (d): it raised KeyError in the leader's loop."""
    cluster = led()
    cluster.change(N1, change((REMOVE, N3)))
    cluster.settle()

    for message in (
        AppendReply(1, 2),
        AppendRejected(1, 2, 1, 1),
        SnapshotReply(1, 2, 4),
        VoteReply(1, True),
    ):
        cluster.step(N1, Receive(N3, message))

    assert cluster.letters == []
    assert cluster[N1].role.name is Role.LEADER


def test_request_that_was_passed_on_ends_although_the_answer_is_lost() -> None:
    """PySyncObj d8 (b): the callback of a forwarded command was lost with the link, for ever."""
    cluster = led()
    request = cluster.read(N2)
    cluster.take()

    cluster.advance(2.0)

    assert cluster.outcome(N2, request) == Refused(Why.TIMED_OUT, N1)


def test_node_that_comes_back_does_not_depose_the_leader() -> None:
    """PySyncObj has no pre-vote: a node that was cut off came back with a higher term."""
    cluster = led()
    cluster.isolate(N3)
    cluster.advance(30.0)

    cluster.heal()
    cluster.advance(10.0)

    assert (cluster[N1].role.name, cluster[N1].term) == (Role.LEADER, 1)


def test_leader_without_a_quorum_ends_what_it_was_asked() -> None:
    """PySyncObj: it leads on for 30 s, and then leaves the callbacks waiting."""
    cluster = led()
    cluster.isolate(N1)
    request = cluster.propose(N1)

    cluster.advance(5.0)

    assert cluster[N1].role.name is not Role.LEADER
    assert cluster.outcome(N1, request) == Unknown()


def test_hand_over_stops_proposals() -> None:
    """PySyncObj: they went on during the transfer, which told success when the message was sent."""
    cluster = led()
    cluster.step(N1, TransferLeadership(N2))

    request = cluster.propose(N1)

    assert cluster.outcome(N1, request) == Refused(Why.TRANSFERRING, N1)


def test_removal_of_the_leader_itself_is_possible() -> None:
    """PySyncObj: it was ignored, and a removed node never learned of it."""
    cluster = led()

    cluster.change(N1, change((REMOVE, N1)))
    cluster.settle()

    assert [str(cluster[name].configuration) for name in (N1, N2, N3)] == ["voters=(n2 n3)"] * 3


def test_last_voter_is_not_removed() -> None:
    cluster = led(1)

    request = cluster.change(N1, change((REMOVE, N1)))

    assert getattr(cluster.outcome(N1, request), "why", None) is Why.INVALID_CHANGE


def test_snapshot_that_did_not_arrive_whole_is_not_acknowledged() -> None:
    """PySyncObj: what failed to load was acknowledged all the same, and chunks went out without waiting for any reply."""
    node = make_node(N1, term=1)
    snapshot = Snapshot(9, 1, VOTERS, 8)

    effects = react(node, Receive(N2, SnapshotChunk(1, snapshot, 4, b"efgh", is_last=True)))

    assert effects == [Send(N2, SnapshotReply(1, 9, 0))]
    assert node.log.last_index == 0


def test_entry_of_any_size_travels_whole() -> None:
    """PySyncObj, number 10: an entry above the size of a message was cut in chunks of which the last was miscounted."""
    cluster = led(append_bytes_max=100)

    for size in (83, 84, 85, 100, 101, 5_000):
        cluster.propose(N1, b"x" * size)
        cluster.settle()

    assert [len(data) for data in payloads(cluster.servers[N3].applied)] == [83, 84, 85, 100, 101, 5_000]


def test_change_in_the_log_is_counted_as_pending_after_a_restart() -> None:
    """PySyncObj: changes in a loaded journal were not known until they were applied again."""
    cluster = Cluster(3, outside=[N4])
    cluster.elect(N1)
    cluster.change(N1, change((ADD, N4)))
    cluster.take()
    cluster.crash(N1)
    cluster.restart(N1)
    cluster.isolate(N3)
    cluster.now += 3.0
    cluster.step(N1, Campaign())
    cluster.settle(until=lambda: cluster[N1].role.name is Role.LEADER)

    request = cluster.change(N1, change((ADD, N5)))

    assert getattr(cluster.outcome(N1, request), "why", None) is Why.CHANGE_PENDING
