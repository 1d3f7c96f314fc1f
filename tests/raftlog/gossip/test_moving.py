"""A node that comes back under its name with another address, as a container does that is started again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.discovery import membership
from raftlog.serf.config import FAST
from raftlog.serf.events import NameTaken
from tests.raftlog.gossip.agents import until
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.nodes import OurNode

# The one that is away is missed so late that it is back before, on any machine.
SLOW_TO_MISS = replace(FAST, swim=replace(FAST.swim, suspicion_mult=15, dead_reclaim_s=0.5))
THREE = dict.fromkeys(("n1", "n2", "n3"), "alive")


def test_who_comes_back_elsewhere_before_it_was_missed_gets_its_name_back(
    run_once: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while the others take it for a second one of its name; once its old address is dead it is the only one."""
    monkeypatch.setattr(membership, "NAME_PAUSE_S", 0.5)
    monkeypatch.setattr(membership, "ALONE_S", 0.5)

    async def scenario() -> None:
        async with node("n2") as n2, node("n3", n2.address) as n3:
            async with node("n1", n2.address) as before:
                for one in (before, n2, n3):
                    await one.until_sees(THREE)

            async with node("n1", n2.address, n3.address) as after:
                await until(lambda: bool(after.told_of(NameTaken)), lambda: after.told)
                for one in (after, n2, n3):
                    await until_knows(one, "n1", after.address)
                    await one.until_sees(THREE)
            assert after.address != before.address

    run_once(scenario())


def node(name: str, *joins: str) -> OurNode:
    return OurNode(name, joins=joins, profile=SLOW_TO_MISS)


async def until_knows(one: OurNode, name: str, address: str) -> None:
    def known() -> dict[str, str]:
        return {each.name: each.gossip_address for each in one.membership.members() if each.status == "alive"}

    await until(lambda: known().get(name) == address, known)
