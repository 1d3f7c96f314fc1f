"""How long a cluster is without a leader when the one it has is killed."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Final

from bench.cluster_case import POWER, Case, Cluster, Notes, Sizes, leader_of
from raftlog.client.async_client import AsyncClient
from raftlog.client.failures import CallFailed

SEND_EVERY_S: Final = 0.005
LOOK_EVERY_S: Final = 0.01
STEADY_S: Final = (0.5, 1.5)  # of load before a kill: it meets any moment between two heartbeats
ANSWERED_S_MAX: Final = 30.0
CAUGHT_UP_S_MAX: Final = 60.0
SEED: Final = 4


@dataclass(slots=True)
class Load:
    """A client that appends all the time, whatever becomes of what it sent before."""

    client: AsyncClient
    answered: list[tuple[float, float]] = field(default_factory=list)  # (when sent, when acknowledged)
    failed: list[CallFailed] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        while True:
            task = asyncio.create_task(self._append())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(SEND_EVERY_S)

    async def _append(self) -> None:
        sent = time.perf_counter()
        try:
            await self.client.append(b"x" * 100)
        except CallFailed as error:
            self.failed.append(error)
            return
        self.answered.append((sent, time.perf_counter()))

    async def first_after(self, moment: float) -> float:
        """When the first record was acknowledged that was sent after `moment`."""
        async with asyncio.timeout(ANSWERED_S_MAX):
            while True:
                for sent, acknowledged in self.answered:
                    if sent > moment:
                        return acknowledged
                await asyncio.sleep(LOOK_EVERY_S / 10)


async def _kills(cluster: Cluster, sizes: Sizes, notes: Notes) -> None:
    chance = random.Random(SEED)
    async with cluster.client() as client, cluster.client() as watcher:
        load = Load(client)
        running = asyncio.create_task(load.run())
        try:
            for _ in range(sizes.kills):
                await asyncio.sleep(chance.uniform(*STEADY_S))
                await _kill_once(cluster, load, watcher, notes)
        finally:
            running.cancel()
            await asyncio.wait((running, *load.tasks))
    if load.failed:
        raise RuntimeError(f"{len(load.failed)} appends failed, the first: {load.failed[0]}")


async def _kill_once(cluster: Cluster, load: Load, watcher: AsyncClient, notes: Notes) -> None:
    old = await leader_of(watcher)
    load.answered.clear()
    killed = time.perf_counter()
    await asyncio.to_thread(cluster.local.servers[old].kill)
    others = [address for name, address in cluster.local.addresses.items() if name != old]
    led, acknowledged = await asyncio.gather(_new_leader(watcher, others), load.first_after(killed))
    notes.add("kill_until_leader", "from SIGKILL to a server that leads", "s", led - killed)
    notes.add("kill_until_acknowledged", "from SIGKILL to the first record sent after it", "s",
              acknowledged - killed, survives=POWER)  # fmt: skip
    await asyncio.to_thread(cluster.local.start)
    await _caught_up(watcher, cluster.local.addresses[old])


async def _new_leader(watcher: AsyncClient, addresses: list[str]) -> float:
    async with asyncio.timeout(ANSWERED_S_MAX):
        while True:
            for address in addresses:
                if (await watcher.status(address)).role == "leader":
                    return time.perf_counter()
            await asyncio.sleep(LOOK_EVERY_S)


async def _caught_up(watcher: AsyncClient, address: str) -> None:
    """Return when the server has all that the cluster had when this was called."""
    end = (await watcher.bounds(linearizable=True)).end
    async with asyncio.timeout(CAUGHT_UP_S_MAX):
        while True:
            try:
                if (await watcher.status(address)).high_watermark >= end:
                    return
            except CallFailed:
                pass  # it has just been started
            await asyncio.sleep(LOOK_EVERY_S)


kills = Case(_kills)
