"""What a cluster costs that does nothing, and what it holds in memory after much traffic."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.cluster_case import Case, Cluster, Notes, Sizes, by_role, leader_of
from bench.cluster_rates import random_values, ready_producer
from bench.processes import processor_s, resident_mib
from logstore import RecordBatch

GB: Final = 1000**3
SETTLED_S: Final = 2.0  # after the client has left, before the processor time is looked at
RETAINED_BYTES: Final = 1024**3  # so that the disk suffices for any traffic


async def _idle(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    async with cluster.client() as client:
        leader = await leader_of(client)
        await client.append(b"its log is not empty")
    await asyncio.sleep(SETTLED_S)
    processes = cluster.process_ids
    before = {name: processor_s(process) for name, process in processes.items()}
    await asyncio.sleep(sizes.idle_s)
    used = {name: processor_s(process) - before[name] for name, process in processes.items()}
    for role, value in by_role(used, leader).items():
        notes.add("idle", role, "% of a core", 100 * value / sizes.idle_s)


async def _memory(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    batch = RecordBatch.encode(random_values(1000))
    case = f"memory_{sizes.gigabytes}_gb"
    each = len(batch) * 1000
    async with cluster.client() as client:
        leader = await leader_of(client)
        producer = ready_producer(client)
        left = 0

        async def sender() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await producer.send_batch(batch)

        reached: dict[str, list[float]] = {name: [] for name in cluster.process_ids}
        for _ in range(sizes.gigabytes):
            left = GB // each
            async with asyncio.TaskGroup() as senders:
                for _ in range(4):
                    senders.create_task(sender())
            for name, process in cluster.process_ids.items():
                reached[name].append(resident_mib(process))
    for name, values in reached.items():
        role = "leader" if name == leader else f"follower {name}"
        for value in values:
            notes.add(f"{case}_resident", f"{role}, after each GB", "MiB", value)
        notes.add(f"{case}_growth", f"{role}, from the first GB to the last", "MiB", values[-1] - values[0])


idle = Case(_idle)
memory = Case(_memory, {"retention-bytes-max": RETAINED_BYTES})
