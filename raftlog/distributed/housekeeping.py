"""What a node does by itself now and then: snapshots of its views, room on its disk; at the leader also
retention."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from logstore import LogError
from raftlog.distributed.proposals import Proposals
from raftlog.distributed.replica import Replica
from raftlog.errors import RaftlogError
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.leader import Leader
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

INTERVAL_S: Final = 0.25
RETENTION_INTERVAL_S: Final = 5.0


class Housekeeping:
    """Runs until closed."""

    def __init__(self, replica: Replica, proposals: Proposals) -> None:
        self._replica = replica
        self._proposals = proposals
        self._snapshot_lock = asyncio.Lock()
        self._counted = (0, 0)  # entries and bytes applied when the last snapshot was made
        self._removed_to = 0  # the log start up to which segments have been removed, or cannot be yet
        self._waits_since: float | None = None  # retention, for a follower
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the work, with a last snapshot: what it contains need not be read at the next start."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._replica.failure is None and self._replica.applied_entries > self._counted[0]:
            try:
                await self.take_snapshot()
            except (LogError, OSError, ValueError) as error:
                log.warning("no last snapshot", node=self._replica.id, reason=str(error))

    async def _run(self) -> None:
        retention_at = time.monotonic() + RETENTION_INTERVAL_S
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self._look_at_disk()
                await self._keep_small()
                if self._replica.is_ready and time.monotonic() >= retention_at:
                    retention_at = time.monotonic() + RETENTION_INTERVAL_S
                    await self._retain()
            # ValueError: a snapshot is over a limit.
            except (RaftlogError, LogError, OSError, ValueError) as error:
                log.warning("housekeeping failed; it is tried again", reason=str(error))

    async def _look_at_disk(self) -> None:
        replica = self._replica
        disk = await asyncio.to_thread(os.statvfs, replica.log.path)
        replica.set_room(disk.f_bavail * disk.f_frsize >= replica.config.disk_reserve_bytes)

    # ── snapshots ───────────────────────────────────────────────────────────────────────────────────

    async def _keep_small(self) -> None:
        """Make a snapshot if a restart would have to read much, or if records are to go that only a snapshot frees."""
        replica, config = self._replica, self._replica.config
        entries, size = replica.applied_entries - self._counted[0], replica.applied_bytes - self._counted[1]
        log_start = replica.applier.views.log_start
        frees = log_start > self._removed_to
        if entries >= config.snapshot_entries or size >= config.snapshot_bytes or frees:
            await self.take_snapshot()
        if frees:
            self._removed_to = log_start

    async def take_snapshot(self) -> tuple[int, int]:
        """Write the views down, then remove segments whose records are all below the log's start; (index, bytes)."""
        replica = self._replica
        async with self._snapshot_lock:
            views = replica.applier.views
            counted = (replica.applied_entries, replica.applied_bytes)
            index, sections = views.index, views.to_sections()
            # Else it is being caught up, and has a newer one than it could make.
            if replica.applier.applied >= index:
                configuration = views.members.configuration
                await asyncio.to_thread(replica.storage.save_views, index, sections, configuration)
                self._counted = counted
                log.debug("snapshot written", node=replica.id, index=index)
                await self._remove_segments(views.log_start, index)
            return index, sum(map(len, sections.values()))

    async def _remove_segments(self, lowest: int, index: int) -> None:
        storage = self._replica.storage
        if storage.forget(lowest, below_index=index + 1):
            freed = await asyncio.to_thread(storage.remove_forgotten)
            log.info("segments removed", node=self._replica.id, log_start=lowest, freed_bytes=freed)

    # ── retention ───────────────────────────────────────────────────────────────────────────────────

    async def _retain(self) -> None:
        """Propose to forget what the limits no longer allow, unless a follower still needs it."""
        replica = self._replica
        limits = replica.config.retention
        if limits.retention_bytes_max is limits.retention_age_ms_max is limits.retention_records_max is None:
            return
        decisions = await asyncio.to_thread(replica.log.apply_retention, dry_run=True, limits=limits)
        going = [decision for decision in decisions if not decision.stays]
        if not going:
            self._waits_since = None
            return
        lowest = min(going[-1].end_offset, replica.applier.end)
        if lowest <= replica.applier.views.log_start or self._must_wait(lowest):
            return
        self._waits_since = None
        await self._proposals.command(pb.Command(set_log_start=pb.SetLogStart(offset=lowest)))

    def _must_wait(self, lowest: int) -> bool:
        """A follower that is there lacks entries that would go; not for longer than retention_wait_s."""
        replica = self._replica
        role = replica.driver.node.role
        if not isinstance(role, Leader):
            return True
        index = replica.log.index_of(lowest - 1)
        is_needed = any(each.recent_active and each.match < index for each in role.progress.values())
        if not is_needed:
            return False
        if self._waits_since is None:
            self._waits_since = time.monotonic()
            log.info("retention waits for a follower that is behind", node=replica.id, log_start=lowest)
        return time.monotonic() - self._waits_since < replica.config.retention_wait_s
