"""Who is removed, and who campaigns while a change is under way (paper, 6; dissertation 4.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.engine import NodeId, Receive
from raftlog.raft import Role
from raftlog.raft.configuration import ChangeKind, Configuration
from raftlog.raft.events import Campaign, Committed
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Append, AppendReply, Entry, EntryKind
from raftlog.raft.storage import HardState, Write
from tests.raftlog.raft.builders import N1, N2, N3, N4, N5, change, entries, payloads, storage_with
from tests.raftlog.raft.cluster import Cluster, led

ADD, LEARN, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE


def configurations(cluster: Cluster, *names: NodeId) -> set[str]:
    return {str(cluster[name].configuration) for name in names or cluster.servers}


# ── removal ─────────────────────────────────────────────────────────────────────────────────────────


def test_leader_that_removes_itself_commits_that_and_steps_down() -> None:
    """4.2.2."""
    cluster = led()

    request = cluster.change(N1, change((REMOVE, N1)))
    cluster.settle()
    cluster.advance(10.0)

    assert cluster.outcome(N1, request) == Committed(2, 2, term=1)
    assert cluster[N1].role.name is Role.FOLLOWER
    assert configurations(cluster, N2, N3) == {"voters=(n2 n3)"}
    assert [cluster[name].role.name for name in (N2, N3)].count(Role.LEADER) == 1


def test_leader_counts_itself_until_its_removal_is_in_force() -> None:
    """Majorities are those of the configuration in force, not of the one in the log."""
    cluster = led(voters=2)
    request = cluster.change(N1, change((REMOVE, N1)))
    cluster.take()

    cluster.step(N1, Receive(N2, AppendReply(1, 2)))

    assert isinstance(cluster.outcome(N1, request), Committed)


@pytest.mark.parametrize("pre_vote", [True, False])
def test_removed_node_does_not_disturb(pre_vote: bool) -> None:
    """4.2.3: it hears nothing more, and campaigns again and again; the others hear their leader."""
    cluster = led(voters=4, pre_vote=pre_vote)
    cluster.isolate(N4)
    cluster.change(N1, change((REMOVE, N4)))
    cluster.settle()
    cluster.heal()

    cluster.advance(30.0)

    assert cluster[N1].role.name is Role.LEADER
    assert {cluster[name].term for name in (N1, N2, N3)} == {1}


def test_acknowledgement_of_a_removed_node_does_not_count() -> None:
    cluster = led()
    cluster.change(N1, change((REMOVE, N3)))
    cluster.settle()
    cluster.isolate(N2)
    request = cluster.propose(N1)

    cluster.step(N1, Receive(N3, AppendReply(1, match=3)))

    assert cluster.outcome(N1, request) is None
    assert cluster[N1].log.committed == 2


def test_vote_of_a_removed_node_does_not_count() -> None:
    cluster = led()
    cluster.change(N1, change((REMOVE, N3)))
    cluster.settle()
    cluster.crash(N1)

    cluster.campaign(N2)
    cluster.settle()

    assert cluster[N2].role.name is not Role.LEADER


def test_removal_lets_commit_what_waited_for_the_removed() -> None:
    cluster = led(voters=4)
    cluster.crash(N3)
    request = cluster.change(N1, change((REMOVE, N4)))
    cluster.settle()
    cluster.crash(N4)

    after = cluster.propose(N1)
    cluster.settle()

    assert isinstance(cluster.outcome(N1, request), Committed)
    assert isinstance(cluster.outcome(N1, after), Committed)


def test_node_removed_and_added_again_is_probed_anew() -> None:
    """Its disk may be another one: nothing that was known of it is believed."""
    cluster = led()
    cluster.change(N1, change((REMOVE, N3)))
    cluster.settle()
    cluster.servers[N3].storage = storage_with(cluster.configuration)
    cluster.crash(N3)
    cluster.restart(N3)

    cluster.change(N1, change((ADD, N3)))
    known = cluster.progress(N1, N2).match
    cluster.settle()

    assert known == 2
    assert cluster.log(N3) == cluster.log(N1)


# ── campaigns and changes ───────────────────────────────────────────────────────────────────────────


def test_node_with_a_committed_change_that_is_not_applied_does_not_campaign() -> None:
    """It would count majorities that are not those of today."""
    cluster = led(outside=(N4,))
    cluster.hold_applying(N2)
    cluster.change(N1, change((ADD, N4)))
    cluster.settle()
    cluster.heartbeat(N1)

    cluster.campaign(N2)
    held = cluster[N2].role.name
    cluster.release_applying(N2)
    cluster.campaign(N2)

    assert held is Role.FOLLOWER
    assert cluster[N2].role.name is Role.PRE_CANDIDATE


def test_node_with_a_change_that_is_not_committed_campaigns() -> None:
    """Otherwise nobody might be able to: the change may be in every log."""
    cluster = led(outside=(N4,))
    cluster.change(N1, change((ADD, N4)))
    cluster.deliver(cluster.on_the_way(Append, to=N2)[0])
    cluster.take()

    cluster.elect(N2)

    assert configurations(cluster, N1, N2, N3, N4) == {"voters=(n1 n2 n3 n4)"}


def test_restart_knows_by_a_later_change_that_the_earlier_was_committed() -> None:
    """What the commit index beside a change on the disk is for (storage.py, Write): n1 is two changes behind, applied 0."""
    cluster = led(outside=(N4, N5))
    for added in (N4, N5):
        cluster.change(N1, change((ADD, added)))
        cluster.settle()
    cluster.hold_applying(N2)
    cluster.crash(N2)

    cluster.restart(N2)
    cluster.hold_applying(N2)
    cluster.campaign(N2)

    assert str(cluster[N2].configuration) == "voters=(n1 n2 n3)"
    assert cluster[N2].role.name is Role.FOLLOWER


def test_restart_knows_that_too_when_the_write_of_the_later_change_was_torn() -> None:
    """The change is on the disk, what followed it is not, nor the commit index that was to be written with both."""
    cluster = led(outside=(N4, N5))
    cluster.change(N1, change((ADD, N4)))
    cluster.settle()
    cluster.isolate(N2)
    later = cluster[N1].log.last_index + 1
    cluster.change(N1, change((ADD, N5)))
    cluster.propose(N1)
    cluster.settle()
    cluster.heal()
    cluster.hold_disk(N2)
    cluster.heartbeat(N1)
    torn = cluster.servers[N2].unwritten[0].write
    cluster.crash(N2)
    cluster.servers[N2].storage.write(replace(torn, entries=torn.entries[:1], commit=0))

    cluster.restart(N2)
    cluster.hold_applying(N2)
    cluster.campaign(N2)

    assert ([entry.index for entry in torn.entries], cluster[N2].log.last_index) == (
        [later, later + 1],
        later,
    )
    assert str(cluster[N2].configuration) == "voters=(n1 n2 n3)"
    assert cluster[N2].role.name is Role.FOLLOWER


def test_change_in_the_log_is_known_after_a_restart_and_in_force_when_it_is_applied_again() -> None:
    cluster = led(outside=(N4,))
    cluster.change(N1, change((ADD, N4)))
    cluster.settle()
    cluster.crash(N3)

    cluster.restart(N3)
    cluster.heartbeat(N1)

    assert configurations(cluster) == {"voters=(n1 n2 n3 n4)"}


def test_story_of_the_bug_of_2015_ends_well() -> None:
    """raft-dev, July 2015: two changes of different terms, neither overlapping with the other.

    1. n1 leads n1..n4 in term 1, and appends "add n5", which nobody but n5 gets. It is cut off.
    2. n2 is elected by n3 and n4, and removes n1. That needs a majority of n1..n4.
    3. n1 and n5 cannot commit anything any more: n1's majority is still one of n1..n4.
    """
    cluster = led(outside=(N5,), voters=4)
    cluster.change(N1, change((ADD, N5)))
    cluster.take()
    cluster.step(N5, Receive(N1, Append(1, 0, 0, cluster.log(N1), commit=1)))
    cluster.take()
    cluster.isolate(N1, N5)
    cluster.elect(N2)
    removed = cluster.change(N2, change((REMOVE, N1)))
    cluster.settle()
    cluster.propose(N2, b"kept")
    cluster.settle()

    cluster.advance(5.0)
    cluster.step(N1, Campaign())
    cluster.settle()
    alone = (cluster[N1].role.name, cluster[N1].log.committed)
    cluster.heal()
    cluster.advance(20.0)

    assert isinstance(cluster.outcome(N2, removed), Committed)
    assert alone[0] is not Role.LEADER
    assert alone[1] == 1
    assert payloads(cluster.servers[N3].applied) == [b"kept"]


def test_single_node_grows_to_three_and_shrinks_again() -> None:
    cluster = led(outside=(N2, N3), voters=1)

    for step in (change((ADD, N2)), change((ADD, N3)), change((REMOVE, N3)), change((REMOVE, N2))):
        cluster.change(N1, step)
        cluster.settle()
    request = cluster.propose(N1)

    assert isinstance(cluster.outcome(N1, request), Committed)
    assert str(cluster[N1].configuration) == "voters=(n1)"


def test_node_that_is_no_member_waits() -> None:
    cluster = Cluster(3, outside=[N4])

    cluster.step(N4, Campaign())

    assert cluster[N4].deadline() is None
    assert cluster.letters == []


def test_refused_candidate_learns_what_is_committed() -> None:
    """It may be a change that it has, and does not know to be in force; whoever knew that as a leader may be gone."""
    voters = Configuration((N1, N2, N3))
    storages = {
        N2: storage_with(voters, 1, 1, 1, commit=1),
        N3: storage_with(voters, 1, 1, 1, 2, 2, commit=3),
    }
    cluster = Cluster(3, storages=storages)
    cluster.crash(N1)

    cluster.campaign(N2)
    cluster.settle()

    assert cluster[N2].role.name is not Role.LEADER
    assert cluster[N2].log.committed == 3


def test_candidate_does_not_take_for_committed_what_it_has_otherwise() -> None:
    """The index alone says nothing: its own entries 2 and 3 are of a term that lost."""
    voters = Configuration((N1, N2, N3))
    storages = {
        N2: storage_with(voters, 1, 2, 2, commit=1),
        N3: storage_with(voters, 1, 3, 3, 3, commit=3),
    }
    cluster = Cluster(3, storages=storages)
    cluster.crash(N1)

    cluster.campaign(N2)
    cluster.settle()

    assert cluster[N2].log.committed == 1


def test_candidate_that_learns_of_its_own_removal_gives_up() -> None:
    """1. n1, n2 and n3 hold the removal of n1; only n2, whose log is longer, knows that it is committed.
    2. n1 campaigns, and n2's refusal tells it: it is a member no more.
    3. n3, n4 and n5 grant their votes: a majority of those that are left, for one that is not among them.
    """
    voters, removal = Configuration((N1, N2, N3, N4, N5)), change((REMOVE, N1)).to_bytes()
    first, third = entries(1, 1, 1)[0::2]
    log = [first, Entry(2, 1, EntryKind.CONFIGURATION, removal), third]
    storages = {}
    for name, length, commit in ((N1, 2, 1), (N2, 3, 2), (N3, 2, 1), (N4, 1, 1), (N5, 1, 1)):
        storages[name] = MemoryStorage(voters)
        storages[name].write(Write(HardState(1), entries=log[:length], commit=commit))
    cluster = Cluster(5, storages=storages, pre_vote=False)
    cluster.campaign(N1)

    cluster.settle()

    assert str(cluster[N1].configuration) == "voters=(n2 n3 n4 n5)"
    assert (cluster[N1].term, cluster[N1].role.name) == (2, Role.FOLLOWER)
