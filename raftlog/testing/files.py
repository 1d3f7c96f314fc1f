"""The operating system's files, until the process that writes them is said to be dead."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from logstore.filesystem import BytesLike, OsFile, OsFileSystem

TEXT: Final = "the server was killed"


class MortalFileSystem(OsFileSystem):
    """After `die` nothing is written, synced, renamed or removed any more: what is there is what a kill leaves.

    Files can still be closed and locks be let go, as the operating system does it for a process that has ended.
    """

    def __init__(self) -> None:
        self._is_dead = False

    def die(self) -> None:
        self._is_dead = True

    def require_alive(self) -> None:
        if self._is_dead:
            raise OSError(errno.EIO, TEXT)

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
        self._fs.require_alive()
        super().write(data, position)

    def write_all(self, buffers: Sequence[BytesLike], position: int) -> None:
        self._fs.require_alive()
        super().write_all(buffers, position)

    def truncate(self, size: int) -> None:
        self._fs.require_alive()
        super().truncate(size)

    def sync(self) -> None:
        self._fs.require_alive()
        super().sync()
