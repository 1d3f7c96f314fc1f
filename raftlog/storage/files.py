"""Small files that are replaced whole, and the errors of a disk without room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from logstore.appender import NO_ROOM
from logstore.errors import DiskFull
from logstore.filesystem import BytesLike, FileSystem

UNFINISHED = ".tmp"  # ends the name of a file that is being written; removed at the next opening


@contextmanager
def told_when_full(path: str) -> Iterator[None]:
    """Raise DiskFull in the place of what the system says when there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFull(f"{path}: {error.strerror}") from error


def read_whole(fs: FileSystem, path: str) -> bytes:
    file = fs.open(path, writable=False)
    try:
        return file.read(file.size(), 0)
    finally:
        file.close()


def replace_whole(fs: FileSystem, path: str, buffers: Sequence[BytesLike]) -> None:
    """Put a file with these bytes in the place of what is at `path`: the old or the new is there. Durable on return.

    Raises DiskFull with nothing changed.
    """
    unfinished = path + UNFINISHED
    remove_if_exists(fs, unfinished)
    with told_when_full(path):
        file = fs.create(unfinished)
        try:
            file.write_all(buffers, 0)
            file.sync()
        finally:
            file.close()
        fs.rename(unfinished, path)
        fs.sync_directory(folder_of(path))


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def remove_if_exists(fs: FileSystem, path: str) -> None:
    if fs.exists(path):
        fs.remove(path)


def remove_tree(fs: FileSystem, path: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing if there is none."""
    if not fs.exists(path):
        return
    try:
        names = fs.list(path)
    except (NotADirectoryError, FileNotFoundError):
        fs.remove(path)
        return
    for name in names:
        remove_tree(fs, f"{path}/{name}")
    fs.remove_directory(path)
