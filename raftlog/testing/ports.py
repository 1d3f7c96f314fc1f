"""Ports that stay ours while the servers that listen on them are down."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Self


class ReservedPorts:
    """Ports of the loopback interface, given to nobody else until `close`. 0 stands for any that is free.

    Each is held by a socket that is bound and does not listen: the system then neither gives the port to those who
    want any nor takes it for an outgoing connection, and lets servers listen that, as ours do, set SO_REUSEADDR.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for port in ports:
                self._sockets.append(held := socket.socket())
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.bind(("127.0.0.1", port))
        except BaseException:
            self.close()
            raise
        self.numbers = tuple(int(held.getsockname()[1]) for held in self._sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for held in self._sockets:
            held.close()
