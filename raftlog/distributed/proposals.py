"""Requests to the Raft core, as coroutines: commands, configuration changes, read-index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from raftlog.distributed.appends import error_of
from raftlog.engine import NodeId
from raftlog.errors import MembershipRefused, OutcomeUnknown, Overloaded
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import ConfigurationChange
from raftlog.raft.events import (
    ChangeConfiguration,
    Committed,
    Promote,
    Propose,
    Read,
    ReadReady,
    Refused,
    Why,
)
from raftlog.raft.messages import EntryKind
from raftlog.runtime.actor import InboxFull
from raftlog.runtime.applier import Applier
from raftlog.runtime.raft_driver import RaftDriver

OUTCOME_S_MAX: Final = 10.0  # for one request: longer than any election takes
CHANGE_PAUSE_S: Final = 0.05  # before a change is asked for again that another one is in the way of

MEMBERSHIP_REFUSALS: Final = (Why.CHANGE_PENDING, Why.INVALID_CHANGE, Why.NOT_CAUGHT_UP, Why.NOT_A_MEMBER)


class Proposals:
    """Of one node. Each raises NotLeader, Overloaded, OutcomeUnknown or NodeFailed where it cannot say that it is done."""

    def __init__(self, driver: RaftDriver, applier: Applier) -> None:
        self._driver = driver
        self._applier = applier

    async def command(self, command: pb.Command) -> int:
        """Have every node obey the command; its entry index, once it is applied here."""
        data = command.SerializeToString()
        return await self._committed(lambda number: Propose(number, (data,), EntryKind.COMMAND))

    async def change(self, change: ConfigurationChange) -> int:
        """Change the configuration; the entry index, once it is in force here. MembershipRefused."""
        return await self._when_possible(partial(_change, change))

    async def promote(self, learner: NodeId) -> int:
        """Make a learner a voter; MembershipRefused until it has nearly caught up."""
        return await self._when_possible(partial(_promote, learner))

    async def read_index(self) -> None:
        """Return once this node has applied all that was committed anywhere before the call."""
        async with deadline():
            outcome = await self._outcome(Read)
            if not isinstance(outcome, ReadReady):
                if isinstance(outcome, Refused) and outcome.why is Why.TIMED_OUT:
                    raise Overloaded("no quorum answered in time; try again")
                raise error_of(outcome)
            await self._applier.wait_for(outcome.index)

    async def _when_possible(self, make: Callable[[int], Any]) -> int:
        """Only one change at a time can be on its way: wait for the one before."""
        async with deadline():
            while True:
                try:
                    return await self._committed(make)
                except ChangePending:
                    await asyncio.sleep(CHANGE_PAUSE_S)

    async def _committed(self, make: Callable[[int], Any]) -> int:
        async with deadline():
            outcome = await self._outcome(make)
            match outcome:
                case Committed():
                    await self._applier.wait_for(outcome.last)
                    return outcome.last
                case Refused(Why.CHANGE_PENDING):
                    raise ChangePending(outcome.detail)
                case Refused(why) if why in MEMBERSHIP_REFUSALS:
                    raise MembershipRefused(outcome.detail or why.value)
                case _:
                    raise error_of(outcome)

    async def _outcome(self, make: Callable[[int], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self._driver.request(make, partial(_tell, future))
        except InboxFull:
            raise Overloaded("too much waits to be handled; try again") from None
        return await future


class ChangePending(MembershipRefused):
    """Another change is on its way."""


@asynccontextmanager
async def deadline() -> AsyncIterator[None]:
    """OutcomeUnknown if what is in it takes too long."""
    try:
        async with asyncio.timeout(OUTCOME_S_MAX):
            yield
    except TimeoutError:
        raise OutcomeUnknown(
            f"no outcome within {OUTCOME_S_MAX:.0f} s; it may be done later, or never"
        ) from None


def _tell(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)


def _change(change: ConfigurationChange, number: int) -> ChangeConfiguration:
    return ChangeConfiguration(number, change)


def _promote(learner: NodeId, number: int) -> Promote:
    return Promote(number, learner)
