"""`raftlog snapshot`: what a server knows of the cluster, written down."""

from __future__ import annotations

from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client
from raftlog.errors import ConfigError

app = make_app()


@app.command()
@connected
def snapshot(
    client: Client,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Which server; any if not given.", show_default=False)
    ] = "",
    json: Json = False,
) -> None:
    """Have a server write a snapshot of members, cursors and producers now. That happens by itself as well."""
    address = None
    if server:
        address = next((one.address for one in client.servers() if one.name == server), None)
        if address is None:
            raise ConfigError([f"{server} is no member; `raftlog servers` lists them"])
    taken = client.take_snapshot(address)
    if json:
        print_json(taken._asdict())
    else:
        typer.echo(f"snapshot up to entry {taken.entry_index:,}, {taken.bytes:,} bytes")
