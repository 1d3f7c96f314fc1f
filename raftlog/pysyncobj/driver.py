"""Runs one PySyncObj node in an event loop: messages in, one tick, one sync of the disk, messages out.

The disk is written in the loop's thread: PySyncObj answers within the call that hands it a message, so there is nothing
to do meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from logstore import LogError
from raftlog.engine import NodeId
from raftlog.errors import NodeFailed
from raftlog.net.handshake import Identity
from raftlog.net.peer_links import MIB, LinkLimits, PeerLinks
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj.codec import Fields, language
from raftlog.pysyncobj.journal import PAGE_BYTES, Journal
from raftlog.pysyncobj.replica import Replica
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

TICK_S: Final = 0.05
QUEUED_BYTES_MAX: Final = 8 * MIB  # to one node; it is sent nothing more until the system has taken some


class Driver:
    """Made by `__init__`, which starts it; `on_turn` is called after each turn, and once it failed."""

    def __init__(
        self,
        replica: Replica,
        identity: Identity,
        stream_layer: StreamLayer,
        *,
        on_turn: Callable[[], None],
    ) -> None:
        self.failure: NodeFailed | None = None
        self.replica = replica
        self._journal: Journal = replica.journal
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._inbox: list[tuple[NodeId, Fields]] = []  # of this turn of the loop
        self._connected: set[NodeId] = set()  # as PySyncObj was told
        self._planned: asyncio.Handle | None = None
        self._members = dict(replica.outbox.members)
        self._is_closed = False
        log_config = self._journal.log.config
        self._links = PeerLinks(
            self._journal.node,
            identity,
            stream_layer,
            self._members,
            self._receive,
            self._lost,
            limits=LinkLimits(
                bulk_frame_bytes_max=max(64 * MIB, 2 * PAGE_BYTES + log_config.batch_bytes_max)
            ),
            language=language(log_config),
        )
        self._timer = self._loop.call_soon(self._tick)

    def soon(self) -> None:
        """Have a turn in the next round of the loop, together with all that asks for one."""
        if self._planned is None and self.failure is None and not self._is_closed:
            self._planned = self._loop.call_soon(self._turn)

    async def close(self) -> None:
        """Stop; what was applied is known at the next start."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop()
        await self._links.close()
        try:
            self.replica.destroy()  # closes the journal, too
        except (LogError, OSError):
            if self.failure is None:
                raise

    def _stop(self) -> None:
        self._timer.cancel()
        if self._planned is not None:
            self._planned.cancel()

    def _receive(self, sender: NodeId, message: Fields) -> None:
        self._inbox.append((sender, message))
        self.soon()

    def _lost(self, node: NodeId) -> None:
        if node in self._connected:
            self._connected.discard(node)
            self.replica.outbox.disconnected(node)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self.soon()

    def _turn(self) -> None:
        self._planned = None
        try:
            self._run_once()
        except Exception as error:  # of the disk, or a bug: what is in memory and on disk may differ, so stop
            log.error("node takes part no more", node=self._journal.node, reason=str(error), exc_info=error)
            self.failure = NodeFailed(f"this server takes part in the cluster no more: {error}")
            self._stop()
        self._on_turn()

    def _run_once(self) -> None:
        replica, journal = self.replica, self._journal
        self._look_at_links()
        messages, self._inbox = self._inbox, []
        for sender, message in messages:
            replica.receive(sender, message)
        last, committed = journal.last_index, journal.committed
        journal.flush()
        replica.tick()
        if journal.last_index > last or journal.committed > committed:
            journal.flush()
            replica.send_soon()
            replica.tick()  # it sends before it takes new commands up
        journal.flush()
        journal.applied_to(replica.raftLastApplied)
        for node, message in replica.outbox.take():
            self._links.send(node, message)

    def _look_at_links(self) -> None:
        outbox = self.replica.outbox
        if outbox.members != self._members:
            self._members = dict(outbox.members)
            self._links.set_members(self._members, version=self._journal.last_index)
        statistics = self._links.statistics()
        for node in self._connected | statistics.keys():
            known = statistics.get(node)
            if known is None or not known.is_connected or known.queued_bytes > QUEUED_BYTES_MAX:
                self._lost(node)
            else:
                self._connected.add(node)
                outbox.connected(node)  # it may have been told otherwise, within a turn
