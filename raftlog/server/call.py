"""What a service knows of the call that it serves, and of whom else it asks. No transport is named here."""

from __future__ import annotations

from asyncio import Task
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from raftlog.errors import NotLeader

OBJECT: Final = "*"  # of the policy, until there are topics

Response = TypeVar("Response")


class Call(NamedTuple):
    """One call. It is cancelled when its caller goes away or its deadline passes: await lets that happen."""

    subject: str | None  # verified name of the caller; None if it proved none
    is_peer: bool = False  # the caller is a server of the cluster
    may_forward: bool = True  # to the leader, if this server does not lead
    timeout_s: float | None = None  # what was left of its time when it came; None: no deadline


class Access(Protocol):
    """Decides who may do what."""

    def require_subject(self, subject: str | None) -> None:
        """Raise Unauthenticated if callers must prove who they are and this one did not."""
        ...

    def check(self, subject: str | None, object: str, action: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the subject may do that."""
        ...


class Leader(Protocol):
    """Sends calls on to the server that leads. `method` is the path of the method: /log.v1.Log/Produce.

    Both raise `refused` itself where the call may not be sent on or no leader is known, OutcomeUnknown where the leader
    was not heard of in time, and what the leader refused with.
    """

    async def ask(
        self, refused: NotLeader, method: str, request: Any, response: type[Response], call: Call
    ) -> Response:
        """The leader's answer."""
        ...

    def relay(
        self,
        refused: NotLeader,
        method: str,
        requests: AsyncIterator[Any],
        response: type[Response],
        call: Call,
        *,
        readers: set[Task[None]],
    ) -> AsyncGenerator[Response]:
        """The leader's answers, as they come. The task that takes `requests` is in `readers` meanwhile: if that is
        cancelled, what was taken is answered, and the stream ends with ServerStopping."""
        ...
