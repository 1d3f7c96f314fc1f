"""`raftlog leave`: one server less."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from raftlog.cli import make_app
from raftlog.cli.connection import Target, client_of, require_any, with_target
from raftlog.client.client import Client
from raftlog.errors import RaftlogError

app = make_app()

TOLD_S_MAX: Final = 10.0  # for the server to say goodbye


@app.command()
@with_target
def leave(
    target: Target,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Node name of the server.", show_default=False)
    ],
) -> None:
    """Remove a server from the cluster for good; if it leads, it hands over first. One that is no member is no error.

    Once it is removed, it is told: it leaves the gossip and serves no more, and runs on until you stop it. One that
    cannot be told is removed all the same. It is not let in again because it is found; `raftlog join` brings it back.
    """
    with client_of(target) as client:
        address = next((one.address for one in client.servers() if one.name == server), "")
        client.leave(server)
    typer.echo(
        f"{server} is no member" if address else f"{server} was no member; `raftlog servers` lists them"
    )
    if not address:
        return
    try:
        require_any([address], target.tls)
        with Client(address, tls=target.tls, timeout_s=TOLD_S_MAX) as there:
            there.depart(server, address)
    except RaftlogError as error:
        typer.echo(f"{server} at {address} could not be told: {error}; if it runs, stop it")
    else:
        typer.echo(
            f"{server} at {address} was told: it serves no more and has left the gossip; stop it when you like"
        )
