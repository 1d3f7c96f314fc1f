"""The operating system's files, until the process that writes them is said to be dead; as slow as is asked for."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from typing import Final

from logstore.filesystem import BytesLike, OsFile, OsFileSystem

BURIED_S_MAX: Final = 5.0  # for the thread of the loop, which would wait for itself


class MortalFileSystem(OsFileSystem):
    """After `die` nothing is changed any more: what is there is what a kill leaves.

    Threads that write wait until `bury`, so that nobody is told anything about what they do. Then they go on, and files
    are closed and locks let go, as the operating system does it for a process that has ended.
    """

    def __init__(self) -> None:
        self.sync_delay_s = 0.0  # how much longer each sync of a file takes
        self._is_dead = False
        self._is_buried = threading.Event()

    def die(self) -> None:
        self._is_dead = True

    def bury(self) -> None:
        self._is_buried.set()

    def is_alive(self) -> bool:
        if not self._is_dead:
            return True
        self._is_buried.wait(BURIED_S_MAX)
        return False

    def wait_for_disk(self) -> None:
        if self.sync_delay_s:
            self._is_buried.wait(self.sync_delay_s)

    def require_alive(self) -> None:
        if not self.is_alive():
            raise OSError(errno.EIO, "the server was killed")

    def create(self, path: str) -> OsFile:
        self.require_alive()
        return _MortalFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, self)

    def open(self, path: str, *, writable: bool) -> OsFile:
        return _MortalFile(path, os.O_RDWR if writable else os.O_RDONLY, self)

    def rename(self, old: str, new: str) -> None:
        self.require_alive()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self.require_alive()
        super().remove(path)

    def make_directory(self, path: str) -> None:
        self.require_alive()
        super().make_directory(path)

    def remove_directory(self, path: str) -> None:
        self.require_alive()
        super().remove_directory(path)


class _MortalFile(OsFile):
    __slots__ = ("_fs",)

    def __init__(self, path: str, flags: int, fs: MortalFileSystem) -> None:
        self._fs = fs
        super().__init__(path, flags)

    def write(self, data: BytesLike, position: int) -> None:
        if self._fs.is_alive():
            super().write(data, position)

    def write_all(self, buffers: Sequence[BytesLike], position: int) -> None:
        if self._fs.is_alive():
            super().write_all(buffers, position)

    def truncate(self, size: int) -> None:
        if self._fs.is_alive():
            super().truncate(size)

    def sync(self) -> None:
        self._fs.wait_for_disk()
        if self._fs.is_alive():
            super().sync()
