"""Members by gossip among nodes of ours."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from raftlog.discovery import membership
from raftlog.discovery.announcing import Announcer
from raftlog.discovery.membership import Membership, MembershipConfig
from raftlog.discovery.source import Candidate
from raftlog.errors import ListenError
from raftlog.net.addresses import split_address
from raftlog.net.gossip.binding import bind
from raftlog.net.gossip.runner import REQUESTS_MAX, GossipEnded
from raftlog.runtime.actor import InboxFull
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.serf import encode_tags
from raftlog.serf.config import FAST, META_BYTES_MAX
from raftlog.serf.events import KeyAction, MemberJoined, Told, UserEventCame
from raftlog.serf.messages import Address, NodeState, PushPull, State, Versions
from raftlog.serf.node import SerfNode
from tests.raftlog.gossip.agents import until
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.nodes import OurNode

KEY, NEW_KEY, OTHER_KEY = bytes(range(16)), bytes(range(16, 48)), bytes(32)
TWO = {"n1": "alive", "n2": "alive"}


def free_address() -> str:
    sockets = bind("127.0.0.1:0")
    host, port = sockets.packets.getsockname()
    sockets.close()
    return f"{host}:{port}"


def test_an_address_is_tried_until_it_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RETRY_S_MIN", 0.02)

    async def scenario() -> None:
        address = free_address()
        async with OurNode("n1", joins=[address]) as n1:
            await n1.membership.first_look()
            assert n1.statuses() == {"n1": "alive"}

            async with OurNode("n2", bind_addr=address) as n2:
                await n1.until_sees(TWO)
                await n2.until_sees(TWO)
                assert n1.calls == [("join", "n2", "n2:8400")]

    run(scenario())


def test_who_is_alone_asks_all_whom_it_knew(run_once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "ALONE_S", 0.05)
    monkeypatch.setattr(membership, "RETRY_S_MIN", 0.02)

    async def scenario() -> None:
        async with OurNode("n1") as n1:
            async with OurNode("n2", joins=[n1.address]) as n2:
                await n1.until_sees(TWO)
                address = n2.address
                await n2.membership.leave()  # who left is not looked for by the gossip itself
            await n1.until_sees({"n1": "alive", "n2": "left"})

            async with OurNode("n2", bind_addr=address):
                await n1.until_sees(TWO)

    run_once(scenario())


def test_what_an_address_answers_is_told_for_each(run: Run) -> None:
    async def scenario() -> None:
        async with OurNode("n1") as n1, OurNode("n2") as n2:
            nobody = free_address()
            outcomes = await n1.membership.join([n2.address, nobody, "no-port", n1.address])

            assert {address for address, reason in outcomes.items() if not reason} == {n2.address, n1.address}
            assert "not host:port" in outcomes["no-port"]
            await n2.until_sees(TWO)

    run(scenario())


def test_tags_that_are_too_large_change_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with OurNode("n1", tags={"rpc_addr": "h:1"}) as n1:
            with pytest.raises(ValueError):
                await n1.membership.set_tags(note="x" * META_BYTES_MAX)
            await n1.membership.set_tags(role="member")

            (own,) = n1.membership.members()
            assert (own.address, own.role) == ("h:1", "member")

    run(scenario())


def test_tags_are_kept_for_the_next_node_while_there_is_none(
    run_once: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lost its name for a while, or whose gossip failed, must not end of telling its tags then."""
    monkeypatch.setattr(membership, "RETRY_S_MIN", 0.05)

    async def scenario() -> None:
        async with OurNode("n1") as n1:
            monkeypatch.setattr(SerfNode, "step", fail)
            with pytest.raises(GossipEnded):
                await n1.membership.user_event("e", b"")
            await n1.membership.set_tags(role="member")
            with pytest.raises(ValueError, match="512 bytes at most"):
                await n1.membership.set_tags(note="x" * META_BYTES_MAX)
            monkeypatch.undo()

            def roles() -> list[str]:
                return [member.role for member in n1.membership.members()]

            await until(lambda: roles() == ["member"], roles)

    def fail(node: SerfNode, event: Any, now: float) -> None:
        raise RuntimeError("a bug")

    run_once(scenario())


def test_who_leaves_while_its_gossip_begins_anew_stays_away(
    run_once: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there to say goodbye; a new node would tell all that this server is back."""
    monkeypatch.setattr(membership, "RETRY_S_MIN", 0.05)

    def fail(node: SerfNode, event: Any, now: float) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        before = asyncio.all_tasks()
        async with OurNode("n1") as n1:
            monkeypatch.setattr(SerfNode, "step", fail)
            with pytest.raises(GossipEnded):
                await n1.membership.user_event("e", b"")
            await n1.membership.leave()
            monkeypatch.undo()

            bind(n1.address).close()
            assert asyncio.all_tasks() == before  # nothing is left that could make a new one
            await n1.membership.come_back()
            await n1.until_sees({"n1": "alive"})
            await n1.membership.user_event("e", b"")

    run_once(scenario())


def test_many_members_that_come_at_once_are_announced_at_once(
    run_once: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look through all of them for each took 8 s for 1,000, in which nothing else was done."""
    count = 300
    announced: list[int] = []
    announce = Announcer.announce

    def counted(announcer: Announcer, candidates: Sequence[Candidate]) -> None:
        announced.append(len(candidates))
        announce(announcer, candidates)

    monkeypatch.setattr(Announcer, "announce", counted)
    meta = encode_tags({"rpc_addr": "10.0.0.1:8400"})
    nodes = [
        NodeState(f"m{number}", Address(f"127.0.0.2:{1000 + number}"), meta, 1, State.ALIVE, Versions())
        for number in range(count)
    ]
    state = Codec(Keyring(), nonce=os.urandom).stream(PushPull(tuple(nodes), b"", is_join=True))

    async def scenario() -> None:
        async with OurNode("n1") as n1:
            reader, writer = await asyncio.open_connection(*split_address(n1.address))
            writer.write(state)
            assert await reader.read(1)
            await until(lambda: len(n1.calls) == count, lambda: len(n1.calls))
            writer.close()

    run_once(scenario())
    assert len([each for each in announced if each > 1]) < 10, announced


def test_one_event_that_is_not_taken_ends_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def listen(told: Told) -> None:
        if isinstance(told, UserEventCame):
            heard.append(told.payload)
            if told.payload == b"1":
                raise RuntimeError("a bug of the listener")

    async def scenario() -> None:
        config = MembershipConfig(node_name="n1", bind_addr="127.0.0.1:0", profile=FAST)
        n1 = Membership(None, config, on_told=listen)
        await n1.start()
        try:
            await asyncio.gather(*(n1.user_event("e", payload) for payload in (b"1", b"2")))
            await n1.user_event("e", b"3")
        finally:
            await n1.close()

    with caplog.at_level(logging.ERROR):
        run(scenario())

    assert heard == [b"1", b"2", b"3"]
    assert [record.getMessage() for record in caplog.records] == [
        "what was told of the gossip was not taken event=UserEventCame"
    ]


def test_requests_beyond_the_limit_are_refused_and_those_that_wait_end_with_the_gossip(run: Run) -> None:
    async def scenario() -> None:
        async with OurNode("n1") as n1:
            asked = [
                asyncio.create_task(n1.membership.query("q", b"", timeout_s=60.0))
                for _ in range(REQUESTS_MAX)
            ]
            await asyncio.sleep(0)
            with pytest.raises(InboxFull):
                await n1.membership.query("q", b"", timeout_s=60.0)
            await n1.membership.close()

            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            ended = [outcome for outcome in outcomes if not isinstance(outcome, ValueError)]
            assert ended
            assert all(isinstance(outcome, GossipEnded) for outcome in ended)
            with pytest.raises(GossipEnded):
                await n1.membership.user_event("e", b"")

    run(scenario())


def test_a_node_whose_engine_fails_is_made_anew_and_found_again(
    run_once: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(membership, "ALONE_S", 0.05)
    monkeypatch.setattr(membership, "RETRY_S_MIN", 0.02)
    fails: list[str] = []
    step = SerfNode.step

    def failing(node: SerfNode, event: Any, now: float) -> None:
        if node.local.name in fails:
            fails.remove(node.local.name)
            raise RuntimeError("a bug")
        step(node, event, now)

    monkeypatch.setattr(SerfNode, "step", failing)

    async def scenario() -> None:
        async with OurNode("n1") as n1, OurNode("n2", joins=[n1.address]) as n2:
            await n1.until_sees(TWO)
            await n2.until_sees(TWO)
            address = n2.address
            fails.append("n2")
            await until(
                lambda: [one.member.name for one in n2.told_of(MemberJoined)].count("n1") == 2, n2.statuses
            )

            await n2.until_sees(TWO)
            await n1.until_sees(TWO)
            assert n2.address == address
            assert fails == []

    with caplog.at_level(logging.ERROR):
        run_once(scenario())

    assert any("begins anew" in record.getMessage() for record in caplog.records)


def test_keys_are_kept_from_the_start_and_when_they_change(run_once: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def kept() -> int:
        return len(json.loads(path.read_text()))

    async def scenario() -> None:
        async with OurNode("n1", keys=[KEY], keyring_file=path) as n1:
            assert n1.membership.is_authenticated
            assert kept() == 1
            result = await n1.membership.keys(KeyAction.INSTALL, NEW_KEY)
            assert (result.answers, result.errors) == (1, {})
            await until(lambda: kept() == 2, kept)

    run_once(scenario())


def test_keys_that_were_kept_count_before_those_of_the_settings(
    run_once: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(Keyring([KEY]).to_json())
    path.chmod(0o600)

    async def scenario() -> None:
        async with OurNode("n1", keys=[OTHER_KEY], keyring_file=path) as n1, OurNode("n2", keys=[KEY]) as n2:
            await n2.membership.join([n1.address])
            await n1.until_sees(TWO)

    with caplog.at_level(logging.WARNING):
        run_once(scenario())

    assert any("are not used" in record.getMessage() for record in caplog.records)


def test_without_a_key_nobody_is_authenticated(run: Run) -> None:
    async def scenario() -> None:
        async with OurNode("n1") as n1:
            assert not n1.membership.is_authenticated

    run(scenario())


def test_an_address_that_is_taken_is_said_at_the_start(run: Run) -> None:
    async def scenario() -> None:
        async with OurNode("n1") as n1:
            with pytest.raises(ListenError):
                async with OurNode("n2", bind_addr=n1.address):
                    pass

    run(scenario())
