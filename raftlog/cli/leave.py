"""`raftlog leave`: one server less."""

from __future__ import annotations

from typing import Annotated

import typer

from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def leave(
    client: Client,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Node name of the server.", show_default=False)
    ],
) -> None:
    """Remove a server from the cluster; if it leads, it hands over first. One that is no member is no error."""
    client.leave(server)
    typer.echo(f"{server} is no member")
