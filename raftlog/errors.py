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


class ServerStopping(RaftlogError):
    """The server ends its calls. What was answered is stored; try again at another server, or later."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class Overloaded(RaftlogError):
    """The server has as much on its hands as its limits allow. Nothing was stored; try again a little later."""
