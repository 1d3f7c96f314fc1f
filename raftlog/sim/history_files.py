"""Histories in the two forms that the public test histories have: logs of Jepsen's etcd tests, and EDN-like lines.

    INFO  jepsen.util - 3<tab>:invoke<tab>:cas<tab>[3 0]
    {:process 3, :type :invoke, :f :append, :key "0", :value "x 3 0 y"}

A line's number is the number of its event. A process has one operation open at most; `:info` leaves it unknown for
good, as does the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftlog.sim.history import Operation
from raftlog.sim.models import Append, CompareAndSet, Read, Request, Write

REGISTER_LINE: Final = re.compile(
    r"INFO\s+jepsen\.util\s+-\s+(?P<process>\d+)\s+:(?P<type>invoke|ok|fail|info)\s+:(?P<verb>read|write|cas)\s+"
    r"(?P<value>nil|-?\d+|\[-?\d+ -?\d+\]|:\S.*)"  # the last is a reason, such as :timed-out
)
# What the log says of faults and of the test itself.
OTHER_LINE: Final = re.compile(r"[A-Z]+\s+jepsen\.(util\s+-\s+:nemesis\s|(?!util\s)\S+\s+-\s).*")
KEY_VALUE_LINE: Final = re.compile(
    r"\{:process (?P<process>\d+), :type :(?P<type>invoke|ok|fail|info), :f :(?P<verb>get|put|append), "
    r':key "(?P<key>(?:[^"\\]|\\.)*)", :value (?:nil|"(?P<value>(?:[^"\\]|\\.)*)")\}'
)
REGISTER_KEY: Final = "register"


class HistoryFileError(Exception):
    """The file is no history of the wanted form. The text names the file and the line."""


class _Event(NamedTuple):
    process: str
    type: str
    verb: str
    input: Request | None  # what was invoked; None where the line cannot say, or does not fit its verb
    output: Any


class _Open(NamedTuple):
    line: int
    verb: str
    input: Request


def read_history(path: Path, model: str) -> list[Operation]:
    """The operations of a file in the form that goes with this model.

    Raises HistoryFileError, and OSError if it cannot be read.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise HistoryFileError(f"{path}: line {line}: not UTF-8") from error
    return parse_history(text, FORMS[model], str(path))


def parse_history(text: str, event_of: Callable[[str], _Event | None], name: str) -> list[Operation]:
    operations: list[Operation] = []
    pending: dict[str, _Open] = {}
    is_empty = True
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            event = event_of(line.rstrip())
            if event is not None:
                operations += _take(event, number, pending)
                is_empty = False
        except ValueError as error:
            raise HistoryFileError(f"{name}: line {number}: {error}") from error
    if is_empty:  # to call it linearizable would be true, and hide a wrong file
        raise HistoryFileError(f"{name}: line 1: no event in the whole file")
    operations += [Operation(process, one.line, None, one.input) for process, one in pending.items()]
    return sorted(operations, key=lambda one: one.called)


def _take(event: _Event, line: int, pending: dict[str, _Open]) -> list[Operation]:
    """The operation that this event ends, if it ends one that counts; ValueError says what is wrong with it."""
    process = event.process
    if event.type == "invoke":
        if process in pending:
            raise ValueError(f"process {process} is busy since line {pending[process].line}")
        if event.input is None:
            raise ValueError(f"no value to {event.verb}")
        pending[process] = _Open(line, event.verb, event.input)
        return []
    call = pending.pop(process, None)
    if call is None or call.verb != event.verb:
        raise ValueError(f"process {process} did not invoke {event.verb}")
    if event.type == "info":
        return [Operation(process, call.line, None, call.input)]
    # One that failed did not happen; but a compare-and-set that names its values found another one, and says so.
    is_refused = event.type == "fail" and isinstance(event.input, CompareAndSet)
    if event.type == "fail" and not is_refused:
        return []
    if event.input != call.input:
        raise ValueError(f"not the value that was invoked in line {call.line}")
    output = not is_refused if isinstance(call.input, CompareAndSet) else event.output
    return [Operation(process, call.line, line, call.input, output)]


def _register_event(line: str) -> _Event | None:
    """One register, under a name of our own; nil is its absent value."""
    if OTHER_LINE.fullmatch(line):
        return None
    match = REGISTER_LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not an event of a register: {line[:80]!r}")
    process, type_, verb, value = match.groups()
    number = value if value.lstrip("-").isdigit() else None
    request: Request | None = None
    output = None
    if verb == "read" and (value == "nil" or number is not None):
        request, output = Read(REGISTER_KEY), number
    elif verb == "write" and number is not None:
        request = Write(REGISTER_KEY, number)
    elif verb == "cas" and value.startswith("["):
        expected, new = value.strip("[]").split()
        request = CompareAndSet(REGISTER_KEY, expected, new)
    return _Event(process, type_, verb, request, output)


def _key_value_event(line: str) -> _Event | None:
    """Values as they are written, escapes and all: they are only compared."""
    match = KEY_VALUE_LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not an event of a key-value store: {line[:80]!r}")
    process, type_, verb, key, value = match.groups()
    request: Request | None = None
    output = None
    if verb == "get":
        request, output = Read(key), value or ""
    elif value is not None:
        request = Write(key, value) if verb == "put" else Append(key, value)
    return _Event(process, type_, verb, request, output)


# By the name of the model that a file of this form is checked with.
FORMS: Final[dict[str, Callable[[str], _Event | None]]] = {
    "register": _register_event,
    "kv-append": _key_value_event,
}
