"""Options of sockets: small writes leave at once, and the loss of the other side shows before the system would tell."""

from __future__ import annotations

import socket
from typing import Final

IDLE_S: Final = 10  # before the system asks whether the other side is there
PROBES: Final = 3
PROBE_S: Final = 2


def prepare(connection: socket.socket, *, unacknowledged_ms_max: int) -> None:
    """End the connection if what was sent is not acknowledged, or not read, for so long; the system waits 15 minutes.

    Where the system does not know an option, it is left out.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_USER_TIMEOUT": unacknowledged_ms_max,
        "TCP_KEEPIDLE": IDLE_S,
        "TCP_KEEPINTVL": PROBE_S,
        "TCP_KEEPCNT": PROBES,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def let_go(connection: socket.socket) -> None:
    """Close a socket of which no transport could be made.

    uvloop's transports own the descriptor from the moment in which they are tried, and close it when they end, which may
    be later. The socket must not do so as well: its number may belong to another connection by then, which would be
    closed behind the back of its transport. uvloop marks those sockets as it is done for files made of them.
    """
    if getattr(connection, "_io_refs", 0):
        connection.detach()
    else:
        connection.close()
