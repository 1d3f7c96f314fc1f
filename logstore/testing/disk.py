"""What is on a disk for certain, and everything that may be there after a power loss. Pure.

A file's bytes and a directory's names are treated alike: a durable content, and the steps that were done to it since
and are certain, or are open. A power loss makes a choice for each open step.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import product
from typing import Final, Generic, Literal, NamedTuple, TypeVar

OperationKind = Literal[
    "write", "truncate", "map", "sync",
    "create", "rename", "remove", "make_directory", "remove_directory", "sync_directory",
]  # fmt: skip

SECTOR_BYTES: Final = 512  # what a disk writes as one
DIRECTORY: Final = 0  # stands for a directory where others have the number of a file
FILLS: Final = ("empty", "zeros", "noise")  # of mapped files

Content = TypeVar("Content", bytes, dict[str, int])


class Operation(NamedTuple):
    """Something that was done to the disk; between two of them the power may fail. Paths are absolute."""

    kind: OperationKind
    path: str
    file: int = DIRECTORY  # number of the file, which a rename does not change
    position: int = 0  # where a write begins; the size after a truncation, or of a mapping
    data: bytes = b""  # that was written
    target: str = ""  # new name of a rename
    has_failed: bool = False  # of a sync

    def __repr__(self) -> str:
        where = {"write": f" {self.position}+{len(self.data)}", "rename": f" to {self.target}"}.get(
            self.kind, f" {self.position}" if self.kind in ("truncate", "map") else ""
        )
        return f"<{self.kind} {self.path}{where}{' failed' if self.has_failed else ''}>"


class _Certainty(Enum):
    PENDING = "open until the next sync"
    DOUBTFUL = "open for ever: a sync of it failed"
    CERTAIN = "synced, but behind something that is not"


@dataclass
class _History(Generic[Content]):
    durable: Content
    steps: list[tuple[Operation, _Certainty]] = field(default_factory=list)
    mapped_size: int | None = None

    def copy(self) -> _History[Content]:
        return _History(self.durable, list(self.steps), self.mapped_size)

    def add(self, done: Operation, certainty: _Certainty = _Certainty.PENDING) -> None:
        self.steps.append((done, certainty))

    def settle(self, *, has_failed: bool) -> None:
        """What a sync does, or one that fails."""
        becomes = _Certainty.DOUBTFUL if has_failed else _Certainty.CERTAIN
        pending = _Certainty.PENDING
        self.steps = [
            (done, becomes if certainty is pending else certainty) for done, certainty in self.steps
        ]

    def open_steps(self) -> list[Operation]:
        return [done for done, certainty in self.steps if certainty is not _Certainty.CERTAIN]

    def with_choices(self, choices: Sequence[int]) -> Iterator[tuple[Operation, int | None]]:
        """All steps in order, open ones with their choice, certain ones with None."""
        rest = iter(choices)
        for done, certainty in self.steps:
            yield done, None if certainty is _Certainty.CERTAIN else next(rest)


def _bytes_after(history: _History[bytes], choices: Sequence[int], rng: random.Random | None) -> bytes:
    """Choice c of a write keeps its first c bytes; of a truncation 1 does it, 0 does not."""
    if not history.steps:
        return history.durable
    data = bytearray(history.durable)
    for done, choice in history.with_choices(choices):
        if done.kind == "truncate":
            if choice != 0:
                resize(data, done.position)
        elif choice and rng is not None and rng.random() < 0.25:
            for start, end in _some_sectors(done, rng):
                put(data, done.data[start:end], done.position + start)
        else:
            put(data, done.data[:choice], done.position)
    return bytes(data)


def _some_sectors(write: Operation, rng: random.Random) -> Iterator[tuple[int, int]]:
    size = len(write.data)
    for start in range(-(write.position % SECTOR_BYTES), size, SECTOR_BYTES):
        if rng.random() < 0.5:
            yield max(start, 0), min(start + SECTOR_BYTES, size)


def put(data: bytearray, piece: bytes, position: int) -> None:
    """Write into a file: a gap is filled with zeros."""
    if piece:
        if len(data) < position:
            resize(data, position)
        data[position : position + len(piece)] = piece


def resize(data: bytearray, size: int) -> None:
    del data[size:]
    data += bytes(size - len(data))


def _names_after(history: _History[dict[str, int]], choices: Sequence[int]) -> dict[str, int]:
    """Choice 1 of a step does it, 0 does not."""
    names = dict(history.durable)
    for done, choice in history.with_choices(choices):
        if choice == 0:
            continue
        if done.kind in ("remove", "remove_directory", "rename"):
            names.pop(os.path.basename(done.path), None)
        if done.kind == "rename":
            names[os.path.basename(done.target)] = done.file
        elif done.kind in ("create", "make_directory"):
            names[os.path.basename(done.path)] = done.file
    return names


class Tree(NamedTuple):
    """The names that one choice leaves."""

    directories: list[str]
    files: dict[str, int]  # number of the file, by path


class Disk:
    """What operations have left, durable or not."""

    def __init__(self, files: Mapping[str, bytes], directories: Sequence[str]) -> None:
        """Everything is durable. `directories` are all there are, parents first; files are numbered from 1."""
        self._files: dict[int, _History[bytes]] = {}
        self._directories: dict[str, _History[dict[str, int]]] = {}
        for path in directories:
            self._directories[path] = _History({})
            if path != "/":
                self._names_beside(path).durable[os.path.basename(path)] = DIRECTORY
        for number, (path, data) in enumerate(files.items(), 1):
            self._files[number] = _History(data)
            self._names_beside(path).durable[os.path.basename(path)] = number

    def copy(self) -> Disk:
        twin = Disk({}, ())
        twin._files = {number: history.copy() for number, history in self._files.items()}
        twin._directories = {path: history.copy() for path, history in self._directories.items()}
        return twin

    def _names_beside(self, path: str) -> _History[dict[str, int]]:
        return self._directories[os.path.dirname(path)]

    def do(self, done: Operation) -> None:
        match done.kind:
            case "write" | "truncate":
                self._files[done.file].add(done)
            case "map":
                self._files[done.file].mapped_size = done.position
            case "sync":
                file = self._files[done.file]
                file.settle(has_failed=done.has_failed)
                if not file.open_steps():
                    file.durable, file.steps = _bytes_after(file, (), None), []
            case "sync_directory":
                directory = self._directories[done.path]
                directory.settle(has_failed=done.has_failed)
                if not directory.open_steps():
                    directory.durable, directory.steps = _names_after(directory, ()), []
            case "make_directory":
                self._directories[done.path] = _History({})
                self._names_beside(done.path).add(done, _Certainty.CERTAIN)
            case "create":
                self._files[done.file] = _History(b"")
                self._names_beside(done.path).add(done)
            case "rename" | "remove" | "remove_directory":
                self._names_beside(done.path).add(done)

    # ── what a power loss may leave ─────────────────────────────────────────────────────────────────

    @property
    def open_name_count(self) -> int:
        """How many steps of names a power loss chooses about."""
        return sum(len(names.open_steps()) for names in self._directories.values())

    def trees(self) -> Iterator[Tree]:
        """Every choice of names that differs from the others; all 2**open_name_count are tried."""
        seen = set()
        for choices in product((0, 1), repeat=self.open_name_count):
            tree = self.tree(choices)
            key = (tuple(tree.directories), tuple(tree.files.items()))
            if key not in seen:
                seen.add(key)
                yield tree

    def tree(self, choices: Sequence[int]) -> Tree:
        rest = iter(choices)
        names = {
            path: _names_after(history, [next(rest) for _ in history.open_steps()])
            for path, history in self._directories.items()
        }
        tree = Tree([], {})
        ahead = ["/"]
        while ahead:
            directory = ahead.pop()
            tree.directories.append(directory)
            for name, number in sorted(names[directory].items()):
                path = os.path.join(directory, name)
                if number == DIRECTORY:
                    ahead.append(path)
                else:
                    tree.files[path] = number
        return tree

    def choices(self, tree: Tree, cut_bytes: int) -> list[Sequence[int]]:
        """The choices for each open step of each file in the tree; mapped ones are nobody's choice."""
        choices: list[Sequence[int]] = []
        for number in tree.files.values():
            file = self._files[number]
            for done in file.open_steps() if file.mapped_size is None else ():
                size = len(done.data)
                choices.append((0, 1) if done.kind == "truncate" else [*range(0, size, cut_bytes), size])
        return choices

    def contents(
        self, tree: Tree, choices: Sequence[int], *, fill: int, rng: random.Random | None = None
    ) -> dict[str, bytes]:
        """What every file of the tree holds after these choices. `fill` is any number: see FILLS."""
        rest = iter(choices)
        files = {}
        for path, number in tree.files.items():
            file = self._files[number]
            if file.mapped_size is None:
                files[path] = _bytes_after(file, [next(rest) for _ in file.open_steps()], rng)
            elif FILLS[fill % len(FILLS)] == "noise":
                files[path] = random.Random(fill).randbytes(file.mapped_size)
            else:
                files[path] = bytes(file.mapped_size if FILLS[fill % len(FILLS)] == "zeros" else 0)
        return files
