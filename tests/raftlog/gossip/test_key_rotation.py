"""Keys of a gossip that runs are changed as `raftlog keys` does it, and all hear each other meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from raftlog.cli.key_rotation import RotationStopped, require_ready, rotate
from raftlog.client.membership import KeysAnswer, KnownServers, to_keys_answer, to_known_servers
from raftlog.discovery.membership import Membership
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.serf.events import KeyAction, KeysResult, MemberFailed
from raftlog.server.authorizer import AllowAll
from raftlog.server.gossip_keys import GossipKeysService, key_id
from raftlog.server.membership_service import known_servers
from tests.raftlog.fake_cluster_log import FakeMember, FakeStatus
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.nodes import OurNode
from tests.raftlog.services import ROOT

OLD, NEW = b"o" * 16, b"n" * 32
CHANGE_S_MAX = 30.0
NAMES = ("a", "b", "c", "d", "e")
MEMBERS = FakeStatus(node_id="a", members=tuple(FakeMember(name, f"{name}:8400") for name in NAMES))


class Gossip:
    """A membership as the service wants it."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @property
    def is_authenticated(self) -> bool:
        return self._membership.is_authenticated

    async def keys(self, action: str, key: bytes) -> KeysResult:
        return await self._membership.keys(KeyAction(action), key)


class Through:
    """A client, for a thread, that asks a node without a network between."""

    def __init__(self, node: OurNode) -> None:
        self._service = GossipKeysService(AllowAll(), gossip=Gossip(node.membership))
        self._node = node
        self._loop = asyncio.get_running_loop()

    def known_servers(self) -> KnownServers:
        found = known_servers(self._node.membership.members(), MEMBERS, now=0.0)
        return to_known_servers(pb.ListMembersResponse(node_id="a", servers=found))

    def change_gossip_keys(self, action: str, *, key: bytes = b"", key_id: str = "") -> KeysAnswer:
        request = pb.ChangeGossipKeysRequest(action=action, key=key, key_id=key_id)
        asked: Any = self._service.change_gossip_keys(request, ROOT)
        return to_keys_answer(asyncio.run_coroutine_threadsafe(asked, self._loop).result(CHANGE_S_MAX))


async def five(nodes: AsyncExitStack) -> list[OurNode]:
    """Nodes that all see each other, with the old key."""
    first = await nodes.enter_async_context(OurNode("a", keys=[OLD]))
    more = [OurNode(name, joins=[first.address], keys=[OLD]) for name in NAMES[1:]]
    five = [first, *[await nodes.enter_async_context(one) for one in more]]
    for one in five:
        await one.until_sees(dict.fromkeys(NAMES, "alive"))
    return five


def test_a_running_gossip_changes_to_a_new_key(run_once: Run) -> None:
    said: list[str] = []

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            nodes = await five(stack)
            for _ in range(2):  # to do it again changes nothing
                through = Through(nodes[0])
                await asyncio.to_thread(require_ready, through, without_absent=False)
                await asyncio.to_thread(rotate, through, key_id(NEW), NEW, said.append, without_absent=False)

                listed = await asyncio.to_thread(through.change_gossip_keys, "list")
                assert [tuple(one) for one in listed.keys] == [(key_id(NEW), 5, 5)]
            assert [one.told_of(MemberFailed) for one in nodes] == [[]] * 5
            late = await stack.enter_async_context(OurNode("f", joins=[nodes[4].address], keys=[NEW]))
            await late.until_sees(dict.fromkeys([*NAMES, "f"], "alive"))

    run_once(scenario())
    assert said == [
        f"5 of 5 members have the key {key_id(NEW)}", "5 of 5 members encrypt with it",
        f"5 of 5 members have removed the key {key_id(OLD)}",
        f"5 of 5 members have the key {key_id(NEW)}", "5 of 5 members encrypt with it",
    ]  # fmt: skip


def test_keys_do_not_change_while_a_member_is_away(run_once: Run) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            nodes = await five(stack)
            through = Through(nodes[0])
            await nodes[4].membership.close()

            with pytest.raises(RotationStopped, match=r"^(4 of 5 members answered when asked|not there: e)"):
                await asyncio.to_thread(require_ready, through, without_absent=False)

            await nodes[0].until_sees({**dict.fromkeys("abcd", "alive"), "e": "failed"})
            with pytest.raises(RotationStopped, match=r"^not there: e \(failed\)"):
                await asyncio.to_thread(require_ready, through, without_absent=False)
            listed = await asyncio.to_thread(through.change_gossip_keys, "list")
            assert [tuple(one) for one in listed.keys] == [(key_id(OLD), 4, 4)]

    run_once(scenario())
