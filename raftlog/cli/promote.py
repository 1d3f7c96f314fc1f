"""`raftlog promote`: a learner into a voter."""

from __future__ import annotations

from typing import Annotated

import typer

from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def promote(
    client: Client,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Node name of the server.", show_default=False)
    ],
) -> None:
    """Let a learner vote now. That happens by itself once it has caught up; it fails before it nearly has."""
    client.promote(server)
    typer.echo(f"{server} votes")
