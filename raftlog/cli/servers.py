"""`raftlog servers`: who is in the cluster."""

from __future__ import annotations

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import (
    DEFAULT_ADDR,
    DEFAULT_NAME,
    Addr,
    CaFile,
    CertFile,
    Certs,
    Insecure,
    KeyFile,
    Name,
    tls_files,
)
from raftlog.client.client import Client

app = make_app()


@app.command()
def servers(
    addr: Addr = DEFAULT_ADDR,
    certs: Certs = None,
    name: Name = DEFAULT_NAME,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """List the servers of the cluster: name, address, and which one leads."""
    with Client(addr, tls=tls_files(certs, name, cert_file, key_file, ca_file, insecure)) as client:
        found = client.servers()
    width = max((len(server.name) for server in found), default=0)
    for server in found:
        if json:
            print_json(server._asdict())
        else:
            typer.echo(f"{server.name:{width}}  {server.address}{'  leader' if server.is_leader else ''}")
