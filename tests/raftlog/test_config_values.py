from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raftlog.config_values import (
    Addresses,
    Bytes,
    Count,
    DurationMs,
    NodeName,
    OptionalBytes,
    OptionalPath,
    OptionalPort,
    Port,
)
from raftlog.net.addresses import split_address


def problem(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512", 512),
        ("10B", 10),
        ("64MiB", 64 * 2**20),
        ("64 mib", 64 * 2**20),
        ("64MB", 64 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("0.1kB", 100),
        ("2TiB", 2**41),
        (" 3KiB ", 3072),
        (7, 7),
    ],
)
def test_sizes_are_written_with_a_unit_or_in_bytes(text: object, size: int) -> None:
    assert TypeAdapter(Bytes).validate_python(text) == size


@pytest.mark.parametrize("text", ["64M", "MiB", "-1", "1e6", "64 MiBs", "1.MiB", "٣"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    assert "64MiB, 64MB" in problem(Bytes, text)


def test_a_part_of_a_byte_is_refused() -> None:
    assert "that is 0.5 bytes" in problem(Bytes, "0.5")


def test_a_size_has_a_least_value() -> None:
    assert "greater than or equal to 1" in problem(Bytes, "0")


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("10s", 10_000),
        ("5m", 300_000),
        ("250ms", 250),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("7d", 604_800_000),
        ("1.5s", 1500),
        ("0.1s", 100),
        ("1500", 1500),
        (1500, 1500),
    ],
)
def test_durations_are_written_with_units_or_in_milliseconds(text: object, duration_ms: int) -> None:
    assert TypeAdapter(DurationMs).validate_python(text) == duration_ms


@pytest.mark.parametrize("text", ["", "10x", "s", "-5s", "10s5", "1 h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    assert "10s, 5m, 1h30m" in problem(DurationMs, text)


def test_a_part_of_a_millisecond_is_refused() -> None:
    assert "that is 0.5 milliseconds" in problem(DurationMs, "0.5ms")


@pytest.mark.parametrize("kind", [Bytes, DurationMs, Count, Port])
def test_true_is_no_number(kind: Any) -> None:
    assert "not a number" in problem(kind, True)


@pytest.mark.parametrize("port", [0, 65_535, "8400"])
def test_ports_go_from_0_to_65535(port: object) -> None:
    assert TypeAdapter(Port).validate_python(port) == int(str(port))


@pytest.mark.parametrize("port", [-1, 65_536])
def test_other_ports_are_refused(port: int) -> None:
    assert "65535" in problem(Port, port) or "equal to 0" in problem(Port, port)


@pytest.mark.parametrize("text", ["", "none", "off", "OFF", None])
def test_off_means_without(text: object) -> None:
    kinds: list[Any] = [OptionalPort, OptionalBytes, OptionalPath]

    for kind in kinds:
        assert TypeAdapter(kind).validate_python(text) is None


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2", ("a:1", "b:2")),
        (["a:1,b:2", "c:3"], ("a:1", "b:2", "c:3")),
        ("", ()),
        ([], ()),
    ],
)
def test_addresses_are_a_list_or_separated_by_commas(value: object, addresses: tuple[str, ...]) -> None:
    assert TypeAdapter(Addresses).validate_python(value) == addresses


def test_addresses_are_texts() -> None:
    assert "string" in problem(Addresses, [8401])


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:8401", ("localhost", 8401)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:65535", ("::1", 65_535)),
    ],
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "not host:port"),
        (":8401", "for every interface write 0.0.0.0:8401"),
        ("8401", "not host:port"),
        ("::1:8401", "brackets"),
        ("a:", "port '' is not a number"),
        ("a:65536", "port '65536' is not a number up to 65535"),
        ("a:-1", "port '-1' is not a number"),
    ],
)
def test_what_is_no_address_is_refused(address: str, message: str) -> None:
    assert message in problem(Addresses, [address])


@pytest.mark.parametrize("name", ["a", "log-0", "log_0.example", "a" * 63])
def test_node_names_fit_into_host_and_file_names(name: str) -> None:
    assert TypeAdapter(NodeName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a/b", "a\n", "a" * 64, "é"])
def test_other_node_names_are_refused(name: str) -> None:
    assert "use up to 63 letters" in problem(NodeName, name)
