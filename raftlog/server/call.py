"""What a service knows of the call that it serves. No transport is named here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call. It is cancelled when its caller goes away or its deadline passes: await lets that happen."""

    method: str  # as in "Produce"
    peer: str  # address of the other side, for logs
    subject: str | None  # verified name of the caller; None if it proved none
    seconds_left: float | None  # until the caller's deadline, when the call arrived; None if it set none
