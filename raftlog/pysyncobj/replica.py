"""PySyncObj without its threads, sockets, files, dumps and pickles.

What is overridden here are private parts of one version of the package. Commands are bytes of our own (codec.py), so
every place that would unpickle one is replaced. The algorithm is the package's, except where it is known to lose what was
acknowledged (docs/simulator.md, "The control"):

- It cuts off all entries behind those that an append begins with, also those that it has acknowledged. Here an append is
  shortened to what this node does not have, so that only what contradicts it is cut off.
- Its acknowledgements do not say of which term they are, so an old one can count for another entry. Here they do.
- It would fail over replies from nodes that are no members any more. Here they are dropped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftlog.engine import NodeId
from raftlog.pysyncobj.codec import (
    FIRST_INDEX,
    MEMBERSHIP,
    NOTHING,
    RECORDS,
    Change,
    Fields,
    decode_change,
    encode_change,
    is_known,
)
from raftlog.pysyncobj.journal import Entries, Journal, Member, Members

NEVER: Final = 2**62  # of entries or seconds
ENTRY_BYTES_MAX: Final = 2**31  # above any: PySyncObj pickles entries that are longer than its batches
TURN_BYTES_MAX: Final = 4 * 1024 * 1024  # of entries sent to one node in one turn of the loop

Outcome = Callable[[Any, int], None]  # told what applying gave, and one of FAIL_REASON


class Peer(Node):  # type: ignore[misc]
    """A node and where it is."""

    def __init__(self, node: NodeId, member: Member) -> None:
        super().__init__(node)
        self.member = member


class Outbox(Transport):  # type: ignore[misc]
    """What PySyncObj wants sent, and the members as it knows them; its owner does the rest."""

    def __init__(self, members: Members) -> None:
        super().__init__(None, None, [])
        self.members = dict(members)  # others than this node; changes count from when they are appended
        # Set while an append is handled that says of a part of the log only that it is the leader's: up to this entry.
        self.matched: int | None = None
        self.term: Callable[[], int] = lambda: 0  # of the node
        self.refused: list[int] = []  # commands that it would have sent to the leader
        self._messages: list[tuple[NodeId, Fields]] = []
        self._sizes: Counter[NodeId] = Counter()  # bytes of the entries in them

    def addNode(self, node: Peer) -> None:
        self.members[node.id] = node.member

    def dropNode(self, node: Node) -> None:
        self.members.pop(node.id, None)

    def send(self, node: Node, message: Fields) -> bool:
        if message["type"] == "apply_command":
            self.refused.append(message["request_id"])
        elif is_known(message):
            if message["type"] == "next_node_idx":
                message["term"] = self.term()
                if message["success"] and self.matched is not None:
                    message["next_node_idx"] = self.matched + 1
            self._messages.append((node.id, message))
            self._sizes[node.id] += sum(len(command) for command, _, _ in message.get("entries", ()))
            if self._sizes[node.id] > TURN_BYTES_MAX:
                self.disconnected(node.id)  # it sends until it has sent all, or is told this
        return True

    # Its owner calls these.

    def take(self) -> list[tuple[NodeId, Fields]]:
        messages, self._messages = self._messages, []
        self._sizes.clear()
        return messages

    def connected(self, node: NodeId) -> None:
        self._onNodeConnected(Node(node))

    def disconnected(self, node: NodeId) -> None:
        self._onNodeDisconnected(Node(node))

    def received(self, node: NodeId, message: Fields) -> None:
        self._onMessageReceived(Node(node), message)


class Replica(SyncObj):  # type: ignore[misc]
    """One node. `journal` is its log; `outbox` is to be emptied, after a flush, when `tick` returns."""

    def __init__(
        self,
        journal: Journal,
        *,
        election_timeout_s_min: float,
        election_timeout_s_max: float,
        may_campaign: bool,
    ) -> None:
        """Not `may_campaign`: not before a leader has sent entries."""
        members = journal.newest_members()
        members.pop(journal.node, None)
        self.journal = journal
        self.outbox = Outbox(members)
        self._may_campaign = may_campaign
        conf = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=True,
            commandsWaitLeader=False,
            useFork=False,
            raftMinTimeout=election_timeout_s_min,
            raftMaxTimeout=election_timeout_s_max,
            connectionTimeout=election_timeout_s_max,  # unused: the links look after themselves
            leaderFallbackTimeout=election_timeout_s_max,
            appendEntriesPeriod=election_timeout_s_min / 5,
            appendEntriesBatchSizeBytes=ENTRY_BYTES_MAX,
            logCompactionMinEntries=NEVER,
            logCompactionMinTime=NEVER,
        )
        with _journal_made_by(lambda _: journal):
            others = [Peer(id, member) for id, member in members.items()]
            super().__init__(Node(journal.node), others, conf, nodeClass=Node, transport=self.outbox)
        self.outbox.term = lambda: self.raftCurrentTerm
        self._SyncObj__raftLastApplied = journal.applied  # it would apply all from the first entry on again

    # ── what it is asked ──

    def append(self, frame: bytes, outcome: Outcome) -> None:
        self._applyCommand(frame, outcome, RECORDS)

    def append_nothing(self, outcome: Outcome) -> None:
        self._applyCommand(b"", outcome, NOTHING)

    def change(self, change: Change, outcome: Outcome) -> None:
        self._applyCommand(encode_change(change)[1:], outcome, MEMBERSHIP)

    @property
    def is_ready(self) -> bool:
        """It leads, and has applied all that was appended before it did."""
        return bool(self._isLeader()) and self.raftLastApplied >= self._SyncObj__noopIDx

    @property
    def leader(self) -> NodeId | None:
        leader = self._getLeader()
        return None if leader is None else leader.id

    def receive(self, sender: NodeId, message: Fields) -> None:
        """Take a message in. What comes from others than members counts only if it is a leader's."""
        if message["type"] == "append_entries":
            message = self._new_part(message)
        elif (
            sender not in self.outbox.members
            or message["type"] == "next_node_idx"
            and message["term"] != self.raftCurrentTerm
        ):
            return
        self.outbox.received(sender, message)
        self.outbox.matched = None

    def tick(self) -> None:
        """Do what is to be done now. What was added before must be durable: the leader counts itself."""
        for request in self.outbox.refused:
            error = {"type": "apply_command_response", "request_id": request, "error": FAIL_REASON.NOT_LEADER}
            self.outbox.received(NodeId(""), error)
        self.outbox.refused.clear()
        if not self._may_campaign:
            self._may_campaign = self.journal.last_index > FIRST_INDEX
            self._SyncObj__raftElectionDeadline = math.inf
            if self._may_campaign:
                self._SyncObj__raftElectionDeadline = self._deadline()
        self.doTick(0)

    def send_soon(self) -> None:
        """Send entries and what is committed at the next tick, not only when its period is over."""
        self._SyncObj__newAppendEntriesTime = 0.0

    def _deadline(self) -> float:
        now: float = pysyncobj.syncobj.monotonicTime()
        return now + float(self._SyncObj__generateRaftTimeout())

    def _new_part(self, message: Fields) -> Fields:
        """The append without what is here already. Source: Raft paper, figure 2, AppendEntries, steps 3 to 5."""
        journal, before, entries = self.journal, message["prevLogIdx"], message["entries"]
        if message["term"] < self.raftCurrentTerm or not FIRST_INDEX <= before <= journal.last_index:
            return message
        if journal.term(before) != message["prevLogTerm"]:
            return message
        known = 0
        for _, index, term in entries:
            if index > journal.last_index or journal.term(index) != term:
                break
            known += 1
        if known < len(entries):
            begin, committed = before + known, message["commit_index"]
        else:
            # Nothing is new, and nothing says that what is behind it is wrong, or right.
            begin, committed = journal.last_index, min(message["commit_index"], before + known)
            self.outbox.matched = before + known
        return {
            **message, "prevLogIdx": begin, "prevLogTerm": journal.term(begin), "entries": entries[known:],
            "commit_index": committed,
        }  # fmt: skip

    # ── in the place of what it does itself ──

    def _SyncObj__doApplyCommand(self, command: bytes) -> int:
        """The index of the entry."""
        index: int = self.raftLastApplied + 1  # it counts afterwards
        if command[0] == MEMBERSHIP:
            self._SyncObj__doChangeCluster(self._SyncObj__parseChangeClusterRequest(command))
            self.journal.apply_change(decode_change(command), index)
        self.journal.stored.applied(command, index)
        return index

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> tuple[str, NodeId, Peer] | None:
        if command[0] != MEMBERSHIP:
            return None
        change = decode_change(command)
        node = Peer(change.node, Member(change.address, change.directory_id))
        return "add" if change.adds else "rem", change.node, node

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> Any:
        """Entries from an index on; of those that go into one message only as many as fit."""
        journal = self.journal
        if fromIDx is None or fromIDx < FIRST_INDEX:
            return []
        end = journal.last_index + 1
        if maxSizeBytes is not None:
            return journal.page(fromIDx, end) if fromIDx < end else []
        return Entries(journal, fromIDx, end if count is None else min(fromIDx + count, end))


@contextmanager
def _journal_made_by(make: Callable[[Any], Journal]) -> Iterator[None]:
    """PySyncObj takes its journal from a name of its module, while an instance is made."""
    module = pysyncobj.syncobj.__dict__
    theirs = module["createJournal"]
    module["createJournal"] = make
    try:
        yield
    finally:
        module["createJournal"] = theirs
