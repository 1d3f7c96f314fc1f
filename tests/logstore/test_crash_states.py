"""Every state that a power loss may leave, before every operation, of short traces; samples of long ones.

With LOGSTORE_SEARCH=<seconds> in the environment, random traces are run for that long.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from logstore import Config, Log
from logstore.testing import CrashFileSystem
from tests.logstore.crash_trace import PATH, Step, Trace, random_trace, require_allowed, verify_trace

pytestmark = pytest.mark.usefixtures("no_background")

ALWAYS = Config(segment_bytes_max=480, sync="always", spare_segments_max=0, tombstone_age_ms_min=0)
NEVER = Config(segment_bytes_max=480, sync="never", spare_segments_max=0)
SPARES = Config(segment_bytes_max=480, sync="always", spare_segments_max=2)
RETAINING = Config(segment_bytes_max=480, sync="always", spare_segments_max=1, retention_records_max=3)

SEARCH_S = float(os.environ.get("LOGSTORE_SEARCH", "0"))

FILL: list[Step] = [("open",), ("append",), ("batch", 8, 9), ("append",), ("append", 200), ("append",)]
KEYED: list[Step] = [
    ("open",), ("keyed", "a", "b", "c"), ("keyed", "a", "B"), ("append", 150), ("keyed", "a"), ("seal",),
]  # fmt: skip

# Small enough for every byte of every write.
SHORT: dict[str, tuple[Config, list[Step]]] = {
    "one append": (ALWAYS, [("open",), ("append",)]),
    "appends": (ALWAYS, [("open",), ("append", 0), ("append", 7)]),
    "batch": (ALWAYS, [("open",), ("batch", 5, 0, 9)]),
    "clean close": (ALWAYS, [("open",), ("append",), ("close",), ("open",), ("append",), ("close",)]),
    "entries": (ALWAYS, [("open",), ("append", 7), ("raw", 5, 0)]),
    "never synced": (NEVER, [("open",), ("append", 3), ("append", 5)]),
    "synced once": (NEVER, [("open",), ("append", 3), ("sync",), ("append", 3)]),
}

LONGER: dict[str, tuple[Config, list[Step]]] = {
    "roll": (ALWAYS, [("open",), ("append", 150), ("append", 150), ("append", 150)]),
    "batch that fills segments": (ALWAYS, [("open",), ("append",), ("batch", 300, 300), ("append",)]),
    "entries that fill segments": (ALWAYS, [("open",), ("append",), ("raw", 150, 150, 10, 300, 10), ("append",)]),
    "truncate": (ALWAYS, [*FILL, ("seal",), ("truncate", 4), ("append",)]),
    "truncate unsynced": (NEVER, [*FILL, ("truncate", 4), ("append",)]),
    "retention": (RETAINING, [*FILL, ("append", 250), ("seal",), ("retain",), ("append",)]),
    "truncate suffix at a frame": (ALWAYS, [*FILL, ("truncate_suffix", 5), ("append",)]),
    "truncate suffix within a batch": (ALWAYS, [("open",), ("append",), ("batch", 5, 6, 7), ("truncate_suffix", 2), ("append",)]),
    "truncate suffix over segments": (ALWAYS, [*FILL, ("append", 200), ("truncate_suffix", 1), ("append",)]),
    "truncate suffix of sealed": (ALWAYS, [*FILL, ("seal",), ("truncate_suffix", 2), ("append",), ("append", 300), ("append",)]),
    "truncate suffix to nothing": (ALWAYS, [*FILL, ("truncate_suffix", 0), ("append",)]),
    "truncate suffix unsynced": (NEVER, [*FILL, ("append", 200), ("truncate_suffix", 2), ("append",), ("sync",)]),
    "reset": (ALWAYS, [*FILL, ("seal",), ("reset",), ("append",)]),
    "compact": (ALWAYS, [*KEYED, ("compact",), ("append",)]),
    "compact and cut": (ALWAYS, [*KEYED, ("compact",), ("truncate_suffix", 1), ("append",)]),
    "recycle": (SPARES, [*FILL, ("seal",), ("truncate", 4), ("append", 250), ("append",)]),
    "recycle after reset": (SPARES, [*FILL, ("append", 250), ("seal",), ("truncate", 5), ("reset",), *FILL[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_every_state_of_a_short_trace_opens_with_all_that_was_acknowledged(name: str) -> None:
    config, steps = SHORT[name]
    trace = Trace(config).run(steps)

    verify_trace(trace, random.Random(name), states_max=500)


@pytest.mark.parametrize("name", LONGER)
def test_every_operation_of_a_longer_trace_can_be_the_last(name: str) -> None:
    config, steps = LONGER[name]
    trace = Trace(config).run(steps)

    verify_trace(trace, random.Random(name), states_max=30 if SEARCH_S == 0 else 1000)


@pytest.mark.parametrize("seed", range(8))
def test_every_operation_of_a_random_trace_can_be_the_last(seed: int) -> None:
    verify_random_trace(seed)


@pytest.mark.skipif(SEARCH_S == 0, reason="LOGSTORE_SEARCH is not set")
def test_search_of_random_traces() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    deadline = time.monotonic() + SEARCH_S

    while time.monotonic() < deadline:
        verify_random_trace(seed)
        seed += 1


def verify_random_trace(seed: int) -> None:
    rng = random.Random(seed)
    try:
        trace = random_trace(rng, step_count=rng.randint(5, 25))
        verify_trace(trace, rng, states_max=4)
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


# ── faults that were found by the above ─────────────────────────────────────────────────────────────


def test_crash_while_two_segments_are_discarded_leaves_no_gap() -> None:
    trace = Trace(NEVER).run([("open",), ("append", 150), ("append", 150), ("append", 150)])
    disk = CrashFileSystem({**trace.fs.files(), f"/{PATH}/{1:020}.store": b"torn"})
    assert len([path for path in disk.files() if path.endswith(".store")]) == 3
    Log(PATH, NEVER, filesystem=disk)

    for point in disk.crash_points(cut_bytes=64):
        for after_second_crash in point.states():
            with Log(PATH, NEVER, filesystem=after_second_crash) as log:
                assert (log.start, log.end) == (0, 0)


def test_empty_segment_whose_predecessors_were_removed_opens() -> None:
    trace = Trace(NEVER).run([("open",), ("append", 300), ("append", 300), ("truncate", 1)])
    active = max(path for path in trace.fs.files() if path.endswith(".store"))
    data = trace.fs.files()[active]
    header_only = CrashFileSystem({**trace.fs.files(), active: data[:96]})

    with Log(PATH, NEVER, filesystem=header_only) as log:
        assert (log.start, log.end) == (1, 1)
        assert log.append(b"next") == 1


def test_saved_index_of_before_a_truncation_does_not_come_back() -> None:
    trace = Trace(ALWAYS).run([*FILL, ("seal",), ("truncate_suffix", 2), ("append", 200), ("append", 200)])

    for point in trace.fs.crash_points(trace.done[-3].first_operation, cut_bytes=64):
        for disk in point.states():
            require_allowed(Log(PATH, ALWAYS, filesystem=disk), trace.allowed(point.operation_count))


def test_reset_log_never_recycles_what_it_held_before() -> None:
    trace = Trace(SPARES).run([*FILL, ("append", 250), ("seal",), ("truncate", 5)])
    assert any(path.endswith(".spare") for path in trace.fs.files())

    trace.do(("reset",))

    assert not any(path.endswith(".spare") for path in trace.fs.files())


def test_spare_of_a_removed_log_is_not_recycled_by_the_next() -> None:
    trace = Trace(SPARES).run([*FILL, ("append", 250), ("seal",), ("truncate", 5)])
    spares = {path: data for path, data in trace.fs.files().items() if path.endswith(".spare")}
    left_by_a_crash = CrashFileSystem(spares)

    Log(PATH, SPARES, filesystem=left_by_a_crash)

    assert spares and not set(spares) & set(left_by_a_crash.files())


def test_full_segment_that_is_durable_already_holds_nobody_up() -> None:
    config = Config(segment_bytes_max=480, sync="never", unsealed_segments_max=1)
    trace = Trace(config).run([("open",), ("append", 250), ("sync",), ("append", 250)])

    trace.do(("append", 250))  # used to wait for ever

    assert trace.content.end == 3
