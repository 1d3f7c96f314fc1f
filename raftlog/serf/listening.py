"""What memberlist tells and asks Serf: the other side of raftlog/serf/swim/above.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from raftlog.serf.asking import Asking
from raftlog.serf.broadcasts import Kind
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.serf import decode, decode_tags, encode
from raftlog.serf.events import UserEventCame
from raftlog.serf.home import Home
from raftlog.serf.lamport import TIME_MAX
from raftlog.serf.messages import (
    Alive,
    ConflictResponse,
    JoinIntent,
    KeyRequest,
    KeyResponse,
    LeaveIntent,
    Query,
    QueryResponse,
    Relay,
    SerfState,
    State,
    UserEvent,
)
from raftlog.serf.swim.members import SwimMember
from raftlog.serf.user_events import UserEvents


class Listening:
    """Implements `Above`. Nothing that comes from the network raises: what is not understood is counted and noted."""

    def __init__(self, home: Home, events: UserEvents, asking: Asking) -> None:
        self._home = home
        self._events = events
        self._asking = asking
        self.is_joining = False  # a join was asked for: events from before it are nothing new
        self.refused_count = 0

    # ── members ──

    def joined(self, member: SwimMember) -> None:
        self._home.table.joined(member.name, member.address, self._tags(member), member.versions)
        self._home.tell_of_members()

    def updated(self, member: SwimMember) -> None:
        self._home.table.updated(member.name, member.address, self._tags(member), member.versions)
        self._home.tell_of_members()

    def left(self, member: SwimMember) -> None:
        home = self._home
        home.table.gone(member.name, said_so=member.state is State.LEFT, now=home.now)
        home.tell_of_members()

    def _tags(self, member: SwimMember) -> Mapping[str, str]:
        try:
            return decode_tags(member.meta)
        except BadPacket as error:
            self._refuse(f"tags of {member.name}: {error}")
            return {}

    def conflicts(self, member: SwimMember, other: Alive) -> None:
        home = self._home
        if member.name == home.name:
            self._asking.resolve_conflict(other.address)
        else:
            home.note(
                "serf_name_conflict_of_others", name=member.name, one=member.address, other=other.address
            )

    def refuses(self, alive: Alive) -> bool:
        size = len(alive.node.encode())
        if 0 < size <= self._home.config.name_bytes_max and alive.node.isprintable():
            return False
        self._refuse(
            f"a member's name: expected up to {self._home.config.name_bytes_max} bytes to print, found {size}"
        )
        return True

    # ── messages ──

    def user_message(self, data: bytes) -> None:
        try:
            message = decode(data)
        except BadPacket as error:
            self._refuse(str(error))
            return
        match message:
            case LeaveIntent() | JoinIntent():
                if self._is_in_time(message.time) and self._home.hear(message):
                    self._pass_on(Kind.INTENT, data)
            case UserEvent():
                if self._is_in_time(message.time) and self.take_event(message):
                    self._pass_on(Kind.EVENT, data)
            case Query():
                if self._is_in_time(message.time) and self._asking.take(message):
                    self._pass_on(Kind.QUERY, data)
            case QueryResponse():
                self._asking.take_response(message)
            case Relay():
                self._asking.pass_on(message)
            case SerfState() | ConflictResponse() | KeyRequest() | KeyResponse():
                self._refuse(f"a {type(message).__name__} outside of an exchange or a query")
            case _:
                assert_never(message)

    def take_event(self, event: UserEvent) -> bool:
        if not self._events.take(event):
            return False
        self._home.tell(UserEventCame(event.name, event.payload, event.time))
        return True

    def _pass_on(self, kind: Kind, data: bytes) -> None:
        """What is larger than anything that this node may say would wait for ever for a packet that it fits in."""
        config = self._home.config
        if len(data) <= max(config.query_bytes_max, config.user_event_bytes_max):
            self._home.broadcasts.put(kind, data)
        else:
            self._home.note("serf_message_not_passed_on", kind=kind.name, found=len(data))

    def _is_in_time(self, time: int) -> bool:
        if time <= TIME_MAX:
            return True
        self._refuse(f"Lamport time: expected up to {TIME_MAX}, found {time}")
        return False

    def _refuse(self, reason: str) -> None:
        self.refused_count += 1
        self._home.note("serf_message_refused", reason=reason)

    # ── exchanges of states ──

    def user_state(self, is_join: bool) -> bytes:
        home = self._home
        return encode(
            SerfState(
                time=home.clock.time,
                status_times=home.table.status_times(),
                left_members=tuple(member.name for member in home.table.left),
                event_time=self._events.clock.time,
                events=self._events.remembered(),
                query_time=self._asking.queries.clock.time,
            )
        )

    def merge_user_state(self, data: bytes, is_join: bool) -> None:
        try:
            state = decode(data)
        except BadPacket as error:
            self._refuse(str(error))
            return
        if not isinstance(state, SerfState):
            self._refuse(f"expected a state in an exchange, found a {type(state).__name__}")
            return
        times = (state.time, state.event_time, state.query_time, *state.status_times.values())
        if not all(map(self._is_in_time, times)):
            return

        # The other's clocks are at what it will say next: only what is before was said.
        self._home.clock.witness(state.time - 1)
        self._events.clock.witness(state.event_time - 1)
        self._asking.queries.clock.witness(state.query_time - 1)
        self._merge_members(state)
        if is_join and self.is_joining:
            self._events.ignore_before(state.event_time)
        for at in state.events:
            if self._is_in_time(at.time):
                for event in at.events:
                    self.take_event(UserEvent(at.time, event.name, event.payload))

    def _merge_members(self, state: SerfState) -> None:
        """As if their intents had come; they are not passed on, for exchanges reach all in the end.

        When somebody left is not told, only the time of the intent before it: the leave is taken for one later. Those
        come first, lest the times of others make them old.
        """
        left = dict.fromkeys(state.left_members)
        for name in left:
            self._home.hear(LeaveIntent(min(state.status_times.get(name, 0) + 1, TIME_MAX), name))
        home = self._home
        own = home.table.get(home.name)
        assert own is not None, "a node knows itself"
        # Later than anything that this life said: the other holds an intent of a former one, perhaps to leave, and takes
        # this node for LEAVING until it hears of a join that is later still.
        is_outdated = state.status_times.get(home.name, 0) > own.status_time
        for name, time in state.status_times.items():
            if name not in left:
                home.hear(JoinIntent(time, name))
        if is_outdated and not home.table.is_leaving:
            home.say_joined()

    # ── what rides along ──

    def has_rumours(self) -> bool:
        return len(self._home.broadcasts) > 0

    def rumours(self, overhead: int, limit: int) -> list[bytes]:
        return self._home.broadcasts.take(overhead, limit, members=len(self._home.table))

    def ack_payload(self) -> bytes:
        """Nothing, where real Serf sends its network coordinate, which it can do without."""
        return b""

    def ping_done(self, member: SwimMember, rtt_s: float, payload: bytes) -> None:
        """Coordinates of others are not looked at."""
