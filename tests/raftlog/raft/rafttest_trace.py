"""The state of the nodes that a script's expected output tells of, compared with ours.

What is known of a node, and when it is not known any more:

    handed out  role, leader, term, vote, commit and log, as its Readys say them. Each prints only what is new to it, so
                what was printed last holds until that node has a Ready that is not printed (log-level none).
    live        role and term in its last "became ... at term ..." or `raft-state`, and the configuration in its last
                "switched to ...", which hold until a command whose notes are not printed (a log-level above info).

Both are compared with our node's: with what its last process-ready handed out, and with its status. At the end of a
script that is the end state of every node. Of a log whose beginning was not printed, the entries that were are compared,
and where it ends. Messages, applied entries and the order of Readys are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.raftlog.raft.datadriven import Directive
from tests.raftlog.raft.rafttest import (
    LEVEL_QUIET,
    LEVELS,
    Environment,
    all_numbers,
    printed_level,
)
from tests.raftlog.raft.rafttest_node import Node, node_number, soft_state

COMPARED = (
    "compact",
    "raft-log",
    "raft-state",
    "status",
)  # commands whose output is compared, and changes nothing
READY_COMMANDS = ("process-ready", "stabilize")
LEVEL_INFO = LEVELS.index("info")
ROLES = {
    "follower": "StateFollower",
    "pre-candidate": "StatePreCandidate",
    "candidate": "StateCandidate",
    "leader": "StateLeader",
}

_HEADER = re.compile(r"> (\d+) (handling Ready|.*)")
_SOFT_STATE = re.compile(r"Lead:(\d+) State:(\w+)")
_HARD_STATE = re.compile(r"HardState Term:(\d+)(?: Vote:(\d+))? Commit:(\d+)")
_SNAPSHOT = re.compile(r"Snapshot Index:(\d+) Term:(\d+) .*")
_ENTRY = re.compile(r"\d+/(\d+) Entry.*")
_BECAME = re.compile(r"\s*INFO ([0-9a-f]+) became ([a-z-]+) at term (\d+)")
_SWITCHED = re.compile(r"\s*INFO ([0-9a-f]+) switched to configuration (.*)")
_STATE = re.compile(r"(\d+): (\w+) \((?:Non-)?Voter\) Term:(\d+) Lead:(\d+)")
_FIRST_FORM = re.compile(r"\bEntryConfChange\b")


@dataclass(slots=True)
class Expected:
    """Of one node. None, or a missing entry: not known."""

    soft_state: tuple[str, int] | None = None  # role, leader
    hard_state: tuple[int, int, int] | None = None  # term, vote, commit
    last_index: int | None = None
    log: dict[int, str] = field(default_factory=dict)
    live: tuple[str, int] | None = None  # role, term
    configuration: str | None = None

    def forget_handed_out(self) -> None:
        self.soft_state = self.hard_state = self.last_index = None
        self.log.clear()

    def forget_live(self) -> None:
        self.live = self.configuration = None

    def append(self, index: int, entry: str) -> None:
        for later in [known for known in self.log if known > index]:
            del self.log[later]
        self.log[index] = entry
        self.last_index = index


class Trace:
    def __init__(self) -> None:
        self.nodes: dict[int, Expected] = {}

    def read(self, directive: Directive, environment: Environment, level: int) -> None:
        """Take in what this directive is expected to print, when it prints at this level."""
        if directive.command in COMPARED:
            for match in map(_STATE.fullmatch, directive.expected.splitlines()):
                if match is not None:
                    number, role, term, _ = match.groups()
                    self.of(int(number)).live = (role, int(term))
            return
        if level > LEVEL_INFO:
            for expected in self.nodes.values():
                expected.forget_live()
        if level == LEVEL_QUIET and directive.command in READY_COMMANDS:
            for number in all_numbers(directive, environment):
                self.of(number).forget_handed_out()
        lines = directive.expected.splitlines()
        for line in lines:
            self._read_note(line)
        if directive.command in READY_COMMANDS:
            for number, block in ready_blocks(directive, lines):
                self._read_ready(self.of(number), block)

    def of(self, number: int) -> Expected:
        return self.nodes.setdefault(number, Expected())

    def _read_note(self, line: str) -> None:
        became, switched = _BECAME.fullmatch(line), _SWITCHED.fullmatch(line)
        if became is not None:
            self.of(int(became[1], 16)).live = (ROLES[became[2]], int(became[3]))
        if switched is not None:
            self.of(int(switched[1], 16)).configuration = switched[2]

    @staticmethod
    def _read_ready(expected: Expected, lines: list[str]) -> None:
        section = ""
        entries: list[tuple[int, str]] = []  # a snapshot is printed after the entries that follow it
        for line in lines:
            soft, hard = _SOFT_STATE.fullmatch(line), _HARD_STATE.fullmatch(line)
            snapshot, entry = _SNAPSHOT.fullmatch(line), _ENTRY.fullmatch(line)
            if line in ("Entries:", "CommittedEntries:", "Messages:"):
                section = line
            elif section == "Messages:":
                pass  # some look like entries
            elif soft is not None:
                expected.soft_state = (soft[2], int(soft[1]))
            elif hard is not None:
                expected.hard_state = (int(hard[1]), int(hard[2] or 0), int(hard[3]))
            elif snapshot is not None:
                expected.log.clear()
                expected.last_index = int(snapshot[1])
            elif section == "Entries:" and entry is not None:
                entries.append((int(entry[1]), as_one_form(line)))
        for index, description in entries:
            expected.append(index, description)


def ready_blocks(directive: Directive, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """What each Ready prints, without its indentation, and whose it is."""
    named = [argument.key for argument in directive.arguments if not argument.values]
    if directive.command == "process-ready" and len(named) == 1:
        yield int(named[0]), lines
        return
    number, block = 0, list[str]()
    for line in [*lines, "> 0 end"]:
        header = _HEADER.fullmatch(line)
        if header is None:
            block.append(line.removeprefix("  "))
            continue
        if number:
            yield number, block
        number = int(header[1]) if header[2] == "handling Ready" else 0
        block = []


def as_one_form(text: str) -> str:
    """RULES["first change form"]."""
    return _FIRST_FORM.sub("EntryConfChangeV2", text)


def differences(expected: Expected, node: Node) -> Iterator[str]:
    """Between what is known of the node and what ours is."""
    ours, status = node.handed_out, node.raft.status()
    configuration = str(status.configuration)
    for member in status.configuration.members:
        configuration = configuration.replace(member, str(node_number(member)))
    pairs = [
        ("role, leader", expected.soft_state, (ours.role, ours.leader)),
        ("term, vote, commit", expected.hard_state, (ours.term, ours.vote, ours.commit)),
        ("last index", expected.last_index, ours.last_index),
        ("live role, term", expected.live, (soft_state(status)[0], status.term)),
        ("live configuration", expected.configuration, configuration),
    ]
    pairs += [(f"entry {index}", entry, ours.log.get(index)) for index, entry in sorted(expected.log.items())]
    for name, theirs, found in pairs:
        if theirs is not None and theirs != found:
            yield f"node {node.number}: {name}: expected {theirs}, got {found}"


def run(directives: list[Directive], *, after_each: bool = False) -> list[str]:
    """The differences between what a script expects and what our nodes do.

    The state of the nodes is compared at the end; with `after_each`, already after each command.
    """
    environment, trace = Environment(), Trace()
    found: list[str] = []
    for directive in directives:
        level = printed_level(directive, environment.level)
        printed = environment.handle(directive)
        if printed is not None and level != LEVEL_QUIET:
            wanted = as_one_form(directive.expected)
            if (printed or "ok") != wanted:
                place = f"line {directive.line}: {directive.command}"
                found.append(f"{place}: expected\n{wanted}\ngot\n{printed or 'ok'}")
        trace.read(directive, environment, level)
        if after_each or directive is directives[-1]:
            for number, expected in sorted(trace.nodes.items()):
                for difference in differences(expected, environment.node(number)):
                    found.append(f"after line {directive.line}: {difference}")
    return found
