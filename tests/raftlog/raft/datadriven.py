"""Files of directives with what they are expected to print, and where the public ones lie.

    # A comment.
    command flag key=value several=(1, 2)
    lines of input
    ----
    expected lines, up to an empty line

Expected output that has empty lines itself stands between two pairs of separators.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SEPARATOR = "----"
PROJECT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Argument:
    key: str
    values: tuple[str, ...]  # empty for a flag; one for key=value, perhaps ""


@dataclass(frozen=True, slots=True)
class Directive:
    line: int  # of the command, from 1
    command: str
    arguments: tuple[Argument, ...]
    input: str  # stripped
    expected: str  # without the last newline

    def values(self, key: str) -> tuple[str, ...] | None:
        """Of the first argument with this key; None if there is none."""
        for argument in self.arguments:
            if argument.key == key:
                return argument.values
        return None

    def value(self, key: str, default: str) -> str:
        """The only value of this argument, or the default if there is no such argument."""
        values = self.values(key)
        if values is None:
            return default
        if len(values) != 1:
            raise ValueError(f"line {self.line}: {key} has {len(values)} values instead of one")
        return values[0]


def vector_files(folder: str) -> list[Any]:
    """Parameters for a test: each file of the public vectors in this folder, or one that is skipped."""
    root = Path(os.environ.get("RAFTLOG_VECTORS") or PROJECT.parent / "shared/vectors/etcd-raft")
    files = [path for path in sorted((root / folder).rglob("*")) if path.is_file() and not is_hidden(path)]
    if not files:
        reason = f"no files in {root / folder}: set RAFTLOG_VECTORS to a folder with etcd's raft vectors"
        return [pytest.param(Path(), marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=path.relative_to(root).as_posix()) for path in files]


def is_hidden(path: Path) -> bool:
    return path.name.startswith((".", "#")) or path.name.endswith("~")


def read_directives(path: Path) -> list[Directive]:
    """At least one; ValueError for a file without any, or one that cannot be parsed."""
    directives = parse(path.read_text(encoding="utf-8"))
    if not directives:
        raise ValueError(f"{path}: no directive found")
    return directives


def parse(text: str) -> list[Directive]:
    lines = iter(enumerate(text.splitlines(), start=1))
    return list(_directives(lines))


def _directives(lines: Iterator[tuple[int, str]]) -> Iterator[Directive]:
    for number, line in lines:
        head = line.strip()
        if not head or head.startswith("#"):
            continue
        while head.endswith("\\"):
            _, continuation = next(lines, (0, ""))
            head = head.removesuffix("\\") + " " + continuation.strip()
        command, _, rest = head.partition(" ")
        if command == "subtest":
            continue  # marks the begin and end of a group, and has no output
        try:
            arguments = _arguments(rest)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}: {head}") from error

        given, is_separated = _until_separator(lines)
        expected = _expected(lines) if is_separated else []
        yield Directive(number, command, arguments, "\n".join(given).strip(), "\n".join(expected))


def _until_separator(lines: Iterator[tuple[int, str]]) -> tuple[list[str], bool]:
    """The lines before the separator, and whether there is one before the end."""
    before: list[str] = []
    for _, line in lines:
        if line == SEPARATOR:
            return before, True
        before.append(line)
    return before, False


def _expected(lines: Iterator[tuple[int, str]]) -> list[str]:
    """The lines after the separator, without the empty line or the pair of separators that ends them."""
    expected: list[str] = []
    _, line = next(lines, (0, ""))
    if line != SEPARATOR:
        while line.strip():
            expected.append(line)
            _, line = next(lines, (0, ""))
        return expected
    for _, line in lines:
        expected.append(line)
        if expected[-2:] == [SEPARATOR, SEPARATOR]:
            return expected[:-2]
    return expected


def _arguments(text: str) -> tuple[Argument, ...]:
    arguments = []
    rest = text.strip()
    while rest:
        word = rest.split(" ", 1)[0]
        key, equals, value = word.partition("=")
        if not key:
            raise ValueError("an argument without a name")
        if not equals:
            values: tuple[str, ...] = ()
            end = len(word)
        elif not value.startswith("("):
            values = (value,)
            end = len(word)
        else:
            begin = len(key) + 2
            end = _closing(rest, begin) + 1
            values = _split_outside_parentheses(rest[begin : end - 1])
        arguments.append(Argument(key, values))
        rest = rest[end:].strip()
    return tuple(arguments)


def _closing(text: str, begin: int) -> int:
    """Where the parenthesis that was opened before `begin` is closed."""
    depth = 1
    for position in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError("a parenthesis is not closed")


def _split_outside_parentheses(text: str) -> tuple[str, ...]:
    """`a, f(b, c)` has two values; nothing has one, which is empty."""
    values = [""]
    depth = 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return tuple(value.strip() for value in values)
