"""The log in the words of the system that this one grew from: `get`, `prev`, `after`, what is last, committed, applied."""

from __future__ import annotations

import pytest

from raftlog.raft.configuration import Configuration
from raftlog.raft.log import RaftLog
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Entry, EntryKind
from raftlog.raft.storage import HardState, Write
from raftlog.raft.view import NULL_ENTRY, LogView
from tests.raftlog.raft.builders import N1, N2, N3, entries
from tests.raftlog.raft.cluster import Cluster

VOTERS = Configuration((N1, N2, N3))


def view_of(*terms: int, before: int = 0) -> LogView:
    """A log of entries with these terms, of which those up to `before` have made room for a snapshot."""
    storage = MemoryStorage(VOTERS, index=before, term=1 if before else 0)
    if terms:
        storage.write(Write(HardState(max(terms)), entries=entries(*terms, first=before + 1)))
    return LogView(RaftLog(storage))


def test_empty_log_holds_the_null_entry() -> None:
    view = view_of()

    assert view.get(0) == NULL_ENTRY == Entry(0, 0, EntryKind.NO_OP, b"")
    assert (view.last_index, view.last_term, view.commit_index, view.last_applied) == (0, 0, 0, 0)


# ── get ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("index", [1, 2, 3])
def test_get_gives_the_entry_at_an_index(index: int) -> None:
    assert view_of(1, 1, 2).get(index) == entries(1, 1, 2)[index - 1]


@pytest.mark.parametrize("index", [4, 5, -1])
def test_get_of_what_is_not_there_names_the_range(index: int) -> None:
    view = view_of(1, 1, 2)

    with pytest.raises(IndexError, match=f"^entry {index} is not in the log, which holds 1..3$"):
        view.get(index)


def test_get_of_what_a_snapshot_took_the_place_of_names_the_range() -> None:
    view = view_of(2, 2, before=7)

    with pytest.raises(IndexError, match="^entry 7 is not in the log, which holds 8..9$"):
        view.get(7)


def test_get_0_is_the_null_entry_also_when_a_snapshot_took_the_place_of_the_beginning() -> None:
    assert view_of(2, before=7).get(0) == NULL_ENTRY


# ── prev ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("index", "expected"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_prev_gives_the_entry_before_also_of_one_past_the_last(index: int, expected: int) -> None:
    view = view_of(1, 1, 2)

    assert view.prev(index) == view.get(expected)


def test_prev_of_one_in_an_empty_log_is_the_null_entry() -> None:
    assert view_of().prev(1) == NULL_ENTRY


@pytest.mark.parametrize("index", [0, -1])
def test_prev_of_what_nothing_is_before_says_so(index: int) -> None:
    with pytest.raises(IndexError, match=f"nothing is before entry {index}"):
        view_of(1).prev(index)


def test_prev_of_two_past_the_last_names_the_range() -> None:
    with pytest.raises(IndexError, match="^entry 4 is not in the log, which holds 1..3$"):
        view_of(1, 1, 2).prev(5)


# ── after ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("index", "count"), [(1, 3), (2, 2), (3, 1), (4, 0)])
def test_after_gives_the_entries_from_an_index_on_itself_included(index: int, count: int) -> None:
    found = view_of(1, 1, 2).after(index)

    assert list(found) == entries(1, 1, 2)[3 - count :]


@pytest.mark.parametrize("index", [5, 0, -1])
def test_after_what_is_not_there_names_the_range(index: int) -> None:
    """Also after 0: the null entry is in no log."""
    with pytest.raises(IndexError, match=f"^entry {index} is not in the log, which holds 1..3$"):
        view_of(1, 1, 2).after(index)


def test_after_gives_what_is_durable_and_what_is_not_as_one() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.propose(N1, b"a")
    cluster.settle()
    cluster.hold_disk(N1)
    cluster.propose(N1, b"b", b"c")

    found = cluster[N1].view.after(1)

    assert [entry.data for entry in found] == [b"", b"a", b"b", b"c"]
    assert [entry.index for entry in found] == [1, 2, 3, 4]


# ── last, committed, applied ────────────────────────────────────────────────────────────────────────


def test_view_follows_the_log() -> None:
    cluster = Cluster(3)
    view = cluster[N1].view
    cluster.elect(N1)
    cluster.hold_applying(N1)
    cluster.propose(N1)
    uncommitted = (view.last_index, view.last_term, view.commit_index, view.last_applied)

    cluster.settle()

    assert uncommitted == (2, 1, 1, 1)
    assert (view.last_index, view.last_term, view.commit_index, view.last_applied) == (2, 1, 2, 1)


def test_last_entry_of_a_log_that_is_only_a_snapshot_is_the_snapshots() -> None:
    view = view_of(before=7)

    assert (view.last_index, view.last_term, view.commit_index, view.last_applied) == (7, 1, 7, 7)
    assert view.as_up_to_date(7, 1)
    assert not view.as_up_to_date(6, 1)


@pytest.mark.parametrize(
    ("index", "term", "is_up_to_date"),
    [(3, 2, True), (4, 2, True), (2, 2, False), (1, 3, True), (9, 1, False), (0, 0, False)],
)
def test_log_is_as_up_to_date_by_its_last_term_then_by_its_length(
    index: int, term: int, is_up_to_date: bool
) -> None:
    assert view_of(1, 1, 2).as_up_to_date(index, term) is is_up_to_date


def test_empty_log_is_as_up_to_date_as_an_empty_one() -> None:
    assert view_of().as_up_to_date(0, 0)


# ── what changes the log: the rules that were there, and are stricter here ─────────────────────────


def log_of(*terms: int, commit: int = 0) -> RaftLog:
    storage = MemoryStorage(VOTERS)
    storage.write(Write(HardState(max(terms)), entries=entries(*terms), commit=commit))
    return RaftLog(storage)


@pytest.mark.parametrize("first", [3, 5])
def test_append_leaves_no_gap_and_no_overlap(first: int) -> None:
    log = log_of(1, 1, 2)

    with pytest.raises(AssertionError):
        log.append(entries(2, first=first))

    assert log.last_index == 3


@pytest.mark.parametrize("end", [1, 2])
def test_truncation_never_cuts_what_is_committed(end: int) -> None:
    log = log_of(1, 1, 2, commit=2)

    with pytest.raises(AssertionError, match=f"entry {end} is committed"):
        log.truncate(end)

    assert log.last_index == 3


def test_truncation_right_after_what_is_committed() -> None:
    log = log_of(1, 1, 2, 2, commit=2)

    log.truncate(3)

    assert (log.last_index, log.last_term, log.durable) == (2, 1, 2)


def test_commit_never_goes_back() -> None:
    log = log_of(1, 1, 2, commit=2)

    log.commit_to(1)

    assert log.committed == 2
