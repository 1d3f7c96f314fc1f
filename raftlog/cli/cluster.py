"""`raftlog cluster`: servers on this machine, in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import EXIT_FAILED, make_app
from raftlog.errors import ConfigError
from raftlog.local_cluster import NODES_MAX, LocalCluster

app = make_app(no_args_is_help=True)

Folder = Annotated[
    Path,
    typer.Option("--dir", metavar="DIR", help="Where settings, certificates and data of all servers are."),
]
FOLDER = Path("raftlog-cluster")


@app.callback()
def cluster() -> None:
    """Run a cluster on this machine, for trying things.

    Its servers are processes in the background, with mutual TLS, on ports of the loopback interface that were free when
    they were made.
    """


@app.command()
def up(
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1, max=NODES_MAX, help="How many servers; 3, or as many as there are, if not given."
        ),
    ] = None,
    folder: Folder = FOLDER,
    json: Json = False,
) -> None:
    """Start a cluster, or what of it does not run, and say how to use it.

    With more servers than before, the new ones join the others.
    """
    place = LocalCluster(folder)
    option = "" if folder == FOLDER else f" --dir {folder}"
    with place.used_alone():
        place.create(nodes or len(place.servers) or 3)
        try:
            started = place.start()
            leader = place.wait_for_leader()
        except KeyboardInterrupt:
            typer.echo(f"what was started goes on; `raftlog cluster down{option}` stops it", err=True)
            raise
        finally:
            for server in place.servers.values():
                server.leave_running()
    if json:
        print_json(
            {"started": started, "leader": leader, "addresses": place.addresses, "certs": str(place.certs)}
        )
        return
    for name, address in place.addresses.items():
        state = "started" if name in started else "was running"
        typer.echo(f"{name}  {address}  {state}{', leads' if name == leader else ''}")
    typer.echo(
        f"\nexport RAFTLOG_CLIENT_ADDR={','.join(place.addresses.values())}\n"
        f"export RAFTLOG_CLIENT_CERTS={place.certs}\n"
        "echo hello | raftlog produce\n"
        "raftlog consume\n"
        "raftlog status\n"
        f"raftlog cluster down{option}"
    )


@app.command()
def status(folder: Folder = FOLDER, json: Json = False) -> None:
    """Say which servers run. Exit code 1 if one does not."""
    place = _existing(folder)
    processes, addresses = place.processes(), place.addresses
    for name, process in processes.items():
        if json:
            print_json({"name": name, "address": addresses[name], "process": process})
        else:
            typer.echo(f"{name}  {addresses[name]}  {'stopped' if process is None else f'process {process}'}")
    if None in processes.values():
        raise typer.Exit(EXIT_FAILED)


@app.command()
def down(
    folder: Folder = FOLDER,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the servers' data, settings and certificates as well.")
    ] = False,
) -> None:
    """Stop the servers. What they hold stays, unless --remove is given."""
    place = _existing(folder)
    with place.used_alone():
        for name in place.end():
            typer.echo(f"{name} stopped")
        if remove:
            place.remove()
            typer.echo(f"{folder} removed")


def _existing(folder: Path) -> LocalCluster:
    place = LocalCluster(folder)
    if not place.servers:
        raise ConfigError([f"{folder} holds no cluster; `raftlog cluster up --dir {folder}` makes one"])
    return place
