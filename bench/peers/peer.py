"""What all that are compared have in common."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

STOP_S_MAX: Final = 10.0
START_S_MAX: Final = 30.0
LOOK_S: Final = 0.1

QUORUM_POWER: Final = "power, quorum"  # fdatasync on a quorum before the acknowledgement
QUORUM_PROCESS: Final = "process, quorum"  # in the page cache of a quorum


class Store(Protocol):
    """A connected client. Values have 100 bytes; the log is new."""

    group: int  # how many values `append_group` takes
    groups_in_flight: int

    async def append(self, value: bytes) -> None:
        """Return when it is acknowledged."""

    async def append_group(self, values: Sequence[bytes]) -> None:
        """The fastest way for many: return when all are acknowledged."""

    async def read_all(self) -> int:
        """Read all values that were appended, as bytes objects; how many there are."""


class ServerMissing(Exception):
    """Not installed; says how to install it."""


def program(name: str, package: str) -> str:
    """Where it is; ServerMissing if it is not."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerMissing(f"there is no {name}; `apt-get install {package}` installs it")
    return found


def version_of(name: str, command: Sequence[str]) -> str:
    """The name, and the first version number that the command says."""
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return f"{name} {found[0]}" if found else name


@contextmanager
def started(commands: Mapping[str, Sequence[str]], folder: Path) -> Iterator[None]:
    """Processes by name, each in a folder of its own with its log, for as long as the context lasts."""
    with ExitStack() as stack:
        for name, command in commands.items():
            own = folder / name
            own.mkdir(exist_ok=True)
            log = stack.enter_context((own / "server.log").open("wb"))
            process = subprocess.Popen(
                command, cwd=own, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(_stop, process)
        yield


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
