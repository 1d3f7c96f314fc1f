"""Keys that gossip is encrypted with, as people give them: in files, on a pipe, or as an argument.

A key is a secret: no error quotes one, or what might be one.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from typing import Final

from raftlog.errors import ConfigError

KEY_BYTES: Final = (16, 24, 32)  # of AES
FILE_BYTES_MAX: Final = 64 * 1024  # over a thousand keys; a larger file is something else
HOW_TO: Final = "`raftlog keys generate` makes one"


def parse_key(text: str) -> bytes:
    """The key that is written in base64; ValueError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"not base64; {HOW_TO}") from None
    if len(key) not in KEY_BYTES:
        raise ValueError(f"{len(key)} bytes, where 16, 24 or 32 are needed; {HOW_TO}")
    return key


def parse_keys(text: str) -> tuple[bytes, ...]:
    """The keys in a text, the first is the one to encrypt with: one a line, or a JSON list as Serf keeps it. ValueError.

    Empty lines, and those that begin with #, say nothing.
    """
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            raise ValueError("begins as a JSON list and is none") from None
        if not all(isinstance(one, str) for one in found):
            raise ValueError("the JSON list holds something else than texts")
        numbered = list(enumerate(found, 1))
    else:
        lines = enumerate(text.splitlines(), 1)
        numbered = [(number, line) for number, line in lines if line.strip() and line.lstrip()[0] != "#"]
    keys = []
    for number, one in numbered:
        try:
            keys.append(parse_key(one))
        except ValueError as error:
            raise ValueError(f"line or item {number}: {error}") from None
    if not keys:
        raise ValueError(f"no key; {HOW_TO}")
    return tuple(dict.fromkeys(keys))


def is_private(mode: int, *, owner: int, user: int) -> bool:
    """Whether a file is for its owner alone, by its mode.

    Its group may read it where root owns it and another user asks: so does Kubernetes mount secrets.
    """
    is_of_root = owner == 0 and user != 0
    return not mode & (stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if is_of_root else stat.S_IRWXG))


def read_keys(path: str) -> tuple[bytes, ...]:
    """The keys in a file; ConfigError also if it is not private."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    mode = stat.S_IMODE(found.st_mode)
    if not is_private(mode, owner=found.st_uid, user=os.geteuid()):
        raise ConfigError(
            [f"{path}: others may read or write these keys (mode {mode:04o}): chmod 600 {path}"]
        )
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError([f"{path}: larger than {FILE_BYTES_MAX} bytes: not a file of keys"])
    try:
        return parse_keys(data.decode("ascii"))
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not text: keys are written in base64"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None
