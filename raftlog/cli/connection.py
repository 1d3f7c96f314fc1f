"""How commands that talk to a server are told which one, and who they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from raftlog.client.client import Client
from raftlog.errors import ConfigError
from raftlog.net.probe import require_server
from raftlog.net.tls import TlsFiles


def _connection(
    *,
    addr: Annotated[
        str, typer.Option(help="Host and port of a server.", envvar="RAFTLOG_CLIENT_ADDR")
    ] = "localhost:8400",
    certs: Annotated[
        Path | None,
        typer.Option(help="Folder that `raftlog certs init` made.", envvar="RAFTLOG_CLIENT_CERTS"),
    ] = None,
    name: Annotated[
        str, typer.Option("--as", help="Whose certificate of that folder to show.")
    ] = "root-client",
    tls_cert_file: Annotated[Path | None, typer.Option(help="Certificate, instead of --certs.")] = None,
    tls_key_file: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    tls_ca_file: Annotated[
        Path | None, typer.Option(help="Authorities that sign servers' certificates.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Connect without TLS, to a server that runs so.")
    ] = False,
) -> Client:
    """The options of all commands that connect, and what they mean."""
    files = (tls_cert_file, tls_key_file, tls_ca_file)
    if insecure:
        if certs or any(files):
            raise ConfigError(["--insecure and certificates exclude each other; give one of them"])
        return _reached(addr, None)
    if certs is not None and not any(files):
        return _reached(addr, TlsFiles.in_folder(certs, name))
    if tls_cert_file and tls_key_file and tls_ca_file and certs is None:
        files_given = TlsFiles(
            cert_file=str(tls_cert_file), key_file=str(tls_key_file), ca_file=str(tls_ca_file)
        )
        return _reached(addr, files_given)
    raise ConfigError(["who are you? give --certs FOLDER, all three of --tls-*-file, or --insecure"])


def _reached(address: str, tls: TlsFiles | None) -> Client:
    client = Client(address, tls=tls)
    try:
        require_server(address, tls)
    except BaseException:
        client.close()
        raise
    return client


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument, a Client, is made of the options above, which are added to its own."""

    @wraps(command)
    def run(**options: Any) -> None:
        with _connection(**{name: options.pop(name) for name in shared}) as client:
            command(client, **options)

    shared = inspect.signature(_connection, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*parameters, *shared.values()])  # type: ignore[attr-defined]  # for Typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared.values())}
    return run
