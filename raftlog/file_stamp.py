"""Whether files changed, by a look that costs a microsecond or two each."""

from __future__ import annotations

import os
from collections.abc import Iterable

FileStamp = tuple[int, int, int, int]  # inode, size, mtime, ctime: a rename into place changes the first


def stamp_files(paths: Iterable[str]) -> tuple[FileStamp | None, ...]:
    """A value that differs once one of the files was replaced, written or removed. None: cannot be looked at.

    Take it before reading: what changes while the files are read then shows at the next look.
    """
    return tuple(_stamp(path) for path in paths)


def _stamp(path: str) -> FileStamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
