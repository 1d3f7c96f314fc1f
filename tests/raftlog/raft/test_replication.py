"""Log replication (paper, 5.3, figure 7), and crashes of followers (5.5)."""

from __future__ import annotations

import pytest

from raftlog.engine import Receive, Send
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Unreachable
from raftlog.raft.messages import Append, AppendRejected, AppendReply, Heartbeat, HeartbeatReply
from raftlog.raft.progress import ProgressState
from tests.raftlog.raft.builders import N1, N2, N3, entries, make_node, payloads, react, storage_with
from tests.raftlog.raft.cluster import Cluster, Letter

# ── 5.3: the consistency check ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "is_matched"),
    [(0, 0, True), (1, 1, True), (2, 2, True), (1, 2, False), (2, 1, False), (3, 2, False), (3, 3, False)],
)
def test_append_is_taken_where_the_entry_before_it_is_the_same(
    prev_index: int, prev_term: int, is_matched: bool
) -> None:
    node = make_node(N1, 1, 2, term=3)

    effects = react(node, Receive(N2, Append(3, prev_index, prev_term, (), commit=0)))

    (reply,) = [effect.message for effect in effects if isinstance(effect, Send)]
    assert isinstance(reply, AppendReply if is_matched else AppendRejected)
    if isinstance(reply, AppendReply):
        assert reply.match == prev_index


@pytest.mark.parametrize(
    ("prev", "sent", "expected"),
    [
        ((2, 2), (3,), (1, 2, 3)),
        ((1, 1), (3, 4), (1, 3, 4)),
        ((0, 0), (3, 4), (3, 4)),
        ((0, 0), (1,), (1, 2)),
        ((0, 0), (1, 2), (1, 2)),
        ((0, 0), (1, 2, 3), (1, 2, 3)),
        ((1, 1), (), (1, 2)),
    ],
)
def test_entries_are_cut_only_where_they_conflict(
    prev: tuple[int, int], sent: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Figure 2, AppendEntries 3 and 4: an append that ends earlier than the log, and agrees with it, cuts nothing."""
    node = make_node(N1, 1, 2, term=4)

    react(node, Receive(N2, Append(4, *prev, entries(*sent, first=prev[0] + 1), commit=0)))

    assert node.view.after(1) == entries(*expected)


def test_old_append_that_arrives_late_cuts_nothing() -> None:
    """The first of three appends arrives once more, when all three have been acknowledged."""
    node = make_node(N1, term=1)
    appends = [Append(1, index, int(index > 0), entries(1, first=index + 1), commit=0) for index in range(3)]
    react(node, *(Receive(N2, append) for append in appends))

    effects = react(node, Receive(N2, appends[0]))

    assert node.log.last_index == 3
    assert [effect.message for effect in effects if isinstance(effect, Send)] == [AppendReply(1, match=1)]


def test_appends_out_of_order_end_in_the_same_log() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    for _ in range(5):
        cluster.propose(N1)
    appends = cluster.on_the_way(Append, to=N2)

    for letter in reversed(appends):
        cluster.deliver(letter)
    cluster.settle()
    cluster.heartbeat(N1, count=2)

    assert len(appends) == 5
    assert cluster.log(N2) == cluster.log(N1)


def test_entry_sent_is_not_acknowledged_beyond_what_matches() -> None:
    """The reply to an append vouches for what was sent, not for what may follow in this log."""
    node = make_node(N1, 1, 1, 2, 2, term=3)

    effects = react(node, Receive(N2, Append(3, 0, 0, entries(1, 1), commit=4)))

    assert [effect.message for effect in effects if isinstance(effect, Send)] == [AppendReply(3, match=2)]
    assert node.log.committed == 2


def test_append_below_the_commit_index_is_answered_with_what_is_committed() -> None:
    """What is committed matches every leader's log; older entries are not compared any more."""
    node = make_node(N1, 1, 1, 1, commit=3)

    effects = react(node, Receive(N2, Append(1, 1, 1, entries(1, first=2), commit=1)))

    assert [effect.message for effect in effects if isinstance(effect, Send)] == [AppendReply(1, match=3)]


def test_empty_append_acknowledges_nothing_beyond_its_own_end() -> None:
    node = make_node(N1, 1, 1, 1, term=2)

    effects = react(node, Receive(N2, Append(2, 1, 1, (), commit=3)))

    assert [effect.message for effect in effects if isinstance(effect, Send)] == [AppendReply(2, match=1)]
    assert node.log.committed == 1


def test_heartbeat_commits_only_what_the_follower_is_known_to_have() -> None:
    """The heartbeat's commit index is never above what the leader knows to match."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)
    cluster.propose(N1)
    cluster.settle()

    cluster.wake(N1)

    assert [
        (letter.to, getattr(letter.message, "commit", None)) for letter in cluster.on_the_way(Heartbeat)
    ] == [
        (N2, 2),
        (N3, 1),
    ]


def test_leader_never_cuts_or_overwrites_its_own_log() -> None:
    """Leader append-only (figure 3); the invariants check it at every step of every test here."""
    voters = Configuration((N1, N2, N3))
    cluster = Cluster(3, storages={N1: storage_with(voters, 1, 1), N2: storage_with(voters, 1, 1, 1, 1)})
    cluster.isolate(N2)
    cluster.elect(N1)
    before = cluster.log(N1)
    cluster.heal()

    cluster.heartbeat(N1, count=3)

    assert cluster.log(N1) == before == cluster.log(N2)


def test_commit_that_advances_is_told_at_once() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.propose(N1)

    cluster.settle()

    assert cluster.commits() == {N1: 2, N2: 2, N3: 2}


def test_committed_entries_are_applied_in_order_and_once() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    for number in range(20):
        cluster.propose(N1, b"%d" % number)
    cluster.settle()

    applied = {name: payloads(server.applied) for name, server in cluster.servers.items()}

    assert applied == dict.fromkeys((N1, N2, N3), [b"%d" % number for number in range(20)])


# ── figure 7 ────────────────────────────────────────────────────────────────────────────────────────

LEADER_LOG = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FOLLOWER_LOGS = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("letter", "abcdef")
def test_every_follower_of_figure_7_is_brought_to_the_leaders_log(letter: str) -> None:
    """The leader of term 8 probes each; both sides' hints skip whole terms, so a few rejections are enough."""
    voters = Configuration((N1, N2, N3))
    cluster = Cluster(
        3,
        storages={
            N1: storage_with(voters, *LEADER_LOG, term=7),
            N2: storage_with(voters, *FOLLOWER_LOGS[letter], term=7),
        },
    )
    cluster.isolate(N2)
    cluster.elect(N1)
    cluster.heal()
    rejections = 0

    cluster.wake(N1)
    while cluster.letters:
        rejections += isinstance(cluster.letters[0].message, AppendRejected)
        cluster.deliver(cluster.letters[0])

    assert cluster[N1].term == 8
    assert cluster.terms(N2) == [*LEADER_LOG, 8]
    assert cluster.log(N2) == cluster.log(N1)
    assert rejections <= 2


def test_all_followers_of_figure_7_at_once() -> None:
    names = {letter: f"n{letter}" for letter in FOLLOWER_LOGS}
    members = [N1, *names.values()]
    voters = Configuration(tuple(sorted(members)))  # type: ignore[arg-type]
    storages = {name: storage_with(voters, *FOLLOWER_LOGS[letter], term=7) for letter, name in names.items()}
    cluster = Cluster(members, storages={N1: storage_with(voters, *LEADER_LOG, term=7), **storages})  # type: ignore[arg-type, dict-item]

    cluster.elect(N1)
    cluster.heartbeat(N1, count=2)

    logs = [cluster.log(name) for name in cluster.servers]
    assert logs == [cluster.log(N1)] * 7
    assert cluster.terms(N1) == [*LEADER_LOG, 8]


# ── 5.5: crashes of followers ───────────────────────────────────────────────────────────────────────


def test_follower_that_crashed_gets_again_what_it_had_not_written() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.hold_disk(N3)
    for _ in range(3):
        cluster.propose(N1)
    cluster.settle()
    cluster.crash(N3)

    cluster.restart(N3)
    cluster.heartbeat(N1, count=3)

    assert cluster.log(N3) == cluster.log(N1)
    assert cluster.commits() == {N1: 4, N2: 4, N3: 4}


def test_follower_that_crashed_after_writing_and_before_replying_is_asked_again() -> None:
    """5.5: RPCs are idempotent, so the second causes no harm."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N2)
    cluster.propose(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(AppendReply)))
    cluster.crash(N3)
    cluster.take(sender=N3)
    before = cluster[N1].log.committed

    cluster.restart(N3)
    cluster.heartbeat(N1, count=3)

    assert (before, cluster[N1].log.committed) == (1, 2)
    assert cluster.log(N3) == cluster.log(N1)


def test_lost_append_is_sent_again_after_a_heartbeat() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.propose(N1)
    cluster.take(Append)

    cluster.propose(N1)
    cluster.settle()
    cluster.heartbeat(N1, count=2)

    assert cluster.commits() == {N1: 3, N2: 3, N3: 3}


def test_append_to_a_slow_disk_is_not_sent_again_with_every_read() -> None:
    """Each round of reads is a heartbeat that the follower answers, and the append is still being written."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.hold_disk(N3)
    cluster.step(N1, Unreachable(N3))
    cluster.propose(N1)
    cluster.settle()

    for _ in range(20):
        cluster.read(N1)
        cluster.settle()

    assert [send.message for send in cluster.servers[N3].unsent] == [AppendReply(1, 2)]


@pytest.mark.parametrize("delay", [1, 2, 5])
def test_lost_append_is_sent_again_although_heartbeats_are_answered_late(delay: int) -> None:
    """The way to the follower and back takes longer than the interval of heartbeats."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.isolate(N3)
    cluster.propose(N1)
    cluster.settle()
    cluster.heal()
    late: list[Letter] = []

    for _ in range(3 * delay):
        cluster.wake(N1)
        late += cluster.take(to=N3)
        cluster.settle()
        for letter in late[:-delay]:
            late.remove(letter)
            cluster.deliver(letter)

    assert cluster.log(N3) == cluster.log(N1)


def test_broken_link_makes_the_leader_probe() -> None:
    """What was in flight may be lost: one append at a time, until the follower tells what it has."""
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.propose(N1)
    cluster.take(Append, to=N2)

    cluster.step(N1, Unreachable(N2))
    probed = cluster.progress(N1, N2).state
    cluster.heartbeat(N1)

    assert probed is ProgressState.PROBE
    assert cluster.progress(N1, N2).state is ProgressState.REPLICATE
    assert cluster.log(N2) == cluster.log(N1)


def test_every_message_may_arrive_twice() -> None:
    cluster = Cluster(3)
    cluster.campaign(N1)
    for _ in range(3):
        while cluster.letters:
            letter = cluster.letters[0]
            cluster.deliver(letter)
            if not isinstance(letter.message, Heartbeat | HeartbeatReply):
                cluster.step(letter.to, Receive(letter.sender, letter.message))
            assert len(cluster.letters) < 100
        cluster.propose(N1, b"x")

    cluster.heartbeat(N1)

    assert payloads(cluster.servers[N3].applied) == [b"x", b"x", b"x"]
