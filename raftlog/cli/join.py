"""`raftlog join`: one more server."""

from __future__ import annotations

from typing import Annotated

import typer

from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def join(
    client: Client,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Node name of the server.", show_default=False)
    ],
    address: Annotated[
        str,
        typer.Argument(metavar="HOST:PORT", help="Where servers and clients reach it.", show_default=False),
    ],
) -> None:
    """Make a running server a member of the cluster.

    It becomes a learner, and votes once it has caught up. A member that is known with this address is left as it is; a
    known name with a new address, or a known address with a new name, takes the place of the old one. It also lets in
    again who was removed on purpose (`raftlog leave`).
    """
    for member in client.join(server, address):
        if member.name == server:
            typer.echo(f"{server} at {member.address} is a {'voter' if member.is_voter else 'learner'}")
