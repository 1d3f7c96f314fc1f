"""Watches all PySyncObj nodes at once and says what of Raft's promises was broken, and by which bug.

It looks at what everybody can see from outside: messages as they leave, journals on the disks, and what the nodes' own
status tells (role, term, commit index, members, acknowledgements counted). What is broken is a fact; the bug is a
diagnosis from the same observations, and is said with the nodes and entries (`index:term`) that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raftlog.engine import Effect, NodeId, Send
from raftlog.sim.pysyncobj.disk import Disk, Entry
from raftlog.sim.pysyncobj.node import PySyncObjNode
from raftlog.sim.pysyncobj.streams import Data


class Broken(StrEnum):
    """Which promise."""

    ONE_LEADER = "two leaders in one term"
    MAJORITY = "committed without a majority"
    COMMITTED_STAYS = "a committed entry was cut off"
    ONLY_COMMITTED = "took as committed what no leader committed"
    LEADER_HAS_ALL = "a leader lacks a committed entry"
    ONE_ENTRY = "two leaders committed different entries at one index"
    SAME_STATE = "nodes applied different entries at one index"
    ACKNOWLEDGED_STAYS = "an acknowledged write is lost"


class Bug(StrEnum):
    """By what, as far as it can be seen."""

    DOUBLE_VOTE = "double vote"
    STALE_ACKNOWLEDGEMENT = "stale acknowledgement counted"
    CUT_OFF = "acknowledged entries cut off"
    FORGOTTEN = "acknowledged entries forgotten at a restart"
    FALSE_COMMIT = "commit index taken over without matching the log"
    SPLIT_BRAIN = "split brain"
    CONSEQUENCE = "consequence of what came before"


@dataclass(frozen=True, slots=True)
class Finding:
    broken: Broken
    bug: Bug
    detail: str

    def __str__(self) -> str:
        return f"{self.broken}: {self.bug}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Commit:
    """The first commit of an index by a leader."""

    entry: Entry
    leader: NodeId
    members: tuple[NodeId, ...]  # as the leader knew them then
    holders: tuple[NodeId, ...]  # those of them that had the entry then


class Witness:
    """Sees every step of every node, in order."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []  # in the order in which they were made
        self._disks: dict[NodeId, Disk] = {}
        self._commit_seen: dict[NodeId, int] = {}  # commit index of each node when it was last looked at
        self._applied_seen: dict[NodeId, int] = {}
        self._members_seen: dict[NodeId, tuple[NodeId, ...]] = {}  # itself first, as of the step before
        self._leaders: dict[int, list[NodeId]] = {}  # by term; more than one: a bug
        self._votes: dict[tuple[NodeId, int], list[NodeId]] = {}  # by voter and term; more than one: a bug
        # by index and term; one term an index, if all is well
        self._commits: dict[int, dict[int, Commit]] = {}
        self._change_seen: dict[NodeId, int] = {}  # the last entry of a leader that was looked at for changes
        # by leader: changes of the members that it took up before the one before was committed
        self._changes_at_once: dict[NodeId, str] = {}
        self._applied: dict[int, tuple[Entry, NodeId]] = {}  # by index: what was applied first, and where

    def started(self, node: PySyncObjNode) -> None:
        """A node begins, new or after a crash."""
        self._disks[node.node_id] = node.disk
        self._commit_seen[node.node_id] = node.replica.raftCommitIndex
        self._applied_seen[node.node_id] = node.replica.raftLastApplied
        self._members_seen[node.node_id] = _members(node)

    def stepped(self, node: PySyncObjNode, effects: Sequence[Effect]) -> None:
        """Look at a node after a step; new findings are at the end of `findings`."""
        name, replica = node.node_id, node.replica
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Data):
                self._saw_message(name, effect.to, dict(effect.message.fields))
        if node.disk.removed:
            removed, node.disk.removed = node.disk.removed, []
            self._saw_removed(node, removed)
        is_leader: bool = replica._isLeader()
        if is_leader:
            self._saw_leader(node, replica.raftCurrentTerm)
            self._saw_changes(node)
        committed: int = replica.raftCommitIndex
        if committed > self._commit_seen[name]:
            if is_leader:
                self._saw_commit(node, self._commit_seen[name] + 1, committed)
            else:
                self._saw_commit_taken_over(node, self._commit_seen[name] + 1, committed)
            self._commit_seen[name] = committed
        applied: int = replica.raftLastApplied
        if applied > self._applied_seen[name]:
            for index in range(self._applied_seen[name] + 1, applied + 1):
                self._saw_applied(node, index)
            self._applied_seen[name] = applied
        self._members_seen[name] = _members(node)

    def finish(self, leader: NodeId, acknowledged: dict[tuple[int, int], str]) -> None:
        """At the end, under a leader that has converged with all: is what was acknowledged, by index and term, there?"""
        disk = self._disks[leader]
        for (index, term), what in acknowledged.items():
            is_there = disk.has(index, term)
            if disk.entries[0][1] > index:  # in a dump by now, as what it was committed as
                is_there = term in self._commits.get(index, {term: None})
            if not is_there:
                detail = f"{what} at {index}:{term}; {leader}, which leads at the end, does not have it"
                bug = self.findings[0].bug if self.findings else Bug.CONSEQUENCE
                self._find(Broken.ACKNOWLEDGED_STAYS, bug, detail)

    def _find(self, broken: Broken, bug: Bug, detail: str) -> None:
        if bug is Bug.SPLIT_BRAIN:
            detail = "; ".join([detail, *self._changes_at_once.values()])
        self.findings.append(Finding(broken, bug, detail))

    def _saw_message(self, sender: NodeId, target: NodeId, fields: dict[str, Any]) -> None:
        match fields["type"]:
            case "request_vote":
                candidate = sender
            case "response_vote":
                candidate = target
            case _:
                return
        votes = self._votes.setdefault((sender, fields["term"]), [])
        if candidate not in votes:
            votes.append(candidate)

    def _saw_leader(self, node: PySyncObjNode, term: int) -> None:
        name = node.node_id
        leaders = self._leaders.setdefault(term, [])
        if name in leaders:
            return
        leaders.append(name)
        if len(leaders) == 1:
            self._saw_election(node, term)
            return
        twice = [
            f"{voter} voted for {' and '.join(candidates)}"
            for (voter, of), candidates in self._votes.items()
            if of == term and len(candidates) > 1
        ]
        bug = Bug.DOUBLE_VOTE if twice else Bug.SPLIT_BRAIN
        detail = f"{' and '.join(leaders)} in term {term}; {', '.join(twice) or 'nobody voted twice'}"
        self._find(Broken.ONE_LEADER, bug, detail)

    def _saw_election(self, node: PySyncObjNode, term: int) -> None:
        """A leader must have what leaders of terms before committed: each majority has a node of the other."""
        name = node.node_id
        for index in sorted(self._commits, reverse=True):
            commit = max(self._commits[index].values(), key=lambda commit: commit.entry[2])
            of = commit.entry[2]
            if of >= term:
                continue
            if node.disk.has(index, of):
                return
            voters = [
                voter for (voter, when), chosen in self._votes.items() if when == term and name in chosen
            ]
            members = _members(node)
            both = [voter for voter in voters if voter in commit.holders]
            bug = Bug.CONSEQUENCE
            if not both and 2 * len(voters) > len(members) and 2 * len(commit.holders) > len(commit.members):
                bug = Bug.SPLIT_BRAIN
            elif any((index, of) in self._disks[voter].forgotten for voter in both):
                bug = Bug.FORGOTTEN
            detail = (
                f"{name} leads in term {term} by votes of {_list(voters)} of {_list(members)} without {index}:{of}, "
                f"which {commit.leader} committed on {_list(commit.holders)} of {_list(commit.members)}"
            )
            self._find(Broken.LEADER_HAS_ALL, bug, detail)
            return

    def _saw_changes(self, node: PySyncObjNode) -> None:
        last = node.disk.entries[-1][1]
        first = self._change_seen.get(node.node_id, last) + 1
        self._change_seen[node.node_id] = last
        if not any(_is_change(entry) for entry in node.disk.tail(first)):
            return
        uncommitted = [
            entry for entry in node.disk.tail(node.replica.raftCommitIndex + 1) if _is_change(entry)
        ]
        if len(uncommitted) > 1:
            changes = " and ".join(f"{index}:{term}" for _, index, term in uncommitted)
            self._changes_at_once[node.node_id] = (
                f"{node.node_id} took up changes of the members at once, {changes}"
            )

    def _saw_commit(self, node: PySyncObjNode, first: int, last: int) -> None:
        name, replica = node.node_id, node.replica
        entry = node.disk.entry(last)
        if entry is None:
            return  # it is in a dump already
        term = entry[2]
        members = self._members_seen[name]  # those of before: it commits, and only then takes up changes
        holders = tuple(member for member in members if self._has(member, last, term))
        if 2 * len(holders) <= len(members):
            status = replica.getStatus()
            counted = [
                m for m in members if status.get(f"match_idx_server_{m}", 0) >= last and m not in holders
            ]
            bug, reasons = self._why_missing(counted, last, term)
            self._find(
                Broken.MAJORITY, bug, f"{name} committed {last}:{term}, only on {_list(holders)}; {reasons}"
            )
        for index in range(first, last + 1):
            entry = node.disk.entry(index)
            if entry is None:
                continue
            commits = self._commits.setdefault(index, {})
            if entry[2] not in commits:
                commits[entry[2]] = Commit(entry, name, members, holders)
                if len(commits) == 2:
                    self._saw_second_commit(*commits.values())

    def _saw_commit_taken_over(self, node: PySyncObjNode, first: int, last: int) -> None:
        """A follower learned a commit index; every entry up to it must have been committed by a leader."""
        for index in range(first, last + 1):
            entry = node.disk.entry(index)
            commits = self._commits.get(index, {})
            if entry is None or entry[2] in commits:
                continue
            is_with_dump = any("serialized" in dict(fields) for fields in node.delivered)
            bug = Bug.FALSE_COMMIT if is_with_dump else Bug.CONSEQUENCE
            others = ", ".join(
                f"{commit.leader} committed {index}:{term}" for term, commit in commits.items()
            )
            by = "a piece of a dump" if is_with_dump else "no piece of a dump"
            detail = (
                f"{node.node_id} {index}:{entry[2]} by {by}; {others or 'no leader committed anything there'}"
            )
            self._find(Broken.ONLY_COMMITTED, bug, detail)
            return

    def _why_missing(self, counted: Iterable[NodeId], index: int, term: int) -> tuple[Bug, str]:
        """Why nodes lack an entry that they are counted for."""
        bugs, reasons = set(), []
        for member in counted:
            disk = self._disks[member]
            if (index, term) in disk.stored:
                bugs.add(Bug.FORGOTTEN if (index, term) in disk.forgotten else Bug.CUT_OFF)
                reasons.append(f"{member} had it and has it no more")
            else:
                bugs.add(Bug.STALE_ACKNOWLEDGEMENT)
                terms = sorted(of for at, of in disk.stored if at == index)
                before = ", ".join(f"{index}:{of}" for of in terms) or "nothing there"
                reasons.append(f"{member} is counted for it but never had it; it ever had {before}")
        worst = (Bug.STALE_ACKNOWLEDGEMENT, Bug.FORGOTTEN, Bug.CUT_OFF)
        return next((bug for bug in worst if bug in bugs), Bug.CONSEQUENCE), "; ".join(reasons)

    def _saw_second_commit(self, first: Commit, second: Commit) -> None:
        both = [
            f"{c.leader} {c.entry[1]}:{c.entry[2]} on {_list(c.holders)} of {_list(c.members)}"
            for c in (first, second)
        ]
        are_disjoint = not set(first.holders) & set(second.holders)
        are_majorities = all(2 * len(c.holders) > len(c.members) for c in (first, second))
        bug = Bug.SPLIT_BRAIN if are_disjoint and are_majorities else Bug.CONSEQUENCE
        if any((first.entry[1], first.entry[2]) in self._disks[holder].forgotten for holder in first.holders):
            bug = Bug.FORGOTTEN
        self._find(Broken.ONE_ENTRY, bug, "; ".join(both))

    def _saw_applied(self, node: PySyncObjNode, index: int) -> None:
        entry = node.disk.entry(index)
        if entry is None:
            return  # it came with a dump, or is in one already
        first, where = self._applied.setdefault(index, (entry, node.node_id))
        if first != entry:
            # one term that is led twice: who led or voted first has forgotten it
            bug = Bug.FORGOTTEN if first[2] == entry[2] and not node.disk.keeps else Bug.CONSEQUENCE
            self._find(
                Broken.SAME_STATE, bug, f"{where} {index}:{first[2]}, {node.node_id} {index}:{entry[2]}"
            )

    def _saw_removed(self, node: PySyncObjNode, removed: list[tuple[int, int]]) -> None:
        for index, term in removed:
            commit = self._commits.get(index, {}).get(term)
            if commit is not None and not node.disk.has(index, term):
                detail = f"{node.node_id} had {index}:{term}, which {commit.leader} committed"
                self._find(Broken.COMMITTED_STAYS, Bug.CUT_OFF, detail)
                return

    def _has(self, member: NodeId, index: int, term: int) -> bool:
        disk = self._disks.get(member)
        return disk is not None and disk.has(index, term)


def _is_change(entry: Entry) -> bool:
    return entry[0][:1] == b"\x02"  # its command type MEMBERSHIP


def _members(node: PySyncObjNode) -> tuple[NodeId, ...]:
    """As the node knows them, itself first."""
    return (node.node_id, *sorted(other.id for other in node.replica.otherNodes))


def _list(names: Iterable[NodeId]) -> str:
    return "{" + ", ".join(sorted(names)) + "}"
