"""`raftlog backup`: the records of a cluster in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.backup import back_up
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def backup(
    client: Client,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the copy is, or is to be.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Copy all that was acknowledged before the call into a log of one's own, under the same offsets.

    Every record is checked on the way and is on disk when the command ends. Run again with the same folder, it adds what
    has come since. `logstore cat DIR` reads the copy, `raftlog restore` brings it back. Members, groups' cursors and
    certificates are not part of it.
    """
    done = back_up(client, folder)
    if json:
        print_json(done._asdict())
    else:
        typer.echo(
            f"copied {done.copied:,} records; {folder} holds offsets {done.start:,} to before {done.end:,}"
        )
