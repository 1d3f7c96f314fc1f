from __future__ import annotations

from random import Random

import pytest

from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration
from raftlog.raft.progress import Inflights, Progress, ProgressState, track

N1, N2, N3 = (NodeId(f"n{number}") for number in range(1, 4))

SEED = 20_140_814


def make_progress(state: ProgressState, *, match: int, next: int, count_max: int = 2) -> Progress:
    return Progress(Inflights(count_max, bytes_max=0), state=state, match=match, next=next, sent_commit=next)


def replicating(*, match: int, next: int, count_max: int = 2) -> Progress:
    return make_progress(ProgressState.REPLICATE, match=match, next=next, count_max=count_max)


def probing(*, match: int, next: int) -> Progress:
    return make_progress(ProgressState.PROBE, match=match, next=next)


# ── the window ──────────────────────────────────────────────────────────────────────────────────────


def test_window_is_full_at_its_count() -> None:
    window = Inflights(count_max=2, bytes_max=0)

    window.add(5, 1 << 40)
    before = window.is_full
    window.add(7, 1 << 40)

    assert (before, window.is_full, window.count) == (False, True, 2)
    with pytest.raises(AssertionError, match="2 in flight"):
        window.add(8, 1)


@pytest.mark.parametrize(("bytes_count", "is_full"), [(99, False), (100, True), (101, True)])
def test_window_is_full_at_its_bytes_and_the_last_may_go_above(bytes_count: int, is_full: bool) -> None:
    window = Inflights(count_max=9, bytes_max=100)

    window.add(5, bytes_count)

    assert window.is_full is is_full


def test_acknowledged_appends_leave_the_window() -> None:
    window = Inflights(count_max=3, bytes_max=100)
    for last_index in (5, 7, 9):
        window.add(last_index, 20)

    seen = []
    for index in (4, 5, 8, 9):
        window.free_through(index)
        seen.append((window.count, window.bytes))

    assert seen == [(3, 60), (2, 40), (1, 20), (0, 0)]


def test_cleared_window_takes_any_index_again() -> None:
    window = Inflights(count_max=1, bytes_max=10)
    window.add(5, 10)

    window.clear()
    window.add(3, 1)

    assert (window.count, window.bytes) == (1, 1)


def test_indexes_in_the_window_ascend() -> None:
    window = Inflights(count_max=3, bytes_max=0)
    window.add(5, 1)

    with pytest.raises(AssertionError, match="5 after 5"):
        window.add(5, 1)


def test_random_windows_agree_with_a_list() -> None:
    random = Random(SEED)
    window = Inflights(count_max=7, bytes_max=1000)
    model: list[tuple[int, int]] = []
    last_index = 0
    for step in range(10_000):
        if random.random() < 0.6 and not window.is_full:
            last_index += random.randrange(1, 4)
            sent = (last_index, random.randrange(400))
            window.add(*sent)
            model.append(sent)
        elif random.random() < 0.9:
            index = random.randrange(last_index - 9, last_index + 2)
            window.free_through(index)
            model = [sent for sent in model if sent[0] > index]
        else:
            window.clear()
            model = []

        total = sum(bytes_count for _, bytes_count in model)
        told = f"seed {SEED}, step {step}: {model}"
        assert (window.count, window.bytes) == (len(model), total), told
        assert window.is_full == (len(model) == 7 or total >= 1000), told


# ── states ──────────────────────────────────────────────────────────────────────────────────────────


def test_probe_begins_after_the_match() -> None:
    progress = replicating(match=3, next=9)
    progress.sent_entries(2, bytes_count=10)

    progress.become_probe()

    assert progress.state is ProgressState.PROBE
    assert (progress.next, progress.sent_commit, progress.inflights.count) == (4, 3, 0)


@pytest.mark.parametrize(("match", "next"), [(3, 11), (10, 11), (12, 13)])
def test_probe_after_a_snapshot_begins_after_it_or_after_the_match(match: int, next: int) -> None:
    progress = probing(match=1, next=2)
    progress.become_snapshot(10)
    progress.maybe_update(match)

    progress.become_probe()

    assert (progress.next, progress.pending_snapshot, progress.is_paused) == (next, 0, False)


def test_replication_begins_after_the_match() -> None:
    progress = probing(match=3, next=9)
    progress.sent_entries(1, bytes_count=10)

    progress.become_replicate()

    assert progress.state is ProgressState.REPLICATE
    assert (progress.next, progress.is_paused) == (4, False)


def test_nothing_is_appended_while_a_snapshot_is_on_its_way() -> None:
    progress = replicating(match=3, next=9)
    progress.sent_entries(1, bytes_count=10)

    progress.become_snapshot(20)

    assert progress.is_paused
    assert (progress.next, progress.sent_commit, progress.pending_snapshot) == (21, 20, 20)
    assert progress.inflights.count == 0
    with pytest.raises(AssertionError, match="snapshot"):
        progress.sent_entries(1, bytes_count=10)


# ── appends and their outcomes ──────────────────────────────────────────────────────────────────────


def test_probe_waits_after_one_append_with_entries() -> None:
    progress = probing(match=3, next=4)

    progress.sent_entries(0, bytes_count=0)
    after_none = progress.is_paused
    progress.sent_entries(5, bytes_count=10)

    assert (after_none, progress.is_paused) == (False, True)
    assert (progress.next, progress.inflights.count) == (4, 0)


def test_replication_goes_on_until_the_window_is_full() -> None:
    progress = replicating(match=3, next=4, count_max=2)

    progress.sent_entries(5, bytes_count=10)
    after_one = progress.is_paused
    progress.sent_entries(1, bytes_count=10)

    assert (after_one, progress.is_paused) == (False, True)
    assert (progress.next, progress.inflights.count) == (10, 2)


def test_empty_append_does_not_enter_the_window() -> None:
    progress = replicating(match=3, next=4, count_max=1)

    progress.sent_entries(0, bytes_count=0)
    after_empty = progress.is_paused
    progress.sent_entries(1, bytes_count=1)
    progress.is_flow_paused = False
    progress.sent_entries(0, bytes_count=0)

    assert (after_empty, progress.is_paused, progress.next) == (False, True, 5)


@pytest.mark.parametrize(
    ("index", "is_news", "match", "next"),
    [(2, False, 3, 6), (3, False, 3, 6), (4, True, 4, 6), (8, True, 8, 9)],
)
def test_acknowledgement_raises_the_match(index: int, is_news: bool, match: int, next: int) -> None:
    progress = replicating(match=3, next=6)
    progress.is_flow_paused = True

    assert progress.maybe_update(index) is is_news
    assert (progress.match, progress.next, progress.is_paused) == (match, next, not is_news)


@pytest.mark.parametrize(
    ("rejected", "is_news", "next"), [(4, False, 9), (5, False, 9), (6, True, 6), (9, True, 6)]
)
def test_rejection_while_replicating_goes_back_to_the_match(rejected: int, is_news: bool, next: int) -> None:
    progress = replicating(match=5, next=9)

    assert progress.maybe_decrease(rejected, hint=7) is is_news
    assert (progress.next, progress.sent_commit) == (next, next - 1 if is_news else 9)


@pytest.mark.parametrize(
    ("rejected", "hint", "is_news", "next"),
    [
        (8, 8, False, 10),  # not the append that is out
        (10, 9, False, 10),
        (9, 9, True, 9),  # one lower at least
        (9, 6, True, 7),  # after the hint
        (9, 2, True, 6),  # never at or below the match
    ],
)
def test_rejection_of_a_probe_goes_back_to_the_hint(
    rejected: int, hint: int, is_news: bool, next: int
) -> None:
    progress = probing(match=5, next=10)
    progress.is_flow_paused = True

    assert progress.maybe_decrease(rejected, hint) is is_news
    assert (progress.next, progress.is_paused) == (next, not is_news)
    assert progress.sent_commit == (next - 1 if is_news else 10)


@pytest.mark.parametrize(
    ("sent_commit", "commit", "can_bump"),
    [(3, 3, False), (3, 4, True), (3, 99, True), (5, 99, False), (4, 99, True)],
)
def test_commit_is_told_if_it_may_raise_the_members(sent_commit: int, commit: int, can_bump: bool) -> None:
    progress = replicating(match=3, next=6)
    progress.sent_commit = sent_commit

    assert progress.can_bump_commit(commit) is can_bump


def test_progress_is_printed_in_one_line() -> None:
    progress = replicating(match=3, next=6, count_max=1)
    progress.sent_entries(1, bytes_count=1)
    learner = Progress(Inflights(1, 0), is_learner=True, recent_active=True)
    waiting = Progress(Inflights(1, 0), recent_active=True)
    waiting.become_snapshot(7)

    printed = [str(progress), str(learner), str(waiting)]

    assert printed == [
        "replicate match=3 next=7 paused inactive inflight=1[full]",
        "probe match=0 next=1 learner",
        "snapshot match=0 next=8 paused pending_snapshot=7",
    ]


# ── who is tracked ──────────────────────────────────────────────────────────────────────────────────


def tracked(
    progress: dict[NodeId, Progress], configuration: Configuration, *, newcomers: tuple[NodeId, ...] = ()
) -> dict[NodeId, Progress]:
    return track(
        progress,
        configuration,
        newcomers=newcomers,
        last_index=9,
        inflight_count_max=4,
        inflight_bytes_max=100,
    )


def test_members_of_a_configuration_are_tracked_in_order() -> None:
    joint = Configuration(voters=(N3,), outgoing=(N1,), learners=(N2,), learners_next=(N1,))

    progress = tracked({}, joint)

    assert list(progress) == [N1, N2, N3]
    assert [one.is_learner for one in progress.values()] == [False, True, False]
    assert {(one.match, one.next, one.recent_active) for one in progress.values()} == {(0, 9, True)}
    assert progress[N1].inflights is not progress[N2].inflights
    assert (progress[N1].inflights.count_max, progress[N1].inflights.bytes_max) == (4, 100)


def test_who_stays_keeps_its_progress_and_who_leaves_is_forgotten() -> None:
    before = tracked({}, Configuration(voters=(N1, N2, N3)))
    before[N1].maybe_update(7)

    after = tracked(before, Configuration(voters=(N2,), learners=(N1,)))

    assert list(after) == [N1, N2]
    assert after[N1] is before[N1]
    assert after[N1].is_learner


def test_who_was_removed_and_added_again_begins_anew() -> None:
    before = tracked({}, Configuration(voters=(N1, N2)))
    before[N2].maybe_update(7)

    after = tracked(before, Configuration(voters=(N1, N2)), newcomers=(N2,))

    assert after[N1] is before[N1]
    assert after[N2].match == 0


def test_members_of_an_empty_log_are_probed_at_its_first_entry() -> None:
    progress = track(
        {}, Configuration((N1,)), newcomers=(), last_index=0, inflight_count_max=1, inflight_bytes_max=0
    )

    assert progress[N1].next == 1
