"""What the tests of a cluster's log share: a cluster in this process, and its nodes' own view of the log."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from logstore import Config
from logstore.encode import encode_batch
from logstore.frame import wire_frame
from raftlog.distributed.frames import make_frame
from raftlog.distributed.log import DistributedLog
from raftlog.testing.cluster import Cluster
from raftlog.testing.server import LocalServer

CALL_S_MAX = 20.0
KIB = 1024

T = TypeVar("T")


def small_segments(folder: Path, **settings: Any) -> Cluster:
    """A cluster whose logs have many segments."""
    return Cluster(folder, settings={"segment_bytes_max": 16 * KIB, **settings})


def steady(folder: Path, **settings: Any) -> Cluster:
    """A cluster whose leader leads until it hands over or is killed, however busy the machine is."""
    return Cluster(
        folder, settings={"election_timeout_ms_min": 10_000, "election_timeout_ms_max": 20_000, **settings}
    )


def server_of(cluster: Cluster, node: str) -> LocalServer:
    return cluster._running[node]


def call(cluster: Cluster, node: str, what: Callable[[DistributedLog], Coroutine[Any, Any, T]]) -> T:
    """What a node's log gives, in the node's own loop."""
    return server_of(cluster, node).call(what, CALL_S_MAX)


def look(cluster: Cluster, node: str, what: Callable[[DistributedLog], T]) -> T:
    """As `call`, for what does not wait."""

    async def looked(log: DistributedLog) -> T:
        return what(log)

    return call(cluster, node, looked)


def append(cluster: Cluster, node: str, *values: bytes) -> tuple[int, int]:
    return call(cluster, node, lambda log: log.append_batch(list(values)))


def append_batch(cluster: Cluster, node: str, batch: bytes) -> tuple[int, int]:
    return call(cluster, node, lambda log: log.append_batch(batch))


def fill(cluster: Cluster, node: str, batches: int, *, size: int = 1000) -> None:
    """So many batches of one record, whose value says which it is."""

    async def appended(log: DistributedLog) -> None:
        for number in range(batches):
            await log.append(b"%d" % number + bytes(size))

    call(cluster, node, appended)


def values(cluster: Cluster, node: str, start: int, end: int) -> list[bytes]:
    return look(cluster, node, lambda log: [log.read(offset).value for offset in range(start, end)])


def frames_of(cluster: Cluster, node: str, first: int, end: int) -> list[bytes]:
    """Entries as they lie on a node's disk."""

    def read(log: DistributedLog) -> list[bytes]:
        found = log.replica.log.raw_entries(first, end, bytes_max=1 << 30)
        return [entry.data for entry in found]

    return look(cluster, node, read)


def idempotent(producer: int, epoch: int, sequence: int, *batch: bytes) -> bytes:
    """A batch of an idempotent producer, as it comes from the wire."""
    frame = wire_frame(
        encode_batch(list(batch), producer_id=producer, producer_epoch=epoch, first_sequence=sequence)
    )
    assert make_frame(frame, Config(), time=0).sequence == (producer, epoch, sequence, len(batch))
    return frame
