"""What is measured: this engine, and what one would use instead. Each keeps records in order under numbers from 0.

A subject that is not installed is left out, and the report says so. `durable` means the same for all: the
operation returns when a power loss cannot take it back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

from logstore.config import MIB, Config
from logstore.log import Log

MAP_BYTES = 16 * 1024 * MIB  # address space for lmdb, not memory


class Subject(Protocol):
    name: ClassVar[str]

    def __init__(self, path: str, *, durable: bool) -> None: ...
    @property
    def append(self) -> Callable[[bytes], object]: ...
    @property
    def append_batch(self) -> Callable[[list[bytes]], object]: ...
    def values(self) -> Iterable[bytes]: ...
    def read(self, number: int) -> bytes: ...
    def close(self) -> None: ...


class Engine:
    name: ClassVar = "logstore"

    def __init__(self, path: str, *, durable: bool, config: Config | None = None) -> None:
        self.log = Log(path, config or Config(sync="always" if durable else "never"))
        self.append: Callable[[bytes], object] = self.log.append
        self.append_batch: Callable[[list[bytes]], object] = self.log.append_batch

    def values(self) -> Iterator[bytes]:
        for batch in self.log.batches():
            yield from batch.to_pylist()

    def read(self, number: int) -> bytes:
        return self.log.read(number).value

    def close(self) -> None:
        self.log.close()


class PlainFile:
    """The limit: one write, one fdatasync, no way to find a record again."""

    name: ClassVar = "plain file"

    def __init__(self, path: str, *, durable: bool) -> None:
        os.makedirs(path, exist_ok=True)
        self._fd = os.open(f"{path}/plain", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._durable = durable

    def append(self, value: bytes) -> None:
        os.write(self._fd, value)
        if self._durable:
            os.fdatasync(self._fd)

    def append_batch(self, values: list[bytes]) -> None:
        self.append(b"".join(values))

    def values(self) -> Iterable[bytes]:
        raise NotImplementedError("a plain file has no records")

    def read(self, number: int) -> bytes:
        raise NotImplementedError("a plain file has no records")

    def close(self) -> None:
        os.close(self._fd)


class Sqlite:
    """sqlite3 in WAL mode; synchronous=FULL syncs the log at every commit."""

    name: ClassVar = "sqlite3 WAL"

    def __init__(self, path: str, *, durable: bool) -> None:
        os.makedirs(path, exist_ok=True)
        self._db = sqlite3.connect(f"{path}/log.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self._db.execute("CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, value BLOB)")

    def append(self, value: bytes) -> None:
        self._db.execute("INSERT INTO log (value) VALUES (?)", (value,))

    def append_batch(self, values: list[bytes]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO log (value) VALUES (?)", ((value,) for value in values))
        self._db.execute("COMMIT")

    def values(self) -> Iterator[bytes]:
        return (row[0] for row in self._db.execute("SELECT value FROM log ORDER BY number"))

    def read(self, number: int) -> bytes:
        row = self._db.execute("SELECT value FROM log WHERE number = ?", (number + 1,)).fetchone()
        value: bytes = row[0]
        return value

    def close(self) -> None:
        self._db.close()


class Lmdb:
    """lmdb with big-endian numbers as keys, appended in order."""

    name: ClassVar = "lmdb"

    def __init__(self, path: str, *, durable: bool) -> None:
        import lmdb

        os.makedirs(path, exist_ok=True)
        self._env: Any = lmdb.open(path, map_size=MAP_BYTES, sync=durable, metasync=durable)
        self._next = 0

    def append(self, value: bytes) -> None:
        self.append_batch([value])

    def append_batch(self, values: list[bytes]) -> None:
        with self._env.begin(write=True) as transaction:
            put = transaction.put
            for number, value in enumerate(values, self._next):
                put(number.to_bytes(8, "big"), value, append=True)
        self._next += len(values)

    def values(self) -> Iterator[bytes]:
        with self._env.begin() as transaction:
            yield from transaction.cursor().iternext(keys=False, values=True)

    def read(self, number: int) -> bytes:
        with self._env.begin() as transaction:
            value: bytes = transaction.get(number.to_bytes(8, "big"))
        return value

    def close(self) -> None:
        self._env.close()


class Rocksdict:
    """RocksDB, whose write-ahead log is synced at every write if durable."""

    name: ClassVar = "rocksdict"

    def __init__(self, path: str, *, durable: bool) -> None:
        import rocksdict

        self._batch = rocksdict.WriteBatch
        self._db: Any = rocksdict.Rdict(path, rocksdict.Options(raw_mode=True))
        options = rocksdict.WriteOptions()
        options.sync = durable
        self._options = options
        self._next = 0

    def append(self, value: bytes) -> None:
        self._db.put(self._next.to_bytes(8, "big"), value, write_opt=self._options)
        self._next += 1

    def append_batch(self, values: list[bytes]) -> None:
        batch = self._batch(raw_mode=True)
        for number, value in enumerate(values, self._next):
            batch.put(number.to_bytes(8, "big"), value)
        self._db.write(batch, write_opt=self._options)
        self._next += len(values)

    def values(self) -> Iterator[bytes]:
        return iter(self._db.values())

    def read(self, number: int) -> bytes:
        value: bytes = self._db[number.to_bytes(8, "big")]
        return value

    def close(self) -> None:
        self._db.close()


def available() -> tuple[list[type[Subject]], list[str]]:
    """(subjects that can be measured here, names of those that are not installed)."""
    found: list[type[Subject]] = [Engine, PlainFile, Sqlite]
    missing = []
    for subject, module in ((Lmdb, "lmdb"), (Rocksdict, "rocksdict")):
        try:
            __import__(module)
        except ImportError:
            missing.append(subject.name)
        else:
            found.append(subject)
    return found, missing
