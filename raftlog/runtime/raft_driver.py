"""Carries out a Raft node's effects: writes on the disk thread, messages on the links, entries to the views.

The rules are those of raftlog/engine.py: a message that vouches for something on this disk leaves once that is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from raftlog.engine import (
    Applied,
    Apply,
    Effect,
    NodeId,
    Note,
    Persist,
    Persisted,
    Receive,
    Reply,
    Send,
    Token,
)
from raftlog.raft.events import Unreachable
from raftlog.raft.messages import Append, Message
from raftlog.raft.node import RaftNode
from raftlog.raft.storage import Write
from raftlog.runtime.actor import Actor, InboxFull
from raftlog.runtime.applier import Applier

INBOX_MAX: Final = 16_384  # events; beyond it messages are dropped (Raft repeats them), requests refused
HELD_MAX: Final = 4_096  # messages that wait for the disk; beyond it the oldest is dropped


class Disk(Protocol):
    """Writes in order, in a thread of its own, and reports to `durable` in the loop's thread."""

    def submit(self, token: Token, write: Write) -> None: ...


class Links(Protocol):
    def send(self, to: NodeId, message: Message, *, is_catch_up: bool = False) -> None:
        """Queue a message for a peer; never waits. What cannot be sent is dropped."""


class RaftDriver:
    """One Raft node that runs. All calls are made in the event loop's thread."""

    def __init__(
        self,
        node: RaftNode,
        *,
        disk: Disk,
        links: Links,
        applier: Applier,
        on_note: Callable[[Note], None],
        on_installed: Callable[[], None],
        on_turn: Callable[[], None],
    ) -> None:
        """`on_installed`: a snapshot took the place of the log, durably; the applier is to be told.
        `on_turn`: after each turn of the actor; the node may have changed in any way.
        """
        self.node = node
        self._disk = disk
        self._links = links
        self._applier = applier
        self._on_note = on_note
        self._on_installed = on_installed
        self._on_turn = on_turn
        self._requests: dict[int, Callable[[Any], None]] = {}  # those without an outcome
        self._last_request = 0
        self._ended: object = None  # the outcome of all requests since the core goes on no more
        self._loop = asyncio.get_running_loop()
        self._durable = Token(0)
        self._held: deque[tuple[Token, NodeId, Message]] = deque()  # by token: what waits for the disk
        self._installs: set[Token] = set()  # writes that put a snapshot in the place of the log
        self.actor = Actor(node, self._perform, inbox_max=INBOX_MAX)

    # ── what comes in ───────────────────────────────────────────────────────────────────────────────

    def received(self, sender: NodeId, message: Message) -> None:
        try:
            self.actor.dispatch(Receive(sender, message))
        except InboxFull:
            pass  # as if the network had lost it

    def unreachable(self, peer: NodeId) -> None:
        try:
            self.actor.dispatch(Unreachable(peer))
        except InboxFull:
            pass  # the replies that do not come tell the same

    def durable(self, token: Token) -> None:
        """All writes up to this one are on disk."""
        self._durable = token
        while self._held and self._held[0][0] <= token:
            _, to, message = self._held.popleft()
            self._send(to, message)
        installed = [each for each in self._installs if each <= token]
        if installed:
            self._installs.difference_update(installed)
            self._on_installed()
        if not self.actor.is_closed:
            self.actor.dispatch(Persisted(token), is_urgent=True)

    def request(self, make: Callable[[int], Any], on_outcome: Callable[[Any], None]) -> None:
        """Hand the core the event that `make` makes of a number; `on_outcome` is called once, by the loop. InboxFull if
        refused.
        """
        if self._ended is not None:
            self._loop.call_soon(on_outcome, self._ended)
            return
        number = self._last_request + 1
        self.actor.dispatch(make(number))
        self._last_request = number
        self._requests[number] = on_outcome

    def end_requests(self, outcome: object) -> None:
        """The core goes on no more: all requests without an outcome get this one, and those that come later."""
        self._ended = outcome
        requests, self._requests = self._requests, {}
        for on_outcome in requests.values():
            on_outcome(outcome)

    # ── what is to be done ──────────────────────────────────────────────────────────────────────────

    def _perform(self, effects: Sequence[Effect]) -> None:
        committed: list[Apply[Any]] = []  # applied last: who is replied to wants to know what becomes of it
        for effect in effects:
            if isinstance(effect, Send):
                if effect.after is None or effect.after <= self._durable:
                    self._send(effect.to, effect.message)
                else:
                    self._hold(effect.after, effect.to, effect.message)
            elif isinstance(effect, Persist):
                write: Write = effect.write
                if write.snapshot is not None and write.snapshot.is_last:
                    self._installs.add(effect.token)
                self._disk.submit(effect.token, write)
            elif isinstance(effect, Apply):
                committed.append(effect)
            elif isinstance(effect, Reply):
                self._requests.pop(effect.request)(effect.outcome)
            else:
                assert isinstance(effect, Note), "Raft neither asks by streams nor tells by Emit"
                self._on_note(effect)
        for apply in committed:
            self._applier.apply(apply.entries)
            self.actor.dispatch(Applied(apply.entries[-1].index), is_urgent=True)
        self._on_turn()

    def _hold(self, after: Token, to: NodeId, message: Message) -> None:
        if len(self._held) >= HELD_MAX:
            self._held.popleft()
        self._held.append((after, to, message))

    def _send(self, to: NodeId, message: Message) -> None:
        # A quorum has it all: whoever lacks it is being caught up.
        is_catch_up = (
            isinstance(message, Append)
            and bool(message.entries)
            and message.entries[-1].index <= message.commit
        )
        self._links.send(to, message, is_catch_up=is_catch_up)

    def close(self) -> None:
        self.actor.close()
