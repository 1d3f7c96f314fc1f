"""PySyncObj without a clock, chance, files, forks or sockets of its own.

It takes these from names of its modules, which all instances of a process share. So while one instance runs, the
names mean that instance's own clock, generator and files, and afterwards what they meant before. Nothing else is
changed: the algorithm that runs is the package's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any

import pysyncobj.serializer
import pysyncobj.syncobj

from raftlog.sim.pysyncobj.disk import Disk, Journal


class Surroundings:
    """What one instance sees while it runs: `with surroundings: ...`. One instance at a time."""

    def __init__(self, disk: Disk, *, rng: random.Random, clock: Callable[[], float], log: Log) -> None:
        syncobj, serializer = pysyncobj.syncobj, pysyncobj.serializer
        self._ours: list[tuple[Any, str, Any]] = [
            (syncobj, "monotonicTime", clock),
            (syncobj, "random", rng),
            (syncobj, "createJournal", lambda _file: Journal(disk)),
            (syncobj, "createPoller", lambda _kind: _NothingToPoll()),
            (syncobj, "os", SimpleNamespace(path=SimpleNamespace(isfile=disk.isfile))),
            (syncobj, "logger", log),
            (serializer, "open", disk.open),
            (serializer, "atomicReplace", disk.replace),
            # gzip writes the time into its header
            (serializer, "gzip", SimpleNamespace(GzipFile=_Uncompressed)),
            (serializer, "logger", log),
        ]
        self._theirs: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        assert not self._theirs, "one instance runs at a time"
        for module, name, ours in self._ours:
            self._theirs.append((module, name, module.__dict__.get(name)))
            module.__dict__[name] = ours

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for module, name, theirs in self._theirs:
            if theirs is None:
                del module.__dict__[name]  # a builtin until now
            else:
                module.__dict__[name] = theirs
        self._theirs = []


class Log:
    """A logger that hands on what matters."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def info(self, message: str, *_values: object) -> None:
        pass

    def warning(self, message: str, *values: object) -> None:
        self._tell(message % values if values else message)

    error = critical = exception = warning


class _NothingToPoll:
    def poll(self, _timeout: float) -> None:
        pass


class _Uncompressed:
    """In the place of gzip.GzipFile: the same bytes out as in."""

    def __init__(self, fileobj: Any, mode: str = "rb") -> None:
        self._file = fileobj

    def __enter__(self) -> Any:
        return self._file

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        pass
