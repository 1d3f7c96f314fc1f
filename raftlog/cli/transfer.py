"""`raftlog transfer`: another leader."""

from __future__ import annotations

from typing import Annotated

import typer

from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def transfer(
    client: Client,
    server: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Who is to lead; the voter with most of the log if not given.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Hand over leadership, and say who leads then."""
    typer.echo(f"{client.transfer_leadership(server)} leads")
