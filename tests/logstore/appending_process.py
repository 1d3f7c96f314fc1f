"""A program that appends until it is killed: run with a directory, one line on its standard input starts it again.

It imports the engine once and forks for each life, because a process that is to be killed a hundred times should
start quickly. What it appends follows from the offset alone, so whoever finds it can tell what must be there.
On its standard output: "life PID", then "acknowledged END" after each append, then "dead".
"""

from __future__ import annotations

import os
import random
import sys
from itertools import count

from logstore import Config, Log

CONFIG = Config(segment_bytes_max=4096, spare_segments_max=1)


def value_at(offset: int) -> bytes:
    rng = random.Random(offset)
    return rng.randbytes(rng.choice((0, 1, 30, 200)))


def batch_end(first: int) -> int:
    """The end of the batch that begins at `first`; one of one record is appended by itself."""
    return first + random.Random(-1 - first).choice((1, 1, 2, 7))


def append_for_ever(path: str) -> None:
    log = Log(path, CONFIG)
    for _ in count():
        first, end = log.end, batch_end(log.end)
        if end == first + 1:
            assert log.append(value_at(first)) == first
        else:
            assert log.append_batch([value_at(offset) for offset in range(first, end)]) == (first, end)
        say(f"acknowledged {end}")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write: whole, or not at all


def main() -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            say(f"life {os.getpid()}")
            append_for_ever(sys.argv[1])
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()
