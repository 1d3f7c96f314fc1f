"""What a leader knows of each member's log, and how it sends to it.

    probe        one append at a time, until it is known where the logs match
    replicate    appends in flight one after the other, as many as the window allows
    snapshot     nothing is appended until the snapshot has arrived

    probe ──matched──> replicate ──rejected, unreachable──> probe ──entries are gone──> snapshot ──arrived──> probe

The semantics are those of etcd's raft.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """The window of appends that were sent and not acknowledged yet, by the index of the last entry of each.

    Full at `count_max` appends or `bytes_max` bytes of entries (0: any number of bytes). The last one added may go above
    bytes_max, so an entry above it can be sent at all.
    """

    __slots__ = ("_bytes", "_sent", "bytes_max", "count_max")

    def __init__(self, count_max: int, bytes_max: int) -> None:
        assert count_max > 0, count_max
        self.count_max = count_max
        self.bytes_max = bytes_max
        self._sent: deque[tuple[int, int]] = deque()  # (last index, bytes) of each; indexes ascend
        self._bytes = 0  # the sum of what is in _sent

    @property
    def count(self) -> int:
        return len(self._sent)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def is_full(self) -> bool:
        return len(self._sent) >= self.count_max or 0 < self.bytes_max <= self._bytes

    def add(self, last_index: int, bytes_count: int) -> None:
        assert not self.is_full, f"{self.count} in flight, {self._bytes} bytes"
        assert not self._sent or last_index > self._sent[-1][0], f"{last_index} after {self._sent[-1][0]}"
        self._sent.append((last_index, bytes_count))
        self._bytes += bytes_count

    def free_through(self, index: int) -> None:
        """Forget the appends that end at or below this index: they were acknowledged."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self._bytes -= sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._bytes = 0


@dataclass(slots=True, eq=False)
class Progress:
    """One member, as the leader sees it. Changed by the leader only; made anew with each term.

    At any time match < next.
    """

    inflights: Inflights  # only in REPLICATE is anything in it
    match: int = 0  # the member's log is known to be the leader's up to here; ascends
    next: int = 1  # of the next entry to send; what lies between match and it is in flight
    state: ProgressState = ProgressState.PROBE
    sent_commit: int = 0  # the highest commit index on its way there; falls when what carried it may be lost
    pending_snapshot: int = 0  # in SNAPSHOT: the index of the one being sent (next - 1, then); else 0
    recent_active: bool = False  # was heard from since the leader last checked its quorum
    # In PROBE: one append is out; in REPLICATE: the window is full. A heartbeat's reply ends it.
    is_flow_paused: bool = False
    retry_round: int = 0  # of the heartbeat whose reply lets what may be lost be sent again; 0: none is out
    is_learner: bool = False
    attempt: int = 0  # how often REPLICATE was given up; rejections of appends from before say nothing new

    @property
    def is_paused(self) -> bool:
        """Whether entries have to wait."""
        return self.is_flow_paused or self.state is ProgressState.SNAPSHOT

    def become_probe(self) -> None:
        """Send one append after what is known to be there: the match, or a snapshot that has arrived."""
        if self.state is ProgressState.REPLICATE:
            self.attempt += 1
        self.next = max(self.match, self.pending_snapshot) + 1
        self._reset(ProgressState.PROBE)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Send one append after the other from the match on."""
        self._reset(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Send nothing until the snapshot at this index has arrived."""
        self._reset(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def _reset(self, state: ProgressState) -> None:
        self.state = state
        self.is_flow_paused = False
        self.pending_snapshot = 0
        self.inflights.clear()

    def sent_entries(self, count: int, bytes_count: int) -> None:
        """Take note of an append with the entries next..next+count-1; not in SNAPSHOT."""
        assert self.state is not ProgressState.SNAPSHOT, "appended while a snapshot is on its way"
        if self.state is ProgressState.REPLICATE:
            if count > 0:
                self.next += count
                self.inflights.add(self.next - 1, bytes_count)
            self.is_flow_paused = self.inflights.is_full
        elif count > 0:
            self.is_flow_paused = True

    def can_bump_commit(self, commit: int) -> bool:
        """Whether to tell this commit index could raise the member's, which never goes above its last entry."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """Take note that the member has acknowledged everything up to `index`; False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.is_flow_paused = False
        return True

    def maybe_decrease(self, rejected: int, hint: int) -> bool:
        """Take note that the append after `rejected` found no match there; False if that is out of date.

        `hint` is the highest index at which the logs may match. Appends arrive in any order and more than once, so a
        rejection may be of one that was sent long ago:
        - in REPLICATE, one at or below the match;
        - else, where one append at a time is sent, any but of the last one.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if rejected != self.next - 1:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.is_flow_paused = False
        # The append that carried the commit index was rejected, and the index with it.
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    def __str__(self) -> str:
        words = [f"{self.state.value} match={self.match} next={self.next}"]
        if self.is_learner:
            words.append("learner")
        if self.is_paused:
            words.append("paused")
        if self.pending_snapshot:
            words.append(f"pending_snapshot={self.pending_snapshot}")
        if not self.recent_active:
            words.append("inactive")
        if self.inflights.count:
            words.append(f"inflight={self.inflights.count}{'[full]' if self.inflights.is_full else ''}")
        return " ".join(words)


def track(
    progress: Mapping[NodeId, Progress],
    configuration: Configuration,
    *,
    newcomers: Collection[NodeId],
    last_index: int,
    inflight_count_max: int,
    inflight_bytes_max: int,
) -> dict[NodeId, Progress]:
    """Progress of the members of a new configuration, by sorted name. `progress` is not to be used any more.

    Who stays keeps what is known of it. Who is new, or among the `newcomers` (removed and added again: perhaps with an
    empty disk), is probed at the leader's last entry, and counts as active until it had time to answer.
    """
    tracked = {}
    for node in configuration.members:
        known = progress.get(node)
        if known is None or node in newcomers:
            known = Progress(
                inflights=Inflights(inflight_count_max, inflight_bytes_max),
                next=max(last_index, 1),
                recent_active=True,
            )
        known.is_learner = node in configuration.learners
        tracked[node] = known
    return tracked
