from __future__ import annotations

from prometheus_client import generate_latest

from raftlog.runtime.metrics import LogFigures, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"raftlog_{name}", labels)


def test_a_call_is_counted_by_method_and_code_with_its_duration() -> None:
    metrics = Metrics()
    produce = metrics.of_method("Produce")

    produce.began()
    produce.began()
    produce.ended("OK", seconds=0.003)

    assert value(metrics, "calls_in_progress", method="Produce") == 1
    assert value(metrics, "calls_total", method="Produce", code="OK") == 1
    assert value(metrics, "call_seconds_count", method="Produce") == 1
    assert value(metrics, "call_seconds_bucket", method="Produce", le="0.0025") == 0
    assert value(metrics, "call_seconds_bucket", method="Produce", le="0.005") == 1


def test_a_stream_has_no_duration() -> None:
    metrics = Metrics()
    stream = metrics.of_method("ConsumeStream")

    stream.began()
    stream.ended("CANCELLED", seconds=None)
    stream.began()
    stream.ended("CANCELLED", seconds=None)

    assert value(metrics, "calls_total", method="ConsumeStream", code="CANCELLED") == 2
    assert value(metrics, "call_seconds_count", method="ConsumeStream") == 0


def test_a_method_is_counted_by_one_object() -> None:
    metrics = Metrics()

    assert metrics.of_method("Produce") is metrics.of_method("Produce")


def test_the_numbers_of_the_log_are_read_when_somebody_looks() -> None:
    metrics, end = Metrics(), [5]
    metrics.watch_log(LogFigures(lambda: 2, lambda: end[0], lambda: 4096, lambda: 3))

    assert value(metrics, "log_end_offset") == 5
    end[0] = 6

    assert value(metrics, "log_end_offset") == 6
    assert value(metrics, "log_start_offset") == 2
    assert value(metrics, "log_bytes") == 4096
    assert value(metrics, "log_segments") == 3


def test_the_server_is_named() -> None:
    metrics = Metrics()

    metrics.name_server(version="0.1.0", node="log-0")

    assert value(metrics, "info", version="0.1.0", node="log-0") == 1


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()

    first.serving.set(1)

    assert value(first, "serving") == 1
    assert value(second, "serving") == 0


def test_every_metric_of_ours_has_the_prefix_and_the_process_is_shown() -> None:
    names = {
        line.split()[2]
        for line in generate_latest(Metrics().registry).decode().splitlines()
        if "# TYPE" in line
    }

    others = {name for name in names if not name.startswith("raftlog_")}
    assert "process_cpu_seconds_total" in others
    assert all(name.startswith(("process_", "python_")) for name in others)
