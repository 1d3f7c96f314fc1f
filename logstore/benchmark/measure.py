"""Rates that can be compared: taken in turn within one run, several times, with the machine's facts."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1024 * 1024
PACKAGES = ("raftlog", "numpy", "google-crc32c", "grpcio", "lmdb", "rocksdict", "uvloop")


@dataclass(slots=True)
class Series:
    """The rates of one subject in one case, a value per run."""

    case: str
    subject: str
    unit: str
    durability: str  # what a finished operation has survived: process, power, nothing
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def ratio_to(self, other: Series) -> float:
        """Median of the ratios run by run, which noise that lasts longer than a run does not touch."""
        return statistics.median(a / b for a, b in zip(self.rates, other.rates, strict=True))


def rate(step: Callable[[], int], *, seconds: float) -> float:
    """Operations per second of `step`, which does some and returns how many, repeated for `seconds`."""
    done = 0
    start = now = time.perf_counter()
    while now - start < seconds:
        done += step()
        now = time.perf_counter()
    return done / (now - start)


def warm_memory(mib: int) -> None:
    """Touch and free memory, so that no subject pays for pages that a virtual machine has lent back to its host."""
    block = np.ones(mib * MIB, np.uint8)
    del block


def machine() -> dict[str, Any]:
    """What a reader of the numbers must know of where they come from."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
    }


def _command() -> str:
    """The command line, without the paths of this machine."""
    program = Path(sys.argv[0])
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return " ".join([name, *sys.argv[1:]])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def as_json(series: list[Series]) -> dict[str, Any]:
    """Everything measured, for a file."""
    return {
        "machine": machine(),
        "results": [
            {
                "case": one.case, "subject": one.subject, "unit": one.unit, "durability": one.durability,
                "median": _rounded(one.median), "min": _rounded(min(one.rates)), "max": _rounded(max(one.rates)),
                "runs": [_rounded(value) for value in one.rates],
            }
            for one in series
        ],
    }  # fmt: skip


def _rounded(value: float) -> float:
    return round(value, 1 if value >= 100 else 4)
