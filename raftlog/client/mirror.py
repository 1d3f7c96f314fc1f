"""Copies the log of one cluster into another: each record once, in order, however often the copying is interrupted.

What is copied is stored by an idempotent producer whose id stands for the source, so the target's own table of producers
says how far the copy has come, and nothing else has to be kept in step with it:

    id        MIRROR_TAG (24 bits), a hash of the source's cluster id (32 bits), bits 32..39 of R (8 bits)
    epoch     bits 0..31 of R
    sequence  counts from R

where R is the source's offset at which a stretch of records without a gap begins. So the next record to be copied is
R plus the next sequence number. A new stretch, and with it an epoch, begins behind records that are left out.

Left out is what a mirror has brought to the source: copies are not copied on, so two clusters that mirror each other,
or any ring of them, do not go in circles. Each cluster that wants the records of another one mirrors that one itself.

The target forgets a producer that was silent for a week (raftlog/machines/producers.py). Then a cursor in the source's
log, which follows the copy by a second, says where to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from hashlib import blake2b
from typing import Final, Self

from logstore import Record, RecordBatch
from logstore.config import MIB, Config
from logstore.encode import encode_batch
from logstore.frame import Payload
from raftlog.client.async_client import AsyncClient
from raftlog.client.batch import Place, frame_at
from raftlog.client.groups import GroupPlace
from raftlog.errors import RaftlogError, SequenceGap, StaleEpoch
from raftlog.net.tls import TlsFiles

MIRROR_TAG: Final = 0xFF4D49  # how a mirror's producer id begins; other clients leave the first bit 0
OFFSETS_MAX: Final = 1 << 40  # that can be mirrored of one log
WHOLE_BYTES_MIN: Final = 32 * 1024  # batches from this size on are copied as they are, smaller merged
BATCH_BYTES_MAX: Final = MIB
BATCH_RECORDS_MAX: Final = 10_000
RETRY_S: Final = 1.0
_NEVER: Final = 1 << 62  # a sequence number that no record has
_UNLIMITED: Final = Config(record_bytes_max=1 << 30, batch_bytes_max=1 << 30)


class CannotMirror(RaftlogError):
    """These two logs cannot be mirrored so. Nothing was copied by this attempt beyond what was counted."""


def mirror_id(cluster_id: str, offset: int) -> int:
    """Producer id of copies from this cluster, of a stretch that begins at `offset`."""
    digest = int.from_bytes(blake2b(cluster_id.encode(), digest_size=4).digest(), "big")
    return MIRROR_TAG << 40 | digest << 8 | offset >> 32


def is_copy(producer_id: int) -> bool:
    """Whether a batch of this producer was brought by a mirror."""
    return producer_id >> 40 == MIRROR_TAG


class Mirror:
    """Made by `open`. `run` copies; it may be cancelled at any time, and run again."""

    def __init__(self, source: AsyncClient, target: AsyncClient, source_id: str, target_id: str) -> None:
        self._source = source
        self._target = target
        self._source_id = source_id
        self.group = f"mirror to {target_id}"  # whose cursor in the source's log follows the copy
        self.position = 0  # offset in the source of the record to copy next; moved when its copy is stored
        self.copied = 0  # records, by this object
        self.missed = 0  # records that were gone from the source before they were copied
        self._stretch = 0  # R
        self._pending: list[Record] = []  # to be copied from `position` on, as one batch
        self._pending_bytes = 0

    @classmethod
    async def open(cls, source: AsyncClient, target: AsyncClient) -> Self:
        """CannotMirror if both are the same cluster."""
        source_id, target_id = (await source.status()).cluster_id, (await target.status()).cluster_id
        if source_id == target_id:
            raise CannotMirror(f"source and target are the same cluster, {source_id}")
        return cls(source, target, source_id, target_id)

    async def run(self, *, follow: bool = False) -> None:
        """Copy what is not copied yet, up to the end of the source as it is now, or for ever."""
        self._pending, self._pending_bytes = [], 0
        place = await self._find_place()
        try:
            await self._copy(place, follow=False)
            if follow:
                await self._copy(place, follow=True)
        finally:
            await place.finish()

    async def _copy(self, place: GroupPlace, *, follow: bool) -> None:
        start = max(self.position, (await self._source.bounds()).start)
        if 0 < self.position < start:
            self.missed += start - self.position
        self._skip_to(start)
        frames = self._source.read_on(start, None, follow=follow, linearizable=not follow)
        async with aclosing(frames) as parts:
            async for low, high, found in parts:
                for batch in found.batches(low, high):
                    await self._take(batch)
                if follow:  # nothing more may come for long
                    await self._store_pending()
                place.next = self.position
                place.require_kept()
        await self._store_pending()
        place.next = self.position

    async def _find_place(self) -> GroupPlace:
        """Learn from target and source how far the copy has come."""
        place = await self._source.open_group(self.group, start=0, commit_interval_s=1.0)
        end = (await self._source.bounds()).end
        if end > OFFSETS_MAX:
            raise CannotMirror(f"the source has {end} offsets; {OFFSETS_MAX} can be mirrored")
        self._stretch = self.position = 0
        for era in range(end >> 32, -1, -1):
            stretch, count = await self._known_of(era << 32)
            if stretch > era << 32 or count:
                self._stretch, self.position = stretch, stretch + count
                break
        cursors = await self._source.cursors(self.group)
        if cursors:
            self._skip_to(max(self.position, cursors[0].offset))
        return place

    async def _known_of(self, era: int) -> tuple[int, int]:
        """(R, records copied from there on) of the newest stretch from `era` to before `era` + 2**32."""
        epoch = 0
        while True:
            payload = encode_batch([b""])
            try:
                await self._target.append_frame(
                    frame_at(payload, Place(mirror_id(self._source_id, era), epoch, _NEVER))
                )
            except StaleEpoch as error:
                epoch = error.actual
            except SequenceGap as error:
                return era + epoch, error.actual
            else:
                raise CannotMirror("the target stores batches whatever their sequence numbers are")

    def _skip_to(self, offset: int) -> None:
        """Go on behind records that are left out."""
        if offset > self.position:
            self._stretch = self.position = offset

    async def _take(self, batch: RecordBatch) -> None:
        if is_copy(batch.producer_id):
            await self._store_pending()
            self._skip_to(batch.end_offset)
            return
        next_offset = self.position + len(self._pending)
        # Entries of copies lie between, or compaction has removed records.
        if batch.first_offset != next_offset:
            await self._store_pending()
            self._skip_to(batch.first_offset)
        if batch.end_offset - batch.first_offset != len(batch):
            raise CannotMirror(f"records were removed by compaction from offset {batch.first_offset} on")
        payload = batch.payload()
        if payload.size >= WHOLE_BYTES_MIN:
            await self._store_pending()
            await self._store(payload)
            return
        if self._pending_bytes + payload.size > BATCH_BYTES_MAX or len(self._pending) >= BATCH_RECORDS_MAX:
            await self._store_pending()
        # The time of an append is the target's own; one that a producer gave is kept.
        given = batch.append_time
        self._pending += [each._replace(timestamp=0) if each.timestamp == given else each for each in batch]
        self._pending_bytes += payload.size

    async def _store_pending(self) -> None:
        if self._pending:
            payload = encode_batch(self._pending, _UNLIMITED)
            self._pending, self._pending_bytes = [], 0
            await self._store(payload)

    async def _store(self, payload: Payload) -> None:
        stretch, position = self._stretch, self.position
        if position >> 32 != stretch >> 32:
            stretch = self._stretch = position
        place = Place(mirror_id(self._source_id, stretch), stretch & 0xFFFF_FFFF, position - stretch)
        await self._target.append_frame(frame_at(payload, place))
        self.position += payload.record_count
        self.copied += payload.record_count


class Replicator:
    """Keeps one cluster supplied with the records of others, each by a Mirror of its own."""

    def __init__(self, target: AsyncClient, *, tls: TlsFiles | None = None) -> None:
        """`target` stays its owner's; `tls` is who we are to the sources."""
        self._target = target
        self._tls = tls
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        self.failures: dict[str, RaftlogError] = {}  # by name: why the last attempt ended; it is tried again

    def join(self, name: str, address: str | Sequence[str]) -> None:
        """Begin to copy the cluster at this address, for ever. Nothing is done for a known name, or once closed."""
        if not self._is_closed and name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(self._copy(name, address))

    async def leave(self, name: str) -> None:
        """Copy no more from there. An unknown name is no error."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await _end(task)
        self.failures.pop(name, None)

    async def close(self) -> None:
        """Copy no more. Closing twice is no error."""
        self._is_closed = True
        for name in list(self._tasks):
            await self.leave(name)

    async def _copy(self, name: str, address: str | Sequence[str]) -> None:
        while True:
            try:
                async with AsyncClient(address, tls=self._tls) as source:
                    await (await Mirror.open(source, self._target)).run(follow=True)
            except RaftlogError as error:
                self.failures[name] = error
            await asyncio.sleep(RETRY_S)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
