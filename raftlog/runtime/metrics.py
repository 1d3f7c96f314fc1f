"""What a server counts, as one object: made by whoever starts a server, handed to what counts, shown by the admin port.

Counting one call with its duration and code costs some 7 µs. Labels never hold what a client can choose: their values are
methods, status codes and reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip  # a remembered read to a disk that stalls


@dataclass(frozen=True, slots=True)
class LogFigures:
    """Where the numbers of a log are read from, whenever somebody looks; from the admin port's threads."""

    start: Callable[[], float]  # offset of the first record
    end: Callable[[], float]  # offset behind the last
    size_bytes: Callable[[], float]  # of its files
    segments: Callable[[], float]


class MethodMetrics:
    """What is counted of the calls of one method. Holds its counters: finding one by its labels costs 5 µs."""

    def __init__(self, method: str, *, calls: Counter, in_progress: Gauge, seconds: Histogram) -> None:
        self._method = method
        self._calls = calls
        self._now = 0  # calls in progress; counted in the event loop's thread alone
        in_progress.labels(method).set_function(lambda: self._now)
        self._seconds = seconds.labels(method)
        self._by_code: dict[str, Counter] = {}  # of this method; codes are few

    def began(self) -> None:
        self._now += 1

    def ended(self, code: str, *, seconds: float | None) -> None:
        """Count the end of a call that began. `seconds` is None for a stream: its length says nothing."""
        self._now -= 1
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._calls.labels(self._method, code)
        counter.inc()
        if seconds is not None:
            self._seconds.observe(seconds)


class Metrics:
    """The server's metrics in a registry of their own. Counting is thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        self._calls = self._counter("calls", "Calls that ended, by method and status code.", "method", "code")
        self._calls_in_progress = self._gauge(
            "calls_in_progress", "Calls that go on, streams included.", "method"
        )
        self._call_seconds = self._histogram(
            "call_seconds", "Duration of calls that are no streams.", LATENCY_BUCKETS_S, "method"
        )
        self._methods: dict[str, MethodMetrics] = {}  # those of the service, so few

        self.log_start_offset = self._gauge("log_start_offset", "Offset of the first record.")
        self.log_end_offset = self._gauge("log_end_offset", "Offset behind the last record.")
        self.log_bytes = self._gauge("log_bytes", "Bytes of the log's files.")
        self.log_segments = self._gauge("log_segments", "Files of the log.")

        self.raft_term = self._gauge("raft_term", "The latest term that this server has seen.")
        self.raft_leads = self._gauge(
            "raft_leads", "1 while this server leads; the sum over a cluster is to be 1."
        )
        self.raft_has_leader = self._gauge("raft_has_leader", "1 while this server knows who leads.")
        self.raft_last_index = self._gauge("raft_last_index", "The last entry of this server's log.")
        self.raft_commit_index = self._gauge("raft_commit_index", "The last entry known to be on a quorum.")
        self.raft_applied_index = self._gauge(
            "raft_applied_index", "The last entry that this server's views hold."
        )

        self.gossip = self._gauge("gossip", "Figures of the gossip, as this server knows them.", "figure")

        self.serving = self._gauge("serving", "1 while the health check says SERVING.")
        self.certificate_ends = self._gauge(
            "certificate_ends_timestamp_seconds", "When the server's certificate expires, as a Unix time."
        )
        self.collection_seconds = self._histogram(
            "gc_pause_seconds",
            "Pauses by the garbage collector: nothing else happens meanwhile.",
            LATENCY_BUCKETS_S,
        )
        self._info = self._gauge("info", "1, with the version and name of this server.", "version", "node")

    # ── counting ────────────────────────────────────────────────────────────────────────────────────

    def of_method(self, method: str) -> MethodMetrics:
        """The counters of one method; the same object each time."""
        found = self._methods.get(method)
        if found is None:
            found = self._methods[method] = MethodMetrics(
                method, calls=self._calls, in_progress=self._calls_in_progress, seconds=self._call_seconds
            )
        return found

    def watch_log(self, figures: LogFigures) -> None:
        """Show the numbers of this log from now on."""
        self.log_start_offset.set_function(figures.start)
        self.log_end_offset.set_function(figures.end)
        self.log_bytes.set_function(figures.size_bytes)
        self.log_segments.set_function(figures.segments)

    def name_server(self, *, version: str, node: str) -> None:
        self._info.labels(version, node).set(1)

    # ── making ──────────────────────────────────────────────────────────────────────────────────────

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"raftlog_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"raftlog_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"raftlog_{name}", help, labels, registry=self.registry, buckets=buckets)
