"""Our nodes and real agents of Serf in one cluster."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raftlog.serf.events import KeyAction, MemberFailed, MemberLeft, QueryCame, UserEventCame
from tests.raftlog.gossip.agents import SerfAgent, needs_serf, until
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.nodes import OurNode

pytestmark = needs_serf

KEY, NEW_KEY = bytes(range(32)), bytes(range(100, 132))
KEY_64, NEW_KEY_64 = base64.b64encode(KEY).decode(), base64.b64encode(NEW_KEY).decode()
BOTH = {"agent": "alive", "ours": "alive"}


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    """Of all, or none."""
    found: bytes | None = request.param
    return found


@pytest.fixture
def ours(key: bytes | None) -> Callable[..., OurNode]:
    def make(*joins: str, bind_addr: str = "127.0.0.1:0") -> OurNode:
        return OurNode("ours", joins=joins, keys=() if key is None else (key,), bind_addr=bind_addr)

    return make


def test_we_join_an_agent_and_each_sees_the_other_with_its_tags(
    run: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with (
            SerfAgent("agent", tmp_path, key=key, tags={"rpc_addr": "agent:1", "node_id": "u-1"}) as agent,
            ours(agent.address) as node,
        ):
            await node.membership.first_look()

            await node.until_sees(BOTH)
            await agent.until_sees(BOTH)
            known = (await agent.members())["ours"]
            assert known == ("alive", {"rpc_addr": "ours:8400"}, node.address)
            assert node.calls == [("join", "agent", "agent:1")]
            candidate = node.membership.members()[0]
            assert (candidate.name, candidate.address, candidate.directory_id) == (
                "agent",
                "agent:1",
                "u-1",
            )
            assert candidate.gossip_address == agent.address

    run(scenario())


def test_an_agent_joins_us(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with ours() as node, SerfAgent("agent", tmp_path, key=key, joins=[node.address]) as agent:
            await node.until_sees(BOTH)
            await agent.until_sees(BOTH)

    run_once(scenario())


def test_tags_that_change_are_seen_by_the_other(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=key) as agent, ours(agent.address) as node:
            await agent.until_sees(BOTH)

            await node.membership.set_tags(role="leaving", rpc_addr="ours:9")
            await agent.until_tags("ours", {"role": "leaving", "rpc_addr": "ours:9"})

            await agent.command("tags", "-set", "rpc_addr=agent:7")
            await until(lambda: node.calls == [("join", "agent", "agent:7")], lambda: node.calls)

    run_once(scenario())


def test_events_and_queries_go_both_ways(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=key) as agent, ours(agent.address) as node:
            await agent.until_sees(BOTH)

            await agent.command("event", "-coalesce=false", "deploy", "version 7")
            await until(
                lambda: [(one.name, one.payload) for one in node.told_of(UserEventCame)] == [("deploy", b"version 7")],
                lambda: node.told,
            )  # fmt: skip

            await node.membership.user_event("restart", b"soon", can_coalesce=False)
            await agent.until_heard("user restart soon")

            result = await node.membership.query("load", b"of you", nodes=["agent"], timeout_s=20.0)
            assert result.responses == {"agent": b"answer to of you"}

            node.answers["uptime"] = b"3 days"
            answer = json.loads(
                await agent.command("query", "-format=json", "-node=ours", "uptime", "since?")
            )
            assert answer["Responses"] == {"ours": "3 days"}
            assert answer["Acks"] == ["ours"]
            (came,) = (one for one in node.told_of(QueryCame) if one.name == "uptime")
            assert (came.payload, came.source_node) == (b"since?", "agent")

    run_once(scenario())


def test_a_leave_is_a_leave_on_the_other_side(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=key, tags={"rpc_addr": "a:1"}) as agent:
            async with ours(agent.address) as node:
                await agent.until_sees(BOTH)
                await node.membership.leave()
                assert node.membership.is_over
            await agent.until_sees({"agent": "alive", "ours": "left"})

            async with ours(agent.address) as node:  # who left may come back
                await agent.until_sees(BOTH)
                await node.until_sees(BOTH)
                await agent.command("leave")

                await node.until_sees({"agent": "left", "ours": "alive"})
                assert [told.member.name for told in node.told_of(MemberLeft)] == ["agent"]
                assert node.told_of(MemberFailed) == []
                assert node.calls == [("join", "agent", "a:1"), ("leave", "agent")]

    run_once(scenario())


def test_a_failure_is_a_failure_on_the_other_side_until_it_is_told_to_be_a_leave(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=key) as agent:
            async with ours(agent.address) as node:
                await agent.until_sees(BOTH)
                address = node.address
            await agent.until_sees({"agent": "alive", "ours": "failed"})
            await agent.command("force-leave", "ours")
            await agent.until_sees({"agent": "alive", "ours": "left"})

            async with ours(agent.address, bind_addr=address) as node:  # with an incarnation that is lower
                await agent.until_sees(BOTH)
                await node.until_sees(BOTH)
                await agent.kill()
                await node.until_sees({"agent": "failed", "ours": "alive"})
                await node.membership.remove_failed("agent")
                await node.until_sees({"agent": "left", "ours": "alive"})

    run_once(scenario())


def test_who_failed_and_starts_anew_is_alive_again(run_once: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path) as agent:
            async with OurNode("ours", joins=[agent.address]) as node:
                await agent.until_sees(BOTH)
                for count in range(3):  # every change is a new incarnation
                    await node.membership.set_tags(count=str(count))
                await agent.until_tags("ours", {"rpc_addr": "ours:8400", "count": "2"})
                address = node.address
            await agent.until_sees({"agent": "alive", "ours": "failed"})

            async with OurNode("ours", joins=[agent.address], bind_addr=address) as node:
                await agent.until_sees(BOTH)
                await agent.until_tags("ours", {"rpc_addr": "ours:8400"})

    run_once(scenario())


def test_a_force_leave_is_seen_by_the_third(
    run_once: Run, tmp_path: Path, key: bytes | None, ours: Callable[..., OurNode]
) -> None:
    async def scenario() -> None:
        async with (
            SerfAgent("agent", tmp_path, key=key) as agent,
            ours(agent.address) as node,
            SerfAgent("third", tmp_path, key=key, joins=[node.address]) as third,
        ):
            all_three = {**BOTH, "third": "alive"}
            await node.until_sees(all_three)
            await agent.until_sees(all_three)
            await third.kill()
            await node.until_sees({**BOTH, "third": "failed"})
            await agent.until_sees({**BOTH, "third": "failed"})

            await agent.command("force-leave", "third")
            await node.until_sees({**BOTH, "third": "left"})

    run_once(scenario())


def test_a_key_is_rotated_by_us_and_by_an_agent(run_once: Run, tmp_path: Path) -> None:
    kept = tmp_path / "gossip-keys.json"

    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=KEY) as agent:
            async with OurNode("ours", joins=[agent.address], keys=[KEY], keyring_file=kept) as node:
                await agent.until_sees(BOTH)
                for action, changed in (
                    (KeyAction.INSTALL, NEW_KEY), (KeyAction.USE, NEW_KEY), (KeyAction.REMOVE, KEY),
                ):  # fmt: skip
                    result = await node.membership.keys(action, changed)
                    assert (result.members, result.answers, result.errors) == (2, 2, {}), action
                listed = await node.membership.keys(KeyAction.LIST)
                assert (listed.keys, listed.primary_keys) == ({NEW_KEY_64: 2}, {NEW_KEY_64: 2})
                assert json.loads(agent.keyring_file.read_text()) == [NEW_KEY_64]
                await until(lambda: json.loads(kept.read_text()) == [NEW_KEY_64], kept.read_text)

                await agent.command("keys", "-install", KEY_64)
                await agent.command("keys", "-use", KEY_64)
                await agent.command("keys", "-remove", NEW_KEY_64)
                assert KEY_64 in await agent.command("keys", "-list")
                await until(lambda: json.loads(kept.read_text()) == [KEY_64], kept.read_text)

                await agent.command("event", "-coalesce=false", "after", "rotation")
                await until(lambda: bool(node.told_of(UserEventCame)), lambda: node.told)
                await node.membership.user_event("back", b"", can_coalesce=False)
                await agent.until_heard("user back ")
                assert node.statuses() == await agent.statuses() == BOTH

            # What was kept counts at the next start, whatever the settings say.
            async with OurNode("ours", joins=[agent.address], keys=[NEW_KEY], keyring_file=kept) as node:
                await node.until_sees(BOTH)

    run_once(scenario())


@pytest.mark.parametrize("keys", [(), (NEW_KEY,)], ids=["no key", "wrong key"])
def test_without_the_key_nobody_is_let_in(run_once: Run, tmp_path: Path, keys: tuple[bytes, ...]) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path, key=KEY) as agent, OurNode("ours", keys=keys) as node:
            outcome = await node.membership.join([agent.address])
            assert outcome[agent.address] != ""
            with pytest.raises(Exception, match="join"):
                await agent.command("join", node.address)

            assert await agent.statuses() == {"agent": "alive"}
            assert node.statuses() == {"ours": "alive"}

    run_once(scenario())


def test_the_one_of_two_with_the_same_name_that_most_do_not_know_is_told_so(
    run_once: Run, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with SerfAgent("agent", tmp_path) as agent, OurNode("twin", joins=[agent.address]) as first:
            await agent.until_sees({"agent": "alive", "twin": "alive"})
            async with OurNode("other", joins=[agent.address]):
                await agent.until_sees({"agent": "alive", "twin": "alive", "other": "alive"})

                async with OurNode("twin", joins=[agent.address]) as second:
                    await until(lambda: second.membership.is_over, lambda: second.told)
                assert (await agent.members())["twin"].address == first.address
                assert not first.membership.is_over

    run_once(scenario())


def test_a_cluster_of_both_sees_the_same(run_once: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            SerfAgent("a1", tmp_path) as a1,
            SerfAgent("a2", tmp_path, joins=[a1.address]) as a2,
            OurNode("n1", joins=[a1.address]) as n1,
            OurNode("n2", joins=[n1.address]) as n2,
        ):
            everybody = dict.fromkeys(("a1", "a2", "n1", "n2"), "alive")
            await asyncio.gather(*(one.until_sees(everybody) for one in (a1, a2, n1, n2)))

    run_once(scenario())
