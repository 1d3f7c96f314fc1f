"""What commands share of printing: people read text, programs read JSON lines."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from logstore.directory import parse_file_name
from logstore.errors import NoLog
from logstore.record import Record

# What is piped on is not cut to the width of a terminal.
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True)

Dir = Annotated[Path, typer.Argument(help="The directory of the log.", metavar="DIR", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def stores_of(directory: Path) -> list[str]:
    """Paths of the stores of a log, oldest first; NoLog if there is none."""
    names = os.listdir(directory) if directory.exists() else []
    found = sorted(name for name in names if (parsed := parse_file_name(name)) and parsed.is_store)
    if not found:
        raise NoLog(os.fspath(directory))
    return [os.path.join(directory, name) for name in found]


class Format(str, Enum):
    TEXT = "text"
    JSON = "json"
    RAW = "raw"


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")


def print_record(record: Record, form: Format) -> None:
    """text: offset, time, key and value in a line; raw: the value and a line end; json: every field."""
    if form is Format.RAW:
        sys.stdout.buffer.write(record.value + b"\n")
    elif form is Format.JSON:
        print_json(record_fields(record))
    else:
        key = f"{_shown(record.key)}  " if record.key else ""
        sys.stdout.write(
            f"{record.offset:>10}  {shown_time(record.timestamp)}  {key}{_shown(record.value)}\n"
        )


def record_fields(record: Record) -> dict[str, Any]:
    """A record for JSON. Bytes that are not UTF-8 stand in base64 under another name."""
    fields: dict[str, Any] = {"offset": record.offset, "timestamp": record.timestamp, "term": record.term}
    fields |= _json_bytes("key", record.key) if record.key else {}
    fields |= _json_bytes("value", record.value)
    if record.headers:
        fields["headers"] = [{"name": name} | _json_bytes("value", value) for name, value in record.headers]
    return fields


def _json_bytes(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _shown(data: bytes) -> str:
    """Bytes on one line of a terminal: nothing in them can move the cursor."""
    text = data.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_time(ns: int) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def shown_bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    raise AssertionError


@contextmanager
def byte_progress(task: str, total: int) -> Iterator[Any]:
    """A function to be told of bytes done; it draws a bar if a person is looking."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task(task, total=total)
        yield lambda count: progress.advance(bar, count)
