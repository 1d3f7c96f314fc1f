"""The file system that tests hand to a log, and the moments at which its power may fail."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Literal

from logstore.errors import LogLocked
from logstore.filesystem import BytesLike
from logstore.testing.disk import Disk, Operation, OperationKind, Tree, put, resize

Fault = OperationKind | Literal["open", "read"]


class CrashPoint:
    """A moment at which the power may fail. Each state is a new file system, which can fail again."""

    def __init__(self, operation_count: int, disk: Disk, cut_bytes: int) -> None:
        self.operation_count = operation_count  # so many were done before
        self._disk = disk
        self._cut_bytes = cut_bytes

    def __repr__(self) -> str:
        return f"<CrashPoint after {self.operation_count} operations>"

    @property
    def count(self) -> int:
        """How many states there are."""
        return sum(prod(map(len, self._choices(tree))) for tree in self._disk.trees())

    def states(self) -> Iterator[CrashFileSystem]:
        """Every state; each is made only when the iterator comes to it."""
        for tree in self._disk.trees():
            for choices in product(*self._choices(tree)):
                yield self._state(tree, choices)

    def state(self, number: int) -> CrashFileSystem:
        """The one of `states` with this number, from 0."""
        for tree in self._disk.trees():
            options = self._choices(tree)
            count = prod(map(len, options))
            if number < count:
                chosen = []
                for option in reversed(options):
                    number, place = divmod(number, len(option))
                    chosen.append(option[place])
                return self._state(tree, chosen[::-1])
            number -= count
        raise IndexError("there are fewer states")

    def random_state(self, rng: random.Random) -> CrashFileSystem:
        """Any state. That nothing of a step is there, all of it, or a part, is about as likely."""
        count = self._disk.open_name_count
        chosen = rng.choice(([0] * count, [1] * count, rng.choices((0, 1), k=count)))
        tree = self._disk.tree(chosen)
        return self._state(
            tree, [rng.choice((any_[0], any_[-1], rng.choice(any_))) for any_ in self._choices(tree)], rng
        )

    def killed(self) -> CrashFileSystem:
        """What is there when only the process dies: everything. Mapped files are as after a power loss."""
        tree = self._disk.tree([1] * self._disk.open_name_count)
        return self._state(tree, [options[-1] for options in self._choices(tree)])

    def _choices(self, tree: Tree) -> list[Sequence[int]]:
        return self._disk.choices(tree, self._cut_bytes)

    def _state(self, tree: Tree, choices: Sequence[int], rng: random.Random | None = None) -> CrashFileSystem:
        fill = self.operation_count + sum(choices)
        files = self._disk.contents(tree, choices, fill=fill, rng=rng)
        return CrashFileSystem(files, directories=tree.directories)


class _Node:
    """A file, whatever its names are."""

    def __init__(self, number: int, data: bytes | bytearray) -> None:
        self.number = number
        self.data = data  # bytes until it is first changed: most files of most states never are
        self.is_mapped = False  # then data is the newest mapping; older ones hold a part of it


class CrashFile:
    """Implements logstore.filesystem.File. Made by a CrashFileSystem."""

    def __init__(self, fs: CrashFileSystem, node: _Node, path: str, *, writable: bool) -> None:
        self.path = path
        self._fs = fs
        self._node = node
        self._writable = writable
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<CrashFile {self.path}{' closed' if self._is_closed else ''}>"

    def read(self, count: int, position: int, /) -> bytes:
        self._require_open()
        self._fs._fault("read")
        if count < 0 or position < 0:
            raise _error(errno.EINVAL, self.path)
        with self._fs._lock:
            return bytes(self._node.data[position : position + count])

    def write(self, data: BytesLike, position: int) -> None:
        self._require_open(writable=True)
        self._fs._write(self._node, Operation("write", self.path, self._node.number, position, bytes(data)))

    def write_all(self, buffers: Sequence[BytesLike], position: int) -> None:
        self.write(b"".join(buffers), position)

    def size(self) -> int:
        return len(self._node.data)

    def truncate(self, size: int) -> None:
        self._require_open(writable=True)
        assert not self._node.is_mapped, "a program that touches the mapping would be killed"

        def act() -> None:
            self._node.data = bytearray(self._node.data)
            resize(self._node.data, size)

        self._fs._do(Operation("truncate", self.path, self._node.number, size), act)

    def sync(self) -> None:
        self._require_open()
        self._fs._sync(Operation("sync", self.path, self._node.number))

    def map(self, size: int) -> bytearray:
        self._require_open(writable=True)

        def act() -> None:
            self._fs._require_room(self._node, size, self.path)
            self._node.data = bytearray(bytes(self._node.data).ljust(size, b"\0"))
            self._node.is_mapped = True

        self._fs._do(Operation("map", self.path, self._node.number, size), act)
        assert isinstance(self._node.data, bytearray)
        return self._node.data

    def close(self) -> None:
        self._is_closed = True

    def _require_open(self, *, writable: bool = False) -> None:
        if self._is_closed or (writable and not self._writable):
            raise _error(errno.EBADF, self.path)


class _HeldLock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def close(self) -> None:
        self._held.discard(self._path)


class CrashFileSystem:
    """Implements logstore.filesystem.FileSystem. May be used by any number of threads.

    A rename stays within its directory. Relative paths begin at "/".
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, *, directories: Sequence[str] = ()) -> None:
        """With these files and directories, and those that they are in; all durable."""
        contents = {_absolute(path): data for path, data in (files or {}).items()}
        places = {"/", *map(_absolute, directories)}
        for path in [*contents, *places]:
            while path != "/":
                path = os.path.dirname(path)
                places.add(path)
        self.operations: list[Operation] = []  # all that changed something, in their order
        self.capacity_bytes: int | None = None  # of all files that have a name; beyond it writes raise ENOSPC
        # Called before each operation, with no lock held. An OSError that it raises is a fault of the disk.
        self.before_operation: Callable[[Operation], None] | None = None
        self._at_first = Disk(contents, sorted(places))
        self._lock = threading.RLock()  # guards what follows, and operations
        self._nodes = {path: _Node(number, data) for number, (path, data) in enumerate(contents.items(), 1)}
        self._last_number = len(contents)
        self._directories = places
        self._locked: set[str] = set()
        self._faults: dict[Fault, list[int | None]] = {}  # errors of the next operations of that kind

    # ── looking at it ───────────────────────────────────────────────────────────────────────────────

    def files(self) -> dict[str, bytes]:
        """What the running program sees, by absolute path."""
        with self._lock:
            return {path: bytes(node.data) for path, node in sorted(self._nodes.items())}

    def crash_points(
        self, start: int = 0, end: int | None = None, *, cut_bytes: int = 1
    ) -> Iterator[CrashPoint]:
        """The moments behind `start` up to `end` operations, by default all from before the first.

        Writes are cut at multiples of `cut_bytes` and at their ends.
        """
        operations = list(self.operations)
        disk = self._at_first.copy()
        for count in range(len(operations) + 1 if end is None else end + 1):
            if count:
                disk.do(operations[count - 1])
            if count >= start:
                yield CrashPoint(count, disk.copy(), cut_bytes)

    def crash_point(self, operation_count: int | None = None, *, cut_bytes: int = 1) -> CrashPoint:
        """The moment behind so many operations, by default now."""
        count = len(self.operations) if operation_count is None else operation_count
        return next(self.crash_points(count, count, cut_bytes=cut_bytes))

    def crash_states(self, *, cut_bytes: int = 1) -> Iterator[CrashFileSystem]:
        """Everything that a power loss may leave now."""
        return self.crash_point(cut_bytes=cut_bytes).states()

    def random_crash_state(self, rng: random.Random) -> CrashFileSystem:
        """Something that a power loss may leave now."""
        return self.crash_point().random_state(rng)

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────

    def fail(self, kind: Fault, *, nth: int = 1, times: int = 1, error: int = errno.EIO) -> None:
        """Let the `nth` operation of that kind from now on raise OSError(error), and those after it, `times` in all.

        Half of a write that fails is done; of all others nothing, except that a failed sync leaves doubt.
        """
        with self._lock:
            self._faults[kind] = [None] * (nth - 1) + [error] * times

    def _fault(self, kind: Fault) -> None:
        if kind in self._faults:
            with self._lock:
                planned = self._faults.get(kind)
                if planned and (error := planned.pop(0)) is not None:
                    raise _error(error, kind)

    def _meet(self, operation: Operation) -> None:
        """Raise what is planned for the operation."""
        if self.before_operation is not None:
            self.before_operation(operation)
        self._fault(operation.kind)

    # ── operations ──────────────────────────────────────────────────────────────────────────────────

    def _do(self, operation: Operation, act: Callable[[], object] = lambda: None) -> None:
        self._meet(operation)
        with self._lock:
            act()
            self._record(operation)

    def _record(self, operation: Operation) -> None:
        self.operations.append(operation._replace(path=_absolute(operation.path)))

    def _write(self, node: _Node, write: Operation) -> None:
        failure: OSError | None = None
        data = write.data
        try:
            self._meet(write)
        except OSError as error:
            failure, data = error, data[: len(data) // 2]
        with self._lock:
            try:
                self._require_room(node, write.position + len(data), write.path)
            except OSError as error:
                failure = failure or error
                data = data[: max(len(node.data) + self._room() - write.position, 0)]
            node.data = node.data if isinstance(node.data, bytearray) else bytearray(node.data)
            put(node.data, data, write.position)
            self._record(write._replace(data=data))
        if failure is not None:
            raise failure

    def _room(self) -> int:
        assert self.capacity_bytes is not None
        return max(self.capacity_bytes - sum(len(node.data) for node in self._nodes.values()), 0)

    def _require_room(self, node: _Node, size: int, path: str) -> None:
        if self.capacity_bytes is not None and size - len(node.data) > self._room():
            raise _error(errno.ENOSPC, path)

    def _sync(self, sync: Operation) -> None:
        try:
            self._meet(sync)
        except OSError:
            with self._lock:
                self._record(sync._replace(has_failed=True))
            raise
        with self._lock:
            self._record(sync)

    def create(self, path: str) -> CrashFile:
        place = _absolute(path)
        with self._lock:
            self._last_number += 1
            node = _Node(self._last_number, b"")

        def act() -> None:
            self._require_directory(os.path.dirname(place))
            if self.exists(path):
                raise _error(errno.EEXIST, path)
            self._nodes[place] = node

        self._do(Operation("create", path, node.number), act)
        return CrashFile(self, node, path, writable=True)

    def open(self, path: str, *, writable: bool) -> CrashFile:
        self._fault("open")
        return CrashFile(self, self._node(path), path, writable=writable)

    def exists(self, path: str) -> bool:
        with self._lock:
            return _absolute(path) in self._nodes or _absolute(path) in self._directories

    def list(self, directory: str) -> list[str]:
        place = _absolute(directory)
        self._require_directory(place)
        with self._lock:
            there = [path for path in (*self._nodes, *self._directories) if os.path.dirname(path) == place]
            return sorted(os.path.basename(path) for path in there if path != "/")

    def rename(self, old: str, new: str) -> None:
        source, target = _absolute(old), _absolute(new)
        if os.path.dirname(source) != os.path.dirname(target):
            raise _error(errno.EXDEV, new)
        node = self._node(old)

        def act() -> None:
            self._nodes[target] = self._nodes.pop(source)

        self._do(Operation("rename", old, node.number, target=target), act)

    def remove(self, path: str) -> None:
        node = self._node(path)
        self._do(Operation("remove", path, node.number), lambda: self._nodes.pop(_absolute(path)))

    def make_directory(self, path: str) -> None:
        place = _absolute(path)
        if place in self._nodes:
            raise _error(errno.ENOTDIR, path)
        if place not in self._directories:
            self.make_directory(os.path.dirname(place))
            self._do(Operation("make_directory", path), lambda: self._directories.add(place))

    def remove_directory(self, path: str) -> None:
        if self.list(path):
            raise _error(errno.ENOTEMPTY, path)
        self._do(Operation("remove_directory", path), lambda: self._directories.remove(_absolute(path)))

    def sync_directory(self, path: str) -> None:
        self._require_directory(_absolute(path))
        self._sync(Operation("sync_directory", path))

    def lock(self, path: str) -> _HeldLock:
        with self._lock:
            if _absolute(path) in self._locked:
                raise LogLocked(os.path.dirname(path), os.getpid())
            self._locked.add(_absolute(path))
        return _HeldLock(self._locked, _absolute(path))

    def _node(self, path: str) -> _Node:
        with self._lock:
            node = self._nodes.get(_absolute(path))
        if node is None:
            raise _error(errno.ENOENT, path)
        return node

    def _require_directory(self, place: str) -> None:
        if place not in self._directories:
            raise _error(errno.ENOENT, place)


def _absolute(path: str) -> str:
    return "/" + os.path.normpath(os.path.join("/", path)).lstrip("/")


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)  # becomes FileNotFoundError and the like
