"""A leader: appends what is proposed, sends it to all, commits what a quorum has, answers reads, hands over.

What is proposed or read between two calls of `drain` is taken together: one append, one round of heartbeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from raftlog.engine import NodeId
from raftlog.raft.configuration import Change, ChangeKind, ConfigurationChange, InvalidChange, apply_change
from raftlog.raft.events import ChangeConfiguration, Promote, Propose, Read, Refused, Why
from raftlog.raft.messages import (
    AppendRejected,
    AppendReply,
    Entry,
    EntryKind,
    HeartbeatReply,
    Message,
    ReadRequest,
    SnapshotReply,
    TimeoutNow,
    TransferRequest,
)
from raftlog.raft.progress import Progress
from raftlog.raft.quorum import VoteResult, joint_committed_index, joint_vote_result
from raftlog.raft.reads import Reads, WaitingRead
from raftlog.raft.replication import Replication
from raftlog.raft.role import Role

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode

# Half the time of Entry().
_new_entry: Final[Callable[[tuple[Any, ...]], Entry]] = partial(tuple.__new__, Entry)


class Leader:
    __slots__ = (
        "_heartbeat_at", "_lease_until", "_leases", "_queued", "_queued_bytes", "_reads", "_uncommitted",
        "_uncommitted_bytes", "node", "pending_change", "replication", "transferee",
    )  # fmt: skip

    name: Final = Role.LEADER

    pending_change: int  # no configuration change may be proposed before this index is applied
    transferee: NodeId | None  # to whom leadership is being handed over; meanwhile nothing is proposed

    def __init__(self, node: RaftNode) -> None:
        """A new term begins with a no-op: what was before can only be committed with an entry of this term."""
        log, config = node.log, node.config
        self.node = node
        self.replication = Replication(node)
        # There may be a change among the entries that are not applied yet: wait for all of them.
        self.pending_change = log.last_index
        self.transferee = None
        self._queued: list[Propose] = []
        self._queued_bytes = 0
        self._uncommitted: deque[tuple[int, int]] = deque()  # of each append: last index, bytes
        self._uncommitted_bytes = 0
        self._reads = Reads()
        self._heartbeat_at = node.now + config.heartbeat_interval_s
        self._leases = config.lease_reads
        self._lease_until = node.now  # a quorum follows this node at least until then
        self._append([Entry(log.last_index + 1, node.term, EntryKind.NO_OP, b"")], 0)

    @property
    def progress(self) -> dict[NodeId, Progress]:
        return self.replication.progress

    @property
    def leader(self) -> NodeId:
        return self.node.id

    def retire(self) -> None:
        """Leadership is lost: requests that were not begun are refused; those that wait for a quorum cannot be served."""
        node = self.node
        for proposal in self._queued:
            node.reply(proposal.request, Refused(Why.NOT_LEADER, node.role.leader))
        for requester, request in self._reads.give_up():
            if requester == node.id:
                node.reply(request, Refused(Why.NOT_LEADER, node.role.leader))

    # ── requests ────────────────────────────────────────────────────────────────────────────────────

    def propose(self, event: Propose) -> None:
        """Queue it for the next append, unless too much is waiting."""
        size = sum(map(len, event.payloads))
        why = self._refusal(size)
        if why is not None:
            self.node.reply(event.request, Refused(why, self.node.id))
            return
        self._queued.append(event)
        self._queued_bytes += size

    def _refusal(self, size: int) -> Why | None:
        if self.node.id not in self.progress:
            return Why.NOT_A_MEMBER
        if self.transferee is not None:
            return Why.TRANSFERRING
        waiting = self._uncommitted_bytes + self._queued_bytes
        if waiting and size and waiting + size > self.node.config.uncommitted_bytes_max:
            return Why.OVERLOADED
        if len(self._queued) + len(self.node.proposals) >= self.node.config.requests_max:
            return Why.OVERLOADED
        return None

    def change_configuration(self, event: ChangeConfiguration) -> None:
        node, change = self.node, event.change
        why, detail = self._refusal(0), ""
        if why is None and node.config.validate_changes:
            if self.pending_change > node.log.applied:
                why = Why.CHANGE_PENDING
                detail = f"entry {self.pending_change} is not applied yet, {node.log.applied} is"
            else:
                try:
                    apply_change(node.configuration, change)
                except InvalidChange as error:
                    why, detail = Why.INVALID_CHANGE, str(error)
        if why is not None:
            node.reply(event.request, Refused(why, node.id, detail))
            return
        index = self._append_change(change)
        node.proposals.appended(event.request, index, index, node.term)

    def _append_change(self, change: ConfigurationChange) -> int:
        index = self.node.log.last_index + 1
        self.pending_change = index
        self._append([Entry(index, self.node.term, EntryKind.CONFIGURATION, change.to_bytes())], 0)
        return index

    def read(self, event: Read) -> None:
        if len(self._reads) >= self.node.config.requests_max:
            self.node.reply(event.request, Refused(Why.OVERLOADED, self.node.id))
        else:
            self._read(self.node.id, event.request)

    def _read(self, requester: NodeId, request: int) -> None:
        log = self.node.log
        if len(self._reads) >= self.node.config.requests_max:
            return  # the requester's own time limit answers
        if log.term(log.committed) != self.node.term:
            self._reads.early.append((requester, request))
        elif self.node.configuration.all_voters == (self.node.id,) or self._has_lease:
            self.node.answer_read(requester, request, log.committed)
        else:
            self._reads.add(WaitingRead(requester, request, log.committed))

    @property
    def _has_lease(self) -> bool:
        return self._leases and self.node.now < self._lease_until

    def transfer(self, to: NodeId) -> None:
        """Hand over to a voter once it has every entry, or give that up (to itself, or after an election timeout).

        Source: dissertation 3.10.
        """
        node, progress = self.node, self.progress.get(to)
        if progress is None or progress.is_learner or to == self.transferee:
            return
        if self.transferee is not None:
            self._end_transfer()
        if to == node.id:
            return
        self.transferee = to
        self._leases = False  # its campaign may come late, and breaks the promises that leases rest on
        node.election_start = node.now
        node.note("transferring_leadership", term=node.term, to=to)
        if self._queued:
            self._append_queued()  # they were accepted, so they are handed over, too
        if progress.match == node.log.last_index:
            node.send(to, TimeoutNow(node.term))
        else:
            self.replication.send_append(to, progress)

    def _end_transfer(self) -> None:
        """Propose again; a joint configuration may wait for being left."""
        self.transferee = None
        self.applied()

    def promote(self, event: Promote) -> None:
        node, learner = self.node, event.learner
        progress = self.progress.get(learner)
        lag = node.log.last_index - (progress.match if progress is not None else 0)
        if progress is None or not progress.is_learner:
            node.reply(event.request, Refused(Why.INVALID_CHANGE, node.id, f"{learner} is not a learner"))
        elif lag > node.config.promotion_lag_max or not progress.match or not progress.recent_active:
            detail = f"{learner} is {lag} entries behind; at most {node.config.promotion_lag_max} are allowed"
            node.reply(event.request, Refused(Why.NOT_CAUGHT_UP, node.id, detail))
        else:
            change = ConfigurationChange((Change(ChangeKind.ADD_VOTER, learner),))
            self.change_configuration(ChangeConfiguration(event.request, change))

    # ── messages ────────────────────────────────────────────────────────────────────────────────────

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message of this term."""
        if isinstance(message, TransferRequest):
            self.transfer(NodeId(message.to))
        elif isinstance(message, ReadRequest):
            self._read(sender, message.request)
        elif (progress := self.progress.get(sender)) is not None:  # else it was removed
            handler = _REPLIES.get(type(message))
            if handler is not None:  # else a vote that came late
                progress.recent_active = True
                handler(self, sender, progress, message)

    def _acknowledged(self, sender: NodeId, progress: Progress, message: AppendReply) -> None:
        node, log, match = self.node, self.node.log, message.match
        if match > log.last_index:
            node.note("impossible_reply", sender=sender, match=match, last=log.last_index)
        elif self.replication.acknowledged(sender, progress, match):
            if match > log.committed:
                self._commit()
            self.replication.go_on(sender, progress)
            if sender == self.transferee and progress.match == log.last_index:
                node.send(sender, TimeoutNow(node.term))

    def _rejected(self, sender: NodeId, progress: Progress, message: AppendRejected) -> None:
        self.replication.rejected(sender, progress, message)

    def _heartbeat_answered(self, sender: NodeId, progress: Progress, message: HeartbeatReply) -> None:
        self.replication.heartbeat_answered(sender, progress, message.round)
        self._confirm_reads(self._reads.acknowledge(sender, message.round))

    def _chunk_acknowledged(self, sender: NodeId, progress: Progress, message: SnapshotReply) -> None:
        self.replication.chunk_acknowledged(sender, progress, message)

    def _begin_round(self, *, is_for_reads: bool) -> None:
        round_number = self._reads.begin_round(self.node.now)
        self.replication.send_heartbeats(round_number, is_for_reads=is_for_reads)
        if self.node.configuration.all_voters == (self.node.id,):
            self._confirm_reads({})  # nobody will answer: the others were removed since the reads came

    def _confirm_reads(self, acknowledged: dict[NodeId, int]) -> None:
        node, configuration = self.node, self.node.configuration
        acknowledged = {**acknowledged, node.id: self._reads.round}
        confirmed = joint_committed_index(configuration.voters, configuration.outgoing, acknowledged)
        ready, sent_at = self._reads.confirmed(confirmed)
        if sent_at is not None:
            config = node.config
            self._lease_until = sent_at + config.election_timeout_s_min * (1 - config.clock_drift_max)
        for read in ready:
            node.answer_read(read.requester, read.request, read.index)

    # ── appending ───────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Append what was proposed, begin the round that reads wait for, tell all what is new."""
        if self._queued:
            self._append_queued()
        if self._reads.need_round:
            self._begin_round(is_for_reads=True)
        if self.replication.is_news:
            self.replication.tell_all()

    def _append_queued(self) -> None:
        node, term = self.node, self.node.term
        index = node.log.last_index
        entries: list[Entry] = []
        for proposal in self._queued:
            first, kind = index + 1, proposal.kind
            index += len(proposal.payloads)
            fields = zip(range(first, index + 1), repeat(term), repeat(kind), proposal.payloads, strict=False)
            entries += map(_new_entry, fields)
            node.proposals.appended(proposal.request, first, index, term)
        size = self._queued_bytes
        self._queued.clear()
        self._queued_bytes = 0
        self._append(entries, size, has_changes=False)

    def _append(self, entries: Sequence[Entry], size: int, *, has_changes: bool = True) -> None:
        self.node.log.append(entries, has_changes=has_changes)
        self._uncommitted.append((entries[-1].index, size))
        self._uncommitted_bytes += size
        self.replication.is_news = True

    # ── what was persisted, committed, applied ──────────────────────────────────────────────────────

    def persisted(self) -> None:
        """A leader counts itself when its own disk has the entries; they were sent to the others meanwhile."""
        own = self.progress.get(self.node.id)
        if own is not None and own.maybe_update(self.node.log.durable):
            self._commit()

    def _commit(self) -> None:
        """Commit what a quorum has, if the last of it is of this term (paper, 5.4.2 and figure 8)."""
        node, log = self.node, self.node.log
        configuration = node.configuration
        matches = {member: progress.match for member, progress in self.progress.items()}
        index = joint_committed_index(configuration.voters, configuration.outgoing, matches)
        if index <= log.committed or log.term(index) != node.term:
            return
        node.commit_to(index)
        while self._uncommitted and self._uncommitted[0][0] <= index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]
        self.replication.is_news = True
        early, self._reads.early = self._reads.early, []
        for requester, request in early:
            self._read(requester, request)

    def applied(self) -> None:
        """Leave a joint configuration that is to be left by itself, once it is in force."""
        node = self.node
        is_due = node.configuration.auto_leave and node.log.applied >= self.pending_change
        if is_due and self.transferee is None and node.id in self.progress:
            node.note("leaving_joint_configuration", configuration=str(node.configuration))
            self._append_change(ConfigurationChange(()))

    def configuration_changed(self, newcomers: Collection[NodeId]) -> None:
        node, replication = self.node, self.replication
        replication.track(newcomers)
        if node.id not in node.configuration.all_voters:
            if node.config.step_down_on_removal:
                node.note("stepping_down", term=node.term, why="removed from the voters")
                replication.tell_all()  # so that they know of it without waiting for an election
                node.become_follower(node.term, None)
            return
        self._commit()
        for member, progress in self.progress.items():
            if member != node.id:
                replication.send_append(member, progress, is_empty_worth=False)
        if self.transferee is not None and self.transferee not in node.configuration.all_voters:
            self.transferee = None

    # ── time ────────────────────────────────────────────────────────────────────────────────────────

    def deadline(self) -> float:
        times = [self._heartbeat_at, self.node.election_start + self.node.config.election_timeout_s_min]
        if self.node.stalls_at is not None:
            times.append(self.node.stalls_at)
        return min(times)

    def wake(self) -> None:
        node, config = self.node, self.node.config
        if node.is_disk_stalled:
            self._hand_over()
            return
        if node.now >= node.election_start + config.election_timeout_s_min:
            node.election_start = node.now
            if config.check_quorum and not self._has_quorum():
                node.note("stepping_down", term=node.term, why="no quorum was heard from")
                node.become_follower(node.term, None)
                return
            if self.transferee is not None:
                self._end_transfer()  # it had its time
        if node.now >= self._heartbeat_at:
            self._heartbeat_at = node.now + config.heartbeat_interval_s
            self._begin_round(is_for_reads=False)

    def _has_quorum(self) -> bool:
        """Whether a quorum was heard from since this was asked last."""
        node, configuration = self.node, self.node.configuration
        active = {member: p.recent_active for member, p in self.progress.items() if not p.is_learner}
        for member, progress in self.progress.items():
            progress.recent_active = member == node.id
        return joint_vote_result(configuration.voters, configuration.outgoing, active) is VoteResult.WON

    def _hand_over(self) -> None:
        """The disk does not answer: lead no longer, and name the voter that has most to take over."""
        node = self.node
        node.note("stepping_down", term=node.term, why="the disk stalls")
        voters = [v for v in node.configuration.all_voters if v != node.id and self.progress[v].recent_active]
        best = max(voters, key=lambda voter: self.progress[voter].match, default=None)
        if best is not None:
            node.send(best, TimeoutNow(node.term))
        node.become_follower(node.term, None)


_REPLIES: Final[dict[type, Callable[[Leader, NodeId, Progress, Any], None]]] = {
    AppendReply: Leader._acknowledged,
    AppendRejected: Leader._rejected,
    HeartbeatReply: Leader._heartbeat_answered,
    SnapshotReply: Leader._chunk_acknowledged,
}
