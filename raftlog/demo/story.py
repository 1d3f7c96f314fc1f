"""The demo: three servers with mutual TLS, a file produced, the leader killed in the middle, everything compared."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from raftlog.client.answers import Server
from raftlog.client.client import Client
from raftlog.client.producer import ProducerConfig
from raftlog.local_cluster import LocalCluster, local_cluster

NODES: Final = 3
TEXT_FILE: Final = Path(__file__).with_name("text.txt")
RECORDS_DEFAULT: Final = 200_000  # the text of the package is repeated until there are so many
SINGLES: Final = 200  # records sent one by one, to measure how long one takes
CAUGHT_UP_S_MAX: Final = 60.0  # for the killed server, once it is back
LOOK_S: Final = 0.05

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
        progress(f"making certificates, starting {NODES} servers")
        start = time.perf_counter()
        with local_cluster(Path(folder), NODES) as cluster:
            result.note("servers", f"{NODES} processes with mutual TLS, a leader after {_seconds(start)}")
            with Client(list(cluster.addresses.values()), tls=cluster.tls, timeout_s=60.0) as client:
                _produce(cluster, client, lines, result, progress)
                _come_back(cluster, client, len(lines), result, progress)
            for name in cluster.servers:
                _compare(cluster, name, lines, result, progress)
            with Client(list(cluster.addresses.values()), tls=cluster.tls) as client:
                _produce_singles(client, result, progress)
            progress("stopping the servers")
            start = time.perf_counter()
        result.note("servers", f"stopped cleanly in {_seconds(start)}")
    return result


def _produce(
    cluster: LocalCluster, client: Client, lines: Sequence[bytes], result: Result, progress: Progress
) -> None:
    """Send all lines; when half are sent, kill the leader while batches are on their way to it."""
    progress(f"producing {len(lines):,} records")
    half = len(lines) // 2
    start = time.perf_counter()
    with client.producer(ProducerConfig(answer_timeout_s=60.0)) as producer:
        # Asked before, so that nothing is waited for between the last record that is sent and the kill.
        killed = cluster.wait_for_leader()
        handles = [producer.send(line) for line in lines[:half]]
        cluster.servers[killed].kill()
        killed_at = time.perf_counter()
        unanswered = sum(not handle.done() for handle in handles)  # none will be before another one leads
        progress(f"killed the leader, {killed}; going on")
        handles += [producer.send(line) for line in lines[half:]]
        producer.flush()
        offsets = [handle.result() for handle in handles]
    seconds = time.perf_counter() - start
    if offsets != list(range(len(lines))):
        result.differences.append("the records were not stored under the offsets 0, 1, 2...")
    leader = next((server.name for server in client.servers() if server.is_leader), "nobody")
    rate = len(lines) / seconds
    result.note(
        "produce", f"{len(lines):,} records, {sum(map(len, lines)):,} bytes: {rate:,.0f} records/s, the kill included",
        records=len(lines), produce_records_per_s=round(rate),
    )  # fmt: skip
    result.note(
        "SIGKILL",
        f"to the leader {killed} with {unanswered:,} records on their way; {leader} leads, and the rest was stored "
        f"{time.perf_counter() - killed_at:.1f} s later",
        unanswered=unanswered,
    )


def _come_back(cluster: LocalCluster, client: Client, count: int, result: Result, progress: Progress) -> None:
    """Start the killed server again, and wait until it has what it missed."""
    progress("starting the killed server again")
    start = time.perf_counter()
    (name,) = cluster.start()
    address = cluster.addresses[name]
    deadline = time.monotonic() + CAUGHT_UP_S_MAX
    while client.status(address).high_watermark < count:
        if time.monotonic() > deadline:
            result.differences.append(f"{name} has not caught up within {CAUGHT_UP_S_MAX:.0f} s")
            return
        time.sleep(LOOK_S)
    result.note("restart", f"{name} is back, and has what it missed after {_seconds(start)}")


def _compare(
    cluster: LocalCluster, name: str, lines: Sequence[bytes], result: Result, progress: Progress
) -> None:
    """What one server alone serves must be the lines, each once, in order."""
    progress(f"consuming from {name} and comparing")

    def this_one(servers: Sequence[Server]) -> list[Server]:
        return [server for server in servers if server.name == name]

    start = time.perf_counter()
    values: list[bytes] = []
    with Client(cluster.addresses[name], tls=cluster.tls, picker=this_one) as client:
        for batch in client.batches():
            values += batch.to_pylist()
    rate = len(values) / (time.perf_counter() - start)
    is_equal = values == list(lines)
    if not is_equal:
        result.differences.append(f"{name}: {describe_difference(values, lines)}")
    equal = "each record once, in order" if is_equal else "NOT what went in"
    result.note(
        f"consume {name}", f"{len(values):,} records, {equal}: {rate:,.0f} records/s",
        consume_records_per_s=round(rate),
    )  # fmt: skip


def describe_difference(values: Sequence[bytes], lines: Sequence[bytes]) -> str:
    """Where what came out begins to differ from what went in."""
    pairs = enumerate(zip(values, lines, strict=False))
    place = next((offset for offset, (out, into) in pairs if out != into), min(len(values), len(lines)))
    return (
        f"{len(values):,} records came out, {len(lines):,} went in, the first difference is at offset {place}"
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
        "one by one",
        f"{SINGLES} records, each on the disks of a quorum before its answer: {median:.1f} ms (99 %: {late:.1f})",
        single_ms_median=round(median, 2), single_ms_p99=round(late, 2),
    )  # fmt: skip


def _seconds(start: float) -> str:
    return f"{time.perf_counter() - start:.1f} s"
