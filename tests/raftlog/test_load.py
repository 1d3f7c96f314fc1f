from __future__ import annotations

from pathlib import Path

import pytest

from raftlog import load
from tests.raftlog.serving import client_of, run, serving


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert load.percentile(range(1, 101), share) == expected
    assert load.percentile([7], share) == 7


def test_load_is_what_was_asked_for(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            nothing = await load.consume(client, records=None)
            batches = await load.produce(client, records=95, size=10, batch=10, in_flight=3)
            singles = await load.produce(client, records=7, size=3, batch=1, in_flight=2)
            read = await load.consume(client, records=None)
            some = await load.consume(client, records=15)

            assert (nothing.records, nothing.bytes) == (0, 0)
            assert (batches.records, batches.bytes) == (100, 1000)  # whole batches
            assert (singles.records, singles.bytes) == (7, 21)
            assert 0 < batches.p50_ms <= batches.p99_ms <= batches.max_ms
            # With one batch, and one record, that were sent before the clock was started.
            assert (read.records, read.bytes) == (100 + 10 + 7 + 1, 1000 + 100 + 21 + 3)
            assert (some.records, some.bytes) == (15, 150)
            assert (await client.bounds()).end == 118

    run(scenario())


def test_more_in_flight_than_there_is_room_for_waits(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PENDING_BYTES_MIN", 1)

    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            done = await load.produce(client, records=2000, size=1000, batch=1, in_flight=100)

            assert done.records == 2000

    run(scenario())
