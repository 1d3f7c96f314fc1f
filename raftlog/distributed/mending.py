"""Damaged frames of a node's log are fetched from its peers, while it serves the rest.

Replicas hold equal frames, so any of them will do (logstore/mending.py puts them in place). Damage is found by whoever
reads it, and by reading the whole log now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from logstore import CorruptBatch, CorruptLog, LogError, RawEntry
from raftlog.distributed.replica import Replica
from raftlog.engine import NodeId
from raftlog.errors import RaftlogError
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

SCRUB_INTERVAL_S: Final = 10.0  # between two parts of the log that are read through
SCRUB_BYTES: Final = 8 * 1024 * 1024  # of such a part: with the interval, 10 GB in 3.5 hours
RANGE_MAX: Final = 100_000  # entries that are looked through at once where damage was met
RETRY_S: Final = 5.0  # until peers are asked again, where none could help


class Peers(Protocol):
    """Reads the logs of other nodes."""

    def entries(self, node: NodeId, address: str, first: int, end: int) -> AsyncIterator[Sequence[RawEntry]]:
        """Its entries first..end-1, as far as it has them whole. RaftlogError if it cannot be asked."""
        ...


class Mending:
    """Runs until closed."""

    def __init__(self, replica: Replica, peers: Peers) -> None:
        self._replica = replica
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._reported: set[int] = set()  # entries at which damage was met
        self._wake = asyncio.Event()
        self._scrubbed_to = 0  # entries below it were read through
        replica.storage.on_damage = self.report
        self._task = asyncio.create_task(self._run())

    def report(self, index: int) -> None:
        """Something is damaged at this entry or behind it. May be called by any thread."""
        self._loop.call_soon_threadsafe(self._note, index)

    def _note(self, index: int) -> None:
        self._reported.add(index)
        self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(SCRUB_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                await self._scrub()
            reported, self._reported = sorted(self._reported), set()
            is_whole = True
            for index in reported:
                try:
                    is_whole = await self._mend_from(index) and is_whole
                except (LogError, RaftlogError, OSError) as error:
                    log.warning(
                        "damage not mended yet", node=self._replica.id, index=index, reason=str(error)
                    )
                    is_whole = False
            if not is_whole:
                self._reported.update(reported)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _scrub(self) -> None:
        """Read the next part of what is applied."""
        commit_log, applied = self._replica.log, self._replica.applier.applied
        first = max(self._scrubbed_to, commit_log.first_index)
        if first > applied:
            self._scrubbed_to = 0  # from the beginning again
            return
        try:
            entries = await asyncio.to_thread(
                commit_log.raw_entries, first, applied + 1, bytes_max=SCRUB_BYTES
            )
        except CorruptLog:
            self._note(first)
        except LogError as error:  # retention has overtaken it
            log.debug("part not read through", node=self._replica.id, first=first, reason=str(error))
            self._scrubbed_to = 0
        else:
            self._scrubbed_to = entries[-1].index + 1

    async def _mend_from(self, index: int) -> bool:
        """Mend what is damaged from an entry on; whether all is whole then."""
        commit_log = self._replica.log
        first = max(index, commit_log.first_index)
        end = min(first + RANGE_MAX, self._replica.applier.applied + 1)
        if first >= end:
            return True
        damaged = await asyncio.to_thread(commit_log.damage, first, end)
        for start, stop in damaged:
            log.error("log is damaged; fetching it from peers", node=self._replica.id, first=start, end=stop)
            await self._fetch(start, stop)
        return not await asyncio.to_thread(commit_log.damage, first, end)

    async def _fetch(self, first: int, end: int) -> None:
        """Ask one member after the other until the range is whole."""
        replica = self._replica
        for node, member in replica.applier.views.members.known.items():
            if node == replica.id or not member.address:
                continue
            try:
                async for entries in self._peers.entries(node, member.address, first, end):
                    await asyncio.to_thread(replica.log.replace_damaged, entries)
            except (RaftlogError, CorruptBatch) as error:  # CorruptBatch: what it sent is no better
                log.warning("peer could not help", node=replica.id, peer=node, reason=str(error))
            if not await asyncio.to_thread(replica.log.damage, first, end):
                log.info("damage mended", node=replica.id, first=first, end=end, peer=node)
                return
