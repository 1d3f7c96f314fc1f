"""`raftlog members`: who was found, beside who is a member."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from logstore.cli.output import Json, console, print_json
from raftlog.cli import make_app
from raftlog.cli.connection import Target, client_of, with_target
from raftlog.client.client import Client
from raftlog.client.membership import KnownServer, KnownServers
from raftlog.errors import ConfigError, RaftlogError

app = make_app()

# For the leader to say why a server is no member; there may be none, and the rest is known
REASONS_S_MAX: Final = 2.0


@app.command()
@with_target
def members(
    target: Target,
    server: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose view; any server's if not given.", show_default=False)
    ] = "",
    json: Json = False,
) -> None:
    """List every server that was found, by gossip or DNS, beside what Raft knows, and say what does not fit.

    "seen" is how it looks from the server that is asked, and for how long; "raft" is its part in the cluster. A failed
    server stays a member, and counts for the quorum, until it is removed.
    """
    with client_of(target) as client:
        found = client.known_servers(_address_of(client, server) if server else None)
    reasons = {}
    if any(not one.raft_role and one.status in ("alive", "listed") for one in found.servers):
        reasons = _reasons(target)
    if json:
        for one in found.servers:
            print_json({**one._asdict(), "reason": reasons.get(one.name, "")})
    else:
        _print(found, reasons)


def _address_of(client: Client, server: str) -> str:
    for one in client.servers():
        if one.name == server:
            return one.address
    raise ConfigError([f"{server} is no member; `raftlog servers` lists them"])


def _reasons(target: Target) -> dict[str, str]:
    """Why servers are no members, by name, as far as the leader says."""
    with suppress(RaftlogError), client_of(target._replace(timeout_s=REASONS_S_MAX)) as client:
        return {one.name: one.reason for one in client.autopilot().servers if not one.is_member}
    return {}


def _print(found: KnownServers, reasons: dict[str, str]) -> None:
    table = Table("server", "address", "gossip", "seen", "raft", "version", box=None, pad_edge=False)
    for one in found.servers:
        cells = (
            one.name or "?", one.address or "?", one.gossip_address, _seen(one), one.raft_role or "no member",
            one.version,
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    console.print(table, highlight=False)
    for one in found.servers:
        name = one.name or one.address or one.gossip_address
        is_of_another = one.cluster_id not in ("", found.cluster_id)  # which says all
        reason = "" if one.raft_role or is_of_another else reasons.get(one.name, "")
        for text in (*one.remarks, reason):
            if text:
                console.print(f"{escape(name)}: {escape(text)}", highlight=False, soft_wrap=True)
    console.print(f"as {found.node_id} sees it; cluster {found.cluster_id}", highlight=False, soft_wrap=True)


def _seen(server: KnownServer) -> str:
    if not server.status:
        return "no"
    return f"{server.status} for {shown_duration(server.status_s)}" if server.status_s else server.status


def shown_duration(seconds: float) -> str:
    """In the largest unit of which there are at least two, or in seconds: 90s, 2h, 3d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.0f}s"
