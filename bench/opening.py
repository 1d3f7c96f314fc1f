"""How soon a log of many gigabytes can be used, and how much memory a scan of all of it takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from logstore import MIB, Config, Log
from logstore.benchmark.measure import Series

BATCH = [bytes([number]) * 1024 for number in range(128)] * 8  # 1 MiB
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

OPEN = """
import sys, time
import logstore
start = time.perf_counter()
with logstore.Log(sys.argv[1]) as log:
    log.append(b"ready")
    print(time.perf_counter() - start)
"""

SCAN = """
import resource, sys
import logstore

def memory_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with logstore.Log(sys.argv[1], read_only=True) as log:
    next(log.scan())
    before, count = memory_mib(), 0
    for batch in log.batches():
        count += len(batch)
    assert count == log.end - log.start
    print(memory_mib() - before)
"""


def measure(folder: Path, *, runs: int, gigabytes: int) -> list[Series]:
    opening = Series(f"open_{gigabytes}_gb", "logstore, cold" if can_drop_caches() else "logstore", "s", "-")
    memory = Series(f"scan_{gigabytes}_gb", "logstore", "MiB more memory", "-")
    with tempfile.TemporaryDirectory(dir=folder) as path:
        fill(path, gigabytes)
        for _ in range(runs):
            if can_drop_caches():
                DROP_CACHES.write_text("3\n")
            opening.rates.append(printed_by(OPEN, path))
            memory.rates.append(printed_by(SCAN, path))
    return [opening, memory]


def fill(path: str, gigabytes: int) -> None:
    with Log(path, Config(sync="never")) as log:
        for _ in range(gigabytes * 1000**3 // MIB):
            log.append_batch(BATCH)


def can_drop_caches() -> bool:
    try:
        DROP_CACHES.write_text("1\n")
    except OSError:
        return False
    return True


def printed_by(program: str, path: str) -> float:
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    return float(done.stdout)
