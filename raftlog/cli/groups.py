"""`raftlog groups`: how far groups of consumers have come."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from logstore.cli.output import Json, console, print_json, shown_time
from raftlog.cli import make_app
from raftlog.cli.connection import connected
from raftlog.client.client import Client

app = make_app()


@app.command()
@connected
def groups(client: Client, json: Json = False) -> None:
    """List the groups that consume: the next record of each, how many are behind it, and when it last moved."""
    cursors = client.cursors()
    end = client.bounds().end
    table = Table("group", "next", "lag", "moved", box=None, pad_edge=False)
    for cursor in cursors:
        lag = max(end - cursor.offset, 0)
        if json:
            print_json(
                {"group": cursor.group, "next_offset": cursor.offset, "lag": lag, "time_ns": cursor.time}
            )
        table.add_row(escape(cursor.group), f"{cursor.offset:,}", f"{lag:,}", shown_time(cursor.time))
    if not json and cursors:
        console.print(table, highlight=False)
    elif not json:
        typer.echo("no groups")
