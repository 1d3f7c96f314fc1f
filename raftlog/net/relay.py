"""Passes bytes between a client's connection and gRPC's own listener, both ways, as they are.

Neither side gets more than the other takes: when one does not read, the other is not read from. The end of one
direction is passed on alone, and the relay ends when both have ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

CONNECT_S_MAX: Final = 5.0


class _Side(asyncio.Protocol):
    """One of the two connections of a relay."""

    def __init__(self, other: _Side | None, on_end: Callable[[], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self._other = other
        self._on_end = on_end
        self._early: list[bytes] = []  # what came before the other side was there: of one turn of the loop
        self._has_ended = False  # nothing more comes from here
        if other is not None:
            other._other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        other = self._other
        if other is None or other.transport is None:
            return
        self.transport.writelines(other._early)
        other._early = []
        if other.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.write(data)
        else:
            self._early.append(data)

    def eof_received(self) -> bool:
        self._has_ended = True
        other = self._other
        if other is None or other.transport is None or other._has_ended:
            return False
        if not other.transport.is_closing():
            other.transport.write_eof()
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._other is not None and self._other.transport is not None:
            if error is None:
                self._other.transport.close()
            else:
                self._other.transport.abort()
        self._on_end()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Relay:
    """The relays that run, until they are closed."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._sides: set[_Side] = set()  # the clients' ends; order does not matter

    async def begin(self, connection: socket.socket, first: bytes, on_end: Callable[[], None]) -> None:
        """Relay this client, of whom `first` was read. `on_end` is called once, when its connection has ended.

        OSError or TimeoutError if gRPC's listener does not take it; the connection is then the caller's still.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S_MAX):
            _, inner = await loop.create_unix_connection(lambda: _Side(None, _nothing), self._socket_path)
        try:
            assert inner.transport is not None
            inner.transport.write(first)

            def ended() -> None:
                self._sides.discard(outer)
                on_end()

            outer = _Side(inner, ended)
            self._sides.add(outer)
            await loop.connect_accepted_socket(lambda: outer, connection)
        except BaseException:
            inner.abort()
            raise

    def close(self) -> None:
        for side in list(self._sides):
            side.abort()


def _nothing() -> None:
    pass
