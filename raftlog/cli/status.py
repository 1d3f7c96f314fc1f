"""`raftlog status`: how each server is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from logstore.cli.output import Json, console, print_json
from raftlog.cli import EXIT_FAILED, make_app
from raftlog.cli.connection import connected
from raftlog.client.answers import Member, Server, Status
from raftlog.client.client import Client
from raftlog.errors import RaftlogError

app = make_app()

ASKED_AT_ONCE = 16


@app.command()
@connected
def status(client: Client, json: Json = False) -> None:
    """Ask every server what it is and believes: role, term, how far it has come, what is wrong.

    Exit code 1 if no server leads. A server that cannot be reached is asked for as long as --timeout says.
    """
    servers = client.servers()
    with ThreadPoolExecutor(ASKED_AT_ONCE) as askers:
        answers = list(askers.map(lambda server: _ask(client, server.address), servers))
    found = [answer for answer in answers if isinstance(answer, Status)]
    leading = max((one for one in found if one.role == "leader"), key=lambda one: one.term, default=None)
    members = {member.name: member for member in leading.members} if leading is not None else {}
    rows = [
        _fields(server, answer, members.get(server.name), leading)
        for server, answer in zip(servers, answers, strict=True)
    ]
    if json:
        for row in rows:
            print_json(row)
    else:
        _print(rows, leading)
    if leading is None:
        raise typer.Exit(EXIT_FAILED)


def _ask(client: Client, address: str) -> Status | RaftlogError:
    try:
        return client.status(address)
    except RaftlogError as error:
        return error


def _fields(
    server: Server, answer: Status | RaftlogError, member: Member | None, leading: Status | None
) -> dict[str, Any]:
    """One server, for JSON. What only the leader knows of it is in `match_index`, `lag`, `state` and `is_active`."""
    known: dict[str, Any] = {"name": server.name, "address": server.address, "is_voter": server.is_voter}
    if isinstance(answer, Status):
        known |= {"error": None, **answer._asdict(), "members": [each._asdict() for each in answer.members]}
    else:
        known |= {"error": str(answer)}
    if leading is not None and member is not None:
        match = leading.last_index if member.is_leader else member.match_index
        known |= {
            "match_index": match, "lag": leading.last_index - match, "state": member.state,
            "is_active": member.is_leader or member.is_active,
        }  # fmt: skip
    return known


def _print(rows: list[dict[str, Any]], leading: Status | None) -> None:
    table = Table(
        "server", "address", "role", "term", "entries", "committed", "applied", "lag", "records", box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in rows:
        where = [escape(row["name"]), escape(row["address"])]
        # A leader that has not heard of a server since it leads does not know how far that one is.
        lag = f"{row['lag']:,}" if row.get("match_index") else "?"
        if row["error"] is not None:
            table.add_row(*where, "unreachable", "", "", "", "", lag, "")
            continue
        role = row["role"] if row["is_voter"] else "learner"
        table.add_row(
            *where, role, str(row["term"]), f"{row['first_index']:,} to {row['last_index']:,}",
            f"{row['commit_index']:,}", f"{row['applied_index']:,}", lag,
            f"{row['log_start']:,} to {row['high_watermark']:,}",
        )  # fmt: skip
    console.print(table, highlight=False)
    for row in rows:
        if wrong := row["error"] or row["trouble"]:
            console.print(f"{row['name']}: {escape(wrong)}", highlight=False, soft_wrap=True)
    if leading is None:
        console.print("no server leads", highlight=False)
    else:
        console.print(f"cluster {leading.cluster_id}, {leading.configuration}, engine {leading.engine}",
                      highlight=False, soft_wrap=True)  # fmt: skip
