"""`raftlog restore`: what a backup holds, in an empty cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.backup import restore as restore_from
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def restore(
    client: Client,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `raftlog backup` made.", show_default=False)
    ],
    renumber: Annotated[
        bool,
        typer.Option(
            "--renumber", help="Accept new offsets, for a backup whose first records were forgotten."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Produce the records of a backup into an empty cluster, under the same offsets.

    Ended half-way it can be run again, as long as nobody else has produced. Times of appending are those of now; times
    that producers gave are kept.
    """
    done = restore_from(client, folder, renumber=renumber)
    if json:
        print_json(done._asdict())
    else:
        typer.echo(
            f"stored {done.copied:,} records; the log holds offsets {done.start:,} to before {done.end:,}"
        )
