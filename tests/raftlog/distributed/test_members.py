"""Who the members are: joining, replacing, leaving, handing over."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from raftlog.distributed.log import DistributedLog
from raftlog.engine import NodeId
from raftlog.errors import InvalidRequest, MembershipRefused, NotLeader
from raftlog.raft.configuration import Configuration
from raftlog.testing.cluster import Cluster
from tests.raftlog.distributed.nodes import append, call, look, server_of, steady


def configuration(cluster: Cluster) -> Configuration:
    return look(
        cluster, cluster.wait_for_leader(), lambda log: log.replica.applier.views.members.configuration
    )


def test_joining_a_known_id_with_its_address_does_nothing(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        # Each has told its directory: nothing more changes by itself.
        cluster.wait_until(
            lambda: all(look(cluster, leader, lambda log: [s.directory_id for s in log.get_servers()])),
            "not all directories are known",
        )
        before = look(cluster, leader, lambda log: log.replica.log.last_index)

        call(cluster, leader, lambda log: log.join("n2", cluster.addresses["n2"]))

        assert look(cluster, leader, lambda log: log.replica.log.last_index) == before


def test_a_known_id_with_a_new_address_keeps_its_vote_and_is_told_to_all(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        cluster.kill(follower)  # else it would tell where it really is

        call(cluster, leader, lambda log: log.join(follower, "127.0.0.1:1"))

        server = next(
            each for each in look(cluster, leader, lambda log: log.get_servers()) if each.id == follower
        )
        assert (server.address, server.is_voter) == ("127.0.0.1:1", True)


def test_a_known_address_with_a_new_id_replaces_the_old_server(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        old = next(node for node in cluster.running if node != leader)
        cluster.kill(old)

        call(cluster, leader, lambda log: log.join("newcomer", cluster.addresses[old]))

        found = configuration(cluster)
        assert (old in found.members, found.learners) == (False, ("newcomer",))


def test_a_known_id_with_another_directory_begins_anew_as_a_learner(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        cluster.wait_until(
            lambda: all(look(cluster, leader, lambda log: [s.directory_id for s in log.get_servers()])),
            "not all directories are known",
        )
        cluster.kill(follower)

        call(
            cluster, leader, lambda log: log.join(follower, cluster.addresses[follower], "another-directory")
        )

        assert configuration(cluster).learners == (follower,)


def test_a_server_that_leaves_gets_nothing_more_and_is_no_voter(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)

        call(cluster, leader, lambda log: log.leave(follower))
        call(cluster, leader, lambda log: log.leave(follower))  # who is no member is no error

        end = append(cluster, leader, b"after")[1]
        rest = [node for node in cluster.running if node != follower]
        cluster.wait_until(
            lambda: all(cluster.ends()[node] == end for node in rest), "the rest has not got it"
        )
        assert configuration(cluster).voters == tuple(sorted(rest))
        assert cluster.ends()[follower] < end


def test_a_leader_that_is_to_leave_hands_over_and_names_who_is_to_be_asked(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()

        with pytest.raises(NotLeader):
            call(cluster, leader, lambda log: log.leave(leader))
        cluster.wait_until(lambda: cluster.leader() not in (None, leader), "nobody else leads")
        call(cluster, cluster.wait_for_leader(), lambda log: log.leave(leader))

        assert leader not in configuration(cluster).members


def test_leadership_goes_to_who_is_named_or_to_anybody(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        heir = next(node for node in cluster.running if node != leader)

        assert call(cluster, leader, lambda log: log.transfer_leadership(heir)) == heir
        assert cluster.wait_for_leader() == heir
        assert call(cluster, heir, lambda log: log.transfer_leadership()) != heir
        assert (
            call(cluster, leader := cluster.wait_for_leader(), lambda log: log.transfer_leadership(leader))
            == leader
        )


def test_leadership_is_not_handed_to_who_is_no_voter(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster, pytest.raises(MembershipRefused, match="nobody is not a voter"):
        call(cluster, cluster.wait_for_leader(), lambda log: log.transfer_leadership("nobody"))


def test_the_only_voter_cannot_leave(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:
        with pytest.raises(MembershipRefused):
            call(cluster, "n1", lambda log: log.leave("n1"))

        assert append(cluster, "n1", b"x") == (0, 1)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster, pytest.raises(InvalidRequest):
        call(cluster, "n1", lambda log: log.join("n2", "nowhere"))


def test_a_follower_refuses_to_change_the_members(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        cluster.wait_until(
            lambda: server_of(cluster, follower).replica.leader == leader, "it knows no leader"
        )

        for ask in (
            lambda log: log.join("n9", "127.0.0.1:9"),
            lambda log: log.leave("n1"),
            lambda log: log.promote("n1"),
            lambda log: log.transfer_leadership(),
            lambda log: log.truncate(0),
            lambda log: log.commit_cursor("g", 0),
        ):
            with pytest.raises(NotLeader):
                call(cluster, follower, ask)


def test_who_is_removed_on_purpose_comes_back_only_if_it_is_asked_for(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        address = cluster.addresses[follower]
        directory = server_of(cluster, follower).replica.directory_id
        call(cluster, leader, lambda log: log.leave(follower))

        with pytest.raises(MembershipRefused, match="removed on purpose"):
            call(cluster, leader, lambda log: log.join(follower, address, directory))
        call(cluster, leader, lambda log: log.join(follower, address))
        call(cluster, leader, lambda log: log.leave(follower, is_barred=False))
        call(cluster, leader, lambda log: log.join(follower, address, directory))

        assert follower in configuration(cluster).members


def test_the_mode_of_the_autopilot_is_the_same_for_all(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)

        with pytest.raises(NotLeader):
            call(cluster, follower, lambda log: log.set_autopilot_mode("advise"))
        call(cluster, leader, lambda log: log.set_autopilot_mode("advise"))

        cluster.wait_until(
            lambda: (
                {look(cluster, node, lambda log: log.autopilot_mode) for node in cluster.running}
                == {"advise"}
            ),
            "the mode is not known to all",
        )


def test_when_a_follower_answered_last_is_known(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        replica = server_of(cluster, leader).replica
        start = time.monotonic()

        cluster.wait_until(
            lambda: (replica.answered_at(NodeId(follower)) or 0.0) > start, "it never answered"
        )
        call(cluster, leader, lambda log: log.leave(follower))

        cluster.wait_until(lambda: replica.answered_at(NodeId(follower)) is None, "a stranger counts")


def test_the_address_of_a_server_that_answers_is_not_taken(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        misled, other = [node for node in cluster.running if node != leader]
        directory = server_of(cluster, misled).replica.directory_id

        for node, its in ((misled, directory), ("newcomer", "its"), ("newcomer", "")):
            with pytest.raises(MembershipRefused, match=f"{other} .*answers"):
                join = partial(DistributedLog.join, id=node, addr=cluster.addresses[other], directory_id=its)
                call(cluster, leader, join)

        assert configuration(cluster).voters == tuple(sorted(cluster.running))


def test_a_name_is_not_given_to_another_directory_while_the_known_one_answers(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        follower = next(node for node in cluster.running if node != leader)
        cluster.wait_until(
            lambda: all(look(cluster, leader, lambda log: [s.directory_id for s in log.get_servers()])),
            "not all directories are known",
        )

        with pytest.raises(MembershipRefused, match=f"{follower} .*answers"):
            call(cluster, leader, lambda log: log.join(follower, "127.0.0.1:1", "another-directory"))

        assert configuration(cluster).voters == tuple(sorted(cluster.running))


def test_a_server_without_which_the_others_have_no_quorum_stays(tmp_path: Path) -> None:
    with steady(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        voters = tuple(sorted(cluster.running))
        dead, follower = [node for node in voters if node != leader]
        cluster.kill(dead)

        for node in (follower, leader):
            with pytest.raises(MembershipRefused, match=f"without {node} .*{dead}"):
                call(cluster, leader, partial(DistributedLog.leave, id=node))
        assert configuration(cluster).voters == voters
        call(cluster, leader, lambda log: log.leave(dead))
        call(cluster, leader, lambda log: log.leave(follower))

        assert append(cluster, leader, b"after") == (0, 1)
