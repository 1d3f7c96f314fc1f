"""Metadata of calls, between clients and servers and from server to server. proto/log/v1/log.proto tells of the first."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

NO_FORWARD_KEY: Final = "raftlog-no-forward"  # "1": answer NotLeader instead of sending the call on
FORWARDED_KEY: Final = "raftlog-forwarded"  # "1": a server sent the call on; it goes no further
SUBJECT_KEY: Final = "raftlog-subject"  # whose call it is; believed only from a server's own certificate


def pack_subject(subject: str) -> str:
    """A name as metadata carries it: printable ASCII."""
    return quote(subject, safe=" ")


def unpack_subject(value: str) -> str:
    return unquote(value)
