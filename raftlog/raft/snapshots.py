"""A snapshot on its way to one follower: one chunk at a time, each acknowledged once it is durable there."""

from __future__ import annotations

from raftlog.raft.messages import Snapshot

REPLIES_WITHOUT_PROGRESS_MAX = (
    2  # heartbeat replies while a chunk is out; then it is taken for lost and sent again
)


class SnapshotTransfer:
    __slots__ = ("_replies", "position", "snapshot")

    position: int  # bytes that the follower has; what follows is on its way

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.position = 0
        self._replies = 0  # heartbeat replies since the chunk was sent

    def is_moved_to(self, index: int, position: int) -> bool:
        """The follower says what it has of the snapshot at `index`; whether to send what follows.

        It may have less than was sent before: it was restarted, or has turned to another leader meanwhile.
        """
        if (
            index != self.snapshot.index
            or position == self.position
            or not 0 <= position < self.snapshot.size_bytes
        ):
            return False
        self.position = position
        self._replies = 0
        return True

    def is_stuck(self) -> bool:
        """A heartbeat was answered; whether to send the chunk once more."""
        self._replies += 1
        if self._replies < REPLIES_WITHOUT_PROGRESS_MAX:
            return False
        self._replies = 0
        return True
