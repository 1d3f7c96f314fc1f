"""The loop at the leader that makes the list of members what it should be.

It looks again and again at what Raft and the source of members say, so that nothing is lost if an event comes to a
follower, or during an election. What it concludes is judgement.py's; here is only who is asked, and what is done.

Nothing is believed because a source said so: before a server is made a member, or its address or disk is changed, it
must prove its name, directory and cluster by the handshake of servers (mutual TLS).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Protocol, assert_never

from raftlog.autopilot.actions import (
    Action,
    AddLearner,
    ChangeAddress,
    Checked,
    Promote,
    RemoveFailed,
    RemoveLeft,
    ReplaceDisk,
    describe,
)
from raftlog.autopilot.candidates import Candidates
from raftlog.autopilot.facts import Facts, MemberFacts, Memory
from raftlog.autopilot.judgement import Held, Judgement, judge
from raftlog.autopilot.refusals import Refusals
from raftlog.autopilot.removals import Removals
from raftlog.autopilot.report import ACTIONS_KEPT, ActionReport, AutopilotReport
from raftlog.autopilot.settings import ACT, ADVISE, MODES, OFF, AutopilotSettings
from raftlog.discovery.source import Candidate, Source
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.membership import MEMBERS_MAX
from raftlog.engine import NodeId
from raftlog.errors import InvalidRequest, MembershipRefused, NotLeader, RaftlogError
from raftlog.net.handshake import Welcome
from raftlog.raft.leader import Leader
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

INTERVAL_S: Final = 0.25  # between two looks, if the source has nothing new
PAUSE_S: Final = 0.02  # between two looks, however much the source says
SAY_AGAIN_S: Final = 600.0  # what is held back is said in the log when it begins, and then so often
SAID_MAX: Final = 256  # beyond it all is said anew


class Links(Protocol):
    """Finds out who is there (raftlog/net/peer_links.py). Both raise RaftlogError with the reason."""

    async def check(self, node: NodeId, address: str, directory_id: str = "") -> Welcome: ...
    async def identify(self, address: str) -> Welcome: ...


class Reconciler:
    """Of one server; it acts while that one leads."""

    def __init__(
        self,
        commit_log: DistributedLog,
        source: Source | None,
        links: Links,
        settings: AutopilotSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a source members come and go by those who ask for it; learners are still made voters."""
        self._log = commit_log
        self._source = source
        self._links = links
        self._settings = settings
        self._clock = clock
        self._candidates = Candidates(source, links, clock)
        self._term = 0  # in which it leads; 0: it does not
        self._leads_since = 0.0
        self._memory: Memory = {}
        self._judgement: Judgement | None = None  # the latest; None: none since it leads
        self._refusals = Refusals()  # of candidates
        self._postponed = Refusals()  # of members
        self._removals = Removals()
        self._last_actions: deque[ActionReport] = deque(maxlen=ACTIONS_KEPT)
        self._said: dict[str, float] = {}

    # ── for people ──────────────────────────────────────────────────────────────────────────────────

    @property
    def mode(self) -> str:
        """What was said to the cluster; else what this server was started with."""
        said = self._log.autopilot_mode
        if not said:
            return self._settings.mode
        return said if said in MODES else ADVISE  # a later version's: nothing is done that it may not want

    async def set_mode(self, mode: str) -> None:
        """For the whole cluster, whoever leads. NotLeader; InvalidRequest for a word that is no mode."""
        if mode not in MODES:
            raise InvalidRequest(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        await self._log.set_autopilot_mode(mode)
        log.info("autopilot mode changed", mode=mode)

    def report(self) -> AutopilotReport:
        """As of the latest look."""
        mode, judgement = self.mode, self._judgement
        leads = self._log.is_leader
        advice: tuple[str, ...]
        if not leads:
            leader = self._log.replica.leader
            advice = (f"{leader} leads; it is the one to ask" if leader else "no leader is known",)
        elif mode == OFF:
            advice = ("it is off: members are changed by people alone",)
        elif judgement is None:
            advice = ("this server has just begun to lead",)
        else:
            will = "would" if mode == ADVISE else "is about to"
            advice = (
                *(f"{will} {describe(action)}" for action in judgement.actions),
                *map(str, judgement.held),
            )
        seen = judgement if leads and mode != OFF else None
        return AutopilotReport(
            mode=mode,
            is_leader=leads,
            is_healthy=seen is not None and seen.is_healthy,
            failure_tolerance=seen.failure_tolerance if seen is not None else 0,
            voters_max=self._settings.voters_max,
            servers=seen.servers if seen is not None else (),
            advice=advice,
            last_actions=tuple(self._last_actions),
        )

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Ends never."""
        while True:
            try:
                if not await self._look():
                    await self._wait()
            except RaftlogError as error:
                log.warning("autopilot could not go on; it looks again", reason=str(error))
            except Exception as error:  # a bug, which must not end it
                log.error("autopilot failed; it looks again", exc_info=error)
                await asyncio.sleep(INTERVAL_S)
            await asyncio.sleep(PAUSE_S)

    async def _wait(self) -> None:
        if self._source is None:
            await asyncio.sleep(INTERVAL_S)
        else:
            await self._source.wait_for_change(INTERVAL_S)

    async def _look(self) -> bool:
        """Judge, and do the first thing that is to be done; whether something was."""
        replica = self._log.replica
        term = replica.driver.node.term
        if not replica.is_ready:
            self._term = 0
            self._judgement = None
            return False
        if replica.is_handing_over:  # to somebody who will judge anew; if that fails, this one goes on
            return False
        if term != self._term:  # nothing is known from when another led
            self._term, self._leads_since = term, self._clock()
            self._memory, self._judgement = {}, None
            self._refusals, self._postponed, self._removals = Refusals(), Refusals(), Removals()
        if self.mode == OFF:
            self._memory, self._judgement = {}, None
            return False
        known = replica.applier.views.members.known
        addresses = {member.address for member in known.values()}
        facts = self._gather(await self._candidates.named(known, addresses))
        if facts is None:
            return False
        now = self._clock()
        judgement = judge(facts, self._settings, self._memory, now, members_max=MEMBERS_MAX)
        self._tell(judgement, now)
        self._memory, self._judgement = judgement.memory, judgement
        if self.mode != ACT or not judgement.actions:  # it may have been changed meanwhile
            return False
        return await self._act(judgement.actions[0])

    def _gather(self, candidates: Sequence[Candidate]) -> Facts | None:
        """What is known now; None while that is changing."""
        replica, now = self._log.replica, self._clock()
        node, views = replica.driver.node, replica.applier.views
        role, configuration = node.role, views.members.configuration
        if not isinstance(role, Leader) or node.term != self._term or configuration.is_joint:
            return None
        members = []
        for name in configuration.members:
            known, progress, answered_at = (
                views.members.get(name),
                role.progress.get(name),
                replica.answered_at(name),
            )
            has_answered = answered_at is not None and answered_at >= self._leads_since
            members.append(
                MemberFacts(
                    name=name,
                    address=known.address if known is not None else "",
                    directory_id=known.directory_id if known is not None else "",
                    is_voter=name in configuration.all_voters,
                    is_leader=name == replica.id,
                    last_contact_s=max(0.0, now - answered_at)
                    if answered_at is not None and has_answered
                    else None,
                    trailing_entries=max(0, node.log.committed - progress.match)
                    if progress is not None and progress.match
                    else None,
                )
            )
        names = {*configuration.members, *(candidate.name for candidate in candidates)}
        self._refusals.keep_only(names)
        self._postponed.keep_only(names)
        self._removals.look({member.name: member.directory_id for member in members}, now)
        barred = views.autopilot.is_barred
        return Facts(
            cluster_id=replica.cluster_id,
            leads_for_s=now - self._leads_since,
            members=tuple(members),
            candidates=tuple(candidates),
            is_authenticated=self._source is not None and self._source.is_authenticated,
            barred=frozenset(
                each.name for each in candidates if barred(NodeId(each.name), each.directory_id)
            ),
            just_removed=self._removals.just_removed(candidates),
            refusals={
                each.name: self._refusals.reason(each.name, (each.address, each.directory_id), now)
                for each in candidates
            },
            postponed={each.name: self._postponed.reason(each.name, None, now) for each in members},
        )

    def _tell(self, judgement: Judgement, now: float) -> None:
        """Say in the log what has changed."""
        for name, remembered in judgement.memory.items():
            before = self._memory.get(name)
            if before is not None and before.is_healthy != remembered.is_healthy:
                tell = log.info if remembered.is_healthy else log.warning
                reason = next(server.reason for server in judgement.servers if server.name == name)
                tell(
                    "member is healthy" if remembered.is_healthy else "member is not healthy",
                    member=name,
                    reason=reason,
                )
        for held in judgement.held:
            self._tell_held(held, now)

    def _tell_held(self, held: Held, now: float) -> None:
        if now - self._said.get(held.what, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return
        if len(self._said) >= SAID_MAX:
            self._said.clear()
        self._said[held.what] = now
        log.warning("autopilot holds back", what=held.what, reason=held.reason)

    # ── acting ──────────────────────────────────────────────────────────────────────────────────────

    async def _act(self, action: Action) -> bool:
        """Do it, and keep what became of it; whether it was done."""
        text = describe(action)
        place: Hashable = (action.address, action.directory_id) if isinstance(action, Checked) else None
        refusals = self._refusals if isinstance(action, Checked) else self._postponed
        try:
            await self._carry_out(action)
        except NotLeader:
            return False  # whoever leads now sees the same
        except RaftlogError as error:
            refusals.add(action.name, place, str(error), self._clock())
            self._last_actions.append(ActionReport(time_ns=time.time_ns(), text=text, error=str(error)))
            log.warning("autopilot could not act", action=text, reason=str(error))
            return False
        refusals.forget(action.name)
        self._last_actions.append(ActionReport(time_ns=time.time_ns(), text=text))
        log.info("autopilot acted", action=text)
        return True

    async def _carry_out(self, action: Action) -> None:
        match action:
            case AddLearner() | ReplaceDisk() | ChangeAddress():
                welcome = await self._links.check(action.name, action.address, action.directory_id)
                self._require_place(action, welcome)
                if self.mode != ACT:
                    raise MembershipRefused(f"the autopilot is not to act any more, its mode is {self.mode}")
                await self._log.join(action.name, welcome.address, welcome.directory_id)
            case Promote():
                await self._log.promote(action.name)
            case RemoveLeft() | RemoveFailed():
                await self._log.leave(action.name, is_barred=False)
            case _:
                assert_never(action)

    def _require_place(self, action: Checked, welcome: Welcome) -> None:
        """What it says of itself counts, since every server announces that of itself; but not at another's cost."""
        members = self._log.replica.applier.views.members
        owner = members.at_address(welcome.address)
        if owner is not None and owner != action.name:
            raise MembershipRefused(
                f"it says that it is at {welcome.address}, which is the address of {owner}"
            )
        known = members.get(action.name)
        is_same = known is not None and (known.address, known.directory_id) == (
            welcome.address, welcome.directory_id
        )  # fmt: skip
        if is_same and isinstance(action, ChangeAddress):
            raise MembershipRefused(
                f"it can be reached there, but says itself that it is at {welcome.address}"
            )
