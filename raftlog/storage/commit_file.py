"""How far this node has known the log to be committed: so that it can apply at once after a restart.

It is overwritten without a sync, after the entries up to there were durable. What a crash leaves of it is therefore an
index that was committed and durable, or nothing; and a log that ends below it has lost entries.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from logstore.checksum import crc32c
from logstore.filesystem import FileSystem
from raftlog.storage.files import told_when_full

NAME: Final = "commit"
MAGIC: Final = b"RAFTCOM\n"
_FIELDS: Final = Struct("<8sIIQ")  # magic, CRC, format version, index
_CRC_START: Final = 12
FORMAT_VERSION: Final = 1


class CommitFile:
    index: int  # what was written last; 0 if nothing, or nothing whole, was there

    def __init__(self, fs: FileSystem, folder: str) -> None:
        path = f"{folder}/{NAME}"
        self._file = fs.open(path, writable=True) if fs.exists(path) else fs.create(path)
        self.index = _parse(self._file.read(_FIELDS.size, 0))
        with told_when_full(path):
            self._write()  # so that it has its room, and never needs more

    def advance(self, index: int) -> None:
        """Note that all up to `index` is committed and durable here. Nothing if that was known."""
        if index > self.index:
            self.index = index
            self._write()

    def _write(self) -> None:
        covered = _FIELDS.pack(MAGIC, 0, FORMAT_VERSION, self.index)[_CRC_START:]
        self._file.write(MAGIC + crc32c(0, covered).to_bytes(4, "little") + covered, 0)

    def close(self) -> None:
        self._file.close()


def _parse(data: bytes) -> int:
    if len(data) < _FIELDS.size:
        return 0
    magic, crc, version, index = _FIELDS.unpack(data)
    is_whole = magic == MAGIC and version == FORMAT_VERSION and crc == crc32c(0, data[_CRC_START:])
    return int(index) if is_whole else 0
