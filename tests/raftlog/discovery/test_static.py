from __future__ import annotations

import asyncio
import logging

import pytest

from raftlog.discovery.announcing import Announcer
from raftlog.discovery.source import Candidate
from raftlog.discovery.static import StaticMembers
from tests.raftlog.discovery.conftest import Told

N1 = Candidate(name="n1", address="h1:1")
N2 = Candidate(name="n2", address="h2:1")


def test_a_list_says_what_it_was_told_and_names_others_to_the_handler(told: Told) -> None:
    async def scenario() -> None:
        source = StaticMembers({"n2": "h2:1", "n1": "h1:1"}, handler=told, own_name="n1")
        assert source.members() == ()
        await source.start()

        assert [(one.name, one.address, one.status) for one in source.members()] == [
            ("n1", "h1:1", "listed"), ("n2", "h2:1", "listed"),
        ]  # fmt: skip
        await source.set_tags(role="member")
        await source.leave()
        await source.close()

    asyncio.run(scenario())

    assert told.calls == [("join", "n2", "h2:1")]


def test_a_member_is_told_once_again_when_its_address_changes_and_gone_when_it_failed(told: Told) -> None:
    async def scenario() -> None:
        announcer = Announcer(told)
        announcer.announce([N1, N2])
        announcer.announce([N1, N2])
        announcer.announce([N1, Candidate(name="n2", address="h3:1", status="leaving")])
        announcer.announce([N1, Candidate(name="n2", address="h3:1", status="failed")])
        announcer.announce([N1])
        announcer.announce([N1, N2])

    asyncio.run(scenario())

    assert told.calls == [
        ("join", "n1", "h1:1"), ("join", "n2", "h2:1"), ("join", "n2", "h3:1"), ("leave", "n2"), ("join", "n2", "h2:1"),
    ]  # fmt: skip


def test_a_change_before_the_wait_is_not_missed() -> None:
    async def scenario() -> None:
        announcer = Announcer(None)
        announcer.announce([N1])
        async with asyncio.timeout(5.0):
            await announcer.wait_for_change(60.0)

        await announcer.wait_for_change(0.01)  # nothing new: the timeout ends it

    asyncio.run(scenario())


def test_what_a_handler_raises_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Told):
        def join(self, name: str, addr: str) -> None:
            super().join(name, addr)
            raise RuntimeError("broken")

        def leave(self, name: str) -> None:
            super().leave(name)
            raise RuntimeError("broken")

    told = Broken()

    async def scenario() -> None:
        announcer = Announcer(told)
        announcer.announce([N1, N2])
        announcer.announce([])

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())

    assert told.calls == [("join", "n1", "h1:1"), ("join", "n2", "h2:1"), ("leave", "n1"), ("leave", "n2")]
    assert len(caplog.records) == 4
