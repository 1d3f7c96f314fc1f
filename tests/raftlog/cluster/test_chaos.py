"""Faults at random for as long as RAFTLOG_CHAOS_SECONDS says; RAFTLOG_CHAOS_SEED repeats what is drawn."""

from __future__ import annotations

import os
import time
from random import Random, SystemRandom
from typing import Final

import pytest

from tests.raftlog.cluster.chaos import Chaos
from tests.raftlog.cluster.servers import Network

SECONDS: Final = float(os.environ.get("RAFTLOG_CHAOS_SECONDS", "0"))
FAULTS_PER_LOAD: Final = 5


@pytest.mark.skipif(not SECONDS, reason="RAFTLOG_CHAOS_SECONDS is not set")
def test_whatever_happens_nothing_is_lost_or_stored_twice(network: Network) -> None:
    servers, _ = network
    seed = int(os.environ.get("RAFTLOG_CHAOS_SEED") or SystemRandom().randrange(1 << 32))
    chaos = Chaos(network, Random(seed))
    acknowledged, end = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            with servers.load() as load:
                for _ in range(FAULTS_PER_LOAD):
                    load.wait_for_progress()
                    chaos.strike()
                load.wait_for_progress()
                servers.require_sound(load)
            acknowledged += load.acknowledged
    finally:
        print(f"seed {seed}: {len(chaos.history)} faults, {acknowledged} records acknowledged and found")
        print("\n".join([*chaos.history, *(server.tail for server in servers.servers.values())]))
