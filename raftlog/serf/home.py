"""What the parts of one node share: who it is, what it knows, and the ways to say something."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from raftlog.engine import Effect, Emit, Note, Reply
from raftlog.serf.broadcasts import Broadcasts, Kind, Ticket
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.serf import encode
from raftlog.serf.config import SerfConfig
from raftlog.serf.events import MemberReaped, Told
from raftlog.serf.lamport import LamportClock
from raftlog.serf.members import Heard, MemberTable
from raftlog.serf.messages import Address, JoinIntent, LeaveIntent, SerfMessage
from raftlog.serf.swim.node import Swim
from raftlog.serf.swim.shown import shown

NOTES_MAX = 16  # in one step; what a flood of packets has to say beyond it is not worth hearing


class Home:
    """Of one node; `swim` is put in once it is made, and `now` is that of the step."""

    swim: Swim

    def __init__(
        self,
        config: SerfConfig,
        *,
        name: str,
        address: Address,
        tags: Mapping[str, str],
        keyring: Keyring,
        random: Random,
        now: float,
    ) -> None:
        self.config = config
        self.name = name
        self.address = address
        self.tags = tags
        self.keyring = keyring
        self.random = random
        self.now = now
        self.clock = LamportClock()  # of intents
        self.table = MemberTable(config, name)
        self.broadcasts = Broadcasts(
            retransmit_mult=config.swim.retransmit_mult, rumours_max=config.swim.rumours_max
        )
        self._effects: list[Effect] = []
        self._notes = 0  # in this step

    def begin_step(self, now: float) -> None:
        self.now = now
        self._notes = 0

    def drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    # ── to the application ──

    def tell(self, told: Told) -> None:
        self._effects.append(Emit(told))

    def tell_of_members(self) -> None:
        """What has happened to members since the last time."""
        for told in self.table.take_news():
            if isinstance(told, MemberReaped):
                self.swim.forget(told.member.name)
            self.tell(told)

    def reply(self, request: int, outcome: Any) -> None:
        self._effects.append(Reply(request, outcome))

    def note(self, event: str, **fields: Any) -> None:
        """For a person; so many in one step, the rest is left out."""
        self._notes += 1
        if self._notes <= NOTES_MAX:
            self._effects.append(Note(event, {name: shown(value) for name, value in fields.items()}))

    # ── to other nodes ──

    def send(self, address: Address, message: SerfMessage) -> None:
        self.swim.send(address, encode(message), self.now)

    def broadcast(self, kind: Kind, message: SerfMessage) -> Ticket:
        return self.broadcasts.put(kind, encode(message))

    # ── intents, of others and of this node ──

    def hear(self, intent: JoinIntent | LeaveIntent) -> bool:
        """Take it in; True if it is news to be passed on."""
        self.clock.witness(intent.time)
        if isinstance(intent, JoinIntent):
            heard = self.table.hear_join(intent, self.now)
        else:
            heard = self.table.hear_leave(intent, self.now)
        self.tell_of_members()
        if heard is Heard.REFUTE:
            self.note("serf_leave_refuted", time=intent.time)
            self.say_joined()
        return heard is Heard.NEW

    def say_joined(self) -> None:
        """Tell all that this node is here to stay: later than anything that was heard."""
        intent = JoinIntent(self.clock.time, self.name)
        self.hear(intent)
        self.broadcast(Kind.INTENT, intent)
