"""Where a node keeps its keys, so that the next start has what was rotated in meanwhile: Serf's form of it."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from raftlog.serf.codec.keyring import Keyring

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024  # far more than keys take


def load_keyring(path: Path) -> Keyring | None:
    """What is kept there; None if there is no file, or no key in it. OSError; ValueError if it is not a keyring."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    if mode & 0o077:
        log.warning("gossip keys are readable by others path=%s mode=%s", path, f"{mode & 0o777:o}")
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: more than {FILE_BYTES_MAX} bytes, which is no list of keys")
    try:
        keyring = Keyring.from_json(content.decode())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return None if keyring.is_empty else keyring


def save_keyring(path: Path, content: str) -> None:
    """Put it in the place of what is there, for this user's eyes only: the old or the new is there. Durable on return.

    OSError, and nothing changed.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # its mode is 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(content.encode())
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
