"""A snapshot on its way to one follower: one chunk at a time, each acknowledged once it is durable there."""

from __future__ import annotations

from raftlog.raft.messages import Snapshot


class SnapshotTransfer:
    __slots__ = ("position", "resend_at", "snapshot")

    position: int  # bytes that the follower has; what follows is on its way
    resend_at: float  # from then on the chunk is taken for lost, if heartbeats are answered and it is not

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.position = 0
        self.resend_at = 0.0

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
        return True
