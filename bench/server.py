"""One server with mutual TLS in its own process, one Python client in this one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.processes import processor_s
from logstore import Log
from logstore.benchmark.measure import Series, rate, warm_memory
from raftlog import AsyncClient, Client, TlsFiles
from raftlog.client.batch import Handle
from raftlog.client.connection import open_channel
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server.acl import default_files
from raftlog.server_process import server_process

PRODUCE: Final = "/log.v1.Log/Produce"
VALUE = b"x" * 100
SENDS = 10_000  # records between two looks at the clock
CONSUMED = 2_000_000
BATCH = [VALUE] * 1000
CALLS_IN_FLIGHT = 64
TAILS = 100
CASE_OF_UNIT = {"calls/s": "unary_produce", "us/call": "unary_produce_processor"}


def measure(folder: Path, *, runs: int, seconds: float) -> list[Series]:
    results: dict[tuple[str, str], Series] = {}

    def note(case: str, subject: str, unit: str, durability: str, value: float) -> None:
        series = results.setdefault((case, subject), Series(case, subject, unit, durability))
        series.rates.append(value)

    for _ in range(runs):
        with ExitStack() as stack:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            certs = path / "certs"
            init_folder(certs, CertificatePlan(), extra_files=default_files())
            tls = TlsFiles.in_folder(certs, "root-client")
            warm_memory(512)
            with running(path / "synced", certs, sync="always") as (address, _):
                note(
                    "produce",
                    "raftlog, merging producer",
                    "records/s",
                    "power",
                    produce(address, tls, seconds),
                )
            note(
                "produce",
                "logstore in this process",
                "records/s",
                "power",
                embedded(path / "embedded", seconds),
            )
            with running(path / "unsynced", certs, sync="never") as (address, process_id):
                for unit, reached in calls(address, process_id, tls, seconds).items():
                    note(CASE_OF_UNIT[unit], "raftlog", unit, "process", reached)
                note("consume", "raftlog, batches", "records/s", "-", consume(address, tls))
                note("idle_tails", f"raftlog, {TAILS} tails", "% of a core", "-",
                     idle_tails(address, process_id, tls, seconds))  # fmt: skip
            with empty_server(certs) as (address, process_id):
                for unit, reached in calls(address, process_id, tls, seconds).items():
                    note(CASE_OF_UNIT[unit], "empty handler", unit, "-", reached)
    return list(results.values())


@contextmanager
def running(folder: Path, certs: Path, *, sync: str) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    with server_process(folder, certs, {"sync": sync}) as server:
        yield server.address, server.process_id


@contextmanager
def empty_server(certs: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "bench.empty_server", str(certs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
        process.communicate()


def produce(address: str, tls: TlsFiles, seconds: float) -> float:
    """Records of 100 bytes per second, all of them on the server's disk."""
    with Client(address, tls=tls) as client, client.producer() as producer:
        last: Handle = producer.send(VALUE)
        last.result()

        def step() -> int:
            nonlocal last
            for _ in range(SENDS):
                last = producer.send(VALUE)
            return SENDS

        start = time.perf_counter()
        count = seconds * rate(step, seconds=seconds)
        last.result()
        return count / (time.perf_counter() - start)


def embedded(path: Path, seconds: float) -> float:
    """The same without a server, a client or TLS: durable batches of 1,000."""
    with Log(path) as log:

        def step() -> int:
            log.append_batch(BATCH)
            return len(BATCH)

        return rate(step, seconds=seconds)


def consume(address: str, tls: TlsFiles) -> float:
    """Records per second that arrive as a list of bytes objects."""
    with Client(address, tls=tls) as client:
        start_offset = client.bounds().end
        for _ in range(CONSUMED // 10_000):
            client.append_batch([VALUE] * 10_000)
        start = time.perf_counter()
        count = sum(len(batch.to_pylist()) for batch in client.batches(start_offset))
        assert count == CONSUMED
        return count / (time.perf_counter() - start)


def calls(address: str, process_id: int, tls: TlsFiles, seconds: float) -> dict[str, float]:
    """Unary calls with 64 in flight. The client takes no part in the message, only in the bytes of it."""
    request = pb.ProduceRequest(record=pb.Record(value=VALUE)).SerializeToString()

    async def run() -> dict[str, float]:
        channel = open_channel(address, tls)
        call = channel.unary_unary(PRODUCE, request_serializer=bytes, response_deserializer=bytes)
        count = 0

        async def caller(deadline: float) -> None:
            nonlocal count
            while time.perf_counter() < deadline:
                await call(request)
                count += 1

        async def load(length: float) -> None:
            deadline = time.perf_counter() + length
            await asyncio.gather(*(caller(deadline) for _ in range(CALLS_IN_FLIGHT)))

        await load(0.2)  # until the connection is there
        count, start, used = 0, time.perf_counter(), processor_s(process_id)
        await load(seconds)
        reached = {
            "calls/s": count / (time.perf_counter() - start),
            "us/call": 1e6 * (processor_s(process_id) - used) / count,
        }
        await channel.close(grace=None)
        return reached

    return asyncio.run(run())


def idle_tails(address: str, process_id: int, tls: TlsFiles, seconds: float) -> float:
    """Processor time of the server while clients wait at the end of a log to which nothing is appended."""

    async def run() -> float:
        async with AsyncClient(address, tls=tls) as client:
            end = (await client.bounds()).end
            tails = [asyncio.create_task(first_of(client, end)) for _ in range(TAILS)]
            await client.append(b"they are all there")  # and have waited at the tail
            await asyncio.gather(*tails)
            tails = [asyncio.create_task(first_of(client, end + 1)) for _ in range(TAILS)]
            await asyncio.sleep(1.0)
            used = processor_s(process_id)
            await asyncio.sleep(seconds)
            used = processor_s(process_id) - used
            for tail in tails:
                tail.cancel()
            await asyncio.wait(tails)
            return 100 * used / seconds

    return asyncio.run(run())


async def first_of(client: AsyncClient, start: int) -> None:
    async for _ in client.follow(start):
        return
