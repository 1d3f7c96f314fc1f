"""Servers in one loop that have nothing but their links, on the loopback interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raftlog.engine import NodeId
from raftlog.errors import ListenError
from raftlog.net.handshake import Identity
from raftlog.net.listener import Listener
from raftlog.net.peer_links import PeerLinks
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.tls import TlsFiles
from raftlog.raft.messages import Message

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
DEADLINE_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition is true; fail if it does not become so."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)


async def listen(port: int) -> Listener:
    """On this port as soon as it is free: the system may have lent it to a connection of another test."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return Listener("127.0.0.1", port)
            except ListenError:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def stream_layer(
    certificates: Path | None, *, listener: Listener | None = None, dials_as: str = "peer", port: int = 0
) -> AsyncIterator[StreamLayer]:
    """A stream layer on a port of its own; without certificates it is plain TCP."""
    listener = listener or await listen(port)
    listener.start()
    server = TlsFiles.in_folder(certificates, "server") if certificates is not None else None
    peer = TlsFiles.in_folder(certificates, dials_as) if certificates is not None else None
    layer = StreamLayer(listener, server, peer)
    try:
        yield layer
    finally:
        await layer.close()
        await listener.close()


class Node:
    """A server's links, and what they told it."""

    def __init__(
        self, name: NodeId, layer: StreamLayer, members: Mapping[NodeId, tuple[str, str]], **more: Any
    ) -> None:
        says: dict[str, Any] = {
            "cluster_id": "c",
            "directory_id": f"directory of {name}",
            "address": layer.address,
        }
        says |= {key: more.pop(key) for key in list(more) if key in Identity.__dataclass_fields__}
        self.name = name
        self.layer = layer
        self.address = layer.address
        self.received: list[tuple[NodeId, Message]] = []
        self.unreachable: list[NodeId] = []
        self.links = PeerLinks(
            name, Identity(**says), layer, members, self._on_message, self.unreachable.append, **more
        )

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.received]

    def _on_message(self, sender: NodeId, message: Message) -> None:
        self.received.append((sender, message))


@asynccontextmanager
async def node(
    name: NodeId,
    members: Mapping[NodeId, tuple[str, str]],
    *,
    certificates: Path | None = None,
    port: int = 0,
    **more: Any,
) -> AsyncIterator[Node]:
    async with stream_layer(certificates, port=port) as layer:
        one = Node(name, layer, members, **more)
        try:
            yield one
        finally:
            await one.links.close()
