"""What befalls processes: they are killed, paused, restarted, and lose their disks. Clients notice nothing but delay."""

from __future__ import annotations

import shutil
import time

from tests.raftlog.cluster.servers import Servers

PAUSE_S = 3.0  # longer than any election takes


def test_nothing_is_lost_when_the_leader_is_killed(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        leader = three.leader()
        three.servers[leader].kill()
        three.wait_for_other_leader(leader)
        load.wait_for_progress()
        three.restart(leader)
        load.wait_for_progress()

        three.require_sound(load)


def test_nobody_waits_for_a_follower_that_is_killed(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        leader, follower = three.leader(), three.follower()
        three.servers[follower].kill()
        load.wait_for_progress()
        assert three.leader() == leader
        three.restart(follower)
        load.wait_for_progress()

        three.require_sound(load)


def test_a_leader_that_hangs_is_replaced_and_learns_of_it(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        leader = three.leader()
        three.servers[leader].pause()
        began = time.monotonic()
        load.wait_for_progress()
        time.sleep(max(0.0, PAUSE_S - (time.monotonic() - began)))  # that it hangs so long is what is tested
        three.servers[leader].resume()
        three.wait_for_other_leader(leader)
        load.wait_for_progress()

        three.require_sound(load)


def test_all_killed_at_once_go_on_where_they_were(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        for server in three.servers.values():
            server.kill()
        three.start()
        load.wait_for_progress()

        three.require_sound(load)


def test_all_can_be_restarted_one_after_another(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        for name, server in three.servers.items():
            server.stop()
            three.restart(name)
            load.wait_for_progress(20)

        three.require_sound(load)


def test_a_server_that_lost_its_disk_is_made_a_voter_again(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        follower = three.follower()
        three.servers[follower].kill()
        shutil.rmtree(three.servers[follower].folder / "data")
        load.wait_for_progress()
        three.restart(follower)
        three.wait_for_voters(*three.servers)
        load.wait_for_progress()

        three.require_sound(load)
