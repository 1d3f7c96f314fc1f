"""Who votes, who only learns, and how that changes.

A change that moves one voter is simple: any majority of the old voters and any of the new ones share a node. Several at
once go through a joint configuration, in which every decision needs a majority of the incoming voters *and* one of the
outgoing (dissertation 4.3). From (n1 n2 n3), replacing n3 by n4:

    voters=(n1 n2 n3)            change: add n4, remove n3
    voters=(n1 n2 n4)&&(n1 n2 n3)    joint: incoming && outgoing
    voters=(n1 n2 n4)            an empty change leaves the joint configuration

A voter that is demoted in a joint change still votes with the outgoing half, so it becomes a learner only when that half
goes: until then it is in `learners_next`.

The rules and the sentences of the refusals are those of etcd's raft, so that its public vectors can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, assert_never

from raftlog.engine import NodeId

CHANGES_MAX = 64  # in one ConfigurationChange: a cluster has a handful of nodes; more is refused
NODE_NAME_CHARACTERS_MAX = 63  # as the server's settings allow; a longer one is refused
CHANGE_BYTES_MAX = 32 * 1024  # above what these two allow in four-byte characters; more is not even parsed


class InvalidChange(Exception):
    """The configuration cannot be changed so. Nothing changed; a retry fails until the configuration is another."""


def _sorted(nodes: Iterable[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes))


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration in force. All tuples are sorted and without repetition.

    Without voters it is the one before the first: it can be changed simply into any other, and never be returned to.
    """

    voters: tuple[NodeId, ...] = ()  # the incoming half when joint
    outgoing: tuple[NodeId, ...] = ()  # the voters before the joint change; empty when not joint
    learners: tuple[NodeId, ...] = ()  # get entries, do not vote; never a voter of either half
    learners_next: tuple[NodeId, ...] = ()  # outgoing voters that become learners when the joint is left
    auto_leave: bool = False  # joint, and the leader leaves it by itself
    all_voters: tuple[NodeId, ...] = field(init=False, repr=False, compare=False)  # of both halves
    members: tuple[NodeId, ...] = field(init=False, repr=False, compare=False)  # voters and learners

    def __post_init__(self) -> None:
        for nodes in (self.voters, self.outgoing, self.learners, self.learners_next):
            assert nodes == _sorted(set(nodes)), nodes
        all_voters = _sorted({*self.voters, *self.outgoing}) if self.outgoing else self.voters
        members = _sorted({*all_voters, *self.learners}) if self.learners else all_voters
        object.__setattr__(self, "all_voters", all_voters)
        object.__setattr__(self, "members", members)
        for learner in self.learners:
            assert learner not in all_voters, f"{learner} learns and votes: {self}"
        for learner in self.learners_next:
            assert learner in self.outgoing, f"{learner} is held back by no outgoing vote: {self}"
            assert learner not in self.voters, f"{learner} is to learn and to vote: {self}"
        assert self.outgoing or not self.auto_leave, f"there is no joint to leave: {self}"

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def __str__(self) -> str:
        """As etcd prints it: `voters=(n1 n2)&&(n1) learners=(n3) learners_next=(n4) autoleave`."""
        words = [f"voters=({' '.join(self.voters)})"]
        if self.outgoing:
            words[0] += f"&&({' '.join(self.outgoing)})"
        if self.learners:
            words.append(f"learners=({' '.join(self.learners)})")
        if self.learners_next:
            words.append(f"learners_next=({' '.join(self.learners_next)})")
        if self.auto_leave:
            words.append("autoleave")
        return " ".join(words)


# ── what is asked for ───────────────────────────────────────────────────────────────────────────────


class ChangeKind(Enum):
    ADD_VOTER = "add-voter"  # or promote a learner
    ADD_LEARNER = "add-learner"  # or demote a voter
    REMOVE = "remove"
    UPDATE = "update"  # nothing for Raft: for what others keep about the node


class Transition(Enum):
    AUTO = "auto"  # simple for one change; joint for several, left by the leader
    IMPLICIT = "implicit"  # joint, left by the leader
    EXPLICIT = "explicit"  # joint, left when someone asks for it


@dataclass(frozen=True, slots=True)
class Change:
    kind: ChangeKind
    node: NodeId


@dataclass(frozen=True, slots=True)
class ConfigurationChange:
    """What an entry of kind CONFIGURATION says. Made only if it can be written and read again, else InvalidChange."""

    changes: tuple[Change, ...]
    transition: Transition = Transition.AUTO

    def __post_init__(self) -> None:
        if len(self.changes) > CHANGES_MAX:
            raise InvalidChange(f"{len(self.changes)} changes at once: at most {CHANGES_MAX} are allowed")
        for change in self.changes:
            node = change.node
            if not 0 < len(node) <= NODE_NAME_CHARACTERS_MAX:
                raise InvalidChange(
                    f"a node's name has 1 to {NODE_NAME_CHARACTERS_MAX} characters, not {len(node)}"
                )
            if not node.isprintable() or " " in node:
                raise InvalidChange(f"a node's name has printable characters and no space: {node!a}")

    @property
    def leaves_joint(self) -> bool:
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether the joint configuration that this enters is left by the leader."""
        return self.enters_joint and self.transition is not Transition.EXPLICIT

    def to_bytes(self) -> bytes:
        """One form per change: JSON with sorted keys and no spaces, in UTF-8."""
        content = {
            "changes": [[change.kind.value, change.node] for change in self.changes],
            "transition": self.transition.value,
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ConfigurationChange:
        """The change that `to_bytes` gave these bytes for; InvalidChange for all others."""
        if len(data) > CHANGE_BYTES_MAX:
            raise InvalidChange(
                f"{len(data)} bytes are not a configuration change: at most {CHANGE_BYTES_MAX}"
            )
        try:
            change = cls._from_content(json.loads(data))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidChange(f"not a configuration change: {data[:100]!r}") from error
        # Also what JSON lets pass, as repeated keys, other encodings and keys of no meaning.
        if change.to_bytes() != data:
            raise InvalidChange(f"a configuration change, but not in its one form: {data[:100]!r}")
        return change

    @classmethod
    def _from_content(cls, content: Any) -> ConfigurationChange:
        """The change that parsed JSON stands for; KeyError, TypeError or ValueError if it stands for none."""
        changes = []
        for kind, node in content["changes"]:
            if not isinstance(node, str):
                raise TypeError(f"a node's name is text, not {type(node).__name__}")
            changes.append(Change(ChangeKind(kind), NodeId(node)))
        return cls(tuple(changes), Transition(content["transition"]))


# ── from one configuration to the next ──────────────────────────────────────────────────────────────


class Changed(NamedTuple):
    """The outcome of a change."""

    configuration: Configuration
    newcomers: tuple[NodeId, ...]  # sorted: members that were none before, or were removed and added again


def apply_change(configuration: Configuration, change: ConfigurationChange) -> Changed:
    """The configuration after this change, or InvalidChange."""
    if change.leaves_joint:
        return Changed(leave_joint(configuration), ())
    if change.enters_joint:
        return enter_joint(configuration, change.changes, auto_leave=change.auto_leave)
    return change_simply(configuration, change.changes)


def change_simply(configuration: Configuration, changes: Sequence[Change]) -> Changed:
    """Apply changes that together move at most one voter, else InvalidChange."""
    if configuration.is_joint:
        raise InvalidChange("can't apply simple config change in joint config")

    draft = _Draft(configuration, outgoing=())
    draft.apply(changes)

    if len(draft.voters.symmetric_difference(configuration.voters)) > 1:
        raise InvalidChange("more than one voter changed without entering joint config")
    return draft.finish(auto_leave=False)


def enter_joint(configuration: Configuration, changes: Sequence[Change], *, auto_leave: bool) -> Changed:
    """Apply any changes to the incoming half; the voters as they were become the outgoing half."""
    if configuration.is_joint:
        raise InvalidChange("config is already joint")
    if not configuration.voters:
        raise InvalidChange("can't make a zero-voter config joint")

    draft = _Draft(configuration, outgoing=configuration.voters)
    draft.apply(changes)

    return draft.finish(auto_leave=auto_leave)


def leave_joint(configuration: Configuration) -> Configuration:
    """Let the incoming half decide alone. Nobody comes; outgoing voters go, or become learners as was asked."""
    if not configuration.is_joint:
        raise InvalidChange("can't leave a non-joint config")
    return Configuration(
        voters=configuration.voters,
        learners=_sorted({*configuration.learners, *configuration.learners_next}),
    )


class _Draft:
    """A configuration while changes are applied to it, one after the other."""

    __slots__ = ("learners", "learners_next", "newcomers", "outgoing", "voters")

    def __init__(self, configuration: Configuration, *, outgoing: tuple[NodeId, ...]) -> None:
        self.voters = set(configuration.voters)
        self.outgoing = outgoing
        self.learners = set(configuration.learners)
        # A joint configuration is not changed, so there are none before.
        self.learners_next: set[NodeId] = set()
        self.newcomers: set[NodeId] = set()  # perhaps removed again later

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change.kind:
                case ChangeKind.ADD_VOTER:
                    self.add_voter(change.node)
                case ChangeKind.ADD_LEARNER:
                    self.add_learner(change.node)
                case ChangeKind.REMOVE:
                    self.remove(change.node)
                case ChangeKind.UPDATE:
                    pass
                case _:
                    assert_never(change.kind)
        if not self.voters:
            raise InvalidChange("removed all voters")

    def add_voter(self, node: NodeId) -> None:
        self.note_newcomer(node)
        self.learners.discard(node)
        self.learners_next.discard(node)
        self.voters.add(node)

    def add_learner(self, node: NodeId) -> None:
        self.note_newcomer(node)
        self.voters.discard(node)
        if node in self.outgoing:
            self.learners_next.add(node)
        else:
            self.learners.add(node)

    def remove(self, node: NodeId) -> None:
        self.voters.discard(node)
        self.learners.discard(node)
        self.learners_next.discard(node)

    def note_newcomer(self, node: NodeId) -> None:
        """Before `node` is added. One that an outgoing vote keeps in the cluster never left it."""
        if node not in self.voters and node not in self.outgoing and node not in self.learners:
            self.newcomers.add(node)

    def finish(self, *, auto_leave: bool) -> Changed:
        configuration = Configuration(
            voters=_sorted(self.voters),
            outgoing=self.outgoing,
            learners=_sorted(self.learners),
            learners_next=_sorted(self.learners_next),
            auto_leave=auto_leave,
        )
        return Changed(configuration, _sorted(self.newcomers.intersection(configuration.members)))
