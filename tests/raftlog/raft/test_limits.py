"""Everything has a limit: what is in flight, in an append, handed out to be applied; and a step costs what its entries do."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from raftlog.engine import Applied, Apply, Persisted, Receive, Send, Token
from raftlog.raft import RaftNode
from raftlog.raft.configuration import Configuration
from raftlog.raft.events import Propose
from raftlog.raft.log import ENTRY_OVERHEAD_BYTES
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Append, AppendRejected, AppendReply, Entry, Heartbeat, Message, Vote
from raftlog.raft.progress import ProgressState
from raftlog.raft.storage import HardState, Write
from tests.raftlog.raft.builders import CONFIG, N1, N2, N3, SEED, entries, make_node, react
from tests.raftlog.raft.cluster import Cluster

VOTERS = Configuration((N1, N2, N3))


def led(**settings: Any) -> Cluster:
    cluster = Cluster(3, **settings)
    cluster.elect(N1)
    cluster.isolate(N3)
    return cluster


# ── the window of one follower ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("proposals", "in_flight"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_appends_in_flight_are_bounded(proposals: int, in_flight: int) -> None:
    """Empty, one, some, exactly full, one over."""
    cluster = led(inflight_messages_max=3)

    for _ in range(proposals):
        cluster.propose(N1)

    assert len(cluster.on_the_way(Append, to=N2)) == in_flight
    assert cluster.progress(N1, N2).inflights.is_full is (in_flight == 3)


@pytest.mark.parametrize(
    ("size", "proposals", "in_flight"), [(84, 2, 1), (34, 3, 2), (33, 4, 3), (200, 2, 1)]
)
def test_bytes_in_flight_are_bounded(size: int, proposals: int, in_flight: int) -> None:
    """An entry counts for its data and 16 bytes; the append that reaches the bound of 100 is still sent."""
    cluster = led(inflight_bytes_max=100, append_bytes_max=100)
    assert ENTRY_OVERHEAD_BYTES == 16

    for _ in range(proposals):
        cluster.propose(N1, b"x" * size)

    assert len(cluster.on_the_way(Append, to=N2)) == in_flight


def test_full_window_goes_on_when_the_first_is_acknowledged() -> None:
    cluster = led(inflight_messages_max=2)
    for _ in range(5):
        cluster.propose(N1)

    cluster.step(N1, Receive(N2, AppendReply(1, match=2)))

    sent = [letter.message for letter in cluster.on_the_way(Append, to=N2)]
    assert [[entry.index for entry in append.entries] for append in sent if isinstance(append, Append)] == [
        [2],
        [3],
        [4, 5, 6],
    ]


def test_window_that_was_lost_as_a_whole_is_found_out_by_a_heartbeat() -> None:
    cluster = led(inflight_messages_max=2)
    for _ in range(4):
        cluster.propose(N1)
    cluster.take(Append)

    cluster.heartbeat(N1, count=3)

    assert cluster[N2].log.committed == 5


def test_probe_is_one_append_at_a_time() -> None:
    cluster = led()
    cluster.progress(N1, N2).become_probe()

    for _ in range(3):
        cluster.propose(N1)

    assert len(cluster.on_the_way(Append, to=N2)) == 1
    assert cluster.progress(N1, N2).state is ProgressState.PROBE


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((50,), [1]),
        ((34, 34), [2]),
        ((34, 35), [1, 1]),
        ((101,), [1]),
        ((101, 1, 1), [1, 2]),
        ((1, 101, 1), [1, 1, 1]),
        ((4, 4, 4, 4, 4), [5]),
        ((4, 4, 4, 4, 4, 4), [5, 1]),
    ],
)
def test_append_carries_as_many_bytes_as_fit_and_at_least_one_entry(
    sizes: Sequence[int], expected: list[int]
) -> None:
    cluster = led(append_bytes_max=100)
    cluster[N1].step(Propose(901, [b"x" * size for size in sizes]), cluster.now)

    cluster.drain(N1)

    sent = [letter.message for letter in cluster.on_the_way(Append, to=N2)]
    assert [len(append.entries) for append in sent if isinstance(append, Append)] == expected


@pytest.mark.parametrize(
    ("bytes_max", "expected"), [(1, [1]), (100, [1]), (152, [1, 2]), (168, [1, 2, 3]), (1_000, [1, 2, 3, 4])]
)
def test_entries_read_over_the_end_of_the_storage_leave_no_gap(bytes_max: int, expected: list[int]) -> None:
    """Entries 1 and 2 (76 bytes each) are on the disk, 3 and 4 (16 each) are still being written."""
    storage = MemoryStorage(VOTERS)
    on_disk = [Entry(index, 1, entry.kind, b"x" * 60) for index, entry in enumerate(entries(1, 1), 1)]
    storage.write(Write(HardState(1), entries=on_disk))
    node = RaftNode(N1, CONFIG, storage, Random(SEED))
    unwritten = [Entry(index, 1, entry.kind, b"") for index, entry in enumerate(entries(1, 1), 3)]
    react(node, Receive(N2, Append(1, 2, 1, unwritten, commit=0)))

    found, size = node.log.entries(1, 5, bytes_max)

    assert [entry.index for entry in found] == expected
    assert size == sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in found)


# ── applying ────────────────────────────────────────────────────────────────────────────────────────


def applied_in(effects: Sequence[object]) -> list[list[int]]:
    return [[entry.index for entry in effect.entries] for effect in effects if isinstance(effect, Apply)]


def test_what_is_handed_out_to_be_applied_is_bounded() -> None:
    """Six entries of 4 bytes count for 20 each; 60 are handed out, and no more until something of it was applied."""
    node = make_node(N1, term=1, apply_bytes_max=60)
    sent = [Entry(index, 1, entry.kind, b"abcd") for index, entry in enumerate(entries(*[1] * 6), 1)]
    react(node, Receive(N2, Append(1, 0, 0, sent, commit=6)))

    first = applied_in(react(node, Persisted(Token(1))))
    waiting = applied_in(react(node))
    second = applied_in(react(node, Applied(3)))
    last = applied_in(react(node, Applied(6)))

    assert (first, waiting, second, last) == ([[1, 2, 3]], [], [[4, 5, 6]], [])


def test_entry_above_the_budget_is_handed_out_alone() -> None:
    node = make_node(N1, term=1, apply_bytes_max=60)
    sent = [Entry(index, 1, entry.kind, b"x" * 100) for index, entry in enumerate(entries(1, 1), 1)]
    react(node, Receive(N2, Append(1, 0, 0, sent, commit=2)))

    first = applied_in(react(node, Persisted(Token(1))))
    second = applied_in(react(node, Applied(1)))

    assert (first, second) == ([[1]], [[2]])


def test_nothing_is_applied_before_it_is_durable_here() -> None:
    node = make_node(N1, term=1)

    effects = react(node, Receive(N2, Append(1, 0, 0, entries(1, 1), commit=2)))

    assert applied_in(effects) == []
    assert node.log.committed == 2


# ── what a step costs ───────────────────────────────────────────────────────────────────────────────


class CountingStorage(MemoryStorage):
    """Counts what is asked of it, and how many entries it hands out."""

    calls = 0
    handed_out = 0

    def term(self, index: int) -> int:
        self.calls += 1
        return super().term(index)

    def entries(self, first: int, end: int, bytes_max: int) -> Sequence[Entry]:
        self.calls += 1
        found = super().entries(first, end, bytes_max)
        self.handed_out += len(found)
        return found


def cost(length: int, *messages: Message) -> tuple[int, int]:
    """Calls, and entries read, of a follower with so many entries that takes these messages from n2."""
    storage = CountingStorage(VOTERS)
    storage.write(Write(HardState(1), entries=entries(*[1] * length), commit=length - 5))
    node = RaftNode(N1, CONFIG, storage, Random(SEED))
    storage.calls = storage.handed_out = 0
    for message in messages:
        node.step(Receive(N2, message), 0.0)
    return storage.calls, storage.handed_out


@pytest.mark.parametrize("kind", ["new", "heartbeat", "known", "conflicting", "old", "vote"])
def test_step_of_a_follower_costs_its_entries_and_not_its_log(kind: str) -> None:
    def message(length: int) -> Message:
        match kind:
            case "new":
                return Append(2, length, 1, entries(*[2] * 8, first=length + 1), commit=length)
            case "heartbeat":
                return Heartbeat(2, length, 1)
            case "known":
                return Append(2, length - 4, 1, entries(1, 1, 1, 1, first=length - 3), commit=length)
            case "conflicting":
                return Append(2, length - 4, 1, entries(1, 1, 2, 2, first=length - 3), commit=length)
            case "old":
                return Append(2, 1, 1, entries(1, 1, first=2), commit=1)
            case _:
                return Vote(2, length, 1)

    short, long = cost(10, message(10)), cost(100_000, message(100_000))

    assert short == long
    assert long[0] <= 10
    assert long[1] == 0


def test_rejection_of_an_append_costs_the_logarithm_of_the_log() -> None:
    """The hint is searched by halves."""
    calls, handed_out = cost(100_000, Append(2, 100_000, 0, (), commit=0))

    assert calls <= 2 * 17
    assert handed_out == 0


def test_leader_with_a_long_log_sends_what_is_new_without_reading_what_is_old() -> None:
    storage = CountingStorage(VOTERS)
    storage.write(Write(HardState(1), entries=entries(*[1] * 100_000), commit=99_990))
    cluster = Cluster(3, storages={N1: storage, N2: _copy(storage), N3: _copy(storage)})
    cluster.elect(N1)
    storage.handed_out = 0

    cluster.propose(N1)
    cluster.settle()

    assert cluster[N1].log.committed == 100_002
    assert storage.handed_out <= 2


def _copy(storage: MemoryStorage) -> MemoryStorage:
    copied = MemoryStorage(VOTERS)
    found = storage.entries(1, storage.last_index + 1, 1 << 40)
    copied.write(Write(storage.hard_state(), entries=found, commit=storage.commit))
    return copied


def test_heartbeat_to_who_has_everything_brings_no_append() -> None:
    cluster = led()
    cluster.settle()

    cluster.wake(N1)
    cluster.settle(until=lambda: bool(cluster.on_the_way(Append, to=N2)))

    assert cluster.on_the_way((Append, AppendRejected), to=N2) == []


def test_many_proposals_at_once_are_one_message_per_follower() -> None:
    cluster = led()
    for request in range(200):
        cluster[N1].step(Propose(1_000 + request, [b"x"]), cluster.now)

    node_effects = cluster.drain(N1)

    appends = [
        effect for effect in node_effects if isinstance(effect, Send) and isinstance(effect.message, Append)
    ]
    assert [len(send.message.entries) for send in appends] == [200, 200]
