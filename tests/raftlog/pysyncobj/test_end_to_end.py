"""Servers on this engine, in processes of their own, with mutual TLS and under load.

The stories are those of tests/raftlog/cluster, and so is the judgement. They show that nothing was lost here, not that
nothing can be: docs/decisions/0007-pysyncobj-engine.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from raftlog import Client
from raftlog.local_cluster import LocalCluster
from tests.raftlog.cluster import (
    conftest,
    test_certificates,
    test_membership,
    test_partitions,
    test_processes,
    test_proglog_client,
)
from tests.raftlog.cluster.servers import Servers

three, folder = conftest.three, conftest.folder
whole_network, network = conftest.whole_network, conftest.network
client = test_proglog_client.client

test_killed_leader = test_processes.test_nothing_is_lost_when_the_leader_is_killed
test_killed_follower = test_processes.test_nobody_waits_for_a_follower_that_is_killed
test_paused_leader = test_processes.test_a_leader_that_hangs_is_replaced_and_learns_of_it
test_all_killed = test_processes.test_all_killed_at_once_go_on_where_they_were
test_rolling_restart = test_processes.test_all_can_be_restarted_one_after_another
test_lost_disk = test_processes.test_a_server_that_lost_its_disk_is_made_a_voter_again

test_leader_cut_off = test_partitions.test_a_leader_that_is_cut_off_is_replaced
test_follower_cut_off = test_partitions.test_a_follower_that_is_cut_off_catches_up
test_leader_that_hears_nobody = test_partitions.test_a_leader_that_hears_nobody_steps_down
test_leader_that_nobody_hears = test_partitions.test_a_leader_that_nobody_hears_is_replaced

test_growing_and_shrinking = test_membership.test_a_cluster_grows_from_one_to_five_and_shrinks_again
test_moving = test_membership.test_a_server_that_moves_is_found_at_its_new_address
test_new_certificates = test_certificates.test_new_certificates_are_used_without_a_restart

test_proglog_calls = test_proglog_client.test_its_five_calls_work_at_any_server
test_proglog_refusals = test_proglog_client.test_an_offset_that_does_not_exist_is_refused_as_proglog_does

# Stories of clusters that this engine cannot be in, and why.
CANNOT: Final = {
    "a full disk refuses appends, and is used again when it has room": "PySyncObj cannot take an entry back: the node stops",
    "a slow way to one follower changes no leader": "the disk is written in the event loop, so heartbeats may be late",
    "a joining server is a learner until it has caught up": "PySyncObj's observers cannot become voters",
    "a server whose votes or log are damaged comes back as a learner": "there are no learners; it refuses to start",
    "a damaged range is fetched from others": "frames are not mended; the node has to be joined anew",
    "a server far behind is brought up by a snapshot": "there are no snapshots; it is sent the log from its first entry",
    "truncation and retention of a cluster": "a newcomer needs the whole log",
    "groups go on where they were": "there are no cursors",
    "a follower answers linearizable reads": "there is no read index; the client asks the leader",
    "a leader whose disk stalls hands over": "the disk is written in the event loop: it cannot notice",
}


@pytest.fixture(scope="module", autouse=True)
def _on_pysyncobj() -> Iterator[None]:
    """All servers of the stories run on this engine."""
    create = LocalCluster.create

    def create_on(cluster: LocalCluster, nodes: int, settings: Mapping[str, object] | None = None) -> None:
        create(cluster, nodes, {**(settings or {}), "engine": "pysyncobj"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCluster, "create", create_on)
        yield


def test_servers_say_that_they_run_on_it(three: Servers) -> None:
    with Client(list(three.addresses.values()), tls=three.tls) as client:
        assert {client.status(address).engine for address in three.addresses.values()} == {"pysyncobj"}


@pytest.mark.parametrize("story", CANNOT)
def test_not_with_this_engine(story: str) -> None:
    pytest.skip(f"{story}: {CANNOT[story]}")
