"""Two nodes with one name: each asks all others whom they know by it; whoever is known by fewer should go.

Real Serf stops then. Here the application is told, and decides. An answer from a node that knows nobody by the name
counts against, as in real Serf; but if nobody answers at all, nothing is known and nothing is said, where real Serf
stops both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.serf import decode
from raftlog.serf.messages import Address, ConflictResponse

QUERY: Final = "_serf_conflict"
# Claims come with every rumour and exchange: all are one conflict, asked about once in so long.
PAUSE_S: Final = 30.0


def has_lost(responses: Mapping[str, bytes], own: Address) -> bool:
    """Whether no majority of those who answered knows the name under this node's address."""
    votes = [member for member in map(_vote, responses.values()) if member is not None]
    matching = sum(member.address == own for member in votes)
    return bool(votes) and matching < len(votes) // 2 + 1


def _vote(payload: bytes) -> ConflictResponse | None:
    try:
        message = decode(payload)
    except BadPacket:
        return None
    return message if isinstance(message, ConflictResponse) else None
