"""How commands that talk to a server are told which one, and who they are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from raftlog.client.client import Client
from raftlog.client.picker import Picker
from raftlog.client.seeds import Seeds, parse_name
from raftlog.config_keys import read_keys
from raftlog.errors import ConfigError
from raftlog.net.probe import Unreachable, require_server
from raftlog.net.tls import TlsFiles

PROBED_MAX: Final = 64  # servers that are tried before it is said that none answers


class Target(NamedTuple):
    """Which cluster, and who we are to it."""

    addresses: list[str]
    tls: TlsFiles | None
    timeout_s: float
    gossip_key_file: Path | None = None


def _connection(
    *,
    addr: Annotated[
        str,
        typer.Option(
            help="Host and port of a server, or of some, with commas: one that answers names the others. Or a name that "
            "servers are found under: dns:HOST:PORT (its addresses), srv:NAME, gossip:HOST:PORT (of a member's gossip).",
            envvar="RAFTLOG_CLIENT_ADDR",
        ),
    ] = "localhost:8400",
    gossip_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the gossip's key; for gossip:HOST:PORT where gossip is encrypted.",
            envvar="RAFTLOG_CLIENT_GOSSIP_KEY_FILE",
        ),
    ] = None,
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
    timeout: Annotated[
        float, typer.Option(help="Seconds for which a call is tried again.", min=0.1, max=3600.0)
    ] = 10.0,
) -> Target:
    """The options of all commands that connect, and what they mean."""
    tls = identity(certs, name, (tls_cert_file, tls_key_file, tls_ca_file), insecure=insecure)
    return Target(addresses_of(addr, "--addr"), tls, timeout, gossip_key_file)


def identity(
    certs: Path | None, name: str, files: tuple[Path | None, Path | None, Path | None], *, insecure: bool
) -> TlsFiles | None:
    """Who the caller says to be; None: nobody, to servers without TLS. ConfigError if that is not clear."""
    if insecure:
        if certs or any(files):
            raise ConfigError(["--insecure and certificates exclude each other; give one of them"])
        return None
    if certs is not None and not any(files):
        return TlsFiles.in_folder(certs, name)
    cert_file, key_file, ca_file = files
    if cert_file and key_file and ca_file and certs is None:
        return TlsFiles(cert_file=str(cert_file), key_file=str(key_file), ca_file=str(ca_file))
    raise ConfigError(["who are you? give --certs FOLDER, all three of --tls-*-file, or --insecure"])


def addresses_of(text: str, option: str) -> list[str]:
    """The addresses in a text with commas between them; ConfigError if there is none, or a name that cannot be one."""
    found = [address.strip() for address in text.split(",") if address.strip()]
    if not found:
        raise ConfigError([f"{option}: no address; give host:port"])
    for address in found:
        try:
            parse_name(address)
        except ValueError as error:
            raise ConfigError([f"{option} {error}"]) from error
    return found


def require_any(addresses: list[str], tls: TlsFiles | None, gossip_key_file: Path | None = None) -> None:
    """Unreachable if no server answers: with the reason of each, and of each name under which none was found."""
    keys = () if gossip_key_file is None else read_keys(str(gossip_key_file))
    seeds = Seeds(addresses, gossip_keys=keys)
    asyncio.run(seeds.look())
    reasons = seeds.failures
    for seed in seeds.known[:PROBED_MAX]:
        try:
            require_server(seed.address, tls, tls_name=seed.tls_name)
        except Unreachable as error:
            reasons.append(str(error))
        else:
            return
    raise Unreachable("\n".join(reasons))


@contextmanager
def client_of(target: Target, *, picker: Picker | None = None) -> Iterator[Client]:
    """A client, once a server answers; Unreachable if none does."""
    with Client(
        target.addresses,
        tls=target.tls,
        timeout_s=target.timeout_s,
        picker=picker,
        gossip_key_file=target.gossip_key_file,
    ) as client:
        require_any(target.addresses, target.tls, target.gossip_key_file)
        yield client


def connected(command: Callable[..., None], *, timeout_s_min: float = 0.0) -> Callable[..., None]:
    """A command whose first argument, a Client, is made of the options above, which are added to its own.

    Its calls may take `timeout_s_min` even if --timeout is less.
    """

    @wraps(command)
    def run(target: Target, **options: Any) -> None:
        with client_of(target._replace(timeout_s=max(target.timeout_s, timeout_s_min))) as client:
            command(client, **options)

    return with_target(run)


def with_target(command: Callable[..., None]) -> Callable[..., None]:
    """As `connected`, for a command that takes the Target and connects by itself."""

    @wraps(command)
    def run(**options: Any) -> None:
        command(_connection(**{name: options.pop(name) for name in shared}), **options)

    shared = inspect.signature(_connection, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*parameters, *shared.values()])  # type: ignore[attr-defined]  # for Typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared.values())}
    return run
