"""Changing who the members are: only the leader does, one change after the other.

A newcomer is a learner, and is made a voter by whoever leads once it has caught up (raftlog/autopilot): nothing is lost
when leadership changes in between. Addresses come first, so that every node that learns of a member knows where it is.

A known name whose data directory is another one is a replaced disk: it is removed before it is added again, so that its
empty log counts for no quorum of the old configuration.

Who was removed on purpose is barred, by an entry of the log: nobody makes it a member again by itself, whoever leads,
until it is asked for.

Two mistakes of people must not cost the cluster its quorum: a server that is told a wrong address, or has the name of
another, does not push that one out as long as it answers; and nobody is removed if those that answer were no majority
of the voters that remain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from raftlog.distributed.proposals import Proposals
from raftlog.engine import NodeId
from raftlog.errors import MembershipRefused, NotLeader, OutcomeUnknown
from raftlog.machines.views import Views
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Change, ChangeKind, ConfigurationChange, InvalidChange
from raftlog.raft.events import TransferLeadership
from raftlog.raft.leader import Leader
from raftlog.runtime.applier import Applier
from raftlog.runtime.logging import get_logger
from raftlog.runtime.raft_driver import RaftDriver

log = get_logger(__name__)

TRANSFER_S_MAX: Final = 10.0
MEMBERS_MAX: Final = 64  # voters and learners: each costs the leader a copy of everything
LOOK_AGAIN_S: Final = 0.02  # while leadership is handed over, or answers are waited for
ANSWERS_MISSED: Final = 10  # heartbeats, after which a server that answered none of them does not answer


class Membership:
    """Of one node. All methods raise NotLeader where it does not lead."""

    def __init__(
        self,
        driver: RaftDriver,
        applier: Applier,
        proposals: Proposals,
        *,
        require_leader: Callable[[], None],
        answered_at: Callable[[NodeId], float | None],
    ) -> None:
        """`require_leader` raises NotLeader unless this node leads and its views contain all that was committed before:
        who acts upon older ones takes a member for none, and one that was removed for a member.

        `answered_at` says when a member last answered this node as its leader, in monotonic seconds.
        """
        self.require_leader = require_leader
        self._answered_at = answered_at
        self._driver = driver
        self._applier = applier
        self._proposals = proposals
        self._one_at_a_time = asyncio.Lock()

    @property
    def _views(self) -> Views:
        return self._applier.views

    @property
    def _id(self) -> NodeId:
        return self._driver.node.id

    async def join(self, node: NodeId, address: str, directory_id: str = "") -> None:
        """Make it a member with this address; nothing is done if it is one.

        A known id with a new address, or a known address with a new id, takes the place of the old one. Without a
        `directory_id`, as people ask, it is not known whether a known id has a new disk: that is learned when it connects.
        MembershipRefused while a server answers that would have to go for that.

        With one, as servers ask for themselves or are found, a barred one is refused; without, it is barred no more. (A
        server tells its place whenever that changes, and may do so when it has just been removed.)
        """
        async with self._one_at_a_time:
            self.require_leader()
            if directory_id and self._views.autopilot.is_barred(node, directory_id):
                raise MembershipRefused(
                    f"{node} was removed on purpose; `raftlog join {node} {address}` lets it in again"
                )
            members = self._views.members
            is_member = node in members.configuration.members
            known = members.get(node)
            if known is not None and is_member:
                is_same_disk = not directory_id or known.directory_id in ("", directory_id)
                if is_same_disk and known.address == address and directory_id in ("", known.directory_id):
                    return
                if is_same_disk:
                    await self._free_address(address, but=node)
                    await self._set_member(node, address, directory_id or known.directory_id)
                    return
                await self._require_silent(
                    node, f"{node} at {known.address} has directory {known.directory_id} and"
                )
                log.warning(
                    "member has another disk; it begins anew as a learner",
                    member=node,
                    directory=directory_id,
                )
                await self._remove(node)
            elif len(members.configuration.members) >= MEMBERS_MAX:
                raise MembershipRefused(f"there are {MEMBERS_MAX} members already; remove one first")
            # Made first, so that nothing is done for a name that cannot be.
            added = _change_of(ChangeKind.ADD_LEARNER, node)
            await self._free_address(address, but=node)
            await self._set_member(node, address, directory_id)
            await self._proposals.change(added)
            log.info("member joined as a learner", member=node, address=address)

    async def _free_address(self, address: str, *, but: NodeId) -> None:
        before = self._views.members.at_address(address)
        if before is not None and before != but:
            if before != self._id:
                await self._require_silent(before, f"{before} is at {address} and")
            log.warning("another server has taken the address of a member", member=before, address=address)
            await self._remove(before)

    async def _require_silent(self, node: NodeId, which: str) -> None:
        wait_s = self._missed_s
        await asyncio.sleep(wait_s)
        self.require_leader()
        answered_at = self._answered_at(node)
        if answered_at is not None and time.monotonic() - answered_at < wait_s / 2:
            raise MembershipRefused(f"{which} answers: stop it, or remove it, first")

    @property
    def _missed_s(self) -> float:
        config = self._driver.node.config
        return min(ANSWERS_MISSED * config.heartbeat_interval_s, config.election_timeout_s_min)

    async def leave(self, node: NodeId, *, is_barred: bool = True) -> None:
        """Remove it; if it `is_barred` it does not come back by itself. MembershipRefused if the others cannot do without.

        Who leads hands over first, and raises NotLeader: the new leader is to be asked.
        """
        async with self._one_at_a_time:
            self.require_leader()
            if node not in self._views.members.configuration.members:
                return
            self._require_removable(node)
            await self._require_quorum_without(node)
            if node == self._id:
                await self._hand_over(None)
                self.require_leader()
            if is_barred:
                # First: between removing and barring it could come back, if this server fails there.
                known = self._views.members.get(node)
                bar = pb.BarServer(id=node, directory_id=known.directory_id if known is not None else "")
                await self._proposals.command(pb.Command(bar_server=bar))
            await self._remove(node)

    def _require_removable(self, node: NodeId) -> None:
        if self._views.members.configuration.voters == (node,):
            raise MembershipRefused(f"{node} is the only voter; a cluster cannot be without one")

    async def _require_quorum_without(self, node: NodeId) -> None:
        """MembershipRefused if the voters that answer are no majority of those that remain; nothing could be changed then."""
        voters = self._views.members.configuration.voters
        if node not in voters:
            return
        rest = [voter for voter in voters if voter != node]
        wanted = len(rest) // 2 + 1
        begun = time.monotonic()
        while True:  # until they answer what they are asked from now on: who has just died is not counted
            silent = [
                voter for voter in rest if voter != self._id and (self._answered_at(voter) or 0.0) < begun
            ]
            if len(rest) - len(silent) >= wanted:
                return
            if time.monotonic() - begun >= self._missed_s:
                raise MembershipRefused(
                    f"without {node} {wanted} of the {len(rest)} other voters are needed, and {', '.join(silent)} "
                    "cannot be heard: remove those first, or have them back"
                )
            await asyncio.sleep(LOOK_AGAIN_S)
            self.require_leader()

    async def _remove(self, node: NodeId) -> None:
        self._require_removable(node)
        if node == self._id:
            raise MembershipRefused(f"{node} leads; it hands over before it is removed")
        await self._proposals.change(_change_of(ChangeKind.REMOVE, node))
        log.info("member removed", member=node)

    async def promote(self, node: NodeId) -> None:
        """Make a learner a voter; MembershipRefused until it has nearly caught up."""
        async with self._one_at_a_time:
            self.require_leader()
            if node in self._views.members.configuration.voters:
                return
            await self._proposals.promote(node)
            log.info("learner promoted to voter", member=node)

    async def transfer_leadership(self, to: NodeId | None) -> NodeId:
        """Hand over to `to`, or to the voter that has most of the log; returns who leads then. MembershipRefused."""
        async with self._one_at_a_time:
            self.require_leader()
            if to == self._id:
                return to
            return await self._hand_over(to)

    async def _hand_over(self, to: NodeId | None) -> NodeId:
        node = self._driver.node
        role = node.role
        assert isinstance(role, Leader)
        others = [each for each in node.configuration.voters if each != self._id]
        if to is None:
            active = [each for each in others if each in role.progress and role.progress[each].recent_active]
            if not active:
                raise MembershipRefused("no other voter is there to hand over to")
            to = max(active, key=lambda each: role.progress[each].match)
        elif to not in others:
            raise MembershipRefused(f"{to} is not a voter")
        self._driver.actor.dispatch(TransferLeadership(to), is_urgent=True)
        try:
            async with asyncio.timeout(TRANSFER_S_MAX):
                while isinstance(node.role, Leader) or node.role.leader is None:
                    if self._driver.actor.is_closed:
                        raise NotLeader
                    await asyncio.sleep(LOOK_AGAIN_S)
                    now = node.role
                    if isinstance(now, Leader) and now.transferee is None:
                        raise MembershipRefused(f"{to} did not take over in time; {self._id} still leads")
        except TimeoutError:
            raise OutcomeUnknown(
                f"leadership was handed over, and nobody leads after {TRANSFER_S_MAX:.0f} s"
            ) from None
        leader = node.role.leader
        assert leader is not None
        return leader

    async def _set_member(self, node: NodeId, address: str, directory_id: str) -> None:
        member = pb.SetMember(id=node, address=address, directory_id=directory_id)
        await self._proposals.command(pb.Command(set_member=member))


def _change_of(kind: ChangeKind, node: NodeId) -> ConfigurationChange:
    try:
        return ConfigurationChange((Change(kind, node),))
    except InvalidChange as error:
        raise MembershipRefused(str(error)) from error
