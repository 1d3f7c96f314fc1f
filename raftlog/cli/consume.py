"""`raftlog consume`: records out."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from logstore.cli.output import Format, print_record
from raftlog.cli import make_app
from raftlog.cli.connection import Target, client_of, with_target
from raftlog.client.client import Client
from raftlog.client.picker import FollowersInTurn, LowestLatency
from raftlog.errors import ConfigError

app = make_app()

OFFSET_MAX = (1 << 63) - 1
YEAR_FIRST, YEAR_LAST = 1678, 2261  # whole years whose nanoseconds since 1970 fit into 64 bits


class Pick(StrEnum):
    """Which servers to consume from."""

    TURN = "turn"
    LATENCY = "latency"


PICKERS = {Pick.TURN: FollowersInTurn, Pick.LATENCY: LowestLatency}


@app.command()
@with_target
def consume(
    target: Target,
    start: Annotated[
        str, typer.Option("--from", help="An offset, earliest, latest, or a time such as 2026-11-21T10:00Z.")
    ] = "earliest",
    end: Annotated[
        int | None, typer.Option("--to", help="Offset to stop before.", min=0, max=OFFSET_MAX)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more records at the end.")] = False,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Go on where the group of this name left off, and keep in the log how far it has come.",
        ),
    ] = None,
    linearizable: Annotated[
        bool,
        typer.Option(
            "--linearizable", help="Include all that was acknowledged to anybody before; asks a quorum."
        ),
    ] = False,
    pick: Annotated[
        Pick, typer.Option(help="Whom to consume from: followers in turn, or who answers quickest.")
    ] = Pick.TURN,
    form: Annotated[Format, typer.Option("--format", help="text, json or raw (values only).")] = Format.TEXT,
) -> None:
    """Print records.

    With --group each record is printed at least once, however often the command is ended and run again; --from is where
    a new group begins. After a crash, up to a second's worth of records is printed again.
    """
    if group is not None:
        if not group:
            raise ConfigError(["--group is empty; give the group a name"])
        if end is not None or linearizable:
            raise ConfigError(["--group goes on to the end of the log; leave --to and --linearizable out"])
    with client_of(target, picker=PICKERS[pick]()) as client:
        if group is not None:
            _consume_as_group(client, group, start, follow, form)
            return
        first = _first_offset(client, start)
        for batch in client.batches(first, end, follow=follow, linearizable=linearizable):
            for record in batch:
                print_record(record, form)
            if follow:
                sys.stdout.flush()


def _consume_as_group(client: Client, group: str, start: str, follow: bool, form: Format) -> None:
    records = client.consume(group, start=_first_offset(client, start), follow=follow)
    with closing(records):  # type: ignore[type-var]  # so that its place is kept now, not when it is collected
        for record in records:
            print_record(record, form)
            sys.stdout.flush()  # before it counts as consumed


def _first_offset(client: Client, start: str) -> int | None:
    if start == "earliest":
        return None
    if start == "latest":
        return client.bounds().end
    if start.isascii() and start.isdecimal() and int(start) <= OFFSET_MAX:
        return int(start)
    try:
        time = datetime.fromisoformat(start)
    except ValueError as error:
        raise ConfigError([f"--from {start}: neither an offset, earliest, latest, nor a time"]) from error
    if not YEAR_FIRST <= time.year <= YEAR_LAST:
        raise ConfigError([f"--from {start}: a time must be of the years {YEAR_FIRST} to {YEAR_LAST}"])
    return client.offset_at(int(time.astimezone().timestamp() * 1_000_000) * 1000)
