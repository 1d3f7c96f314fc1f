"""What must hold between the nodes of a Raft cluster, checked after every step at the cost of what changed.

Figure 3 of the paper, and what clients are promised:

1. Election safety: at most one leader per term; it has a vote, and its own is on its disk. Who campaigns after
   pre-votes could have been elected when it asked.
2. Log matching: whatever entries two nodes hold at an index and term, these and all before them are the same. By
   induction: there is one entry for an index and term, and one term before it.
3. Leader completeness: a new leader holds everything that was committed before.
4. State machine safety: what is applied at an index is the same everywhere, and was committed; so are snapshots.
5. Durability: what was committed first was then on the disks of a quorum of the configuration in force,
   and of the term of the leader that committed it (figure 8). What a leader believes a member to have is on its disk.
6. Terms, votes and commit indexes of a node never go back, restarts included where the disk vouches for them; one vote
   per term; no reply leaves before the disk has what it vouches for; no configuration change is on
   a disk that does not know the one before to be committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftlog.engine import Apply, NodeId, Persist
from raftlog.raft import RaftNode, Role
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.leader import Leader
from raftlog.raft.messages import (
    AppendReply,
    Entry,
    EntryKind,
    HigherTerm,
    Snapshot,
    SnapshotReply,
    VoteReply,
)
from raftlog.raft.storage import Write
from raftlog.sim.raft.disk import RaftDisk
from raftlog.sim.subject import Violation


@dataclass(slots=True)
class Seen:
    """Of one incarnation of a node: what it was after its last step."""

    term: int = 0
    committed: int = 0
    role: Any = None


class Checks:
    """Knows everything that was ever written or committed in a run."""

    def __init__(self, bootstrap: Configuration, disks: Mapping[NodeId, RaftDisk]) -> None:
        self._disks = disks
        self.leaders: dict[int, tuple[NodeId, Seen]] = {}  # by term; with the incarnation
        # by (index, term): the entry, and the term of the one before it
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._terms: list[int] = [0]  # of the committed entries, by index; 0 is before the first
        self._committed_in: list[int] = [0]  # by index: the term of the node that committed it first
        self._votes: dict[tuple[NodeId, int], NodeId] = {}  # by voter and term
        self.term = 0  # the highest in which anybody was elected
        self._acknowledged: dict[tuple[NodeId, int], int] = {}  # the highest index, by member and term
        # by node and term: the highest committed index when it first asked for pre-votes
        self._asked: dict[tuple[NodeId, int], int] = {}
        self._snapshots: dict[int, tuple[Snapshot, bytes]] = {}  # by index
        # data of proposals that were told to be dropped; only asked, never listed
        self._dropped: set[bytes] = set()
        self._committed_data: set[bytes] = set()  # of commands; only asked, never listed
        self._proposed: dict[int, bytes] = {}  # by the client's request
        self.configuration = bootstrap  # by all that is committed
        self.changes: list[tuple[int, int, ConfigurationChange]] = []  # index and term of all ever written

    @property
    def committed(self) -> int:
        """The highest index that any node ever knew to be committed."""
        return len(self._terms) - 1

    # ── after a step ────────────────────────────────────────────────────────────────────────────────

    def stepped(self, node: RaftNode, seen: Seen, effects: Sequence[Any]) -> None:
        for effect in effects:
            if type(effect) is Persist:
                self._written(node, effect.write)
        if node.term != seen.term:
            if node.term < seen.term:
                raise Violation("term went back", f"{node.id}: from {seen.term} to {node.term}")
            seen.term = node.term
        if node.role is not seen.role:
            self._changed_role(node, seen)
        if node.log.committed != seen.committed:
            if node.log.committed < seen.committed:
                raise Violation("commit index went back", f"{node.id}: from {seen.committed}")
            self._commit(node, seen.committed)
            seen.committed = node.log.committed
        for effect in effects:
            if type(effect) is Apply:
                self._apply(node, effect.entries)

    def _written(self, node: RaftNode, write: Write) -> None:
        part = write.snapshot
        if part is not None and part.is_last:
            self._check_install(node, part.snapshot)
        if not write.entries:
            return
        entries = self._entries
        before = node.log.term(write.entries[0].index - 1)
        assert before is not None
        self._check_commit(node, write)
        for entry in write.entries:
            key = (entry.index, entry.term)
            known = entries.get(key)
            if known is None:
                entries[key] = (entry, before)
                if entry.kind is EntryKind.CONFIGURATION:
                    self.changes.append((*key, ConfigurationChange.from_bytes(entry.data)))
            elif known[1] != before or known[0] != entry:
                raise Violation(
                    "log matching", f"{node.id} writes {entry} after term {before}; another has {known}"
                )
            before = entry.term

    def _check_install(self, node: RaftNode, snapshot: Snapshot) -> None:
        """What follows a snapshot in a log that matches it may have been vouched for (figure 13, step 6)."""
        disk = self._disks[node.id]
        if disk.holds(snapshot.index, snapshot.term):
            raise Violation(
                "a snapshot cuts a log that matches it", f"{node.id} installs {snapshot}; disk: {disk!r}"
            )

    def _check_commit(self, node: RaftNode, write: Write) -> None:
        """Whoever holds a configuration change holds that the one before is committed (raftlog/raft/storage.py)."""
        last = max(
            (entry.index for entry in write.entries if entry.kind is EntryKind.CONFIGURATION), default=0
        )
        earlier = [change.index for change in node.log.changes if change.index < last]
        if earlier and write.commit < earlier[-1]:
            raise Violation(
                "a change without the one before",
                f"{node.id} writes the change at {last} with commit {write.commit}; one at {earlier[-1]} is not applied",
            )

    def _changed_role(self, node: RaftNode, seen: Seen) -> None:
        before, seen.role = seen.role, node.role
        match node.role.name:
            case Role.LEADER:
                self._elected(node, seen)
            case Role.PRE_CANDIDATE:
                self._check_campaign(node)
                # An answer may be to an earlier question of the same term, even from before a restart.
                self._asked.setdefault((node.id, node.term), self.committed)
            case Role.CANDIDATE:
                self._check_campaign(node)
                if before is not None and before.name is Role.PRE_CANDIDATE:
                    self._pre_elected(node)
            case _:
                pass

    def _check_campaign(self, node: RaftNode) -> None:
        """Under a configuration that it knows to be over, majorities may not meet those of now (etcd's rule)."""
        changes = [change.index for change in node.log.changes if change.index <= node.log.committed]
        if changes:
            raise Violation(
                "a campaign before a change", f"{node.id} has not applied {changes}, which it knows committed"
            )

    def _pre_elected(self, node: RaftNode) -> None:
        """A quorum of logs was no further than this one, so it has what was committed before it asked (9.6)."""
        index = self._asked[node.id, node.term - 1]
        if index >= node.log.first_index - 1 and node.log.term(index) != self._terms[index]:
            raise Violation(
                "pre-vote",
                f"{node.id} campaigns in term {node.term} without entry {index}, which was committed when it asked",
            )

    def _elected(self, node: RaftNode, seen: Seen) -> None:
        if node.id not in node.configuration.all_voters:
            raise Violation("election safety", f"{node.id} leads, but has no vote: {node.configuration}")
        other = self.leaders.setdefault(node.term, (node.id, seen))
        # Not even the same node again, after a restart: it might number other entries.
        if other[1] is not seen:
            raise Violation("election safety", f"{other[0]} and {node.id} lead in term {node.term}")
        if self._disks[node.id].hard_state() != (node.term, node.id):
            raise Violation(
                "vouched for too early", f"{node.id} leads in term {node.term} by a vote that it may forget"
            )
        self.term = max(self.term, node.term)
        index = self.committed
        while self._committed_in[index] >= node.term:
            index -= 1  # a late vote can elect a leader of a term that is over: it has not what came after it
        if node.log.term(index) != self._terms[index]:
            raise Violation(
                "leader completeness",
                f"{node.id} leads in term {node.term} without entry {index} of term {self._terms[index]}, "
                f"which is committed; its log ends at {node.log.last_index}",
            )

    def _commit(self, node: RaftNode, before: int) -> None:
        terms, log = self._terms, node.log
        known_end = len(terms)
        for index in range(max(before + 1, log.first_index), log.committed + 1):
            term = log.term(index)
            if index < known_end:
                if terms[index] != term:
                    raise Violation(
                        "state machine safety",
                        f"{node.id} commits entry {index} of term {term}; another committed it of {terms[index]}",
                    )
            elif index != len(terms):
                raise Violation("state machine safety", f"{node.id} commits {index} before {len(terms)}")
            else:
                assert term is not None
                terms.append(term)
                self._committed_in.append(node.term)
                self._note_commit(self._entries[index, term][0])
        if log.committed >= len(terms) or log.term(log.committed) != terms[log.committed]:
            raise Violation(
                "state machine safety", f"{node.id} commits {log.committed} by a snapshot that is not"
            )
        if log.committed >= known_end:
            self._check_durable(node)

    def _note_commit(self, entry: Entry) -> None:
        if entry.kind is EntryKind.CONFIGURATION:
            try:
                change = ConfigurationChange.from_bytes(entry.data)
                self.configuration = apply_change(self.configuration, change).configuration
            except InvalidChange:
                pass  # ignored by every node
        elif entry.kind is EntryKind.COMMAND:
            if entry.data in self._dropped:
                raise Violation("a dropped proposal is committed", str(entry))
            self._committed_data.add(entry.data)

    def _check_durable(self, node: RaftNode) -> None:
        """Nobody has committed this before. With log matching it is enough to look at the last.

        A leader of a later term could replace an entry of an earlier one, stored by a majority or not (paper, figure 8).
        """
        index = node.log.committed
        term = self._terms[index]
        disks = self._disks
        if node.role.name is not Role.LEADER or term != node.term:
            raise Violation(
                "committed by counting",
                f"{node.id} is the first to commit entry {index} of term {term}, as {node.role.name.value} in term {node.term}",
            )
        for voters in (node.configuration.voters, node.configuration.outgoing):
            holders = [voter for voter in voters if voter in disks and disks[voter].holds(index, term)]
            if voters and 2 * len(holders) <= len(voters):
                raise Violation(
                    "durability",
                    f"{node.id} commits entry {index} of term {term}, which only {holders} of {voters} hold",
                )

    def _apply(self, node: RaftNode, entries: Sequence[Entry]) -> None:
        if not self._disks[node.id].holds(entries[-1].index, entries[-1].term):
            raise Violation("applied before it is durable", f"{node.id} applies {entries[-1]}")
        for entry in entries:
            if entry.index >= len(self._terms) or self._terms[entry.index] != entry.term:
                raise Violation("state machine safety", f"{node.id} applies {entry}, which is not committed")
            if self._entries[entry.index, entry.term][0] != entry:
                raise Violation(
                    "state machine safety", f"{node.id} applies {entry}, which is another elsewhere"
                )

    def acknowledged(self, node: RaftNode, member: NodeId) -> None:
        """After an acknowledgement: what a leader believes a member to have is on its disk, unless a later term cut it."""
        progress = node.role.progress.get(member) if isinstance(node.role, Leader) else None
        if progress is None or not progress.match:
            return
        told = self._acknowledged.get((member, node.term), 0)
        if progress.match > told:
            raise Violation(
                "match",
                f"{node.id} believes that {member} has entries up to {progress.match}, which told it of {told} in term {node.term}",
            )
        disk, term = self._disks[member], node.log.term(progress.match)
        if disk.hard_state().term <= node.term and term is not None and not disk.holds(progress.match, term):
            raise Violation(
                "match",
                f"{node.id} believes that {member} has entry {progress.match} of term {term}: {disk!r}",
            )

    # ── other moments ───────────────────────────────────────────────────────────────────────────────

    def sending(self, node: NodeId, disk: RaftDisk, target: NodeId, message: Any) -> None:
        """A message leaves: is what it vouches for on the disk?"""
        kind = type(message)
        if kind is AppendReply:
            key = (node, message.term)
            self._acknowledged[key] = max(self._acknowledged.get(key, 0), message.match)
            state = disk.hard_state()
            # Under a later term the log may have been cut since: then the reply is of the past, and harmless.
            if state.term < message.term or (state.term == message.term and disk.last_index < message.match):
                raise Violation("vouched for too early", f"{node} to {target}: {message}; disk: {disk!r}")
        elif kind is VoteReply:
            if not message.is_granted:
                return
            candidate = self._votes.setdefault((node, message.term), target)
            if candidate != target:
                raise Violation(
                    "two votes in a term", f"{node} in term {message.term}: {candidate} and {target}"
                )
            state = disk.hard_state()
            if state.term < message.term or (state.term == message.term and state.vote != target):
                raise Violation("vouched for too early", f"{node} to {target}: {message}; disk: {disk!r}")
        elif (kind is HigherTerm or kind is SnapshotReply) and disk.hard_state().term < message.term:
            raise Violation("vouched for too early", f"{node} to {target}: {message}; disk: {disk!r}")

    def snapshot_made(self, node: NodeId, snapshot: Snapshot, data: bytes) -> None:
        known = self._snapshots.setdefault(snapshot.index, (snapshot, data))
        if known != (snapshot, data):
            raise Violation(
                "state machine safety", f"{node}'s snapshot {snapshot} {data!r} is {known} elsewhere"
            )

    def snapshot_installed(self, node: NodeId, snapshot: Snapshot, data: bytes) -> None:
        if self._snapshots.get(snapshot.index) != (snapshot, data):
            raise Violation("a snapshot changed on its way", f"{node}: {snapshot} {data!r}")

    def asked(self, request: int, data: bytes) -> None:
        self._proposed[request] = data

    def is_committed(self, request: int) -> bool:
        """Whether what this request proposed was ever committed; nothing else is ever applied."""
        return self._proposed.get(request) in self._committed_data

    def told_committed(self, node: NodeId, index: int, term: int, data: bytes) -> None:
        if index >= len(self._terms) or self._terms[index] != term:
            raise Violation("acknowledged and not committed", f"{node}: entry {index} of term {term}")
        if self._entries[index, term][0].data != data:
            raise Violation("acknowledged another entry", f"{node}: entry {index} of term {term}: {data!r}")

    def told_dropped(self, node: NodeId, data: bytes) -> None:
        self._dropped.add(data)
        if data in self._committed_data:
            raise Violation("a dropped proposal is committed", f"{node}: {data!r}")

    def is_live(self, index: int, term: int) -> bool:
        """Whether the entry is committed or may still be: terms ascend along a log."""
        if index > self.committed:
            return term >= self._terms[-1]
        return term == self._terms[index]

    def possible_configurations(self) -> list[Configuration]:
        """What is in force by what is committed, or may be next."""
        found = [self.configuration]
        for index, term, change in self.changes:
            if index > self.committed and self.is_live(index, term):
                try:
                    found.append(apply_change(self.configuration, change).configuration)
                except InvalidChange:
                    pass
        return found
