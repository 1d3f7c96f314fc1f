"""A connection between two servers, as frames. It is encrypted, or not, before anything here is called."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from raftlog.errors import RaftlogError
from raftlog.wire.frames import BadFrame, Frame, FrameReader, frame_header

HANDSHAKE_BYTES_MAX: Final = 4096  # of a frame, until the other side has said who it is
UNSENT_BYTES_HIGH: Final = 256 * 1024  # not yet taken by the system: from here on `is_writable` is false
UNSENT_BYTES_LOW: Final = 64 * 1024
JOINED_BYTES_MAX: Final = 128 * 1024  # parts are joined up to here: a call and a TLS record cost more


class ConnectionEnded(RaftlogError):
    """The connection is closed; what was written last may have arrived, or not."""


class Connection(asyncio.Protocol):
    """Frames both ways. First `next_frame`, one at a time; then `listen`.

    It must be used in the thread of its loop.
    """

    def __init__(self, peer_address: str, *, answer_by: float) -> None:
        self.peer_address = peer_address
        self.answer_by = answer_by  # loop time until which the handshake has to be over
        self.subject = ""  # common name of the peer's certificate; "" without TLS
        self.is_writable = True  # false: what is written now waits in memory
        self.is_open = False
        self.on_proved: Callable[[], None] = _nothing  # to be called once it is known who the other side is
        self.on_writable: Callable[[], None] = _nothing
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # why it ended
        self._transport: asyncio.Transport
        self._reader = FrameReader(HANDSHAKE_BYTES_MAX)
        self._waiting: deque[Frame] = deque()  # frames that came before anybody asked
        self._asked: asyncio.Future[None] | None = None  # somebody waits for a frame
        self._on_frame: Callable[[Frame], None] | None = None
        self._reason = ""  # why this side ends it

    # ── called by the loop ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self.subject = common_name(self._transport.get_extra_info("peercert"))
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_HIGH, low=UNSENT_BYTES_LOW)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except BadFrame as error:
            self.abort(str(error))
            return
        if self._on_frame is not None:
            for frame in frames:
                if self.is_open:  # the frame before may have ended it
                    self._on_frame(frame)
        elif frames:
            self._waiting.extend(frames)
            self._transport.pause_reading()  # until they have been taken
            if self._asked is not None and not self._asked.done():
                self._asked.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if not self.ended.done():
            self.ended.set_result(self._reason or str(error or "the other side ended the connection"))
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self.on_writable()

    # ── reading ──

    async def next_frame(self) -> Frame:
        """The next frame, at most HANDSHAKE_BYTES_MAX long; ConnectionEnded if none comes any more."""
        if not self._waiting:
            if self.is_open:
                self._asked = asyncio.get_running_loop().create_future()
                await self._asked
            if not self._waiting:
                raise ConnectionEnded(self._why())
        frame = self._waiting.popleft()
        if not self._waiting:
            self.resume_reading()
        return frame

    def listen(self, on_frame: Callable[[Frame], None], *, payload_bytes_max: int) -> None:
        """From now on `on_frame` is called with each frame, at once for those that are here."""
        self._reader.payload_bytes_max = payload_bytes_max
        self._on_frame = on_frame
        while self._waiting and self.is_open:
            on_frame(self._waiting.popleft())
        if self.is_open:
            self._transport.resume_reading()

    def resume_reading(self) -> None:
        if self.is_open:
            self._transport.resume_reading()

    # ── writing ──

    @property
    def unsent_bytes(self) -> int:
        """Written, and not yet taken by the system."""
        return self._transport.get_write_buffer_size() if self.is_open else 0

    def write(self, parts: Sequence[bytes]) -> None:
        """Send these one after the other. After the end of the connection they go nowhere."""
        if not self.is_open:
            return
        joined: list[bytes] = []
        size = 0
        for part in parts:
            if joined and size + len(part) > JOINED_BYTES_MAX:
                self._transport.write(b"".join(joined))
                joined, size = [], 0
            joined.append(part)
            size += len(part)
        if joined:
            self._transport.write(joined[0] if len(joined) == 1 else b"".join(joined))

    def write_frame(self, type: int, payload: bytes) -> None:
        self.write([frame_header(type, len(payload)), payload])

    # ── the end ──

    def close(self, reason: str) -> None:
        """End it once what was written has been sent."""
        self._end(reason, at_once=False)

    def abort(self, reason: str) -> None:
        """End it now; what was not sent is forgotten."""
        self._end(reason, at_once=True)

    def _end(self, reason: str, *, at_once: bool) -> None:
        self._reason = self._reason or reason
        self.is_open = False
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()

    def _why(self) -> str:
        return self.ended.result() if self.ended.done() else self._reason or "it was closed here"


def _nothing() -> None:
    pass


def common_name(certificate: dict[str, Any] | None) -> str:
    """The subject's common name in a certificate as `ssl` gives it; "" if there is none, or no certificate."""
    for names in (certificate or {}).get("subject", ()):
        for key, value in names:
            if key == "commonName":
                return str(value)
    return ""
