"""What the gossip's sockets let in and out at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SOURCES_MAX: Final = 4096  # counted in one window; packets of further ones are dropped
WINDOW_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """Beyond these packets are dropped and streams closed: gossip repeats itself."""

    inbound_streams_max: int = 64
    inbound_streams_per_host_max: int = 16
    inbound_bytes_max: int = 16 * 1024 * 1024  # of all inbound streams that are not answered yet
    outbound_streams_max: int = 16  # further questions come to nothing at once
    stream_timeout_s: float = 10.0  # for the whole of an inbound stream, however slow the other side is
    packets_per_host_per_s_max: int = 5_000
    unsent_bytes_max: int = 256 * 1024  # of packets that the system does not take yet


class PacketRate:
    """Of each host, so that one which floods does not take the place of the others.

    Whoever forges addresses gets around it; the packets' limit for all together is the engine's.
    """

    def __init__(self, per_s_max: int, clock: Callable[[], float]) -> None:
        self._per_window_max = max(1, int(per_s_max * WINDOW_S))
        self._clock = clock
        self._window = -1
        self._counts: Counter[str] = Counter()  # of this window; SOURCES_MAX at most

    def admits(self, host: str) -> bool:
        """Whether one more packet of it may come now; it is counted."""
        window = int(self._clock() / WINDOW_S)
        if window != self._window:
            self._window = window
            self._counts.clear()
        if host not in self._counts and len(self._counts) >= SOURCES_MAX:
            return False
        self._counts[host] += 1
        return self._counts[host] <= self._per_window_max
