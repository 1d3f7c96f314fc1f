"""The only file of the engine that touches `os` and `mmap`.

`FileSystem` and `File` are the seam: the engine is handed one, tests hand it one that crashes
(`logstore.testing`). Paths are strings. Every method raises OSError when the machine refuses.

What a caller may rely on after a power loss:
- `File.sync` makes the file's bytes and size durable, not its name;
- `sync_directory` makes names durable: creations, renames and removals before it;
- without them any subset of what was done may have reached the disk, each write cut anywhere.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from logstore.errors import LogLocked

BytesLike = bytes | memoryview

JOIN_BYTES_MAX = 16 * 1024  # smaller buffers are joined: one copy costs less than a vectored write
IOV_MAX = os.sysconf("SC_IOV_MAX")
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class File(Protocol):
    """An open file. Reads and writes name their position; there is no cursor."""

    path: str

    def read(self, count: int, position: int, /) -> bytes:
        """Bytes from `position`, fewer than `count` only where the file ends."""
        ...

    def write(self, data: BytesLike, position: int) -> None:
        """Write all of `data` at `position`. After an error any part may be written."""
        ...

    def write_all(self, buffers: Sequence[BytesLike], position: int) -> None:
        """Write all of `buffers`, back to back."""
        ...

    def size(self) -> int: ...
    def truncate(self, size: int) -> None: ...
    def sync(self) -> None:
        """Return when all bytes written and the size are durable."""
        ...

    def map(self, size: int) -> Any:
        """A writable buffer over the first `size` bytes, which are allocated on disk before.

        The file must not shrink while any buffer over it is alive: touching it would kill the process.
        """
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """Held until closed, or until the process ends."""

    def close(self) -> None: ...


class FileSystem(Protocol):
    def create(self, path: str) -> File:
        """A new empty file; FileExistsError if the name is taken."""
        ...

    def open(self, path: str, *, writable: bool) -> File: ...
    def exists(self, path: str) -> bool: ...
    def list(self, directory: str) -> list[str]:
        """Names in the directory, sorted."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give the file at `old` the name `new`, replacing what had it, in one step."""
        ...

    def remove(self, path: str) -> None: ...
    def make_directory(self, path: str) -> None:
        """Make the directory and its parents durably; nothing if it exists."""
        ...

    def remove_directory(self, path: str) -> None: ...
    def sync_directory(self, path: str) -> None: ...
    def lock(self, path: str) -> Lock:
        """Take the exclusive lock file at `path`, or raise LogLocked naming the holder."""
        ...


class OsFile:
    """`read` is `os.pread` itself: one Python call less in the innermost loop of every reader."""

    __slots__ = ("_fd", "path", "read")

    def __init__(self, path: str, flags: int) -> None:
        self._fd = -1
        self.path = path
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self.read: Callable[[int, int], bytes] = partial(os.pread, self._fd)

    def write(self, data: BytesLike, position: int) -> None:
        written = os.pwrite(self._fd, data, position)
        if written < len(data):
            self.write(memoryview(data)[written:], position + written)

    def write_all(self, buffers: Sequence[BytesLike], position: int) -> None:
        total = sum(map(len, buffers))
        if total <= JOIN_BYTES_MAX:
            self.write(b"".join(buffers), position)
            return
        written = os.pwritev(self._fd, buffers[:IOV_MAX], position)
        if written < total:
            self.write(memoryview(b"".join(buffers))[written:], position + written)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        _sync_data(self._fd)

    def map(self, size: int) -> mmap.mmap:
        os.posix_fallocate(self._fd, 0, size)
        return mmap.mmap(self._fd, size)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.read = partial(os.pread, -1)
            os.close(fd)

    # A reader may hold a file that the log has already let go of; the descriptor goes with the last holder.
    __del__ = close

    def __repr__(self) -> str:
        return f"<OsFile {self.path} {'open' if self._fd >= 0 else 'closed'}>"


class OsFileSystem:
    def create(self, path: str) -> OsFile:
        return OsFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def open(self, path: str, *, writable: bool) -> OsFile:
        return OsFile(path, os.O_RDWR if writable else os.O_RDONLY)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        missing = []
        place = Path(path).absolute()
        while not place.exists():
            missing.append(place)
            place = place.parent
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self.sync_directory(str(directory.parent))
        if not Path(path).is_dir():
            raise NotADirectoryError(f"{path} is a file, not a directory")

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> OsLock:
        return OsLock(path)


class OsLock:
    """A `flock` on a file that holds the owner's process id.

    A forked child shares it. It is let go when both have closed it, so the child has to, and closing is all it does.
    """

    def __init__(self, path: str) -> None:
        self._fd = _lock(path)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(path: str) -> int:
    """A descriptor of the locked file at `path`."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise LogLocked(os.path.dirname(path), int(holder) if holder.isdigit() else None) from error
        if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
        os.close(fd)  # its holder has removed the log meanwhile; the next opener would make another file


def process_id() -> int:
    return os.getpid()


def call_in_forked_children(act: Callable[[], None]) -> None:
    """Call `act` in each child that this process forks from now on, before anything else happens there."""
    os.register_at_fork(after_in_child=act)
