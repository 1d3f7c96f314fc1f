"""A process that appends, killed a hundred times at any moment, in one directory that goes on through all of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate, repeat, takewhile
from pathlib import Path
from typing import IO

import pytest

from logstore import Log
from tests.logstore import appending_process
from tests.logstore.appending_process import CONFIG, batch_end, value_at

KILLS = int(os.environ.get("LOGSTORE_KILLS", "100"))
SEED = int(os.environ.get("LOGSTORE_SEED", "1"))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(appending_process.__file__), str(tmp_path / "log")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process


def live_and_die(program: subprocess.Popen[str], rng: random.Random) -> list[int]:
    """Let the program live until some appends later, or until it opens the log; the ends it acknowledged."""
    orders, said = program.stdin, program.stdout
    assert orders is not None and said is not None
    orders.write("live\n")
    pid = int(next(said).removeprefix("life "))
    wanted = rng.choice((0, rng.randrange(60)))

    ends = [end for _, end in zip(range(wanted), acknowledged(said), strict=False)]
    for _ in range(rng.randrange(100_000)):  # from nothing to a few milliseconds: several appends
        pass
    os.kill(pid, signal.SIGKILL)
    ends += acknowledged(said)
    assert len(ends) >= wanted, "it died of something else"
    return ends


def acknowledged(said: IO[str]) -> Iterator[int]:
    return (
        int(line.removeprefix("acknowledged ")) for line in takewhile(lambda line: line != "dead\n", said)
    )


def test_killed_process_keeps_every_acknowledged_record_and_no_half_of_a_batch(
    program: subprocess.Popen[str], tmp_path: Path
) -> None:
    print(f"LOGSTORE_SEED={SEED}")
    rng = random.Random(SEED)
    durable_end = 0
    segments = 0

    for kill in range(KILLS):
        durable_end = max([durable_end, *live_and_die(program, rng)])
        if not (tmp_path / "log" / f"{1:020}.store").exists():
            continue  # it died before it made its first segment

        # A log that is only looked at stays as the kill has left it, for the next life to recover.
        with Log(tmp_path / "log", CONFIG, read_only=kill % 2 == 0) as log:
            found = [record.value for record in log.scan()]
            boundaries = accumulate(repeat(0), lambda first, _: batch_end(first), initial=0)
            assert durable_end <= len(found) == log.end, f"kill {kill}"
            assert log.end in takewhile(lambda end: end <= log.end, boundaries), f"kill {kill}"
            assert found == list(map(value_at, range(log.end))), f"kill {kill}"
            segments = len(log.segments())

    assert segments > 10 and durable_end > 10 * KILLS
