"""`raftlog certs`: an authority of one's own, and the certificates for mutual TLS. certs/README.md is the manual."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raftlog.cli import make_app
from raftlog.net.certificates import (
    LOOPBACK_NAMES,
    CertificatePlan,
    Role,
    init_folder,
    issue_into_folder,
)
from raftlog.server.acl import default_files

app = make_app(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the certificates and keys.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", metavar="NAME", help="Host name or address of a server, besides localhost. Repeatable."
    ),
]
Days = Annotated[int, typer.Option(min=1, max=36500, help="Lifetime of certificates.")]


class RoleName(StrEnum):
    CLIENT = "client"
    SERVER = "server"
    PEER = "peer"


@app.callback()
def certs() -> None:
    """Make certificates and keys for servers and clients."""


@app.command()
def init(
    folder: Folder,
    *,
    host: Hosts = None,
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One more client, besides root and nobody. Repeatable."),
    ] = None,
    authority_name: Annotated[str, typer.Option(help="Common name of the authority.")] = "raftlog CA",
    server_name: Annotated[str, typer.Option(help="Common name of the server's certificate.")] = "server",
    peer_name: Annotated[str, typer.Option(help="Common name of the certificate between servers.")] = "peer",
    days: Days = 365,
    authority_days: Annotated[int, typer.Option(min=1, max=36500, help="Lifetime of the authority.")] = 3650,
    force: Annotated[
        bool, typer.Option("--force", help="Replace certificates and keys that are there. Policies are kept.")
    ] = False,
) -> None:
    """Make an authority, its certificates and an access policy.

    Certificates are for the server, between servers (peer), and for the clients root, who may do everything, and
    nobody, who may do nothing. Private keys are readable by their owner only.
    """
    plan = CertificatePlan(
        authority_name=authority_name,
        server_name=server_name,
        peer_name=peer_name,
        host_names=merge_names(LOOPBACK_NAMES, host),
        client_names=merge_names(("root", "nobody"), client),
        authority_days=authority_days,
        leaf_days=days,
    )
    show_paths(init_folder(folder, plan, force=force, extra_files=default_files()))


@app.command()
def issue(
    folder: Folder,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Common name; of a client, the subject of the access policy."),
    ],
    *,
    role: Annotated[RoleName, typer.Option(help="What the certificate is for.")] = RoleName.CLIENT,
    host: Hosts = None,
    days: Days = 365,
    force: Annotated[bool, typer.Option("--force", help="Renew: replace the certificate and key.")] = False,
) -> None:
    """Sign or renew one certificate.

    The authority in DIR signs it. Servers take up a renewed certificate with the next connection, without a restart.
    """
    kind = Role[role.name]
    host_names = () if kind is Role.CLIENT else merge_names(LOOPBACK_NAMES, host)
    show_paths(issue_into_folder(folder, name, kind, host_names=host_names, days=days, force=force))


def merge_names(first: Sequence[str], more: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *(more or ())]))


def show_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        typer.echo(path)
