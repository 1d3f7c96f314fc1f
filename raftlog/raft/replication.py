"""What a leader sends to each member, and what comes back: entries, commit index, heartbeats, snapshots."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from raftlog.engine import NodeId
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    Entry,
    Heartbeat,
    SnapshotChunk,
    SnapshotReply,
)
from raftlog.raft.progress import Inflights, Progress, ProgressState, track
from raftlog.raft.snapshots import SnapshotTransfer
from raftlog.raft.storage import UnreadableEntries

if TYPE_CHECKING:
    from raftlog.raft.node import RaftNode


class Replication:
    """Of one leader in one term."""

    __slots__ = ("_node", "_snapshots", "is_news", "progress")

    progress: dict[NodeId, Progress]  # of every member, sorted by name
    is_news: bool  # there are entries or a commit index that the others have not been sent

    def __init__(self, node: RaftNode) -> None:
        log, config = node.log, node.config
        self._node = node
        self._snapshots: dict[NodeId, SnapshotTransfer] = {}  # to the members that are in SNAPSHOT
        self.is_news = False
        self.progress = {
            member: Progress(
                inflights=Inflights(config.inflight_messages_max, config.inflight_bytes_max),
                next=log.last_index + 1,
                is_learner=member in node.configuration.learners,
            )
            for member in node.configuration.members
        }
        own = self.progress[node.id]
        own.match = log.durable
        own.become_replicate()
        own.recent_active = True

    def track(self, newcomers: Collection[NodeId]) -> None:
        """The configuration has changed."""
        node, config = self._node, self._node.config
        self.progress = track(
            self.progress, node.configuration, newcomers=newcomers, last_index=node.log.last_index,
            inflight_count_max=config.inflight_messages_max, inflight_bytes_max=config.inflight_bytes_max,
        )  # fmt: skip
        for member in list(self._snapshots):
            if member not in self.progress or member in newcomers:
                del self._snapshots[member]

    # ── to all ──────────────────────────────────────────────────────────────────────────────────────

    def tell_all(self) -> None:
        """What is new since they were told last."""
        self.is_news = False
        node, log = self._node, self._node.log
        for member, progress in self.progress.items():
            if member == node.id:
                continue
            if progress.next <= log.last_index or progress.sent_commit < log.committed:
                self.send_append(member, progress)
                self.send_entries(member, progress)

    def send_heartbeats(self, round_number: int, *, is_for_reads: bool) -> None:
        node = self._node
        for member, progress in self.progress.items():
            if member != node.id:
                commit = min(progress.match, node.log.committed)  # never above what it is known to have
                node.send(member, Heartbeat(node.term, commit, round_number))
                progress.sent_commit = commit
                if not (is_for_reads or progress.retry_round):
                    progress.retry_round = round_number

    # ── to one ──────────────────────────────────────────────────────────────────────────────────────

    def send_entries(self, to: NodeId, progress: Progress) -> None:
        """As many appends as the window allows."""
        while progress.next <= self._node.log.last_index and self.send_append(
            to, progress, is_empty_worth=False
        ):
            pass

    def send_append(self, to: NodeId, progress: Progress, *, is_empty_worth: bool = True) -> bool:
        """Send the next entries; without any (all sent, or the window is full) only if `is_empty_worth`.

        An empty one tells the commit index, and finds out whether what is in flight was lost.
        """
        if progress.is_paused:
            return False
        node, log = self._node, self._node.log
        prev_index = progress.next - 1
        prev_term = log.term(prev_index)
        if prev_term is None:
            return self._send_snapshot(to, progress)
        entries: Sequence[Entry] = ()
        size = 0
        is_full = progress.state is ProgressState.REPLICATE and progress.inflights.is_full
        if prev_index < log.last_index and not is_full:
            try:
                entries, size = log.entries(progress.next, log.last_index + 1, node.config.append_bytes_max)
            except UnreadableEntries as error:  # this member waits; its next reply is the next attempt
                node.note("unreadable_entries", why=str(error), wanted_by=to)
                return False
        if not entries and not is_empty_worth:
            return False
        node.send(to, Append(node.term, prev_index, prev_term, entries, log.committed, progress.attempt))
        progress.sent_entries(len(entries), size)
        progress.sent_commit = log.committed
        return True

    def _send_snapshot(self, to: NodeId, progress: Progress) -> bool:
        """The entries that this member needs are gone: begin to send what they came to."""
        node, log = self._node, self._node.log
        snapshot = log.storage.snapshot()
        if not progress.recent_active or snapshot is None or snapshot.index < log.first_index - 1:
            return False
        node.note("sending_snapshot", to=to, index=snapshot.index, bytes=snapshot.size_bytes)
        progress.become_snapshot(snapshot.index)
        self._snapshots[to] = transfer = SnapshotTransfer(snapshot)
        return self._send_chunk(to, progress, transfer)

    def _send_chunk(self, to: NodeId, progress: Progress, transfer: SnapshotTransfer) -> bool:
        node, snapshot = self._node, transfer.snapshot
        data = node.log.storage.snapshot_data(snapshot, transfer.position, node.config.snapshot_chunk_bytes)
        if data is None:  # a later one has taken its place; the next heartbeat's reply begins with that
            del self._snapshots[to]
            progress.pending_snapshot = 0
            progress.become_probe()
            return False
        # Its way there, a write and the way back take longer than a heartbeat's; and reads send many heartbeats.
        transfer.resend_at = node.now + node.config.election_timeout_s_min
        is_last = transfer.position + len(data) >= snapshot.size_bytes
        node.send(to, SnapshotChunk(node.term, snapshot, transfer.position, data, is_last))
        return True

    # ── what comes back ─────────────────────────────────────────────────────────────────────────────

    def acknowledged(self, sender: NodeId, progress: Progress, match: int) -> bool:
        """A member has everything up to `match` on its disk. Returns whether that is news."""
        log = self._node.log
        was_probed = progress.state is ProgressState.PROBE and progress.match == match
        if not (progress.maybe_update(match) or was_probed):
            return False
        if progress.state is ProgressState.PROBE:
            progress.become_replicate()
        elif progress.state is ProgressState.REPLICATE:
            progress.inflights.free_through(match)
        elif progress.match + 1 >= log.first_index:  # whatever snapshot it was, the log continues it
            self._snapshots.pop(sender, None)
            progress.become_probe()
            progress.become_replicate()
        elif match >= progress.pending_snapshot:  # it has come by another way, and is not enough any more
            self._snapshots.pop(sender, None)
            progress.become_probe()
        return True

    def go_on(self, to: NodeId, progress: Progress) -> None:
        """After an acknowledgement: there may be room in the window, and a commit index that it can use now."""
        if progress.can_bump_commit(self._node.log.committed):
            self.send_append(to, progress)
        self.send_entries(to, progress)

    def rejected(self, sender: NodeId, progress: Progress, message: AppendRejected) -> None:
        """The logs do not match there. Where they can, both sides' terms tell: each step skips a whole term.

        Of many appends in flight that the network has reordered, many are rejected. Only the first rejection counts: if
        each made the leader send all of them again, there would be more and more.
        """
        if message.attempt != progress.attempt:
            return
        hint = message.hint_index
        if message.hint_term > 0:
            hint = self._node.log.match_below(hint, message.hint_term)[0]
        if progress.maybe_decrease(message.prev_index, hint):
            if progress.state is ProgressState.REPLICATE:
                progress.become_probe()
            self.send_append(sender, progress)

    def heartbeat_answered(self, sender: NodeId, progress: Progress, round_number: int) -> None:
        """What was sent may be lost: once per heartbeat another append may go out, although the flow is paused.

        Not once per round of reads: there may be thousands while one append is on its way.
        """
        if not 0 < progress.retry_round <= round_number:
            return
        progress.retry_round = 0
        progress.is_flow_paused = False
        if progress.match < self._node.log.last_index or progress.state is ProgressState.PROBE:
            self.send_append(sender, progress)
        transfer = self._snapshots.get(sender)
        if transfer is not None and self._node.now >= transfer.resend_at:
            self._send_chunk(sender, progress, transfer)

    def chunk_acknowledged(self, sender: NodeId, progress: Progress, message: SnapshotReply) -> None:
        transfer = self._snapshots.get(sender)
        if transfer is not None and transfer.is_moved_to(message.index, message.position):
            self._send_chunk(sender, progress, transfer)

    def unreachable(self, peer: NodeId) -> None:
        """What was sent optimistically is probably lost."""
        progress = self.progress.get(peer)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        elif (transfer := self._snapshots.get(peer)) is not None:
            transfer.resend_at = self._node.now  # with the next heartbeat that is answered
