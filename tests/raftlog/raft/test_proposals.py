"""How requests to append end: committed, dropped, unknown or refused, once, and never falsely."""

from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import NodeId, Persist, Receive, Send
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind
from raftlog.raft.events import (
    Campaign,
    Committed,
    Dropped,
    Promote,
    Propose,
    Refused,
    Unknown,
    Why,
)
from raftlog.raft.messages import Append, Entry, EntryKind, HigherTerm
from tests.raftlog.raft.builders import N1, N2, N3, N4, N5, change, payloads
from tests.raftlog.raft.cluster import Cluster, led

AT_ONCE = {"pre_vote": False, "check_quorum": False}  # no leases of followers: elections need no time to pass


def overruled(*, proposed: tuple[bytes, ...] = (b"lost",)) -> tuple[Cluster, int]:
    """n1 appended a proposal that nobody else has; n2 leads and has committed its no-op. n1 has not heard of that."""
    cluster = led(3, **AT_ONCE)
    request = cluster.propose(N1, *proposed)
    cluster.take()
    cluster.isolate(N1)
    cluster.step(N2, Campaign())
    cluster.settle()
    assert cluster[N2].role.name is Role.LEADER
    return cluster, request


def test_committed_proposal_is_told_its_index_and_term() -> None:
    cluster = led()

    request = cluster.propose(N1, b"a")
    before = cluster.outcome(N1, request)
    cluster.settle()

    assert (before, cluster.outcome(N1, request)) == (None, Committed(2, 2, term=1))


def test_proposal_of_several_is_told_the_first_and_the_last() -> None:
    cluster = led()

    request = cluster.propose(N1, b"a", b"b", b"c")
    cluster.settle()

    assert cluster.outcome(N1, request) == Committed(2, 4, term=1)
    assert payloads(cluster.servers[N3].applied) == [b"a", b"b", b"c"]


def test_proposals_that_came_together_are_one_append_and_one_write() -> None:
    cluster = led()
    for request in (101, 102, 103):
        cluster[N1].step(Propose(request, [b"%d" % request]), cluster.now)

    effects = cluster.drain(N1)
    cluster.settle()

    appends = [
        effect.message
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Append)
    ]
    assert [[entry.data for entry in append.entries] for append in appends] == [[b"101", b"102", b"103"]] * 2
    assert len([effect for effect in effects if isinstance(effect, Persist)]) == 1
    assert [cluster.outcome(N1, 101 + i) for i in range(3)] == [Committed(2 + i, 2 + i, 1) for i in range(3)]


def test_proposal_is_dropped_once_another_entry_is_committed_in_its_place() -> None:
    cluster, request = overruled()
    cluster.heal()

    cluster.heartbeat(N2)

    assert cluster.outcome(N1, request) == Dropped()


def test_proposal_whose_place_was_taken_but_not_committed_waits() -> None:
    """That it was cut from this log says nothing."""
    cluster, request = overruled()
    cluster.hold_disk(N1)
    cluster.propose(N2)
    cluster.take()
    cluster.heal()
    cluster.step(N1, Receive(N2, Append(2, 1, 1, cluster.log(N2)[1:], commit=1)))

    cut = payloads(cluster.log(N1))

    assert b"lost" not in cut
    assert cluster.outcome(N1, request) is None


def test_proposal_that_was_cut_here_may_be_committed_by_another() -> None:
    """As in figure 8:

    1. n1 leads in term 1; its proposal, entry 2, is on n1 and n2 only.
    2. n3 is elected by n4 and n5 in term 2; its entry 2 reaches n1, which cuts its own. n3 crashes.
    3. n2 is elected by n4 and n5 in term 3, and commits the proposal.
    """
    cluster = led(5, **AT_ONCE)
    request = cluster.propose(N1, b"survivor")
    cluster.deliver(cluster.on_the_way(Append, to=N2)[0])
    cluster.take()
    cluster.isolate(N3, N4, N5)
    cluster.step(N3, Campaign())
    cluster.settle(until=lambda: cluster[N3].role.name is Role.LEADER)
    cluster.take()
    cluster.step(N1, Receive(N3, Append(2, 1, 1, cluster.log(N3)[1:], commit=1)))
    cut = payloads(cluster.log(N1))
    cluster.take()
    cluster.crash(N3)
    cluster.heal()

    for _ in range(2):  # its first campaign is in term 2, which the others have seen
        cluster.step(N2, Campaign())
        cluster.settle()

    assert cut == []
    assert cluster[N2].role.name is Role.LEADER
    assert cluster.outcome(N1, request) == Committed(2, 2, term=1)


def test_outcome_is_unknown_when_leadership_was_lost_and_nothing_is_heard() -> None:
    cluster = led()
    request = cluster.propose(N1)
    cluster.take()
    cluster.isolate(N1)

    cluster.advance(2 * cluster.config.election_timeout_s_min)
    stepped_down = (cluster[N1].role.name is Role.LEADER, cluster.outcome(N1, request))
    cluster.advance(cluster.config.election_timeout_s_max)

    assert stepped_down == (False, None)
    assert cluster.outcome(N1, request) == Unknown()


def test_unknown_outcome_is_not_told_a_second_time_when_it_becomes_known() -> None:
    cluster = led()
    request = cluster.propose(N1)
    cluster.isolate(N1)
    cluster.advance(5.0)

    cluster.heal()
    cluster.elect(N2)

    assert cluster.outcomes(N1, request) == [Unknown()]


def test_outcome_is_unknown_when_only_a_part_was_kept() -> None:
    """Three entries; the first reached n2, which leads now and committed it, and something else after it."""
    cluster = led(3, append_bytes_max=1, **AT_ONCE)
    request = cluster.propose(N1, b"a", b"b", b"c")
    first = cluster.on_the_way(Append, to=N2)[0]
    cluster.take()
    cluster.deliver(first)
    cluster.take()
    cluster.isolate(N1)
    cluster.step(N2, Campaign())
    cluster.settle()
    cluster.propose(N2, b"d")
    cluster.settle()

    cluster.heal()
    cluster.heartbeat(N2, count=3)

    assert payloads(cluster.log(N1)) == [b"a", b"d"]
    assert cluster.outcome(N1, request) == Unknown()


def test_outcome_is_unknown_when_only_the_last_entry_was_replaced() -> None:
    """The same in one step: the commit index passes the whole proposal at once."""
    cluster = led(3, **AT_ONCE)
    request = cluster.propose(N1, b"a", b"b")
    cluster.take()
    kept, replaced = cluster.log(N1)[1], Entry(3, 2, EntryKind.NO_OP, b"")

    cluster.step(N1, Receive(N2, Append(2, 1, 1, [kept, replaced], commit=3)))

    assert cluster.outcome(N1, request) == Unknown()


def test_outcome_is_unknown_when_a_snapshot_hides_it() -> None:
    cluster, request = overruled()
    cluster.propose(N2)
    cluster.settle()
    cluster.compact(N2, 3)
    cluster.heal()

    cluster.heartbeat(N2, count=4)

    assert cluster[N1].log.first_index == 4
    assert cluster.outcome(N1, request) == Unknown()


def test_proposal_of_an_earlier_leadership_ends_although_the_log_never_gets_so_long_again() -> None:
    """n1 leads again. What is committed has a later term, so nothing of term 1 can follow it: the proposal is dropped."""
    cluster, request = overruled(proposed=(b"a", b"b", b"c", b"d"))
    cluster.heal()
    cluster.heartbeat(N2)
    cluster.step(N1, Campaign())
    cluster.settle()

    cluster.advance(10.0)

    assert cluster[N1].role.name is Role.LEADER
    assert cluster[N1].log.last_index < 5
    assert cluster.outcome(N1, request) in (Dropped(), Unknown())


def test_restart_forgets_requests() -> None:
    cluster = led()
    request = cluster.propose(N1)
    cluster.crash(N1)

    cluster.restart(N1)
    cluster.settle()
    cluster.elect(N2)

    assert cluster.outcomes(N1, request) == []


# ── refusals: nothing was appended ──────────────────────────────────────────────────────────────────


def test_follower_refuses_and_names_the_leader() -> None:
    cluster = led()

    requests = [cluster.propose(N2), cluster.change(N2, change((ChangeKind.REMOVE, N3)))]
    cluster.step(N2, Promote(900, N3))

    assert [cluster.outcome(N2, request) for request in [*requests, 900]] == [Refused(Why.NOT_LEADER, N1)] * 3
    assert cluster.letters == []


def test_node_without_a_leader_refuses_and_names_none() -> None:
    cluster = Cluster(3)

    request = cluster.propose(N2)

    assert cluster.outcome(N2, request) == Refused(Why.NOT_LEADER, None)


def test_proposal_not_yet_appended_when_leadership_is_lost_is_refused() -> None:
    cluster = led()
    cluster[N1].step(Propose(901, [b"x"]), cluster.now)
    cluster.step(N1, Receive(N2, HigherTerm(9)))

    assert cluster.outcome(N1, 901) == Refused(Why.NOT_LEADER)
    assert cluster[N1].log.last_index == 1


def test_removed_leader_that_still_leads_refuses() -> None:
    cluster = led(3, step_down_on_removal=False)
    cluster.change(N1, change((ChangeKind.REMOVE, N1)))
    cluster.settle()

    request = cluster.propose(N1)

    assert cluster[N1].role.name is Role.LEADER
    assert cluster.outcome(N1, request) == Refused(Why.NOT_A_MEMBER, N1)


@pytest.mark.parametrize(
    ("waiting", "size", "is_refused"),
    [
        (0, 99, False),
        (0, 100, False),
        (0, 101, False),
        (50, 49, False),
        (50, 50, False),
        (50, 51, True),
        (100, 0, False),
    ],
)
def test_uncommitted_bytes_are_bounded(waiting: int, size: int, is_refused: bool) -> None:
    """Empty, one, exactly full, one over; one that is too big by itself is taken when nothing waits."""
    cluster = led(3, uncommitted_bytes_max=100)
    if waiting:
        cluster.propose(N1, b"x" * waiting)

    request = cluster.propose(N1, b"x" * size)

    assert cluster.outcome(N1, request) == (Refused(Why.OVERLOADED, N1) if is_refused else None)


def test_uncommitted_bytes_are_free_again_when_they_are_committed() -> None:
    cluster = led(3, uncommitted_bytes_max=100)
    cluster.propose(N1, b"x" * 100)
    refused = cluster.propose(N1, b"x")
    cluster.settle()

    request = cluster.propose(N1, b"x")
    cluster.settle()

    assert cluster.outcome(N1, refused) == Refused(Why.OVERLOADED, N1)
    assert isinstance(cluster.outcome(N1, request), Committed)


def test_proposals_that_wait_for_the_next_append_count_as_well() -> None:
    cluster = led(3, uncommitted_bytes_max=100)
    for request in (901, 902):
        cluster[N1].step(Propose(request, [b"x" * 60]), cluster.now)

    cluster.drain(N1)

    assert cluster.outcome(N1, 902) == Refused(Why.OVERLOADED, N1)


def test_one_request_too_many_is_refused() -> None:
    cluster = led(3, requests_max=2)

    requests = [cluster.propose(N1) for _ in range(3)]

    assert [cluster.outcome(N1, request) for request in requests] == [None, None, Refused(Why.OVERLOADED, N1)]


def test_change_disguised_as_a_proposal_is_our_bug() -> None:
    cluster = led()

    with pytest.raises(AssertionError, match="ChangeConfiguration"):
        cluster.step(N1, Propose(901, [b"{}"], kind=EntryKind.CONFIGURATION))


# ── at random ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(40))
def test_every_outcome_is_true_whatever_happens(seed: int) -> None:
    """Messages lost, repeated and reordered, crashes, elections, transfers: what was told is so in the end."""
    print(f"seed={seed}")
    rng = Random(seed)
    cluster = Cluster(3, persist_timeout_s=1e9)
    asked: list[tuple[NodeId, int, list[bytes]]] = []

    for _ in range(1_500):
        cluster.happen(rng)
        if rng.random() < 0.1:
            name = rng.choice(list(cluster.servers))
            data = [b"%d-%d" % (len(asked), i) for i in range(rng.randint(1, 3))]
            asked.append((name, cluster.propose(name, *data), data))
    for name in cluster.servers:
        cluster.release_disk(name)
    cluster.advance(60.0)

    history = [data for _, (_, data) in sorted(cluster.chosen.items()) if data]
    assert len(history) == len(set(history))
    for name, request, data in asked:
        match cluster.outcome(name, request):
            case Committed(first, last, term):
                assert [cluster.chosen[index] for index in range(first, last + 1)] == [
                    (term, x) for x in data
                ]
            case Dropped() | Refused() as outcome:
                assert not set(data).intersection(history), f"{data}: {outcome}, and in the log"
            case outcome:
                assert outcome in (None, Unknown())  # None: forgotten in a crash
    assert list(cluster.roles().values()).count(Role.LEADER) == 1
