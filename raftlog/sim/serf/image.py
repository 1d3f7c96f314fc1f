"""What is on the disk of a node of Serf: its keys, and the tags that its operator gave it."""

from __future__ import annotations

from random import Random
from typing import Any


class SerfImage:
    """Written by the host at once: what a crash does to files is not what is tried here."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys  # the primary one first; none: nothing is encrypted
        self.tags = {"role": "member"}

    def write(self, write: Any) -> None:
        raise AssertionError(f"a node of Serf writes nothing: {write!r}")

    def write_torn(self, write: Any, random: Random) -> None:
        raise AssertionError(f"a node of Serf writes nothing: {write!r}")
