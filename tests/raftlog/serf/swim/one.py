"""One member whose every word is looked at."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from raftlog.engine import Answered, Ask, Asked, Note, Receive, Reply, Send, Wake
from raftlog.serf.codec.streams import StreamMessage
from raftlog.serf.codec.swim import PacketMessage, encode
from raftlog.serf.config import LAN, SwimConfig
from raftlog.serf.messages import Address, Alive, State, SwimMessage, Versions
from raftlog.serf.swim.node import Swim
from tests.raftlog.serf.swim.town import Told, codec

QUIET = replace(
    LAN.swim, gossip_interval_s=1e6, push_pull_interval_s=1e6, push_pull_first_s=1e6
)  # probes only


def at(name: str) -> Address:
    """Where the member of this letter is."""
    return Address(f"10.0.0.{ord(name) - ord('a') + 1}:7946")


ME = "m"


SPOKEN = Versions()
ELSEWHERE = Address("10.0.0.99:7946")


def alive(
    name: str,
    incarnation: int = 1,
    *,
    address: Address | None = None,
    meta: bytes = b"",
    versions: Versions = SPOKEN,
) -> Alive:
    return Alive(incarnation, name, address or at(name), meta, versions)


class One:
    """The member "m". What it makes is read as tuples: (to, message, ...), ("ask", to, message), ("reply", message)."""

    def __init__(self, config: SwimConfig = QUIET, *, seed: int = 1) -> None:
        print(f"seed {seed}")
        self.codec = codec(Random(seed))
        self.told = Told()
        self.node = Swim(config, ME, at(ME), b"", self.codec, Random(seed), self.told)
        self.now = 0.0
        self.questions: list[int] = []  # numbers of what it asked by streams
        self.notes: list[str] = []
        self.node.start(0.0)

    def know(self, *names: str) -> None:
        """Take in these, tell everything that there is to tell of them, and begin with an empty slate."""
        self.hear(*(alive(name) for name in names))
        self.tell_all()
        self.told.news.clear()

    def tell_all(self) -> None:
        """Rumours ride along with messages to nobody until none is left."""
        while self.node.rumours_waiting:
            self.node.send(at("z"), b"", self.now)
        self.said()

    def rumours(self) -> list[object]:
        """What it would tell anybody now."""
        self.said()
        self.node.send(at("z"), b"", self.now)
        return list(self.said()[0][2:])

    def known(self, name: str) -> tuple[State, int]:
        """What it knows of a member: state and incarnation."""
        member = self.node.members[name]
        return member.state, member.incarnation

    def hear(self, *messages: PacketMessage, sender: Address = ELSEWHERE) -> None:
        parts = [encode(message) for message in messages]
        self.node.step(Receive(sender, self.codec.packet(parts, has_crc=False)), self.now)

    def hear_from(self, name: str, *messages: PacketMessage) -> None:
        self.hear(*messages, sender=at(name))

    def ask(self, message: StreamMessage, *, request: int = 7) -> None:
        self.node.step(Asked(request, at("a"), self.codec.stream(message)), self.now)

    def answer(self, message: StreamMessage, *, request: int) -> None:
        self.node.step(Answered(request, self.codec.stream(message, is_reply=True)), self.now)

    def wake(self, now: float | None = None) -> None:
        """At its deadline, or at another time."""
        self.now = max(self.now, self.node.deadline()) if now is None else now
        self.node.step(Wake(), self.now)

    def said(self) -> list[tuple[Any, ...]]:
        """What it handed out since; notes are kept in `notes`."""
        return [read for effect in self.node.drain() if (read := self._read(effect))]

    def _read(self, effect: Any) -> tuple[Any, ...]:
        match effect:
            case Send():
                return (effect.to, *self.codec.open_packet(effect.message))
            case Ask():
                self.questions.append(effect.request)
                return ("ask", effect.to, self.codec.open_stream(effect.message))
            case Reply():
                return ("reply", self._answer(effect.outcome))
            case Note():
                self.notes.append(effect.event)
                return ()
        raise AssertionError(effect)

    def _answer(self, outcome: bytes) -> SwimMessage | None:
        return self.codec.open_stream(outcome, is_reply=True) if outcome else None
