"""The demo: makes certificates, runs a server as a process of its own, produces, consumes, compares."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from raftlog.client.client import Client
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.tls import TlsFiles
from raftlog.server.acl import default_files
from raftlog.server_process import server_process

TEXT_FILE: Final = Path(__file__).with_name("text.txt")
RECORDS_DEFAULT: Final = 100_000  # the text of the package is repeated until there are so many
SINGLES: Final = 200  # records sent one by one, to measure how long one takes

Progress = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """What happened, in the order in which it did: what, and how it went."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, float | int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)  # between what went in and what came out

    def note(self, what: str, how: str, **figures: float) -> None:
        self.steps.append((what, how))
        self.figures |= figures


def lines_of(file: Path | None) -> list[bytes]:
    """The lines of a file; without one those of the package's text, over and over."""
    lines = (file or TEXT_FILE).read_bytes().splitlines()
    return lines if file else list(islice(cycle(lines), RECORDS_DEFAULT))


def play(lines: Sequence[bytes], progress: Progress) -> Result:
    """Everything, in a temporary folder that is gone afterwards."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="raftlog-demo-") as folder:
        progress("making certificates")
        start = time.perf_counter()
        certs = Path(folder, "certs")
        init_folder(certs, CertificatePlan(), extra_files=default_files())
        result.note("certificates", f"an authority, a server, two clients, in {_ms(start)}")
        progress("starting a server")
        start = time.perf_counter()
        with server_process(Path(folder), certs, {"node-name": "demo"}) as server:
            result.note(
                "server",
                f"on {server.address} with mutual TLS, in {_ms(start)}",
            )
            tls = TlsFiles.in_folder(certs, "root-client")
            with Client(server.address, tls=tls) as client:
                _produce(client, lines, result, progress)
                _consume(client, lines, result, progress)
                _produce_singles(client, result, progress)
            progress("stopping the server")
            start = time.perf_counter()
        result.note("server", f"stopped cleanly in {_ms(start)}")
    return result


def _produce(client: Client, lines: Sequence[bytes], result: Result, progress: Progress) -> None:
    progress(f"producing {len(lines):,} records")
    start = time.perf_counter()
    with client.producer() as producer:
        handles = [producer.send(line) for line in lines]
        offsets = [handle.result() for handle in handles]
    seconds = time.perf_counter() - start
    if offsets != list(range(len(lines))):
        result.differences.append("the records were not stored under the offsets 0, 1, 2...")
    rate = len(lines) / seconds
    result.note(
        "produce", f"{len(lines):,} records, {sum(map(len, lines)):,} bytes, synced: {rate:,.0f} records/s",
        records=len(lines), produce_records_per_s=round(rate),
    )  # fmt: skip


def _consume(client: Client, lines: Sequence[bytes], result: Result, progress: Progress) -> None:
    progress("consuming and comparing")
    start = time.perf_counter()
    values: list[bytes] = []
    for batch in client.batches():
        values += batch.to_pylist()
    seconds = time.perf_counter() - start
    if values != list(lines):
        place = next(
            (i for i, (a, b) in enumerate(zip(values, lines, strict=False)) if a != b),
            min(len(values), len(lines)),
        )
        result.differences.append(
            f"{len(values):,} records came out, the first difference is at offset {place}"
        )
    rate = len(values) / seconds
    equal = "equal to what went in" if not result.differences else "NOT what went in"
    result.note(
        "consume",
        f"{len(values):,} records, {equal}: {rate:,.0f} records/s",
        consume_records_per_s=round(rate),
    )


def _produce_singles(client: Client, result: Result, progress: Progress) -> None:
    progress("producing one by one")
    times = []
    for number in range(SINGLES):
        start = time.perf_counter()
        client.append(b"one record, number %d" % number)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    median, late = times[SINGLES // 2], times[SINGLES * 99 // 100]
    result.note(
        "one by one", f"{SINGLES} records, each synced before its answer: {median:.1f} ms (99 %: {late:.1f})",
        single_ms_median=round(median, 2), single_ms_p99=round(late, 2),
    )  # fmt: skip


def _ms(start: float) -> str:
    return f"{1000 * (time.perf_counter() - start):.0f} ms"
