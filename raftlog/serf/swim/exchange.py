"""Exchanges of whole states over streams: what rumours missed is made good, and newcomers join.

Source: memberlist's push/pull; the idea is anti-entropy (Demers et al., "Epidemic Algorithms for Replicated Database
Maintenance", 1987, 1.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2
from random import Random
from typing import Final

from raftlog.serf.config import SwimConfig
from raftlog.serf.messages import (
    Address,
    Alive,
    Dead,
    ErrorReply,
    NodeState,
    PushPull,
    State,
    SwimMessage,
    Versions,
)
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.claims import Claims
from raftlog.serf.swim.members import Members, SwimMember
from raftlog.serf.swim.post import Post
from raftlog.serf.swim.shown import shown

SCALED_ABOVE: Final = 32  # members: with so many the interval is the configured one
JOINS_MAX: Final = 64  # under way at once; more fail at once


def interval_s(seconds: float, members: int) -> float:
    """Between exchanges: once more as long at 33, 65, 129 members and so on, for states grow with members too."""
    if members <= SCALED_ABOVE:
        return seconds
    return seconds * (ceil(log2(members) - log2(SCALED_ABOVE)) + 1)


@dataclass(frozen=True, slots=True)
class _Question:
    to: Address
    on_outcome: Callable[[str], None] | None  # of a join


class Exchange:
    def __init__(
        self,
        config: SwimConfig,
        members: Members,
        claims: Claims,
        post: Post,
        above: Above,
        random: Random,
    ) -> None:
        self._config = config
        self._members = members
        self._claims = claims
        self._post = post
        self._above = above
        self._random = random
        self._asked: dict[int, _Question] = {}
        self._pause_s = inf  # until the next exchange; less than the configured one after a start or a join
        self.deadline = inf

    def start(self, now: float) -> None:
        self._begin_early(now)

    def _begin_early(self, now: float) -> None:
        """Exchange soon, and then after pauses that double up to the configured one.

        Where many start at once, a rumour is spent before all know all: told four times by each, mostly to whoever is
        known by then. memberlist leaves such gaps until its first exchange, half a minute later.
        """
        self._pause_s = self._config.push_pull_first_s
        self._plan(now)

    def _plan(self, now: float) -> None:
        usual_s = interval_s(self._config.push_pull_interval_s, self._members.count)
        if self._pause_s < usual_s:
            self.deadline = now + (0.5 + self._random.random()) * self._pause_s  # not all at once
            self._pause_s *= 2
        else:
            self.deadline = now + usual_s

    def advance(self, now: float) -> None:
        if now < self.deadline:
            return
        self._plan(now)
        if any(question.on_outcome is None for question in self._asked.values()):
            return  # the last one hangs
        for member in self._members.pick(1, lambda m: m.state is State.ALIVE):
            self._ask(member.address, None)

    def join(self, address: Address, on_outcome: Callable[[str], None]) -> None:
        if len(self._asked) >= JOINS_MAX:
            on_outcome(
                f"{len(self._asked)} exchanges are under way, the limit is {JOINS_MAX}: try again later"
            )
        else:
            self._ask(address, on_outcome)

    def has_asked(self, request: int) -> bool:
        return request in self._asked

    def take_answer(self, request: int, answer: SwimMessage, now: float) -> None:
        question = self._asked.pop(request)
        match answer:
            case PushPull():
                is_join = question.on_outcome is not None
                outcome = self._merge(answer, now, is_join=is_join)
                if is_join and not outcome:
                    self._begin_early(now)
            case ErrorReply():
                outcome = f"{question.to} answers: {shown(answer.error)}"
            case _:
                outcome = f"{question.to} answers with {type(answer).__name__}, not with its state"
        self._tell(question, outcome)

    def take_failure(self, request: int, reason: str) -> None:
        question = self._asked.pop(request)
        self._tell(question, f"{question.to}: {reason}")

    def answer(self, request: int, asked: PushPull, sender: Address, now: float) -> None:
        """With this node's state as it was before."""
        claimed = [node.node for node in asked.nodes if node.state is State.ALIVE]
        self._post.reply(request, self._state(is_join=asked.is_join, claimed=claimed))
        outcome = self._merge(asked, now, is_join=asked.is_join)
        if outcome:
            self._post.refuse("state of another", now, sender=sender, detail=outcome)

    def _ask(self, to: Address, on_outcome: Callable[[str], None] | None) -> None:
        state = self._state(is_join=on_outcome is not None)
        request = self._post.ask(to, state, self._config.stream_timeout_s)
        self._asked[request] = _Question(to, on_outcome)

    def _tell(self, question: _Question, outcome: str) -> None:
        if question.on_outcome is not None:
            question.on_outcome(outcome)
        elif outcome:
            self._post.note("exchange of states failed", to=question.to, reason=outcome)

    def _state(self, *, is_join: bool, claimed: Sequence[str] = ()) -> PushPull:
        """Of all but those who are gone for long; of those too whom the other claims alive: who comes back must know."""
        told = {member.name: member for member in self._members.told()}
        for name in claimed:
            known = self._members.get(name)
            if known is not None:
                told[name] = known
        return PushPull(
            nodes=tuple(_node_state(member) for member in told.values()),
            user_state=self._above.user_state(is_join),
            is_join=is_join,
        )

    def _merge(self, theirs: PushPull, now: float, *, is_join: bool) -> str:
        """Why not; then nothing is taken in."""
        clash = _clash(theirs.nodes, self._claims.own.versions)
        if clash:
            return clash
        for node in theirs.nodes:
            match node.state:
                case State.ALIVE:
                    alive = Alive(node.incarnation, node.node, node.address, node.meta, node.versions)
                    self._claims.take_alive(alive, now)
                case State.LEFT:
                    self._claims.take_dead(Dead(node.incarnation, node.node, accuser=node.node), now)
                case State.SUSPECT | State.DEAD:
                    # Dead only by hearsay: it gets the time to refute.
                    self._claims.suspect(node.node, node.incarnation, now)
        if theirs.user_state:
            self._above.merge_user_state(theirs.user_state, is_join)
        return ""


def _node_state(member: SwimMember) -> NodeState:
    return NodeState(
        member.name, member.address, member.meta, member.incarnation, member.state, member.versions
    )


def _clash(nodes: Sequence[NodeState], own: Versions) -> str:
    """Which living one of these does not understand what this node speaks, or the other way; empty if all do."""
    for node in nodes:
        if node.state is not State.ALIVE:
            continue
        theirs = node.versions
        if not (
            theirs.protocol_min <= own.protocol <= theirs.protocol_max
            and own.protocol_min <= theirs.protocol <= own.protocol_max
        ):
            return _incompatible(node.node, "memberlist", theirs[:3], own[:3])
        if not (
            theirs.serf_min <= own.serf <= theirs.serf_max and own.serf_min <= theirs.serf <= own.serf_max
        ):
            return _incompatible(node.node, "Serf", theirs[3:], own[3:])
    return ""


def _incompatible(name: str, what: str, theirs: tuple[int, ...], own: tuple[int, ...]) -> str:
    return (
        f"{name!r} speaks version {theirs[2]} of {what} and understands {theirs[0]} to {theirs[1]}; "
        f"this node speaks {own[2]} and understands {own[0]} to {own[1]}"
    )
