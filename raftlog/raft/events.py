"""What a node is asked to do beside what every engine knows (raftlog/engine.py), and how requests end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from raftlog.engine import NodeId
from raftlog.raft.configuration import ConfigurationChange
from raftlog.raft.messages import EntryKind

# ── requests: each ends with one Reply(request, outcome); the number is the caller's, unique among those open ──


@dataclass(frozen=True, slots=True)
class Propose:
    """Append these, one entry each, one after the other. Ends in Committed, Dropped, Unknown or Refused."""

    request: int
    payloads: Sequence[bytes]
    kind: EntryKind = EntryKind.COMMAND


@dataclass(frozen=True, slots=True)
class ChangeConfiguration:
    """Ends as a proposal does; the change is in force on each node once that node has applied it."""

    request: int
    change: ConfigurationChange


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a learner a voter; refused until it has nearly caught up (RaftConfig.promotion_lag_max)."""

    request: int
    learner: NodeId


@dataclass(frozen=True, slots=True)
class Read:
    """Ends in ReadReady or Refused. On a follower the leader is asked."""

    request: int


# ── told, not asked: these end in nothing ──


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """Hand over to `to`. A follower passes it on. Ends with the election timeout if `to` does not take over."""

    to: NodeId


@dataclass(frozen=True, slots=True)
class Campaign:
    """Stand for election now, if this node may."""


@dataclass(frozen=True, slots=True)
class ForgetLeader:
    """A follower that knows its leader to be gone may vote at once. Ignored when leases serve reads."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The link to this node broke: what was in flight may be lost."""

    peer: NodeId


# ── outcomes ──


@dataclass(frozen=True, slots=True)
class Committed:
    """Stored by a quorum, at these indexes."""

    first: int
    last: int
    term: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Other entries took the place: it is not in the log and never will be. May be proposed again."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Leadership was lost before the outcome was known: it may be committed later, or never."""


class Why(Enum):
    """Of a refusal."""

    NOT_LEADER = "this node does not lead"
    TRANSFERRING = "leadership is being handed over"
    OVERLOADED = "too much is waiting already"
    CHANGE_PENDING = "an earlier configuration change is not applied yet"
    INVALID_CHANGE = "the configuration cannot be changed so"
    NOT_CAUGHT_UP = "the learner is too far behind"
    NOT_A_MEMBER = "this node is not in the configuration"
    TIMED_OUT = "no quorum answered in time"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was appended, nothing changed. Try again at `leader`, if it is known."""

    why: Why
    leader: NodeId | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReadReady:
    """A read served by views that have applied this index is linearizable."""

    index: int


Outcome = Committed | Dropped | Unknown | Refused | ReadReady
