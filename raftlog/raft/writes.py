"""What was handed out to be written, and what is durable of it.

Writes are carried out in their order. Each vouches for the log up to some index; a later truncation lowers that at once,
although the earlier write may not even have begun: when it is reported durable, what it wrote is about to be replaced.

    1. The leader n1 of term 1 sends n2 entry 5; n2 hands out write 1 with it.
    2. n3 leads term 2 and sends another entry 5; n2 cuts the first and hands out write 2.
    3. n1 leads term 3 and sends the first entry 5 again (it is in its log); n2 cuts, and hands out write 3.
    4. Write 1 is durable. It vouches for entries up to 4 since step 2: only write 3 makes entry 5 durable.
"""

from __future__ import annotations

from collections import deque

from raftlog.engine import Persist, Token
from raftlog.raft.log import RaftLog
from raftlog.raft.messages import Snapshot
from raftlog.raft.storage import HardState, SnapshotPart, Write


class Unwritten:
    """A write that was handed out and is not durable yet."""

    __slots__ = ("hard_state", "installs", "issued_at", "last", "token")

    def __init__(
        self, token: Token, last: int, hard_state: HardState, installs: Snapshot | None, issued_at: float
    ) -> None:
        self.token = token
        self.last = last  # it vouches for the log up to here
        self.hard_state = hard_state  # as it is once this is written
        self.installs = installs  # the snapshot that takes the log's place by this
        self.issued_at = issued_at


class Writes:
    """Of one node since its start."""

    __slots__ = ("_token", "_unwritten", "durable_state", "handed_state", "parts")

    durable_state: HardState  # what is known to be on the disk
    handed_state: HardState  # what will be once all is written that was handed out
    parts: list[SnapshotPart]  # received and not handed out

    def __init__(self, hard_state: HardState) -> None:
        self.durable_state = self.handed_state = hard_state
        self.parts = []
        self._token = 0
        self._unwritten: deque[Unwritten] = deque()

    @property
    def last_token(self) -> Token | None:
        """Of the write that is handed out last; None if all is durable."""
        return self._unwritten[-1].token if self._unwritten else None

    @property
    def oldest_issued_at(self) -> float | None:
        """When the write that is waited for was handed out."""
        return self._unwritten[0].issued_at if self._unwritten else None

    def hand_out(self, state: HardState, log: RaftLog, now: float) -> list[Persist[Write]]:
        """Everything that has not been handed out: one write, or more if several parts of a snapshot came at once."""
        parts, self.parts = self.parts, []
        writes = [self._issue(Write(snapshot=part), self.handed_state, 0, now) for part in parts[:-1]]
        is_state_new = state != self.handed_state
        self.handed_state = state
        write = Write(
            state if is_state_new else None, parts[-1] if parts else None, log.hand_out(), log.committed
        )
        writes.append(self._issue(write, state, log.last_index, now))
        return writes

    def _issue(self, write: Write, state: HardState, last: int, now: float) -> Persist[Write]:
        self._token += 1
        token, part = Token(self._token), write.snapshot
        installs = part.snapshot if part is not None and part.is_last else None
        self._unwritten.append(Unwritten(token, last, state, installs, now))
        return Persist(token, write)

    def truncated(self, end: int) -> None:
        """The log was cut at `end`."""
        for unwritten in self._unwritten:
            unwritten.last = min(unwritten.last, end - 1)

    def persisted(self, token: Token) -> list[Unwritten]:
        """The writes that are durable by this, in order."""
        written = []
        while self._unwritten and self._unwritten[0].token <= token:
            written.append(self._unwritten.popleft())
        if written:
            self.durable_state = written[-1].hard_state
        return written
