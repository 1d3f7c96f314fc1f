"""What the system says of a process: its processor time, its memory, and what it had written to disks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def processor_s(process_id: int) -> float:
    """Processor time so far, user and system, in steps of 10 ms."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_mib(process_id: int) -> float:
    """Memory that is in use, mapped files included."""
    return _field(Path(f"/proc/{process_id}/status"), "VmRSS") / 1024


def written_bytes(process_id: int) -> int:
    """Bytes so far that were to reach a disk: whole pages, counted when they are made dirty."""
    return _field(Path(f"/proc/{process_id}/io"), "write_bytes")


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise ValueError(f"{path}: no {name}")


def size_of_files(folder: Path) -> int:
    """Bytes of all files below the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
