"""Who the members are, and who leads: one change after the other, each awaited.

PySyncObj has a guard against two changes at once, which never works; then two halves of the cluster may commit.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from pysyncobj import FAIL_REASON

from raftlog.engine import NodeId
from raftlog.errors import MembershipRefused, OutcomeUnknown
from raftlog.pysyncobj.codec import Change
from raftlog.pysyncobj.journal import Member
from raftlog.pysyncobj.node import Node
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

OUTCOME_S_MAX: Final = 10.0
MEMBERS_MAX: Final = 64


class Membership:
    """Of one node. All methods raise NotLeader where it does not lead."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._one_at_a_time = asyncio.Lock()

    async def join(self, id: NodeId, wanted: Member) -> None:
        """Make it a member. A known id elsewhere, or a known address with another id, is replaced. MembershipRefused."""
        async with self._one_at_a_time:
            self._node.require_leader()
            members = self._node.members
            known = members.get(id)
            if known is not None and wanted in (known, Member(known.address, "")):
                return
            if id == self._node.id:
                raise MembershipRefused(f"{id} leads: PySyncObj cannot change the address of who leads")
            if known is None and len(members) >= MEMBERS_MAX:
                raise MembershipRefused(f"there are {MEMBERS_MAX} members already; remove one first")
            replaced = [
                one for one, member in members.items() if one == id or member.address == wanted.address
            ]
            if self._node.id in replaced:
                raise MembershipRefused(f"{wanted.address} is the address of {self._node.id}, which leads")
            for one in replaced:
                await self._change(Change(False, one, *members[one]))
            await self._change(Change(True, id, *wanted))
            log.info("member joined", member=id, address=wanted.address)

    async def leave(self, id: NodeId) -> None:
        """Remove it; it is not told. Who leads hands over first, and raises NotLeader with the new leader."""
        async with self._one_at_a_time:
            self._node.require_leader()
            members = self._node.members
            if id not in members:
                return
            if len(members) == 1:
                raise MembershipRefused(f"{id} is the only server; a cluster cannot be without one")
            if id == self._node.id:
                await self._hand_over("")
                raise self._node.not_leader()
            await self._change(Change(False, id, *members[id]))
            log.info("member removed", member=id)

    async def transfer_leadership(self, to: str) -> NodeId:
        """Hand over to a server that has the whole log, "" for any; returns who leads then. MembershipRefused."""
        async with self._one_at_a_time:
            self._node.require_leader()
            return self._node.id if to == self._node.id else await self._hand_over(to)

    async def _hand_over(self, to: str) -> NodeId:
        node, answers = self._node, list[int]()
        node.replica.transferLeadership(to or None, lambda _, reason: answers.append(reason))
        if answers != [FAIL_REASON.SUCCESS]:
            raise MembershipRefused(
                f"{to or 'no other server'} cannot take over: no member, or not caught up"
            )
        node.soon()
        try:
            async with asyncio.timeout(OUTCOME_S_MAX):
                await node.until(lambda: node.leader not in (None, node.id))
        except TimeoutError:
            raise OutcomeUnknown(f"nobody has taken over within {OUTCOME_S_MAX:.0f} s") from None
        return await node.wait_for_leader()

    async def _change(self, change: Change) -> None:
        try:
            async with asyncio.timeout(OUTCOME_S_MAX):
                await self._node.begin(partial(self._node.replica.change, change))
        except TimeoutError:
            raise OutcomeUnknown(
                f"no outcome within {OUTCOME_S_MAX:.0f} s; it may be done later, or never"
            ) from None
