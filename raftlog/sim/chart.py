"""A run as a sequence chart in text: a column for each node, arrows for messages, what happened at the right.

        ms  n1        n2        n3
   103.139  *         |         |           n1 became_leader term=1
   103.402  |-------->|         |           Append term=1 prev_index=0 ...
   103.911  |         |x--------|           AppendReply term=1 match=1 (lost)

A column is `|` while the node is up, `:` while it is paused, and empty while it is down. Arrows are drawn when a message
arrives, or when it is known that it will not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from raftlog.engine import Asked, NodeId, Note, Receive, Wake
from raftlog.sim.network import Lost, Sent

COLUMN: Final = 10
TEXT_CHARACTERS_MAX: Final = 160  # of what is said at the right; what is longer is cut

STATES: Final = {"started": "|", "resumed": "|", "paused": ":", "crashed": " "}


class Chart:
    """A watch of a world (raftlog/sim/world.py) that writes lines."""

    def __init__(self, nodes: Sequence[NodeId], write: Callable[[str], object]) -> None:
        self._write = write
        self._columns: dict[str, int] = {}
        self._states: list[str] = []  # by column
        for node in nodes:
            self._add(node)
        self._write_heads()

    def _add(self, node: str) -> int:
        self._columns[node] = len(self._states)
        self._states.append(" ")
        return self._columns[node]

    def _write_heads(self) -> None:
        names = "".join(node.ljust(COLUMN) for node in self._columns)
        self._write(f"{'ms':>12}  {names.rstrip()}")

    def __call__(self, time_us: int, who: str, what: Any) -> None:
        if isinstance(what, Sent | Wake):
            return  # the arrival is shown; and what follows from a wake-up, if anything does
        if what == "started" and who not in self._columns:
            self._add(who)
            self._write_heads()
        column = self._columns.get(who)
        if isinstance(what, Receive | Asked):
            self._line(time_us, self._arrow(what.sender, who, is_lost=False), text_of(what.message))
        elif isinstance(what, Lost):
            arrow = self._arrow(what.source, what.target, is_lost=True)
            self._line(time_us, arrow, f"{text_of(what.message)} ({what.why})")
        elif column is None:
            self._line(time_us, self._bare(), f"{who} {text_of(what)}")
        else:
            if isinstance(what, str):
                self._states[column] = STATES.get(what, self._states[column])
            row = self._bare()
            row[column * COLUMN] = "*"
            self._line(time_us, row, f"{who} {text_of(what)}")

    def _bare(self) -> list[str]:
        return list("".join(state.ljust(COLUMN) for state in self._states))

    def _arrow(self, source: str, target: str, *, is_lost: bool) -> list[str]:
        row = self._bare()
        start, end = self._columns.get(source), self._columns.get(target)
        if start is None or end is None or start == end:
            return row
        left, right = min(start, end) * COLUMN, max(start, end) * COLUMN
        row[left + 1 : right] = "-" * (right - left - 1)
        head = "x" if is_lost else ">" if end > start else "<"
        row[right - 1 if end > start else left + 1] = head
        return row

    def _line(self, time_us: int, row: list[str], text: str) -> None:
        self._write(f"{time_us / 1000:>12.3f}  {''.join(row)}  {text}")


def text_of(what: Any) -> str:
    """One short line for anything that is recorded; what is as it is by default is left out."""
    if isinstance(what, Note):
        text = " ".join([what.event, *(f"{name}={_value(value)}" for name, value in what.fields.items())])
    elif is_dataclass(what) and type(what).__str__ is object.__str__:
        named = [(f.name, value) for f in fields(what) if (value := getattr(what, f.name)) != f.default]
        text = " ".join([type(what).__name__, *(f"{name}={_value(value)}" for name, value in named)])
    else:
        text = str(what)
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[: TEXT_CHARACTERS_MAX - 3]}..."


def _value(value: Any) -> str:
    """Short: of numbered things only the number of the first and the last, or all of one that is alone."""
    match value:
        case Enum(name=name):
            return name
        case list() | tuple() if value and all(_is_numbered(each) for each in value):
            if len(value) > 1:
                return f"[{value[0][0]}..{value[-1][0]}]"
            return f"[{' '.join(map(_value, value[0]))}]"
        case _:
            return str(value)


def _is_numbered(value: Any) -> bool:
    """Whether it is as entries are: a named tuple with its number first."""
    return isinstance(value, tuple) and hasattr(value, "_fields") and isinstance(value[0], int)
