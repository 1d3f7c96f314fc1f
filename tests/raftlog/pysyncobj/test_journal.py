from __future__ import annotations

from pathlib import Path

import pytest

from logstore import Config
from logstore.encode import encode_value
from logstore.frame import wire_frame
from raftlog.engine import NodeId
from raftlog.errors import IdentityError, NodeFailed
from raftlog.pysyncobj.codec import Change, encode_change
from raftlog.pysyncobj.journal import PAGE_BYTES, RECENT_MAX, Journal, Member
from raftlog.pysyncobj.replica import Replica
from raftlog.raft.log import LostEntries

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
MEMBERS = {N1: "h:1", N2: "h:2", N3: "h:3"}
NOTHING = b"\1"


def opened(folder: Path, *, cluster_id: str = "c") -> Journal:
    return Journal(folder, Config(), node=N1, cluster_id=cluster_id, members=MEMBERS)


def records(size: int) -> bytes:
    return b"\0" + wire_frame(encode_value(bytes(size), Config()))


def replica_of(journal: Journal) -> Replica:
    return Replica(journal, election_timeout_s_min=60.0, election_timeout_s_max=61.0, may_campaign=True)


def test_entries_come_back_from_disk_as_they_were_added(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    change = encode_change(Change(True, NodeId("n4"), "h:4", ""))
    for index, command in enumerate([NOTHING, change, NOTHING], 2):
        journal.add(command, index, 1)
    journal.flush()
    journal.close()

    journal = opened(tmp_path)

    assert list(journal[:]) == [(NOTHING, 1, 0), (NOTHING, 2, 1), (change, 3, 1), (NOTHING, 4, 1)]
    assert (len(journal), journal[-1], journal[0], journal[1:3][-1]) == (
        4,
        (NOTHING, 4, 1),
        (NOTHING, 1, 0),
        (change, 3, 1),
    )
    assert [entry[1] for entry in reversed(journal[1:])] == [4, 3, 2]
    assert set(journal.newest_members()) - set(journal.members) == {"n4"}  # not committed yet
    journal.close()


def test_what_is_not_in_memory_any_more_is_read_from_disk(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    last = 3 * RECENT_MAX
    for index in range(2, last + 1):
        journal.add(NOTHING, index, 1)

    assert [index for _, index, _ in journal[:]] == list(range(1, last + 1))
    assert [len(journal.page(first, last + 1)) > 0 for first in (1, last)] == [True, True]
    journal.close()


def test_a_page_has_one_entry_or_as_many_as_fit(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for index, size in enumerate([2 * PAGE_BYTES, PAGE_BYTES // 2, PAGE_BYTES // 2 + 1, 10], 2):
        journal.add(records(size), index, 1)

    assert [len(journal.page(first, 6)) for first in (2, 3, 4, 5)] == [1, 2, 2, 1]
    assert len(journal.page(3, 4)) == 1
    journal.close()


def test_uncommitted_entries_can_be_cut_off_and_committed_ones_cannot(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for index in (2, 3, 4):
        journal.add(NOTHING, index, 1)
    journal.setRaftCommitIndex(2)

    journal.deleteEntriesFrom(2)  # a place: entry 3 and all after it
    journal.add(NOTHING, 3, 2)
    journal.flush()
    with pytest.raises(NodeFailed, match="entry 2"):
        journal.deleteEntriesFrom(1)

    assert list(journal[1:]) == [(NOTHING, 2, 1), (NOTHING, 3, 2)]
    journal.close()


def test_term_vote_members_and_what_was_applied_are_known_after_a_restart(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.setCurrentTerm(7, "n2")
    journal.add(encode_change(Change(False, N3, "h:3", "")), 2, 7)
    journal.flush()
    journal.apply_change(Change(False, N3, "h:3", ""), 2)
    journal.applied_to(2)
    journal.close()

    journal = opened(tmp_path)

    assert (journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.getRaftCommitIndex()) == (
        7,
        "n2",
        2,
    )
    assert journal.members == {N1: Member("h:1", ""), N2: Member("h:2", "")}
    assert journal.applied == 2
    journal.close()


def test_a_log_without_entries_that_were_committed_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.add(NOTHING, 2, 1)
    journal.flush()
    journal.applied_to(2)
    journal.log.truncate_entries(2)
    journal.close()

    with pytest.raises(LostEntries, match="up to 2"):
        opened(tmp_path)


def test_another_clusters_data_and_other_logs_are_refused(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    with pytest.raises(IdentityError, match="cluster"):
        opened(tmp_path / "data", cluster_id="another")

    (tmp_path / "data" / "pysyncobj.json").unlink()
    with pytest.raises(IdentityError, match="did not make"):
        opened(tmp_path / "data")
