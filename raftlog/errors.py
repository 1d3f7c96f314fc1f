"""Errors that raftlog raises on purpose. The engine's are in `logstore.errors`.

Any other exception is a bug or, from grpc, the fate of a call.
"""

from __future__ import annotations

from collections.abc import Sequence


class RaftlogError(Exception):
    """Base of the errors below. The text is for the person who has to act on it."""


class ConfigError(RaftlogError):
    """The operator's settings cannot be used; nothing was started. One line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CertificateError(RaftlogError):
    """Certificates cannot be made as asked. Nothing was written, unless the disk failed half-way."""


class TlsError(RaftlogError):
    """A certificate, key or CA file cannot be used. The text names it and never quotes it."""


class PolicyError(RaftlogError):
    """The access policy or its model cannot be used. The text names the file and line."""


class ListenError(RaftlogError):
    """The operator's address cannot be listened on: in use, not of this machine, or not allowed."""

    def __init__(self, key: str, address: str, reason: str) -> None:
        super().__init__(f"{key}: cannot listen on {address}: {reason}")
        self.address = address


class Unauthenticated(RaftlogError):
    """The caller proved no name: no client certificate, or one without a common name. Nothing changed."""

    def __init__(self) -> None:
        super().__init__("no verified subject: connect with a client certificate that has a common name")


class PermissionDenied(RaftlogError):
    """The caller is known, and no policy allows what it asked for. Nothing changed; a retry fails again."""

    def __init__(self, subject: str, action: str, object: str) -> None:
        super().__init__(f"{subject} not permitted to {action} to {object}")
        self.subject = subject
        self.action = action
        self.object = object


class InvalidRecord(RaftlogError):
    """The caller's record cannot be stored as it is. Nothing changed; a retry fails again."""


class InvalidRequest(RaftlogError):
    """The caller asked for what cannot be. Nothing changed; the same request fails again."""


class ServerStopping(RaftlogError):
    """The server ends its calls. What was answered is stored; try again at another server, or later."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class Overloaded(RaftlogError):
    """The server has as much on its hands as its limits allow. Nothing was stored; try again a little later."""


# ── of a cluster ──


class NotLeader(RaftlogError):
    """Only the leader can do that, and this server does not lead. Nothing changed; ask the leader, if it is known."""

    def __init__(self, leader_id: str = "", leader_addr: str = "") -> None:
        where = f"{leader_id} at {leader_addr} does" if leader_id else "no leader is known at this time"
        super().__init__(f"this server does not lead: {where}")
        self.leader_id = leader_id
        self.leader_addr = leader_addr


class OutcomeUnknown(RaftlogError):
    """Leadership was lost, or the time was over, before a quorum had it: it may be stored later, or never."""


class NotCaughtUp(RaftlogError):
    """This server did not learn in time what was acknowledged before a read. Nothing changed; try again, or elsewhere."""


class ProduceRefused(RaftlogError):
    """What the producer expects of the log is not so. Nothing was stored; the same request fails again."""

    def __init__(self, text: str, *, expected: int, actual: int) -> None:
        super().__init__(text)
        self.expected = expected
        self.actual = actual


class UnexpectedOffset(ProduceRefused):
    """The log has moved on."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"offset {expected} was expected, the log ends at {actual}", expected=expected, actual=actual
        )


class SequenceGap(ProduceRefused):
    """A batch of this producer that comes before is missing."""

    def __init__(self, expected: int, actual: int) -> None:
        text = f"sequence number {expected} came, {actual} is next for this producer"
        super().__init__(text, expected=expected, actual=actual)


class StaleEpoch(ProduceRefused):
    """A newer instance of this producer has begun."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"epoch {expected} came, {actual} is this producer's newest", expected=expected, actual=actual
        )


class AlreadyStored(ProduceRefused):
    """It was stored, so long ago that its offsets are not known any more."""

    def __init__(self, expected: int, actual: int) -> None:
        text = f"sequence number {expected} was stored before ({actual} is next), too long ago to know its offset"
        super().__init__(text, expected=expected, actual=actual)


class MembershipRefused(RaftlogError):
    """The membership cannot be changed so, or not now. Nothing changed."""


class NotSupported(RaftlogError):
    """The engine that this cluster runs on cannot do that, at this server or at all. Nothing changed."""


class IdentityError(RaftlogError):
    """A data directory is not that of this node or cluster, or is damaged. Nothing was started."""


class NodeFailed(RaftlogError):
    """This server's disk or log failed: it takes part in the cluster no more until it is restarted."""
