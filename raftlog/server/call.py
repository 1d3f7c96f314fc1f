"""What a service knows of the call that it serves. No transport is named here."""

from __future__ import annotations

from typing import NamedTuple


class Call(NamedTuple):
    """One call. It is cancelled when its caller goes away or its deadline passes: await lets that happen."""

    subject: str | None  # verified name of the caller; None if it proved none
