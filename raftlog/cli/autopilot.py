"""`raftlog autopilot`: what the leader makes of who came, left or failed, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from logstore.cli.output import Json, console, print_json, shown_time
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.cli.members import shown_duration
from raftlog.client.client import Client
from raftlog.client.membership import Autopilot, AutopilotServer

app = make_app()

ACTIONS_SHOWN: Final = 10

MODES: Final = {
    "act": "acts",
    "advise": "only advises: members are changed by hand",
    "off": "is off: members are changed, and learners promoted, by hand",
}


class What(StrEnum):
    SHOW = "show"
    ACT = "act"
    ADVISE = "advise"
    OFF = "off"


@app.command()
@connected
def autopilot(
    client: Client,
    what: Annotated[
        What,
        typer.Argument(metavar="show|act|advise|off", help="Show it, or switch it.", show_default=False),
    ] = What.SHOW,
    json: Json = False,
) -> None:
    """Show what the autopilot thinks of each server, what it did and would do, and why; or switch it.

    act: it lets servers in, lets them vote, and removes those that left, or failed for too long. advise: it says what it
    would do, and does nothing. off: it does not even judge. A switch holds for the cluster, whoever leads.
    """
    if what is not What.SHOW:
        client.set_autopilot(what)
        if json:
            print_json({"mode": what})
        else:
            typer.echo(f"the autopilot {MODES[what]}")
        return
    found = client.autopilot()
    if json:
        print_json(_fields(found))
    else:
        _print(found)


def _fields(found: Autopilot) -> dict[str, Any]:
    lists = {name: [one._asdict() for one in getattr(found, name)] for name in ("servers", "last_actions")}
    return {**found._asdict(), **lists}


def _print(found: Autopilot) -> None:
    _say(f"the autopilot {MODES.get(found.mode, found.mode)}")
    if found.servers:
        _say(_health(found))
        _print_servers(found)
        if found.advice:
            _say("\nwhat it would do, and what holds it back:" if found.mode == What.ADVISE else "\nnext:")
        for text in found.advice:
            _say(f"- {escape(text)}")
    elif found.mode != What.OFF:  # it has not judged yet, and says why
        for text in found.advice:
            _say(escape(text))
    if found.last_actions:
        _say("\ndone:")
        for action in found.last_actions[-ACTIONS_SHOWN:]:
            failed = f"; failed: {escape(action.error)}" if action.error else ""
            _say(f"- {shown_time(action.time)}  {escape(action.text)}{failed}")


def _health(found: Autopilot) -> str:
    count = found.failure_tolerance
    spare = f"{count} voter{' ' if count == 1 else 's '}may fail" if count else "no voter may fail"
    healthy = "every member is healthy" if found.is_healthy else "NOT every member is healthy"
    limit = f"; at most {found.voters_max} vote" if found.voters_max else ""
    return f"{healthy}; {spare} without loss of the quorum{limit}"


def _print_servers(found: Autopilot) -> None:
    table = Table(
        "server", "address", "role", "health", "last contact", "behind", "seen", box=None, pad_edge=False
    )
    for one in found.servers:
        behind = "?" if one.trailing_entries is None else f"{one.trailing_entries:,}"
        table.add_row(
            escape(one.name), escape(one.address), _role(one), _server_health(one),
            _last_contact(one), behind, one.status or "no",
        )  # fmt: skip
    console.print(table, highlight=False)
    for one in found.servers:
        if one.reason and not (one.is_healthy and one.is_voter):
            _say(f"{escape(one.name)}: {escape(one.reason)}")


def _role(server: AutopilotServer) -> str:
    if not server.is_member:
        return "no member"
    return "leader" if server.is_leader else "voter" if server.is_voter else "learner"


def _server_health(server: AutopilotServer) -> str:
    if not server.is_member:
        return "-"  # nobody has looked yet
    healthy = "healthy" if server.is_healthy else "NOT healthy"
    return f"{healthy} for {shown_duration(server.healthy_since_s)}"


def _last_contact(server: AutopilotServer) -> str:
    if server.is_leader:
        return "-"
    if server.last_contact_s is None:
        return "?"
    return (
        f"{server.last_contact_s:.1f}s ago"
        if server.last_contact_s < 10
        else f"{shown_duration(server.last_contact_s)} ago"
    )


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
