"""append, cat and tail: records in and out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from logstore.cli.output import Dir, Format, Json, byte_progress, console, print_json, print_record
from logstore.config import MIB, Config
from logstore.log import Log

BATCH_RECORDS = 1000

Form = Annotated[
    Format, typer.Option("--format", help="text, json (one object a line) or raw (values only).")
]


def register(app: typer.Typer) -> None:
    app.command()(append)
    app.command()(cat)
    app.command()(tail)


def append(
    directory: Dir,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Text files; standard input if none.", exists=True, dir_okay=False),
    ] = None,
    batch: Annotated[
        int, typer.Option(help="Lines at most that are made durable together.", min=1)
    ] = BATCH_RECORDS,
    compress: Annotated[bool, typer.Option(help="Compress values with zstd.")] = False,
    json: Json = False,
) -> None:
    """Append each line as a record, durably and as it comes. Makes the log if there is none."""
    config = Config(compression="zstd" if compress else "none")
    total = sum(path.stat().st_size for path in files or [])
    with Log(directory, config) as log, byte_progress("appending", total) as advance:
        first = log.end
        for lines in _lines_that_come(files):
            for start in range(0, len(lines), batch):
                values = lines[start : start + batch]
                log.append_batch([line.removesuffix(b"\r") for line in values])
                advance(sum(map(len, values)) + len(values))
        end = log.end
    if json:
        print_json({"first_offset": first, "end_offset": end, "records": end - first})
    else:
        console.print(f"appended {end - first:,} records, offsets {first} to before {end}", highlight=False)


def _lines_that_come(files: list[Path] | None) -> Iterator[list[bytes]]:
    """The lines, in lists: of a pipe those that are there, so that none waits for others to come."""
    if not files:
        yield from _lines(sys.stdin.buffer)
    for path in files or []:
        with path.open("rb") as file:
            yield from _lines(file)


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    rest = b""
    while data := file.read1(MIB):  # type: ignore[attr-defined]  # both are BufferedReader
        *lines, rest = (rest + data).split(b"\n")
        yield lines
    if rest:
        yield [rest]


def cat(
    directory: Dir,
    start: Annotated[
        int | None, typer.Option("--from", help="First offset; the log's start if not given.")
    ] = None,
    end: Annotated[int | None, typer.Option("--to", help="Offset to stop before.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The last record first.")] = False,
    form: Form = Format.TEXT,
    json: Json = False,
) -> None:
    """Print records. Another process may have the log open."""
    with Log(directory, read_only=True) as log:
        for record in log.scan(start, end, reverse=reverse):
            print_record(record, Format.JSON if json else form)


def tail(
    directory: Dir,
    count: Annotated[int, typer.Option("--lines", "-n", help="How many records from the end.", min=0)] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    form: Form = Format.TEXT,
    json: Json = False,
) -> None:
    """Print the last records, and with --follow those that come. Another process may have the log open."""
    form = Format.JSON if json else form
    with Log(directory, read_only=True) as log:
        start = max(log.end - count, log.start)
        if not follow:
            for record in log.scan(start):
                print_record(record, form)
            return
        for record in log.follow(start):
            print_record(record, form)
            sys.stdout.flush()
