"""Load for a running cluster, and how it copes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from logstore import RecordBatch
from logstore.config import MIB
from raftlog.client.async_client import AsyncClient
from raftlog.client.producer import ProducerConfig, ProducerFull

PENDING_BYTES_MIN: Final = 64 * MIB


class Produced(NamedTuple):
    records: int
    bytes: int  # of values
    seconds: float
    records_per_s: float
    mb_per_s: float  # 10**6 bytes of values
    p50_ms: float  # from sending a batch to its acknowledgement
    p99_ms: float
    max_ms: float


class Consumed(NamedTuple):
    records: int
    bytes: int  # of values
    seconds: float  # from the first batch on
    records_per_s: float
    mb_per_s: float
    first_ms: float  # from the call to the first batch


async def produce(client: AsyncClient, *, records: int, size: int, batch: int, in_flight: int) -> Produced:
    """Send `records` of `size` bytes in batches of `batch`, `in_flight` batches at a time.

    With `batch` 1 they are sent as records, which the client merges when several are on the way.
    """
    values = [os.urandom(size) for _ in range(min(batch, 1000))]
    ready = (
        RecordBatch.encode([values[number % len(values)] for number in range(batch)]) if batch > 1 else None
    )
    config = ProducerConfig(
        linger_ms=0,
        in_flight_max=in_flight if batch > 1 else 16,
        pending_bytes_max=max(PENDING_BYTES_MIN, 2 * in_flight * batch * (size + 64)),
    )
    producer = client.producer(config)
    left = -(-records // batch)
    times: list[float] = []

    async def send() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            try:
                handle: Any = producer.send(values[0]) if ready is None else producer.send_batch(ready)
            except ProducerFull:
                left += 1
                await producer.room()
                continue
            await handle
            times.append(time.perf_counter() - began)

    await (producer.send(values[0]) if ready is None else producer.send_batch(ready))  # until it is connected
    start = time.perf_counter()
    async with asyncio.TaskGroup() as senders:
        for _ in range(in_flight):
            senders.create_task(send())
    seconds = time.perf_counter() - start
    count = len(times) * batch
    times.sort()
    return Produced(
        count, count * size, round(seconds, 3), round(count / seconds), round(count * size / seconds / 1e6, 1),
        _ms(percentile(times, 0.5)), _ms(percentile(times, 0.99)), _ms(times[-1]),
    )  # fmt: skip


async def consume(client: AsyncClient, *, records: int | None) -> Consumed:
    """Read from the start of the log, up to `records` or its end, as columns."""
    bounds = await client.bounds()
    end = bounds.end if records is None else min(bounds.end, bounds.start + records)
    count = size = 0
    called = time.perf_counter()
    first: float | None = None
    async for batch in client.batches(bounds.start, end):
        first = first or time.perf_counter()
        count += len(batch)
        size += int(batch.values.offsets[-1] - batch.values.offsets[0])
    now = time.perf_counter()
    seconds = max(now - (first or now), 1e-9)
    return Consumed(
        count, size, round(seconds, 3), round(count / seconds), round(size / seconds / 1e6, 1),
        _ms((first or now) - called),
    )  # fmt: skip


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
