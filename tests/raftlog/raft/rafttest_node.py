"""One node in a script of etcd's rafttest: our core, its disk and views, and what is on its way between them.

etcd hands work out in a `Ready`, ours in effects. What a script sees of a Ready is made from the effects like this:

    one Ready            all effects that have come since the last one
    hard and soft state  what `status()` says when the Ready is taken
    Messages             first those that may go at once, then promises (etcd's msgsAfterAppend), once they are durable
    CommittedEntries     what the core hands out to be applied. Ours never applies what is not durable here, so entries that
                         this Ready makes durable are applied in it if they were known to be committed when it was taken
    Advance              Applied, then Persisted, as in etcd a configuration is in force before the leader counts itself

With async-storage-writes, the disk and the views are two queues; what they answer travels as a message to the node itself.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, assert_never

from raftlog.engine import (
    Applied,
    Apply,
    Ask,
    Effect,
    Emit,
    NodeId,
    Note,
    Persist,
    Persisted,
    Receive,
    Reply,
    Send,
    Wake,
)
from raftlog.raft import invariants
from raftlog.raft import messages as m
from raftlog.raft.config import RaftConfig
from raftlog.raft.configuration import ChangeKind, ConfigurationChange
from raftlog.raft.events import ChangeConfiguration, Outcome, Propose
from raftlog.raft.node import RaftNode, Status
from raftlog.raft.role import Role
from tests.raftlog.raft.rafttest_storage import ScriptStorage

ETCD_TYPES: dict[type, str] = {
    m.Append: "MsgApp",
    m.AppendReply: "MsgAppResp",
    m.AppendRejected: "MsgAppResp",
    m.HigherTerm: "MsgAppResp",
    m.SnapshotReply: "MsgAppResp",
    m.Heartbeat: "MsgHeartbeat",
    m.HeartbeatReply: "MsgHeartbeatResp",
    m.Vote: "MsgVote",
    m.VoteReply: "MsgVoteResp",
    m.PreVote: "MsgPreVote",
    m.PreVoteReply: "MsgPreVoteResp",
    m.SnapshotChunk: "MsgSnap",
    m.TimeoutNow: "MsgTimeoutNow",
    m.TransferRequest: "MsgTransferLeader",
    m.ReadRequest: "MsgReadIndex",
    m.ReadReply: "MsgReadIndexResp",
}
# What etcd sends after the next write, even of nothing.
PROMISES = ("MsgAppResp", "MsgVoteResp", "MsgPreVoteResp")
ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
PERSISTED_TYPES = {  # what tells a node of etcd most when its own write is durable
    Role.FOLLOWER: "MsgStorageAppendResp",
    Role.PRE_CANDIDATE: "MsgStorageAppendResp",
    Role.CANDIDATE: "MsgVoteResp",
    Role.LEADER: "MsgAppResp",
}
CHANGE_LETTERS = {
    ChangeKind.ADD_VOTER: "v",
    ChangeKind.ADD_LEARNER: "l",
    ChangeKind.REMOVE: "r",
    ChangeKind.UPDATE: "u",
}


def node_id(number: int) -> NodeId:
    """Names that sort as the numbers do."""
    return NodeId(f"n{number:02}")


def node_number(node: NodeId | None) -> int:
    return 0 if node is None else int(node[1:])


@dataclass(frozen=True, slots=True)
class ForwardedProposal:
    """A proposal made at a follower, on its way to the leader (rafttest_rules.py)."""

    proposal: Propose | ChangeConfiguration


@dataclass(frozen=True, slots=True)
class Envelope:
    sender: int
    to: int
    type: str  # the name of the message of etcd that this one stands for
    content: Any  # a Message, a ForwardedProposal, or the event that a local message carries
    applied_bytes: int = 0  # of entries whose application this reports

    @property
    def is_local(self) -> bool:
        """As etcd tells it, where a request to hand over comes from the node that is to take over."""
        is_own = isinstance(self.content, m.TransferRequest) and self.content.to == node_id(self.to)
        return self.sender == self.to or is_own


class AppendWork(NamedTuple):
    persists: Sequence[Persist[Any]]
    responses: Sequence[Envelope]


class WholeTicks(random.Random):
    """Timeouts of 3, 4 or 5 ticks of one second, as etcd draws them. (Scripts that depend on one set it.)"""

    def uniform(self, a: float, b: float) -> float:
        return float(self.randrange(int(a), int(b)))


@dataclass(slots=True)
class HandedOut:
    """What the Readys of a node have said so far."""

    role: str = "StateFollower"
    leader: int = 0
    term: int = 0
    vote: int = 0
    commit: int = 0
    last_index: int = 0
    log: dict[int, str] = field(
        default_factory=dict
    )  # entries by index, described; perhaps from before the first

    def take(self, status: Status, persists: Iterable[Persist[Any]]) -> None:
        self.role, self.leader = soft_state(status)
        self.term, self.vote, self.commit = hard_state(status)
        for persist in persists:
            part = persist.write.snapshot
            if part is not None and part.is_last:
                self.log.clear()
                self.last_index = part.snapshot.index
            for entry in persist.write.entries:
                for index in range(entry.index + 1, self.last_index + 1):
                    self.log.pop(index, None)
                self.log[entry.index] = describe_entry(entry)
                self.last_index = entry.index


def soft_state(status: Status) -> tuple[str, int]:
    return ROLES[status.role], node_number(status.leader)


def hard_state(status: Status) -> tuple[int, int, int]:
    return status.term, node_number(status.vote), status.commit


def describe_entry(entry: m.Entry) -> str:
    if entry.kind is m.EntryKind.CONFIGURATION:
        changes = ConfigurationChange.from_bytes(entry.data).changes
        words = [f"{CHANGE_LETTERS[change.kind]}{node_number(change.node)}" for change in changes]
        return " ".join([f"{entry.term}/{entry.index} EntryConfChangeV2", *words])
    text = entry.data.decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'{entry.term}/{entry.index} EntryNormal "{text}"'


def etcd_size(entry: m.Entry) -> int:
    """Bytes of the entry in etcd's encoding, which max-committed-size-per-ready counts."""
    if entry.kind is m.EntryKind.CONFIGURATION:
        content = 2 + 6 * len(ConfigurationChange.from_bytes(entry.data).changes)
        return 2 + varint_size(entry.term) + varint_size(entry.index) + 2 + 2 + content
    content = 0 if entry.kind is m.EntryKind.NO_OP else 1 + varint_size(len(entry.data)) + len(entry.data)
    return 2 + varint_size(entry.term) + varint_size(entry.index) + content


def varint_size(number: int) -> int:
    return max(1, (number.bit_length() + 6) // 7)


class Node:
    def __init__(
        self, number: int, config: RaftConfig, storage: ScriptStorage, *, is_async: bool, apply_bytes_max: int
    ) -> None:
        self.number = number
        self.storage = storage
        self.is_async = is_async
        self.raft = RaftNode(node_id(number), config, storage, WholeTicks(number), now=0.0)
        self.now = 0.0  # seconds, that is ticks
        self.outcomes: dict[int, Outcome] = {}
        self.append_work: deque[AppendWork] = deque()
        self.apply_work: deque[list[m.Entry]] = deque()
        self.handed_out = HandedOut(commit=storage.commit, last_index=storage.last_index)
        self._persists: list[Persist[Any]] = []  # this and the next three: for the next Ready
        self._sends: list[Envelope] = []
        self._promises: list[Envelope] = []
        self._to_apply: deque[m.Entry] = deque()
        self._apply_bytes_max = apply_bytes_max
        self._applying_bytes = 0  # in Readys, and not yet applied
        self._is_applying_paused = False
        self._take(self.raft.drain())

    # ── towards the core ────────────────────────────────────────────────────────────────────────────

    def step(self, event: Any) -> None:
        self.raft.promised_until = 0.0  # RULES["lease"]
        before = invariants.facts(self.raft)
        self.raft.step(event, self.now)
        if self.raft.term > 0:  # add-nodes makes logs whose first entry is of term 1 on disks of term 0
            invariants.check(self.raft)
            invariants.check_change(before, invariants.facts(self.raft))
        self._take(self.raft.drain())

    def tick(self, count: int) -> None:
        for _ in range(count):
            self.now += 1.0
            self.step(Wake())

    def receive(self, envelope: Envelope) -> None:
        if isinstance(envelope.content, Applied | Persisted):
            self.step(envelope.content)
            self._release(envelope.applied_bytes)
        else:
            self.step(Receive(node_id(envelope.sender), envelope.content))

    def forward(self, proposal: Propose | ChangeConfiguration, to: int) -> None:
        self._sends.append(Envelope(self.number, to, "MsgProp", ForwardedProposal(proposal)))

    def _take(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Persist():
                    self._persists.append(effect)
                case Send(to=to, message=message, after=after):
                    name = ETCD_TYPES[type(message)]
                    # Also these may wait for a write: RULES["lease"] and RULES["own vote"].
                    may_wait = (*PROMISES, "MsgHeartbeatResp", "MsgVote")
                    assert after is None or name in may_wait, f"{message} waits"
                    envelopes = self._promises if name in PROMISES else self._sends
                    if isinstance(message, m.VoteReply | m.PreVoteReply):
                        message = replace(message, commit=0, commit_term=0)  # RULES["refused vote"]
                    envelopes.append(Envelope(self.number, node_number(to), name, message))
                case Apply(entries=entries):
                    self._to_apply.extend(entries)
                case Reply(request=request, outcome=outcome):
                    self.outcomes[request] = outcome
                case Note():
                    pass
                case Ask() | Emit():
                    raise AssertionError(f"no effect of Raft's: {effect}")
                case _:
                    assert_never(effect)

    # ── Ready ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_ready(self) -> bool:
        status, handed_out = self.raft.status(), self.handed_out
        return (
            soft_state(status) != (handed_out.role, handed_out.leader)
            or hard_state(status) != (handed_out.term, handed_out.vote, handed_out.commit)
            or bool(self._persists or self._sends or self._promises)
            or (bool(self._to_apply) and not self._is_applying_paused)
        )

    def process_ready(self) -> list[Envelope]:
        """Carry out what is due, or queue it for the threads, and return the messages that leave."""
        status = self.raft.status()
        is_hard_state_new = hard_state(status) != (
            self.handed_out.term,
            self.handed_out.vote,
            self.handed_out.commit,
        )
        persists, sends, promises = self._persists, self._sends, self._promises
        self._persists, self._sends, self._promises = [], [], []
        self.handed_out.take(status, persists)

        if self.is_async:
            if persists or promises or is_hard_state_new:
                self._queue_append(status, persists, promises)
            page = self._page(status.commit)
            if page:
                self.apply_work.append(page)
            return sends

        for persist in persists:
            self.storage.write(persist.write)
        pages = self._page(status.commit)
        self._apply(pages)
        for persist in persists:
            self.step(Persisted(persist.token))
        more = self._page(status.commit)
        self._apply(more)
        self._release(sum(map(etcd_size, [*pages, *more])))
        return [*sends, *promises]

    def _page(self, commit: int) -> list[m.Entry]:
        """The committed entries of a Ready; at least one if any is due, even above the bound."""
        due = [entry for entry in self._to_apply if entry.index <= commit]
        page: list[m.Entry] = []
        if not self._is_applying_paused and due:
            room = self._apply_bytes_max - self._applying_bytes
            for entry in due:
                room -= etcd_size(entry)
                if room < 0 and page:
                    break
                page.append(self._to_apply.popleft())
            self._applying_bytes += sum(map(etcd_size, page))
            is_cut = len(page) < len(due)
            self._is_applying_paused = is_cut or self._applying_bytes >= self._apply_bytes_max
        return page

    def _release(self, applied_bytes: int) -> None:
        self._applying_bytes -= applied_bytes
        self._is_applying_paused = self._applying_bytes >= self._apply_bytes_max

    def _apply(self, page: Sequence[m.Entry]) -> None:
        for entry in page:
            self._apply_one(entry)
        if page and page[-1].kind is not m.EntryKind.CONFIGURATION:
            self.step(Applied(page[-1].index))

    def _apply_one(self, entry: m.Entry) -> None:
        if entry.kind is m.EntryKind.CONFIGURATION:
            self.step(Applied(entry.index))
        self.storage.apply(entry, self.raft.status().configuration)

    # ── the threads of async-storage-writes ─────────────────────────────────────────────────────────

    def _queue_append(self, status: Status, persists: list[Persist[Any]], promises: list[Envelope]) -> None:
        responses = list(promises)
        # A leader of etcd acknowledges each append to itself.
        for persist in persists if status.role is Role.LEADER else persists[-1:]:
            persisted = Persisted(persist.token)
            responses.append(Envelope(self.number, self.number, PERSISTED_TYPES[status.role], persisted))
        self.append_work.append(AppendWork(persists, responses))

    def process_append_thread(self) -> Sequence[Envelope]:
        """What the next write promised, if there is one."""
        if not self.append_work:
            return ()
        work = self.append_work.popleft()
        for persist in work.persists:
            self.storage.write(persist.write)
        return work.responses

    def process_apply_thread(self) -> Sequence[Envelope]:
        """That the next page was applied, if there is one."""
        if not self.apply_work:
            return ()
        page = self.apply_work.popleft()
        for entry in page:
            self._apply_one(entry)
        applied = Applied(page[-1].index)
        size = sum(map(etcd_size, page))
        return (Envelope(self.number, self.number, "MsgStorageApplyResp", applied, applied_bytes=size),)
