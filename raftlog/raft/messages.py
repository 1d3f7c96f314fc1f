"""What nodes say to each other, and the entries they agree on.

Names and semantics are those of etcd's raft, in whole words; where etcd uses one message for several purposes these are
several. Each carries its sender's term (a pre-vote: the term that the sender would campaign in).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from raftlog.raft.configuration import Configuration


class EntryKind(IntEnum):
    """What an entry is; numbered as in the frames of logstore."""

    RECORDS = 1
    COMMAND = 2
    NO_OP = 3  # a leader's first entry
    CONFIGURATION = 4


class Entry(NamedTuple):
    """One entry of the log."""

    index: int  # type: ignore[assignment]  # from 1; it hides tuple.index, which nobody needs here
    term: int
    kind: EntryKind
    data: bytes  # opaque, unless the kind is CONFIGURATION: a ConfigurationChange's bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot of the views stands for; its data is the storage's."""

    index: int  # of the last entry that it contains
    term: int  # of that entry
    configuration: Configuration  # in force at that entry
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Append:
    """Entries to follow (prev_index, prev_term), perhaps none, and how far the leader has committed."""

    term: int
    prev_index: int
    prev_term: int
    entries: Sequence[Entry]
    commit: int
    attempt: int = 0  # how often the leader has begun anew with this follower; rejections repeat it


@dataclass(frozen=True, slots=True)
class AppendReply:
    """The sender's log is the leader's up to `match`, durably."""

    term: int
    match: int


@dataclass(frozen=True, slots=True)
class AppendRejected:
    """The sender has no entry (prev_index, prev_term of the append).

    hint_index is the highest index at or below prev_index whose term (hint_term; 0 if unknown) is not above prev_term:
    the logs cannot match anywhere above it.
    """

    term: int
    prev_index: int
    hint_index: int
    hint_term: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class HigherTerm:
    """To a leader of an earlier term, which could not learn of the newer one otherwise."""

    term: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`commit` is never above what the receiver is known to have. `round` ascends with each one in a term."""

    term: int
    commit: int
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    term: int
    round: int  # of the heartbeat


@dataclass(frozen=True, slots=True)
class Vote:
    """A request for a vote. With `is_transfer` the current leader asked for this campaign, so its lease is over."""

    term: int
    last_index: int
    last_term: int
    is_transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    """A refusal also tells what the sender knows to be committed (an index, and the term of that entry).

    It may be just what the candidate lacks: that a configuration change which it has is committed, after which it needs
    other voters, or is none. Whoever knew that as a leader may have gone.
    """

    term: int
    is_granted: bool
    commit: int = 0
    commit_term: int = 0


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in this term, one above mine?  (Dissertation 9.6)"""

    term: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVoteReply:
    """If granted, `term` is that of the request; else the sender's. Of a commit as in VoteReply."""

    term: int
    is_granted: bool
    commit: int = 0
    commit_term: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A part of a snapshot's data, from `position` on."""

    term: int
    snapshot: Snapshot
    position: int  # bytes
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class SnapshotReply:
    """The sender has the first `position` bytes of the snapshot at `index`, and wants what follows."""

    term: int
    index: int
    position: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Campaign at once: the leader wants to hand over.  (Dissertation 3.10)"""

    term: int


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """From a follower that was asked to have the leader hand over to `to`."""

    term: int
    to: str


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """From a follower: which index must I have applied to serve this read?  (Dissertation 6.4)"""

    term: int
    request: int


@dataclass(frozen=True, slots=True)
class ReadReply:
    term: int
    request: int
    index: int


Message = (
    Append | AppendReply | AppendRejected | HigherTerm | Heartbeat | HeartbeatReply | Vote | VoteReply | PreVote
    | PreVoteReply | SnapshotChunk | SnapshotReply | TimeoutNow | TransferRequest | ReadRequest | ReadReply
)  # fmt: skip
