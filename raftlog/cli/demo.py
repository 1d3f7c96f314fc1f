"""`raftlog demo`: everything once, and whether it worked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from logstore.cli.output import Json, print_json
from raftlog.cli import EXIT_FAILED, make_app
from raftlog.demo.story import Result, lines_of, play

app = make_app()


@app.command()
def demo(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="Text whose lines are the records; the package has one.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run three servers with mutual TLS in a temporary folder, produce the lines of a file, kill the leader in the middle,
    bring it back, consume from each and compare.

    Exit code 1 if anything that comes out differs from what went in, 143 if ended by SIGTERM.
    """
    lines = lines_of(file)
    with ended_by_sigterm(), Console(stderr=True).status("starting") as status:
        result = play(lines, progress=status.update)
    if json:
        print_json({"equal": not result.differences, "differences": result.differences, **result.figures})
    else:
        _print(result)
    if result.differences:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit meanwhile, so that the server and its folder do not outlive us."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break the clearing up off
        raise SystemExit(128 + signal.SIGTERM)  # as shells tell it

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(result: Result) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for what, how in result.steps:
        table.add_row(what, how)
    console = Console()
    console.print(table)
    for difference in result.differences:
        console.print(f"[red]DIFFERENT:[/red] {difference}")
    if not result.differences:
        console.print("All records came back as they went in.")
