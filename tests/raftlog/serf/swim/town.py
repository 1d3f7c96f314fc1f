"""A few members in one process, with a clock that only they need: a post for packets and streams between them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from itertools import count
from random import Random
from typing import Any

from raftlog.engine import Answered, Ask, Asked, Note, Receive, Reply, Send, Unanswered, Wake
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import LAN, SwimConfig
from raftlog.serf.messages import Address, Alive, State
from raftlog.serf.swim.members import SwimMember
from raftlog.serf.swim.node import Swim

DELAY_S = 0.001  # of a packet


def codec(random: Random, *keys: bytes) -> Codec:
    return Codec(Keyring(keys), nonce=random.randbytes)


class Told:
    """The protocol above: keeps what it is told, in order."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []
        self.user: list[bytes] = []
        self.states: list[tuple[bytes, bool]] = []
        self.own_state = b""
        self.waiting: list[bytes] = []  # rumours
        self.refused_names: Collection[str] = ()
        self.pings: list[tuple[str, float, bytes]] = []

    def joined(self, member: SwimMember) -> None:
        self.news.append(("joined", member.name))

    def left(self, member: SwimMember) -> None:
        self.news.append((member.state.name.lower(), member.name))

    def updated(self, member: SwimMember) -> None:
        self.news.append(("updated", member.name))

    def conflicts(self, member: SwimMember, other: Alive) -> None:
        self.news.append(("conflict", f"{member.name} {member.address} {other.address}"))

    def refuses(self, alive: Alive) -> bool:
        return alive.node in self.refused_names

    def user_message(self, data: bytes) -> None:
        self.user.append(data)

    def user_state(self, is_join: bool) -> bytes:
        return self.own_state

    def merge_user_state(self, data: bytes, is_join: bool) -> None:
        self.states.append((data, is_join))

    def has_rumours(self) -> bool:
        return bool(self.waiting)

    def rumours(self, overhead: int, limit: int) -> list[bytes]:
        taken = []
        while self.waiting and len(self.waiting[0]) + overhead <= limit:
            taken.append(self.waiting.pop(0))
            limit -= len(taken[-1]) + overhead
        return taken

    def ack_payload(self) -> bytes:
        return b"payload"

    def ping_done(self, member: SwimMember, rtt_s: float, payload: bytes) -> None:
        self.pings.append((member.name, rtt_s, payload))


class Town:
    """Steps members and carries what they send. Whoever is `stopped` neither hears nor does anything."""

    def __init__(self, config: SwimConfig = LAN.swim, *, seed: int = 1, keys: tuple[bytes, ...] = ()) -> None:
        print(f"seed {seed}")
        self.random = Random(seed)
        self.config = config
        self.keys = keys
        self.now = 0.0
        self.nodes: dict[str, Swim] = {}
        self.told: dict[str, Told] = {}
        self.addresses: dict[str, Address] = {}
        self.stopped: set[str] = set()
        self.lost: set[tuple[str, str]] = set()  # (from, to): packets between them are lost
        self.cut: set[tuple[str, str]] = set()  # and streams come to nothing
        self.packets: list[tuple[float, Address, Address, bytes]] = []  # all that were sent: when, from, to
        self.notes: list[tuple[str, Note]] = []
        self.wakes = 0
        self._post: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count(1)

    def add(self, name: str, *, address: str = "", meta: bytes = b"") -> Swim:
        """A member that knows nobody; in place of a former one of the name."""
        self.addresses[name] = Address(address or f"10.0.0.{len(self.addresses) + 1}:7946")
        self.told[name] = Told()
        random = Random(self.random.random())
        node = Swim(
            self.config, name, self.addresses[name], meta, codec(random, *self.keys), random, self.told[name]
        )
        self.nodes[name] = node
        self.stopped.discard(name)
        node.start(self.now)
        self._carry(name, node)
        return node

    def settle(self, *names: str) -> None:
        """These as one cluster that has nothing more to tell each other."""
        for name in names:
            self.add(name)
            if name != names[0]:
                assert self.join(name, names[0]) == ""
        self.run_until(lambda: all(self.nodes[name].alive_count == len(names) for name in names))
        self.run_until(lambda: all(self.nodes[name].rumours_waiting == 0 for name in names))
        for name in names:
            self.told[name].news.clear()

    def join(self, name: str, other: str) -> str:
        outcomes: list[str] = []
        self.nodes[name].join(self.addresses[other], outcomes.append, self.now)
        self.flush(name)
        self.run_until(lambda: bool(outcomes))
        return outcomes[0]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._next() <= end:
            self._advance()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> float:
        """Seconds that it took."""
        began = self.now
        while not condition():
            assert self.now - began < within_s, f"not within {within_s} s"
            assert self._next() < float("inf"), "nothing more happens"
            self._advance()
        return self.now - began

    def deliver(self, to: str, sender: Address, packet: bytes) -> None:
        if to not in self.stopped:
            node = self.nodes[to]
            node.step(Receive(sender, packet), self.now)
            self._carry(to, node)

    def flush(self, name: str) -> None:
        """Carry what a call to this member made it send."""
        self._carry(name, self.nodes[name])

    def state(self, name: str, of: str) -> tuple[State, int]:
        """What a member knows of another: state and incarnation."""
        member = self.nodes[name].members[of]
        return member.state, member.incarnation

    def _next(self) -> float:
        wakes = [node.deadline() for name, node in self.nodes.items() if name not in self.stopped]
        return max(self.now, min(wakes + [self._post[0][0] if self._post else float("inf")]))

    def _advance(self) -> None:
        self.now = self._next()
        while self._post and self._post[0][0] <= self.now:
            heapq.heappop(self._post)[2]()
        for name, node in self.nodes.items():
            if name not in self.stopped and node.deadline() <= self.now:
                self.wakes += 1
                node.step(Wake(), self.now)
                self._carry(name, node)

    def _later(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._post, (at, next(self._numbers), act))

    def _carry(self, name: str, node: Swim) -> None:
        for effect in node.drain():
            self._carry_one(name, node, effect)

    def _carry_one(self, name: str, node: Swim, effect: Any) -> None:
        match effect:
            case Send(to=to, message=message):
                self.packets.append((self.now, self.addresses[name], to, message))
                receiver = self._at(to)
                if receiver and (name, receiver) not in self.lost:
                    sender = self.addresses[name]
                    self._later(self.now + DELAY_S, lambda: self.deliver(receiver, sender, message))
            case Ask():
                self._carry_question(name, node, effect)
            case Note():
                self.notes.append((name, effect))
            case _:
                raise AssertionError(effect)

    def _carry_question(self, name: str, node: Swim, ask: Ask[bytes]) -> None:
        def outcome(at: float, event: Answered[bytes] | Unanswered) -> None:
            def tell() -> None:
                if self.nodes[name] is node and name not in self.stopped:
                    node.step(event, self.now)
                    self._carry(name, node)

            self._later(at, tell)

        def hear() -> None:
            receiver = self._at(ask.to)
            if not receiver or receiver in self.stopped or (name, receiver) in self.cut:
                outcome(self.now + ask.timeout_s, Unanswered(ask.request, "nobody there"))
                return
            asked = self.nodes[receiver]
            asked.step(Asked(77, self.addresses[name], ask.message), self.now)
            replies = asked.drain()
            answers = [effect.outcome for effect in replies if isinstance(effect, Reply)]
            for effect in replies:
                if not isinstance(effect, Reply):
                    self._carry_one(receiver, asked, effect)
            assert len(answers) == 1
            if answers[0]:
                outcome(self.now + DELAY_S, Answered(ask.request, answers[0]))
            else:
                outcome(self.now + DELAY_S, Unanswered(ask.request, "closed"))

        self._later(self.now + DELAY_S, hear)

    def _at(self, address: Address) -> str:
        """The last one that was given this address."""
        return next((name for name in reversed(self.addresses) if self.addresses[name] == address), "")
