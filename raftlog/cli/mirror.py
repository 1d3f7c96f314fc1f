"""`raftlog mirror`: the records of one cluster in another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import addresses_of, identity, require_any
from raftlog.client.async_client import AsyncClient
from raftlog.client.mirror import Mirror
from raftlog.net.tls import TlsFiles

app = make_app()

Folder = Annotated[Path | None, typer.Option(help="Folder of its certificates, instead of --certs.")]


@app.command()
def mirror(
    source: Annotated[
        str, typer.Option("--from", help="Address of a server that has the records, or of some.")
    ],
    target: Annotated[str, typer.Option("--to", help="Address of a server of the cluster that gets them.")],
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    certs: Annotated[
        Path | None,
        typer.Option(help="Folder that `raftlog certs init` made.", envvar="RAFTLOG_CLIENT_CERTS"),
    ] = None,
    from_certs: Folder = None,
    to_certs: Folder = None,
    name: Annotated[str, typer.Option("--as", help="Whose certificate to show.")] = "root-client",
    insecure: Annotated[bool, typer.Option("--insecure", help="Connect without TLS, on both sides.")] = False,
    json: Json = False,
) -> None:
    """Copy the records of a cluster into another, each once and in order.

    Run it again, after whatever has ended it, and it goes on where it stopped. The other cluster may have records of its
    own, and others may copy into it as well. What a mirror has brought to the source is left out, so clusters may copy
    each other. The caller needs leave to consume from the one and to produce to the other.
    """
    nobody = (None, None, None)
    source_tls = identity(from_certs or certs, name, nobody, insecure=insecure)
    target_tls = identity(to_certs or certs, name, nobody, insecure=insecure)
    from_addresses, to_addresses = addresses_of(source, "--from"), addresses_of(target, "--to")
    require_any(from_addresses, source_tls)
    require_any(to_addresses, target_tls)
    copied = asyncio.run(_run(from_addresses, source_tls, to_addresses, target_tls, follow=follow))
    if json:
        print_json({"copied": copied.copied, "next_offset": copied.position, "missed": copied.missed})
        return
    typer.echo(f"copied {copied.copied:,} records; the next is at offset {copied.position:,} of the source")
    if copied.missed:
        typer.echo(f"{copied.missed:,} records were gone from the source before they were copied", err=True)


async def _run(
    source: list[str],
    source_tls: TlsFiles | None,
    target: list[str],
    target_tls: TlsFiles | None,
    *,
    follow: bool,
) -> Mirror:
    async with AsyncClient(source, tls=source_tls) as one, AsyncClient(target, tls=target_tls) as other:
        copy = await Mirror.open(one, other)
        await copy.run(follow=follow)
        return copy
