"""Packets and streams of messages; rumours ride along in the room that is left."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Final

from raftlog.engine import Ask, Effect, Note, Reply, Send
from raftlog.serf.codec.envelopes import PART_BYTES, PARTS_MAX
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.streams import StreamMessage
from raftlog.serf.codec.swim import PacketMessage, encode
from raftlog.serf.messages import Address, UserMessage
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.members import Members, SwimMember
from raftlog.serf.swim.rumours import Rumours
from raftlog.serf.swim.shown import shown

USER_BYTES: Final = 1  # that a user message costs beside its own: its type
CRC_PROTOCOL: Final = 5  # whoever speaks it understands packets with a checksum
NOTE_INTERVAL_S: Final = 10.0  # of refusals: whoever sends nonsense must not fill the log


class Post:
    """What is handed out by a node, and what it refused."""

    def __init__(
        self, codec: Codec, members: Members, rumours: Rumours, above: Above, *, packet_bytes_max: int
    ) -> None:
        self.refused: Counter[str] = Counter()  # what came and was not taken in, by a constant text
        self._codec = codec
        self._members = members
        self._rumours = rumours
        self._above = above
        self._packet_bytes_max = packet_bytes_max
        self._effects: list[Effect] = []
        self._asked = 0  # the number of the last Ask
        self._refusal_noted_at = -inf

    def drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def send(self, to: Address, *messages: PacketMessage) -> None:
        """In one packet, with as many rumours as fit."""
        parts = [encode(message) for message in messages]
        self._send(to, parts + self._rumours_for(parts))

    def send_rumours(self, to: SwimMember) -> bool:
        """Whether there were any."""
        parts = self._rumours_for([])
        if parts:
            self._send(to.address, parts)
        return bool(parts)

    def ask(self, to: Address, message: StreamMessage, timeout_s: float) -> int:
        """By a stream; the number of the question."""
        self._asked += 1
        self._effects.append(Ask(self._asked, to, self._codec.stream(message), timeout_s))
        return self._asked

    def reply(self, request: int, message: StreamMessage | None) -> None:
        """None: end the stream without a word."""
        self._effects.append(
            Reply(request, b"" if message is None else self._codec.stream(message, is_reply=True))
        )

    def note(self, event: str, **fields: object) -> None:
        self._effects.append(Note(event, {name: shown(value) for name, value in fields.items()}))

    def refuse(self, why: str, now: float, *, sender: str, detail: str = "") -> None:
        """Count it, and note it if none was noted lately."""
        self.refused[why] += 1
        if now - self._refusal_noted_at < NOTE_INTERVAL_S:
            return
        self._refusal_noted_at = now
        self.note(
            "gossip refused", why=why, sender=sender, detail=detail, refused_so_far=self.refused.total()
        )

    def _send(self, to: Address, parts: list[bytes]) -> None:
        member = self._members.at(to)
        has_crc = member is not None and member.versions.protocol_max >= CRC_PROTOCOL
        self._effects.append(Send(to, self._codec.packet(parts, has_crc=has_crc)))

    def _rumours_for(self, parts: list[bytes]) -> list[bytes]:
        if not self._rumours and not self._above.has_rumours():
            return []
        free = self._packet_bytes_max - self._codec.overhead() - sum(len(part) + PART_BYTES for part in parts)
        rumours = self._rumours.take(PART_BYTES, free, self._members.count)
        free -= sum(len(rumour) + PART_BYTES for rumour in rumours)
        if free > PART_BYTES + USER_BYTES:
            rumours += [
                encode(UserMessage(data)) for data in self._above.rumours(PART_BYTES + USER_BYTES, free)
            ]
        return rumours[: PARTS_MAX - len(parts)]
