from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from logstore import GIB, Config

POSITIVE = (
    "sync_interval_ms", "segment_bytes_max", "record_bytes_max", "batch_bytes_max", "pending_bytes_max",
    "compaction_keys_max", "unsealed_segments_max",
)  # fmt: skip
NOT_NEGATIVE = (
    "retention_bytes_max", "retention_age_ms_max", "retention_records_max", "tombstone_age_ms_min",
    "spare_segments_max",
)  # fmt: skip


def config(**fields: Any) -> Config:
    return Config(**fields)


@pytest.mark.parametrize("name", POSITIVE)
def test_limit_that_would_let_nothing_through_is_refused_by_name(name: str) -> None:
    assert getattr(config(**{name: 1}), name) == 1

    for value in (0, -1):
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be positive"):
            config(**{name: value})


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_limit_may_be_zero_but_not_negative(name: str) -> None:
    assert getattr(config(**{name: 0}), name) == 0

    with pytest.raises(ValueError, match=f"{name} is -1; it cannot be negative"):
        config(**{name: -1})


def test_every_number_of_the_config_has_a_checked_bound() -> None:
    numbers = {field.name for field in dataclasses.fields(Config)} - {"sync", "compression"}

    assert numbers == {*POSITIVE, *NOT_NEGATIVE}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sync": "sometimes"}, "sync is 'sometimes'; choose always, interval or never"),
        ({"compression": "gzip"}, "compression is 'gzip'; choose none or zstd"),
        ({"batch_bytes_max": GIB + 1}, "batch_bytes_max is 1073741825; the format allows at most 1073741824"),
    ],
)
def test_choice_that_does_not_exist_is_refused_with_those_that_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_batch_limit_may_be_exactly_that_of_the_format() -> None:
    assert config(batch_bytes_max=GIB).batch_bytes_max == GIB
