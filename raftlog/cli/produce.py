"""`raftlog produce`: lines into records."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, byte_progress, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import Target, client_of, with_target
from raftlog.client.batch import Handle
from raftlog.client.producer import ProducerConfig

app = make_app()

LINGER_MS = 5.0


@app.command()
@with_target
def produce(
    target: Target,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Text files; standard input if none.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Lines at most that are stored together.", min=1)] = 10_000,
    json: Json = False,
) -> None:
    """Append each line as a record, in order, and say under which offsets they are stored.

    A line ends with \\n or \\r\\n, which is not stored.
    """
    total = sum(path.stat().st_size for path in files or [])
    config = ProducerConfig(batch_records_max=batch, linger_ms=LINGER_MS, answer_timeout_s=target.timeout_s)
    count = 0
    first = last = None
    unanswered: deque[Handle] = deque()
    try:
        with (
            client_of(target) as client,
            byte_progress("producing", total) as advance,
            client.producer(config) as producer,
        ):
            start = time.perf_counter()
            for line in _lines(files):
                unanswered.append(producer.send(line.removesuffix(b"\r\n").removesuffix(b"\n")))
                count += 1
                advance(len(line))
                while unanswered and unanswered[0].done():
                    last = unanswered.popleft().result()
                    first = last if first is None else first
            while unanswered:
                last = unanswered.popleft().result()
                first = last if first is None else first
    except KeyboardInterrupt:
        stored, unclear = count - len(unanswered), len(unanswered)
        typer.echo(
            f"ended early: the first {stored:,} records are stored, of the next {unclear:,} some may be",
            err=True,
        )
        raise
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {"records": count, "first_offset": first, "last_offset": last, "seconds": round(seconds, 3)}
        )
    else:
        where = "" if first is None else f", offsets {first} to {last}"
        typer.echo(f"stored {count:,} records{where}; {count / seconds:,.0f} records/s")


def _lines(files: list[Path] | None) -> Iterator[bytes]:
    if not files:
        yield from sys.stdin.buffer
    for path in files or []:
        with path.open("rb") as file:
            yield from file
