"""A Raft node as a value: what all roles share.

What a role does with a message is in follower.py, candidate.py and leader.py. Here is what holds in every role: terms,
votes, the clock, what is handed out to be written and what has been, commit and apply.

The path of one write is told in docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from raftlog.engine import (
    Applied,
    Apply,
    Effect,
    NodeId,
    Note,
    Persisted,
    Receive,
    Reply,
    Send,
    Wake,
)
from raftlog.raft import invariants, voting
from raftlog.raft.candidate import Candidate, PreCandidate
from raftlog.raft.config import RaftConfig
from raftlog.raft.configuration import Configuration, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.events import (
    Campaign,
    ChangeConfiguration,
    ForgetLeader,
    Promote,
    Propose,
    Read,
    ReadReady,
    Refused,
    TransferLeadership,
    Unreachable,
    Why,
)
from raftlog.raft.follower import Follower
from raftlog.raft.leader import Leader
from raftlog.raft.log import RaftLog
from raftlog.raft.messages import (
    Entry,
    EntryKind,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    Snapshot,
    TransferRequest,
    Vote,
    VoteReply,
)
from raftlog.raft.progress import Progress
from raftlog.raft.proposals import Proposals
from raftlog.raft.reads import AskedReads
from raftlog.raft.role import Role
from raftlog.raft.storage import HardState, SnapshotPart, Storage, UnreadableEntries
from raftlog.raft.view import LogView
from raftlog.raft.writes import Writes


@dataclass(frozen=True, slots=True)
class Status:
    """What a node is and believes; `progress` (a copy of nothing: read it at once) is empty unless it leads."""

    node: NodeId
    role: Role
    term: int
    vote: NodeId | None
    leader: NodeId | None
    commit: int
    applied: int
    last_index: int
    configuration: Configuration
    progress: dict[NodeId, Progress] = field(default_factory=dict)


class RaftNode:
    """One node of a Raft cluster: an engine (raftlog/engine.py).

    `storage` is read only; it changes by the writes that are handed out. A node is made anew after every restart, from
    the same storage. `now` is in seconds of a clock that never goes back; `rng` draws the election timeouts.
    """

    id: NodeId
    config: RaftConfig
    configuration: Configuration  # in force: the one that was applied last
    log: RaftLog
    term: int  # the latest this node has seen; never goes back
    vote: NodeId | None  # for whom it voted in this term
    role: Follower | PreCandidate | Candidate | Leader
    now: float
    election_start: float  # when the leader was heard of, or the campaign or the leader's quorum check began
    election_timeout_s: float  # drawn anew whenever it becomes a follower, a candidate or a leader
    # With leases: it heard of a leader, so until then it votes for nobody, in any term, but when that hands over.
    promised_until: float
    incoming: tuple[NodeId, Snapshot, int] | None  # a snapshot being received: from whom, which, bytes so far

    def __init__(
        self, node: NodeId, config: RaftConfig, storage: Storage, rng: random.Random, now: float = 0.0
    ) -> None:
        """Raises LostEntries if the storage contradicts itself."""
        self.id = node
        self.config = config
        self.configuration = storage.configuration()
        self.log = RaftLog(storage)
        changes = self.log.changes
        if config.validate_changes and len(changes) > 1:
            # Nobody proposes a change before the one before it is applied. The commit index on the disk says so, too,
            # but not when a crash has torn the write that brought the change (storage.py, Write).
            self.log.commit_to(changes[-2].index)
        self.term, self.vote = hard_state = storage.hard_state()
        self.writes = Writes(hard_state)
        self.role = Follower(self)
        self.now = now
        self.incoming = None
        self.proposals = Proposals()
        self.view = LogView(self.log)
        self._checks_invariants = config.check_invariants
        self._rng = rng
        self._asked = AskedReads(rng)
        self._campaigns_at_once = config.first_leader == node and self.term == 0
        # A node that may have replied to a heartbeat before it was restarted keeps the promise of that.
        self.promised_until = (
            now + config.election_timeout_s_min if config.lease_reads and self.term > 0 else now
        )
        self._sends: list[tuple[NodeId, Message, bool]] = []  # with whether it waits for the disk
        self._others: list[Effect] = []  # replies and notes
        self._applying: deque[tuple[int, int]] = deque()  # handed out to be applied: last index, bytes
        self._applying_bytes = 0
        self.reset_election_clock()

    # ── the engine ──────────────────────────────────────────────────────────────────────────────────

    def step(self, event: Any, now: float) -> None:
        """Take in an event of raftlog.engine or raftlog.raft.events. Raises LostEntries: then stop this node."""
        assert now >= self.now, f"time went back from {self.now} to {now}"
        self.now = now
        if self._checks_invariants:
            before = invariants.facts(self)
            _HANDLERS[type(event)](self, event)
            invariants.check(self)
            invariants.check_change(before, invariants.facts(self))
        else:
            _HANDLERS[type(event)](self, event)

    def drain(self) -> list[Effect]:
        if isinstance(self.role, Leader):
            self.role.flush()
        effects: list[Effect] = []
        log = self.log
        state = self.writes.handed_state
        if log.handed_end <= log.last_index or self.writes.parts or (self.term, self.vote) != state:
            effects += self.writes.hand_out(HardState(self.term, self.vote), log, self.now)
        if self._sends:
            after = self.writes.last_token
            effects += [Send(to, message, after if waits else None) for to, message, waits in self._sends]
            self._sends.clear()
        if log.applying < log.committed and self._applying_bytes < self.config.apply_bytes_max:
            entries, size = self._next_to_apply()
            if entries:
                self._applying.append((entries[-1].index, size))
                self._applying_bytes += size
                effects.append(Apply(entries))
        if self._others:
            effects += self._others
            self._others.clear()
        return effects

    def _next_to_apply(self) -> tuple[Sequence[Entry], int]:
        try:
            return self.log.next_to_apply(self.config.apply_bytes_max - self._applying_bytes)
        except UnreadableEntries as error:
            self.note("unreadable_entries", why=str(error), wanted_by=self.id)
            return (), 0

    def deadline(self) -> float | None:
        times = [self.proposals.expire_at]
        if isinstance(self.role, Leader):
            times.append(self.role.deadline())
        elif self.is_promotable:
            times.append(
                self.now if self._campaigns_at_once else self.election_start + self.election_timeout_s
            )
        times.append(self._asked.expire_at)
        return min((time for time in times if time is not None), default=None)

    def status(self) -> Status:
        role = self.role
        return Status(
            self.id, role.name, self.term, self.vote, role.leader, self.log.committed, self.log.applied,
            self.log.last_index, self.configuration, role.progress if isinstance(role, Leader) else {},
        )  # fmt: skip

    # ── what roles use ──────────────────────────────────────────────────────────────────────────────

    def send(self, to: NodeId, message: Message) -> None:
        self._sends.append((to, message, False))

    def send_when_durable(self, to: NodeId, message: Message) -> None:
        """For a message that vouches for something on this disk."""
        self._sends.append((to, message, True))

    def reply(self, request: int, outcome: object) -> None:
        self._others.append(Reply(request, outcome))

    def note(self, event: str, **fields: object) -> None:
        self._others.append(Note(event, fields))

    def reset_election_clock(self) -> None:
        config = self.config
        self.election_start = self.now
        self.election_timeout_s = self._rng.uniform(
            config.election_timeout_s_min, config.election_timeout_s_max
        )

    def set_state(self, term: int, vote: NodeId | None) -> None:
        assert term > self.term or (term == self.term and self.vote in (None, vote))
        if term > self.term:
            self.incoming = None  # it was the snapshot of one life of one leader; who leads next begins anew
        self.term, self.vote = term, vote

    @property
    def is_promotable(self) -> bool:
        """It may campaign: it votes, it is not about to become what a snapshot says, and its disk does not stall."""
        return (
            self.id in self.configuration.all_voters
            and self.log.installing is None
            and not self.is_disk_stalled
        )

    @property
    def stalls_at(self) -> float | None:
        """When the oldest write will have taken too long."""
        issued_at = self.writes.oldest_issued_at
        return None if issued_at is None else issued_at + self.config.persist_timeout_s

    @property
    def is_disk_stalled(self) -> bool:
        return self.stalls_at is not None and self.now >= self.stalls_at

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        was = self.role
        if term > self.term:
            self.set_state(term, None)
        self.role = Follower(self, leader)
        self.reset_election_clock()
        if isinstance(was, Leader):
            self.proposals.expire_at = self.now + self.config.election_timeout_s_max
            was.retire()
        self.note("became_follower", term=self.term, leader=leader)

    def campaign(self, *, is_transfer: bool = False, is_pre_vote: bool | None = None) -> None:
        """Stand for election, or ask first whether that could succeed (the default if the configuration says so)."""
        if isinstance(self.role, Leader) or not self.is_promotable:
            return
        if self.log.has_unapplied_change:
            self.note(
                "cannot_campaign", term=self.term, why="a configuration change is committed and not applied"
            )
            return
        if self.now < self.promised_until and not is_transfer:
            self.note(
                "cannot_campaign", term=self.term, why="a leader was heard of that may read by its lease"
            )
            return
        if is_pre_vote is None:
            is_pre_vote = self.config.pre_vote and not is_transfer
        if is_pre_vote:
            self.role = PreCandidate(self)
        else:
            self.set_state(self.term + 1, self.id)
            self.role = Candidate(self, is_transfer=is_transfer)
            self.reset_election_clock()
        self.note(f"became_{self.role.name.value}".replace("-", "_"), term=self.term)
        self.role.ask_for_votes()

    def become_leader(self) -> None:
        self.reset_election_clock()
        self.proposals.expire_at = None
        self.role = Leader(self)
        self.note("became_leader", term=self.term)

    def switch_configuration(self, configuration: Configuration, newcomers: Sequence[NodeId] = ()) -> None:
        self.configuration = configuration
        self.note("configuration_changed", configuration=str(configuration))
        if isinstance(self.role, Leader):
            self.role.configuration_changed(newcomers)
        elif not isinstance(self.role, Follower) and self.id not in configuration.all_voters:
            self.become_follower(self.term, None)  # it asked for votes before it learned of this

    def truncate(self, end: int) -> None:
        """Conflicting entries make room for the leader's; what earlier writes vouched for shrinks with them."""
        self.note("truncated", first=end, last=self.log.last_index)
        self.log.truncate(end)
        self.writes.truncated(end)

    def install(self, part: SnapshotPart) -> None:
        """A part of a snapshot arrived in its place; with the last one the log begins anew."""
        self.writes.parts.append(part)
        if part.is_last:
            self.log.install(part.snapshot)
            self.writes.truncated(1)  # nothing of the log that was counts any more
            self.note("installing_snapshot", index=part.snapshot.index, term=part.snapshot.term)
            self.switch_configuration(part.snapshot.configuration)
            self._others += self.proposals.give_up()

    def commit_to(self, index: int) -> None:
        if index > self.log.committed:
            self.log.commit_to(index)
            if len(self.proposals):
                self._others += self.proposals.resolve(self.log)

    def answer_read(self, requester: NodeId, request: int, index: int) -> None:
        if requester == self.id:
            self.reply(request, ReadReady(index))
        else:
            self.send(requester, ReadReply(self.term, request, index))

    # ── what was written and applied ────────────────────────────────────────────────────────────────

    def _persisted(self, event: Persisted) -> None:
        for written in self.writes.persisted(event.token):
            if written.installs is not None:
                self.log.installed(written.installs)
                self._applying.clear()
                self._applying_bytes = 0
                self.note("installed_snapshot", index=written.installs.index)
            self.log.persisted_to(written.last)
        if isinstance(self.role, Leader | Candidate):
            self.role.persisted()

    def _applied(self, event: Applied) -> None:
        if event.index <= self.log.applied:
            return  # handed out before a snapshot that has been installed since
        while self._applying and self._applying[0][0] <= event.index:
            self._applying_bytes -= self._applying.popleft()[1]
        for change in self.log.applied_to(event.index):
            if not self.configuration.members:
                self.note(
                    "ignored_change", index=change.index, why="the configuration before it is not known"
                )
                continue
            try:
                changed = apply_change(self.configuration, ConfigurationChange.from_bytes(change.data))
            except InvalidChange as error:  # the same on every node
                self.note("ignored_change", index=change.index, why=str(error))
            else:
                self.switch_configuration(*changed)
        if isinstance(self.role, Leader):
            self.role.applied()

    # ── messages ────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, event: Receive[Message]) -> None:
        sender, message = event.sender, event.message
        if isinstance(message, _VOTE_REPLIES) and self.log.matches(message.commit, message.commit_term):
            self.commit_to(message.commit)  # in whatever term: what is committed stays so
        if message.term > self.term:
            if not voting.adopt_term(self, sender, message):
                return
        elif message.term < self.term:
            voting.answer_stale(self, sender, message)
            return
        handler = _OF_EVERY_ROLE.get(type(message))
        if handler is None:
            self.role.receive(sender, message)
        else:
            handler(self, sender, message)

    def _read_answered(self, _: NodeId, message: ReadReply) -> None:
        request = self._asked.answered(message.request)
        if request is not None:
            self.reply(request, ReadReady(message.index))

    # ── requests and time ───────────────────────────────────────────────────────────────────────────

    def _wake(self, _: Wake) -> None:
        if self._campaigns_at_once:
            self._campaigns_at_once = False
            if self.term == 0:
                self.campaign()
        if self.proposals.expire_at is not None and self.now >= self.proposals.expire_at:
            self._others += self.proposals.give_up()
        for request in self._asked.expired(self.now):
            self.reply(request, Refused(Why.TIMED_OUT, self.role.leader))
        if isinstance(self.role, Leader):
            self.role.wake()
        elif self.is_promotable and self.now >= self.election_start + self.election_timeout_s:
            self.election_start = self.now
            self.campaign()

    def _propose(self, event: Propose) -> None:
        assert event.payloads, "nothing is proposed"
        assert event.kind is not EntryKind.CONFIGURATION, "ChangeConfiguration proposes these"
        if isinstance(self.role, Leader):
            self.role.propose(event)
        else:
            self._refuse(event.request)

    def _change_configuration(self, event: ChangeConfiguration) -> None:
        if isinstance(self.role, Leader):
            self.role.change_configuration(event)
        else:
            self._refuse(event.request)

    def _promote(self, event: Promote) -> None:
        if isinstance(self.role, Leader):
            self.role.promote(event)
        else:
            self._refuse(event.request)

    def _refuse(self, request: int) -> None:
        self.reply(request, Refused(Why.NOT_LEADER, self.role.leader))

    def _read(self, event: Read) -> None:
        """A follower asks the leader; the answer, or the refusal when none comes in time, is the outcome."""
        if isinstance(self.role, Leader):
            self.role.read(event)
        elif self.role.leader is None:
            self._refuse(event.request)
        elif len(self._asked) >= self.config.requests_max:
            self.reply(event.request, Refused(Why.OVERLOADED, self.role.leader))
        else:
            number = self._asked.add(event.request, self.now + self.config.election_timeout_s_max)
            self.send(self.role.leader, ReadRequest(self.term, number))

    def _transfer(self, event: TransferLeadership) -> None:
        if isinstance(self.role, Leader):
            self.role.transfer(event.to)
        elif self.role.leader is not None:
            self.send(self.role.leader, TransferRequest(self.term, event.to))

    def _campaign(self, _: Campaign) -> None:
        self.campaign()

    def _forget_leader(self, _: ForgetLeader) -> None:
        if isinstance(self.role, Follower) and not self.config.lease_reads:
            self.role.leader = None

    def _unreachable(self, event: Unreachable) -> None:
        if isinstance(self.role, Leader):
            self.role.replication.unreachable(event.peer)


_HANDLERS: Final[dict[type, Callable[[RaftNode, Any], None]]] = {
    Receive: RaftNode._receive,
    Persisted: RaftNode._persisted,
    Applied: RaftNode._applied,
    Wake: RaftNode._wake,
    Propose: RaftNode._propose,
    ChangeConfiguration: RaftNode._change_configuration,
    Promote: RaftNode._promote,
    Read: RaftNode._read,
    TransferLeadership: RaftNode._transfer,
    Campaign: RaftNode._campaign,
    ForgetLeader: RaftNode._forget_leader,
    Unreachable: RaftNode._unreachable,
}

_VOTE_REPLIES: Final = (VoteReply, PreVoteReply)

# What is done with a message in whatever role; the others are the role's.
_OF_EVERY_ROLE: Final[dict[type, Callable[[RaftNode, NodeId, Any], None]]] = {
    Vote: voting.vote,
    PreVote: voting.vote,
    ReadReply: RaftNode._read_answered,
    HigherTerm: lambda node, sender, message: None,  # the term was all it had to tell
}
