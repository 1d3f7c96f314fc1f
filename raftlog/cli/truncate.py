"""`raftlog truncate`: the oldest records gone."""

from __future__ import annotations

from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def truncate(
    client: Client,
    lowest: Annotated[
        int, typer.Argument(metavar="OFFSET", help="The first record to keep.", min=0, show_default=False)
    ],
    json: Json = False,
) -> None:
    """Forget the records below an offset, on all servers. Disk space is freed by whole segments, a little later."""
    start = client.truncate(lowest)
    if json:
        print_json({"start": start})
    else:
        typer.echo(f"the log starts at {start:,}")
