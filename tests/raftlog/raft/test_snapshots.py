"""Snapshots (paper, 7; dissertation 5): installed at once or not at all, sent in chunks that are acknowledged."""

from __future__ import annotations

import pytest

from raftlog.engine import Persist, Receive, Send
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.events import Campaign, Unreachable
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
)
from raftlog.raft.progress import ProgressState
from tests.raftlog.raft.builders import (
    N1,
    N2,
    N3,
    N4,
    change,
    entries,
    make_node,
    payloads,
    react,
    storage_with,
)
from tests.raftlog.raft.cluster import Cluster

VOTERS = Configuration((N1, N2, N3))
PATIENCE = 10  # heartbeats in an election timeout: so long a leader waits for what answers a chunk


def behind(*, data: bytes = b"abcdefghij", chunk_bytes: int = 4) -> Cluster:
    """n3 missed entries 3..5, and n1, the leader, has a snapshot in their place. n3 is reachable again."""
    cluster = Cluster(3, snapshot_chunk_bytes=chunk_bytes)
    cluster.elect(N1)
    cluster.propose(N1)
    cluster.settle()
    cluster.isolate(N3)
    for _ in range(3):
        cluster.propose(N1)
        cluster.settle()
    cluster.compact(N1, 5, data)
    cluster.heal()
    return cluster


def test_follower_that_needs_what_is_gone_gets_the_snapshot_and_what_follows() -> None:
    cluster = behind()
    request = cluster.propose(N1, b"after")
    cluster.settle()

    cluster.heartbeat(N1, count=3)

    assert cluster.outcome(N1, request) is not None
    assert cluster.servers[N3].storage.snapshot() == Snapshot(5, 1, VOTERS, 10)
    assert cluster.log(N3) == cluster.log(N1)
    assert cluster[N3].log.applied == 6
    assert cluster.progress(N1, N3).state is ProgressState.REPLICATE


def test_snapshot_travels_in_chunks_of_which_each_is_acknowledged() -> None:
    cluster = behind()
    cluster.wake(N1)
    seen: list[object] = []

    for _ in range(4):
        while cluster.letters:
            letter = cluster.letters[0]
            if isinstance(letter.message, SnapshotChunk):
                seen.append((letter.message.position, letter.message.data, letter.message.is_last))
            elif isinstance(letter.message, SnapshotReply):
                seen.append(letter.message.position)
            cluster.deliver(letter)
        cluster.wake(N1)

    assert seen == [(0, b"abcd", False), 4, (4, b"efgh", False), 8, (8, b"ij", True)]


def test_empty_snapshot_is_one_chunk() -> None:
    cluster = behind(data=b"")

    cluster.heartbeat(N1, count=3)

    assert cluster[N3].log.applied == 5


def test_lost_chunk_is_sent_again() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(SnapshotChunk)))
    lost = cluster.take(SnapshotChunk)
    cluster.settle()

    cluster.heartbeat(N1, count=PATIENCE + 3)

    assert len(lost) == 1
    assert cluster[N3].log.applied == 5


def test_chunk_on_a_slow_disk_is_not_sent_again_with_every_read() -> None:
    """Each round of reads is a heartbeat that the follower answers, and the chunk is still being written."""
    cluster = behind()
    cluster.hold_disk(N3)
    cluster.heartbeat(N1)

    for _ in range(20):
        cluster.read(N1)
        cluster.settle()

    assert [send.message for send in cluster.servers[N3].unsent] == [SnapshotReply(1, 5, 4)]


def test_chunk_is_sent_again_at_once_when_the_link_broke() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(SnapshotChunk)))
    cluster.take(SnapshotChunk)
    cluster.settle()

    cluster.step(N1, Unreachable(N3))
    cluster.heartbeat(N1)

    assert cluster[N3].log.applied == 5


@pytest.mark.parametrize("count", [1, 2])
def test_lost_reply_to_a_chunk_is_made_up_for(count: int) -> None:
    cluster = behind()
    cluster.wake(N1)
    for number in range(count):
        cluster.settle(until=lambda: bool(cluster.on_the_way(SnapshotReply)))
        reply = cluster.take(SnapshotReply)[0]
        if number < count - 1:
            cluster.deliver(reply)

    cluster.heartbeat(N1, count=PATIENCE + 3)

    assert cluster[N3].log.applied == 5


def test_lost_reply_to_the_last_chunk_is_made_up_for() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: cluster[N3].log.applied == 5)
    lost = cluster.take(AppendReply, sender=N3)

    cluster.heartbeat(N1, count=PATIENCE + 3)

    assert len(lost) == 1
    assert cluster.progress(N1, N3).state is ProgressState.REPLICATE
    assert cluster.progress(N1, N3).match == 5


def test_repeated_chunks_change_nothing() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(SnapshotChunk)))
    first = cluster.on_the_way(SnapshotChunk)[0]
    cluster.settle(until=lambda: len(cluster.on_the_way(SnapshotChunk)) == 1 and cluster.letters[0] != first)

    cluster.deliver(first)
    cluster.settle()
    cluster.deliver(first)
    cluster.heartbeat(N1, count=2)

    assert cluster[N3].log.applied == 5
    assert cluster.servers[N3].storage.snapshot_data(Snapshot(5, 1, VOTERS, 10), 0, 99) == b"abcdefghij"


def test_follower_that_restarts_in_the_middle_begins_anew() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: len(cluster.on_the_way(SnapshotReply)) == 1)
    cluster.crash(N3)

    cluster.restart(N3)
    cluster.settle()
    cluster.heartbeat(N1, count=5)

    assert cluster[N3].log.applied == 5
    assert cluster.servers[N3].storage.snapshot_data(Snapshot(5, 1, VOTERS, 10), 0, 99) == b"abcdefghij"


def test_crash_between_two_chunks_of_which_neither_was_written() -> None:
    """5.1.1: the old log or the new one, never neither. Both parts came before the node was asked what to write."""
    snapshot = Snapshot(9, 1, VOTERS, 4)
    for durable_count in (0, 1, 2):
        storage = storage_with(VOTERS, 1, 1)
        cluster = Cluster(3, storages={N1: storage})
        node = cluster[N1]
        effects = react(
            node,
            Receive(N2, SnapshotChunk(1, snapshot, 0, b"ab", is_last=False)),
            Receive(N2, SnapshotChunk(1, snapshot, 2, b"cd", is_last=True)),
        )
        writes = [effect.write for effect in effects if isinstance(effect, Persist)]

        for write in writes[:durable_count]:
            storage.write(write)
        cluster.restart(N1)

        assert len(writes) == 2
        assert cluster[N1].log.last_index == (9 if durable_count == 2 else 2)


def test_snapshot_takes_the_place_of_a_log_that_contradicts_it() -> None:
    """Paper, figure 13, steps 7 and 8: the entire log is discarded."""
    node = make_node(N1, 1, 1, 1, term=3)
    snapshot = Snapshot(2, 2, VOTERS, 1)

    react(node, Receive(N2, SnapshotChunk(3, snapshot, 0, b"x", is_last=True)))

    assert (node.log.first_index, node.log.last_index, node.log.last_term) == (3, 2, 2)


def test_entries_that_follow_a_snapshot_which_agrees_with_the_log_are_kept() -> None:
    """Paper, figure 13, step 6: nothing is installed; what it stands for is committed."""
    node = make_node(N1, 1, 2, 2, 2, term=2)
    snapshot = Snapshot(2, 2, VOTERS, 1)

    effects = react(node, Receive(N2, SnapshotChunk(2, snapshot, 0, b"x", is_last=True)))

    assert not [effect for effect in effects if isinstance(effect, Persist)]
    assert (node.log.committed, node.log.last_index) == (2, 4)


def test_snapshot_of_what_is_committed_here_changes_nothing() -> None:
    node = make_node(N1, 1, 1, 1, commit=3)

    effects = react(node, Receive(N2, SnapshotChunk(1, Snapshot(2, 1, VOTERS, 1), 0, b"x", is_last=True)))

    assert [getattr(effect, "message", None) for effect in effects][0] == AppendReply(1, match=3)
    assert node.log.last_index == 3


def test_nothing_is_applied_while_a_snapshot_is_being_installed() -> None:
    """The views hold what they held until the snapshot is durable as a whole."""
    cluster = Cluster(3)
    cluster.hold_disk(N3)
    snapshot = Snapshot(5, 1, VOTERS, 1)
    chunk = SnapshotChunk(1, snapshot, 0, b"x", is_last=True)
    cluster.step(N3, Receive(N1, chunk))
    cluster.step(N3, Receive(N1, Append(1, 5, 1, entries(1, first=6), commit=6)))
    before = (cluster[N3].log.applied, list(cluster.servers[N3].applied))

    cluster.release_disk(N3)

    assert before == (0, [])
    assert (cluster[N3].log.applied, cluster.servers[N3].applied) == (6, entries(1, first=6))


def test_crash_before_a_snapshot_is_durable_leaves_the_log_as_it_was() -> None:
    cluster = Cluster(3, storages={N3: storage_with(VOTERS, 1, 1)})
    cluster.hold_disk(N3)
    cluster.step(N3, Receive(N1, SnapshotChunk(1, Snapshot(5, 1, VOTERS, 1), 0, b"x", is_last=True)))
    cluster.crash(N3)

    cluster.restart(N3)

    assert cluster.log(N3) == entries(1, 1)
    assert cluster.letters == []


def test_later_snapshot_supersedes_one_that_is_under_way() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: len(cluster.on_the_way(SnapshotReply)) == 1)
    cluster.isolate(N3)
    for _ in range(2):
        cluster.propose(N1)
        cluster.settle()
    cluster.compact(N1, 7, b"a later state")
    cluster.heal()

    cluster.heartbeat(N1, count=PATIENCE + 6)

    assert cluster.servers[N3].storage.snapshot() == Snapshot(7, 1, VOTERS, 13)
    assert cluster[N3].log.applied == 7


def test_transfer_ends_when_its_snapshot_has_come_by_another_way() -> None:
    """Late appends bring n3 beyond the snapshot it is sent, but not to where the leader's log begins by then."""
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: len(cluster.on_the_way(SnapshotReply)) == 1)
    cluster.isolate(N3)
    for _ in range(4):
        cluster.propose(N1)
        cluster.settle()
    cluster.compact(N1, 9, b"later")

    cluster.step(N1, Receive(N3, AppendReply(1, 6)))

    progress = cluster.progress(N1, N3)
    assert (progress.match, progress.state, progress.pending_snapshot) == (6, ProgressState.SNAPSHOT, 9)


def test_new_leader_begins_the_snapshot_anew() -> None:
    cluster = behind()
    cluster.wake(N1)
    cluster.settle(until=lambda: len(cluster.on_the_way(SnapshotReply)) == 1)
    cluster.letters.clear()
    cluster.compact(N2, 5, b"0123456789")

    cluster.elect(N2)
    cluster.heartbeat(N2, count=4)

    assert cluster[N3].log.applied == 6
    assert cluster.servers[N3].storage.snapshot_data(Snapshot(5, 1, VOTERS, 10), 0, 99) == b"0123456789"


def test_leader_of_another_term_begins_the_snapshot_anew_also_after_a_campaign_of_the_receiver() -> None:
    """The leader may have been restarted, and have taken the snapshot once more, in other bytes."""
    node, snapshot = make_node(N3, term=1, pre_vote=False), Snapshot(5, 1, VOTERS, 10)
    react(node, Receive(N1, SnapshotChunk(1, snapshot, 0, b"abcd", is_last=False)))
    react(node, Campaign())

    effects = react(node, Receive(N1, SnapshotChunk(2, snapshot, 4, b"EFGH", is_last=False)))

    assert [effect.message for effect in effects if isinstance(effect, Send)] == [SnapshotReply(2, 5, 0)]


def test_repeated_rejection_does_not_disturb_a_snapshot_under_way() -> None:
    """The rejected append ended where the snapshot does, so by its index alone the rejection is not out of date."""
    cluster = Cluster(3, storages={N1: storage_with(VOTERS, 1, 1, 1), N2: storage_with(VOTERS, 1, 1, 1)})
    cluster.elect(N1)
    cluster.take(to=N3)
    cluster.compact(N1, 3, b"state")
    cluster.isolate(N2)
    cluster.now += 3.0
    rejection = Receive(N3, AppendRejected(cluster[N1].term, 3, 0, 0))
    cluster.step(N1, rejection)

    cluster.step(N1, rejection)
    cluster.settle()

    assert cluster[N3].log.applied == 4


def test_new_member_is_brought_up_by_a_snapshot_older_than_its_membership() -> None:
    """7: the configuration in a snapshot is that of its last entry; the newcomer learns of itself by what follows."""
    cluster = Cluster(3, outside=[N4])
    cluster.elect(N1)
    cluster.propose(N1)
    cluster.settle()
    cluster.compact(N1, 2, b"state")

    cluster.change(N1, change((ChangeKind.ADD_LEARNER, N4)))
    cluster.settle()
    cluster.heartbeat(N1, count=6)

    assert cluster[N4].configuration == Configuration((N1, N2, N3), learners=(N4,))
    assert cluster.log(N4) == cluster.log(N1)


def test_node_that_is_installing_a_snapshot_does_not_campaign() -> None:
    cluster = Cluster(3)
    cluster.hold_disk(N3)
    cluster.step(N3, Receive(N1, SnapshotChunk(1, Snapshot(5, 1, VOTERS, 1), 0, b"x", is_last=True)))

    cluster.campaign(N3)

    assert cluster.notes(N3, "became_pre_candidate") == []


def test_follower_compacts_on_its_own_and_goes_on() -> None:
    """Paper, 7: servers take snapshots independently of the leader."""
    cluster = Cluster(3)
    cluster.elect(N1)
    for _ in range(3):
        cluster.propose(N1)
        cluster.settle()

    cluster.compact(N2, 3)
    cluster.propose(N1)
    cluster.settle()
    cluster.elect(N2)

    assert cluster[N2].log.first_index == 4
    assert len(set(cluster.commits().values())) == 1


def test_restart_after_compaction_applies_what_the_snapshot_does_not_hold() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    for payload in (b"a", b"b", b"c"):
        cluster.propose(N1, payload)
        cluster.settle()
    cluster.compact(N2, 3)
    cluster.crash(N2)

    cluster.restart(N2)
    cluster.heartbeat(N1, count=2)

    assert payloads(cluster.servers[N2].applied) == [b"c"]


def test_storage_that_begins_in_the_middle_says_so_in_its_first_rejection() -> None:
    storage = MemoryStorage(VOTERS, index=7, term=2)
    cluster = Cluster(3, storages={N1: storage})

    effects = react(cluster[N1], Receive(N2, Append(3, 9, 3, (), commit=7)))

    assert [effect.message for effect in effects if hasattr(effect, "message")] == [
        AppendRejected(3, 9, 7, 2)
    ]
