"""Saying goodbye: first that this node will leave, then that it left, then staying until that has gone around.

    INTENT     the leave intent is sent, so that nobody takes the end for a failure
    GOODBYE    memberlist tells that this node is gone
    STAYING    probes are still answered, lest those that have not heard yet suspect it
    LEFT       silence

Each of the first two lasts until the message was sent as often as it has to be, `broadcast_timeout_s` at most.
"""

from __future__ import annotations

import math
from enum import Enum

from raftlog.serf.broadcasts import Kind, Ticket
from raftlog.serf.home import Home
from raftlog.serf.messages import LeaveIntent


class Stage(Enum):
    HERE = "here"
    INTENT = "intent"
    GOODBYE = "goodbye"
    STAYING = "staying"
    LEFT = "left"


class Leaving:
    """How far this node is with it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.stage = Stage.HERE
        self.deadline = math.inf  # of the stage
        self._ticket: Ticket | None = None  # of the intent
        self._requests: list[int] = []  # that wait for the end

    def begin(self, request: int) -> None:
        """A second request waits for the same end."""
        home = self._home
        self._requests.append(request)
        if self.stage is not Stage.HERE:
            return
        home.table.is_leaving = True
        intent = LeaveIntent(home.clock.tick(), home.name)
        home.hear(intent)
        if home.table.has_others_alive():
            self._ticket = home.broadcast(Kind.INTENT, intent)
        self._enter(Stage.INTENT, home.config.broadcast_timeout_s)

    def advance(self) -> None:
        """Go on as far as time and the queues allow."""
        home = self._home
        if self.stage is Stage.INTENT and self._is_due(
            self._ticket is None or not home.broadcasts.is_waiting(self._ticket)
        ):
            home.swim.leave(home.now)
            self._enter(Stage.GOODBYE, home.config.broadcast_timeout_s)
        if self.stage is Stage.GOODBYE and self._is_due(home.swim.has_told_leave):
            self._enter(Stage.STAYING, home.config.leave_propagate_s)
        if self.stage is Stage.STAYING and self._is_due(False):
            self.stage = Stage.LEFT
            self.deadline = math.inf
            for request in self._requests:
                home.reply(request, None)
            self._requests.clear()

    def _enter(self, stage: Stage, timeout_s: float) -> None:
        self.stage = stage
        self.deadline = self._home.now + timeout_s

    def _is_due(self, is_done: bool) -> bool:
        return is_done or self._home.now >= self.deadline
