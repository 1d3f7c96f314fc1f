"""What stands in for the engine and for the network's other side in tests of the transport."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Self

from raftlog.net.gossip.binding import bind
from raftlog.net.gossip.limits import TransportLimits
from raftlog.net.gossip.transport import Filter, GossipTransport
from raftlog.runtime.actor import InboxFull
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.messages import Address

DEADLINE_S = 20.0
MESSAGE_BYTES_MAX = 1024 * 1024


class LengthFraming:
    """Four bytes of length, then the message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bool:
        self._buffer += data
        if len(self._buffer) < 4:
            return False
        length = int.from_bytes(self._buffer[:4], "big")
        if length > MESSAGE_BYTES_MAX:
            raise BadPacket(f"too large: {length}")
        return len(self._buffer) >= 4 + length

    @property
    def message_bytes(self) -> bytes:
        return bytes(self._buffer)


def framed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


class Engine:
    """Writes down the events; answers nothing by itself."""

    def __init__(self, *, room: int | None = None) -> None:
        self.events: list[Any] = []
        self._room = room  # for events that are not urgent
        self._changed = asyncio.Event()

    def dispatch(self, event: Any, *, is_urgent: bool = False) -> None:
        if self._room is not None and not is_urgent and len(self.events) >= self._room:
            raise InboxFull
        self.events.append(event)
        self._changed.set()

    async def wait_for(self, count: int) -> list[Any]:
        """The events, once there are so many."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.events) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.events


class Node:
    """A transport on the loopback interface with such an engine."""

    def __init__(
        self,
        *,
        limits: TransportLimits | None = None,
        filter: Filter | None = None,
        room: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.engine = Engine(room=room)
        self.transport = GossipTransport(bind(f"{host}:0"), LengthFraming, limits=limits, filter=filter)

    async def __aenter__(self) -> Self:
        await self.transport.start(self.engine.dispatch, itertools.count(1))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()

    @property
    def address(self) -> Address:
        return self.transport.bound_address

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)


async def until(condition: Callable[[], bool]) -> None:
    """For what cannot be awaited: counts that other tasks move."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)
