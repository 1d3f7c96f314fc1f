from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import pytest


class NoHousekeeper:
    """Stands in for logstore.housekeeping.Housekeeper where a test does the background work itself."""

    def __init__(
        self, writer: object, *, interval_ms: int | None, retain: Callable[[], object], name: str
    ) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def without_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, no chance, few zeros written ahead, no messages: what a log does is the same in every run."""
    numbers = itertools.count(0x1234_5678_9ABC_0001, 0x1357_9BDF_0246)
    monkeypatch.setattr("logstore.log.Housekeeper", NoHousekeeper)
    monkeypatch.setattr("logstore.opening.new_segment_id", lambda: next(numbers) % (1 << 64))
    monkeypatch.setattr("logstore.segment.new_segment_id", lambda: next(numbers) % (1 << 64))
    monkeypatch.setattr("logstore.appender.ZEROS", bytes(24))
    monkeypatch.setattr(logging.getLogger("logstore"), "level", logging.CRITICAL)


@pytest.fixture
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    without_background(monkeypatch)
