"""`raftlog servers`: who is in the cluster."""

from __future__ import annotations

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def servers(client: Client, json: Json = False) -> None:
    """List the servers of the cluster: name, address, and whether it leads, votes or learns."""
    found = client.servers()
    width = max((len(server.name) for server in found), default=0)
    for server in found:
        if json:
            print_json(server._asdict())
        else:
            role = "leader" if server.is_leader else "voter" if server.is_voter else "learner"
            typer.echo(f"{server.name:{width}}  {server.address}  {role}")
