"""What a cluster takes and gives per second, how long one record takes, and what that costs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Final

from bench.cluster_case import POWER, Case, Cluster, Notes, ProcessorTime, Sizes, by_role, leader_of
from bench.processes import size_of_files, written_bytes
from logstore import RecordBatch
from raftlog.client.answers import Server
from raftlog.client.async_client import AsyncClient
from raftlog.client.client import Client
from raftlog.client.producer import Producer, ProducerConfig, ProducerFull
from raftlog.load import percentile

KIB: Final = 1024
MIB: Final = 1024 * 1024
LOOK_AFTER: Final = 1_000  # records between two turns of the event loop, and two looks at the clock
IN_FLIGHT: Final = 16  # ready batches on the way
PENDING_BYTES_MAX: Final = 256 * MIB  # so that the number in flight is what limits
FILLED_BY: Final = 10_000  # records in a batch of those that are consumed, as a busy producer makes them


def random_values(size: int, count: int = 1000) -> list[bytes]:
    return [os.urandom(size) for _ in range(count)]


# ── through the producer that merges ────────────────────────────────────────────────────────────────


async def _produce(size: int, case: str, cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    values = random_values(size)
    async with cluster.client() as client:
        notes.add(case, "asyncio", "records/s", await merged(client, values, sizes.seconds), survives=POWER)
    addresses = list(cluster.local.addresses.values())
    with Client(addresses, tls=cluster.local.tls) as threads:
        reached = await asyncio.to_thread(merged_by_threads, threads, values, sizes.seconds)
        notes.add(case, "threads", "records/s", reached, survives=POWER)


async def merged(client: AsyncClient, values: list[bytes], seconds: float) -> float:
    """Records per second that are sent one by one from the client's event loop."""
    producer = client.producer()
    await producer.send(values[0])  # until it is connected
    count, start = 0, time.perf_counter()
    deadline = start + seconds
    while time.perf_counter() < deadline:
        for value in values:
            try:
                producer.send(value)
            except ProducerFull:
                await producer.room()
                producer.send(value)
        count += len(values)
        await asyncio.sleep(0)
    await producer.flush()
    return count / (time.perf_counter() - start)


def merged_by_threads(client: Client, values: list[bytes], seconds: float) -> float:
    """The same from a thread that is not the event loop's."""
    with client.producer() as producer:
        producer.send(values[0]).result()
        count, start = 0, time.perf_counter()
        deadline = start + seconds
        while time.perf_counter() < deadline:
            for value in values:
                producer.send(value)
            count += len(values)
        producer.flush()
        return count / (time.perf_counter() - start)


# ── batches that are made already ───────────────────────────────────────────────────────────────────


async def _batches(size: int, case: str, cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    for records in (1_000, 10_000) if size < KIB else (1_000,):
        batch = RecordBatch.encode(random_values(size, records))
        subject = f"{records:,} x {size} B"
        async with cluster.client() as client:
            leader = await leader_of(client)
            producer = ready_producer(client)
            await producer.send_batch(batch)
            used = ProcessorTime(cluster, leader, os.getpid())
            count, seconds = await send_ready(producer, batch, sizes.seconds)
            notes.add(case, subject, "records/s", count * records / seconds, survives=POWER)
            for role, each in used.by_role().items():
                notes.add(
                    f"{case}_processor", f"{subject}, {role}", "us of processor/batch", 1e6 * each / count
                )


def ready_producer(client: AsyncClient) -> Producer:
    return client.producer(ProducerConfig(in_flight_max=IN_FLIGHT, pending_bytes_max=PENDING_BYTES_MAX))


async def send_ready(producer: Producer, batch: RecordBatch, seconds: float) -> tuple[int, float]:
    """(how many batches were acknowledged, in how many seconds), with IN_FLIGHT on the way."""
    count, start = 0, time.perf_counter()
    deadline = start + seconds

    async def sender() -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            await producer.send_batch(batch)
            count += 1

    async with asyncio.TaskGroup() as senders:
        for _ in range(IN_FLIGHT):
            senders.create_task(sender())
    return count, time.perf_counter() - start


# ── one record, and the next when it is acknowledged ────────────────────────────────────────────────


async def _one_at_a_time(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    values = cycle(random_values(100))
    async with cluster.client() as client:
        leader = await leader_of(client)
        await client.append(next(values))
        used = ProcessorTime(cluster, leader, os.getpid())
        times = []
        for _ in range(sizes.singles):
            began = time.perf_counter()
            await client.append(next(values))
            times.append(time.perf_counter() - began)
        for role, each in used.by_role().items():
            notes.add("one_at_a_time_processor", role, "us of processor/record", 1e6 * each / sizes.singles)
    _note_times("AsyncClient.append", times, notes)
    with Client(list(cluster.local.addresses.values()), tls=cluster.local.tls) as threads:
        _note_times("Client.append", await asyncio.to_thread(_times_of, threads, sizes.singles), notes)


def _times_of(client: Client, count: int) -> list[float]:
    values = cycle(random_values(100))
    client.append(next(values))
    times = []
    for _ in range(count):
        began = time.perf_counter()
        client.append(next(values))
        times.append(time.perf_counter() - began)
    return times


def _note_times(subject: str, times: list[float], notes: Notes) -> None:
    notes.add("one_at_a_time", subject, "records/s", len(times) / sum(times), survives=POWER)
    times.sort()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        notes.add(f"one_at_a_time_{name}", subject, "ms", 1000 * percentile(times, share), survives=POWER)


# ── reading back ────────────────────────────────────────────────────────────────────────────────────


async def _consume(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    batch = RecordBatch.encode(random_values(100, min(FILLED_BY, sizes.consumed)))
    async with cluster.client() as client:
        producer = ready_producer(client)
        for _ in range(sizes.consumed // len(batch)):
            last = producer.send_batch(batch)
            if not last.done():
                await last
        end = (await last)[1]
        leader = await leader_of(client)

    def from_a_follower(servers: Sequence[Server]) -> list[Server]:
        return [server for server in servers if server.name != leader][:1]

    for subject, as_lists in (("as columns", False), ("as lists of bytes", True)):
        async with cluster.client(picker=from_a_follower) as client:
            while (await client.bounds()).end < end:
                await asyncio.sleep(0.01)
            count, start = 0, time.perf_counter()
            async for found in client.batches(0, end):
                count += len(found.to_pylist()) if as_lists else len(found)
            seconds = time.perf_counter() - start
        if count != end:
            raise RuntimeError(f"{count} records came back of {end}")
        notes.add("consume_from_follower", subject, "records/s", count / seconds)


# ── what reaches the disk ───────────────────────────────────────────────────────────────────────────


async def _written(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    batch = RecordBatch.encode(random_values(100))
    async with cluster.client() as client:
        leader = await leader_of(client)
        producer = ready_producer(client)
        await producer.send_batch(batch)
        processes, folders = cluster.process_ids, cluster.data
        before = {name: (written_bytes(processes[name]), size_of_files(folders[name])) for name in processes}
        count, _ = await send_ready(producer, batch, sizes.seconds)
        end = (await client.bounds(linearizable=True)).end
        for name in processes:
            address = cluster.local.addresses[name]
            while (await client.status(address)).high_watermark < end:
                await asyncio.sleep(0.01)
    size = count * len(batch) * 100
    written, files = {}, {}
    for name, (written_before, files_before) in before.items():
        written[name] = (written_bytes(processes[name]) - written_before) / size
        files[name] = (size_of_files(folders[name]) - files_before) / size
    for what, values in (("written", written), ("size of files", files)):
        for role, value in by_role(values, leader).items():
            notes.add("written_per_byte", f"{role}, {what}", "bytes/byte of record", value)


produce_100 = Case(partial(_produce, 100, "produce_100_b"))
produce_1k = Case(partial(_produce, KIB, "produce_1_kib"))
batches_100 = Case(partial(_batches, 100, "batches_100_b"))
batches_1k = Case(partial(_batches, KIB, "batches_1_kib"))
one_at_a_time = Case(_one_at_a_time)
consume = Case(_consume)
written = Case(_written)
