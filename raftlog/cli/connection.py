"""How commands that talk to a server are told which one, and who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raftlog.errors import ConfigError
from raftlog.net.tls import TlsFiles

Addr = Annotated[str, typer.Option("--addr", help="Host and port of a server.", envvar="RAFTLOG_CLIENT_ADDR")]
Certs = Annotated[
    Path | None,
    typer.Option("--certs", help="Folder that `raftlog certs init` made.", envvar="RAFTLOG_CLIENT_CERTS"),
]
Name = Annotated[str, typer.Option("--as", help="Whose certificate of that folder to show.")]
CertFile = Annotated[Path | None, typer.Option("--tls-cert-file", help="Certificate, instead of --certs.")]
KeyFile = Annotated[Path | None, typer.Option("--tls-key-file", help="Its private key.")]
CaFile = Annotated[
    Path | None, typer.Option("--tls-ca-file", help="Authorities that sign servers' certificates.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Connect without TLS, to a server that runs so.")]

DEFAULT_ADDR = "localhost:8400"
DEFAULT_NAME = "root-client"


def tls_files(
    certs: Path | None,
    name: str,
    cert_file: Path | None,
    key_file: Path | None,
    ca_file: Path | None,
    insecure: bool,
) -> TlsFiles | None:
    """What the options above say; None for a connection without TLS, which has to be asked for."""
    files = (cert_file, key_file, ca_file)
    if insecure:
        if certs or any(files):
            raise ConfigError(["--insecure and certificates exclude each other; give one of them"])
        return None
    if certs is not None and not any(files):
        return TlsFiles.in_folder(certs, name)
    if cert_file and key_file and ca_file and certs is None:
        return TlsFiles(cert_file=str(cert_file), key_file=str(key_file), ca_file=str(ca_file))
    raise ConfigError(
        [
            "who are you? give --certs FOLDER, or --tls-cert-file, --tls-key-file and --tls-ca-file, or --insecure"
        ]
    )
