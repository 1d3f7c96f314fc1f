"""What Serf has to say to everybody: three queues that ride on memberlist's packets.

Intents go first, for membership depends on them, then queries, whose answers are waited for, then user events.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from raftlog.serf.swim.rumours import Rumours


class Kind(IntEnum):
    """In the order in which they are sent."""

    INTENT = 0
    QUERY = 1
    EVENT = 2


class Ticket(NamedTuple):
    """Of one message, to ask for it later."""

    kind: Kind
    number: int


class Broadcasts:
    """Messages that wait; at most `rumours_max` of each kind, beyond it the one that was sent most is dropped."""

    def __init__(self, *, retransmit_mult: int, rumours_max: int) -> None:
        self._queues = {kind: Rumours(mult=retransmit_mult, count_max=rumours_max) for kind in Kind}
        self._number = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, kind: Kind, data: bytes) -> Ticket:
        self._number += 1
        self._queues[kind].put(str(self._number), data)
        return Ticket(kind, self._number)

    def is_waiting(self, ticket: Ticket) -> bool:
        """False once it was sent as often as it has to be, or was dropped."""
        return str(ticket.number) in self._queues[ticket.kind]

    def take(self, overhead: int, limit: int, *, members: int) -> list[bytes]:
        """What to send along in one packet: sum(len + overhead) <= limit. Counts as sent once."""
        messages: list[bytes] = []
        for queue in self._queues.values():
            taken = queue.take(overhead, limit, members)
            limit -= sum(len(message) + overhead for message in taken)
            messages += taken
        return messages
