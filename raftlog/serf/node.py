"""One node of Serf, as a value: who is there and why, user events, queries, keys of the encryption.

memberlist (raftlog/serf/swim) gets every event that is not a request, and tells what it finds to `Listening`. The other
parts share a `Home`: members and clocks, and the ways to say something to the application or to other nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Final, assert_never

from raftlog.engine import Answered, Asked, Effect, Receive, Unanswered, Wake
from raftlog.serf.asking import Asking
from raftlog.serf.broadcasts import Kind
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.serf import encode, encode_tags
from raftlog.serf.config import SerfConfig
from raftlog.serf.events import (
    ChangeKeys,
    Join,
    Leave,
    Member,
    RemoveFailed,
    Request,
    Respond,
    SendQuery,
    SendUserEvent,
    SetTags,
)
from raftlog.serf.home import Home
from raftlog.serf.leaving import Leaving, Stage
from raftlog.serf.listening import Listening
from raftlog.serf.messages import Address, LeaveIntent, UserEvent
from raftlog.serf.reconnecting import Upkeep
from raftlog.serf.swim.node import Swim
from raftlog.serf.user_events import UserEvents, size

HAS_LEFT: Final = "this node has left the gossip"

Event = Receive[bytes] | Asked[bytes] | Answered[bytes] | Unanswered | Wake | Request


class SerfNode:
    """An engine (raftlog/engine.py) whose messages are bytes: packets (`Send`, `Receive`) and streams (`Ask`, `Asked`).

    Numbers of requests and of streams that were opened to it (`Asked.request`) are drawn by the runner from one
    counter, for both are answered by a `Reply`: with bytes for a stream, with the outcome for a request.
    """

    def __init__(
        self,
        config: SerfConfig,
        *,
        name: str,
        address: Address,
        tags: Mapping[str, str],
        codec: Codec,
        random: Random,
        now: float,
    ) -> None:
        """It is there, alone. ValueError if its name or its tags are such as no other would take in."""
        if not 0 < len(name.encode()) <= config.name_bytes_max or not name.isprintable():
            raise ValueError(
                f"name of a node: expected 1 to {config.name_bytes_max} bytes to print, found {name!r}"
            )
        meta = encode_tags(tags)
        self._home = Home(
            config, name=name, address=address, tags=dict(tags), keyring=codec.keyring, random=random, now=now
        )
        self._events = UserEvents(config.event_buffer)
        self._asking = Asking(self._home)
        self._leaving = Leaving(self._home)
        self._upkeep = Upkeep(self._home)
        self._listening = Listening(self._home, self._events, self._asking)
        self._joins: dict[int, dict[Address, str | None]] = {}  # request -> outcomes so far
        self._swim = Swim(config.swim, name, address, meta, codec, random, self._listening)
        self._home.swim = self._swim
        self._swim.start(now)

    # ── the engine ──

    def step(self, event: Event, now: float) -> None:
        """Take in what happened. After the node has left it refuses requests and is deaf otherwise."""
        self._home.begin_step(now)
        if self.has_left:
            self._refuse(event)
            return
        if isinstance(event, Receive | Asked | Answered | Unanswered | Wake):
            self._swim.step(event, now)
        else:
            self._request(event)
        self._asking.advance()
        self._upkeep.advance(may_reconnect=self._leaving.stage is Stage.HERE)
        self._leaving.advance()
        if self.has_left:
            self._end_requests()

    def drain(self) -> list[Effect]:
        return self._swim.drain() + self._home.drain()

    def deadline(self) -> float | None:
        if self.has_left:
            return None
        deadline = min(
            self._swim.deadline(), self._asking.deadline, self._upkeep.deadline, self._leaving.deadline
        )
        return None if deadline == math.inf else max(deadline, self._home.now)

    # ── what is known ──

    def members(self) -> tuple[Member, ...]:
        """All that are known, by name; this node too."""
        return self._home.table.public()

    @property
    def local(self) -> Member:
        member = self._home.table.get(self._home.name)
        assert member is not None, "a node knows itself"
        return member.public()

    @property
    def keyring(self) -> Keyring:
        return self._home.keyring

    @property
    def swim(self) -> Swim:
        """For tests and metrics: to be looked at, not to be asked for anything."""
        return self._swim

    @property
    def lamport_times(self) -> tuple[int, int, int]:
        """Of intents, user events and queries: none ever goes back."""
        return self._home.clock.time, self._events.clock.time, self._asking.queries.clock.time

    @property
    def has_left(self) -> bool:
        """It has said goodbye, and everybody had time to hear it: it is silent for ever."""
        return self._leaving.stage is Stage.LEFT

    def counts(self) -> Mapping[str, int]:
        """For metrics."""
        statuses = self._home.table.count()
        intent_time, event_time, query_time = self.lamport_times
        return {
            **{f"members_{status.value}": count for status, count in statuses.items()},
            "health_score": self._swim.health_score,
            "incarnation": self._swim.incarnation,
            "rumours_waiting": self._swim.rumours_waiting + len(self._home.broadcasts),
            "refused_packets": sum(self._swim.refused.values()),
            "refused_messages": self._listening.refused_count,
            "queries_running": len(self._asking.queries.running),
            "intent_time": intent_time,
            "event_time": event_time,
            "query_time": query_time,
        }

    # ── requests ──

    def _request(self, event: Request) -> None:
        match event:
            case Join():
                self._join(event)
            case Leave():
                self._leaving.begin(event.request)
            case SetTags():
                self._set_tags(event)
            case SendUserEvent():
                self._send_event(event)
            case SendQuery():
                self._asking.send(event)
            case Respond():
                self._asking.respond(event)
            case RemoveFailed():
                self._remove_failed(event)
            case ChangeKeys():
                self._asking.change_keys(event)
            case _:
                assert_never(event)

    def _end_requests(self) -> None:
        """Those that wait get what is known; no answer to them is heard any more."""
        self._asking.end()
        for request, outcomes in self._joins.items():
            known = {address: HAS_LEFT if reason is None else reason for address, reason in outcomes.items()}
            self._home.reply(request, known)
        self._joins.clear()

    def _refuse(self, event: Event) -> None:
        match event:
            case Leave():
                self._home.reply(event.request, None)
            case Join():
                self._home.reply(event.request, dict.fromkeys(event.addresses, HAS_LEFT))
            case SetTags() | SendUserEvent() | SendQuery() | RemoveFailed() | ChangeKeys():
                self._home.reply(event.request, ValueError(HAS_LEFT))
            case Asked():
                self._home.reply(event.request, b"")
            case _:
                pass

    def _join(self, event: Join) -> None:
        outcomes: dict[Address, str | None] = dict.fromkeys(event.addresses)
        if not outcomes:
            self._home.reply(event.request, {})
            return
        self._joins[event.request] = outcomes
        self._listening.is_joining = True
        for address in list(outcomes):
            self._swim.join(address, self._on_outcome(event.request, address), self._home.now)

    def _on_outcome(self, request: int, address: Address) -> Callable[[str], None]:
        def outcome(reason: str) -> None:
            outcomes = self._joins[request]
            outcomes[address] = reason
            if None in outcomes.values():
                return
            del self._joins[request]
            self._listening.is_joining = bool(self._joins)
            if "" in outcomes.values() and self._leaving.stage is Stage.HERE:
                self._home.say_joined()
            self._home.reply(request, outcomes)

        return outcome

    def _set_tags(self, event: SetTags) -> None:
        try:
            meta = encode_tags(event.tags)
        except ValueError as error:
            self._home.reply(event.request, error)
            return
        self._home.tags = dict(event.tags)
        self._swim.set_meta(meta, self._home.now)
        self._home.reply(event.request, None)

    def _send_event(self, sent: SendUserEvent) -> None:
        home = self._home
        event = UserEvent(self._events.clock.time, sent.name, sent.payload, sent.can_coalesce)
        limit = home.config.user_event_bytes_max
        data = encode(event)
        if max(size(event), len(data)) > limit:
            error = ValueError(
                f"user event {sent.name}: expected {limit} bytes at most when encoded, found {len(data)}"
            )
            home.reply(sent.request, error)
            return
        self._listening.take_event(event)
        home.broadcast(Kind.EVENT, event)
        home.reply(sent.request, None)

    def _remove_failed(self, event: RemoveFailed) -> None:
        """Whoever it is about refutes it if it is there to do so."""
        home = self._home
        if event.node == home.name or home.table.get(event.node) is None:
            home.reply(event.request, KeyError(event.node))
            return
        intent = LeaveIntent(home.clock.tick(), event.node, event.is_pruned)
        home.hear(intent)
        if home.table.has_others_alive():
            home.broadcast(Kind.INTENT, intent)
        home.reply(event.request, None)
