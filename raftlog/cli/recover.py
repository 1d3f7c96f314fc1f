"""`raftlog recover`: when most servers are lost for good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, print_json
from raftlog.cli import EXIT_FAILED, make_app
from raftlog.errors import ConfigError
from raftlog.recovery import Found, opened

app = make_app()


@app.command()
def recover(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Data directory of a server that is stopped.", show_default=False),
    ],
    force_new_cluster: Annotated[
        bool,
        typer.Option(
            "--force-new-cluster", help="Begin a new cluster with what this server has, and no other member."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, only say what would be lost.")] = False,
    json: Json = False,
) -> None:
    """Make a cluster of one out of a server of a cluster that has lost its quorum for good.

    Only when a majority of the servers cannot be brought back: else start those. Of the servers that are left take the
    one whose last entry has the highest term and, among equals, the highest index. Stop all others for good, and clear
    their data before they join the new cluster. Keep a copy of the directory.
    """
    if not force_new_cluster:
        raise ConfigError(["say what is to be done: --force-new-cluster"])
    with opened(folder) as recovery:
        found = recovery.found
        cluster_id = recovery.force() if yes else None
    if json:
        print_json({**found._asdict(), "new_cluster_id": cluster_id})
    else:
        _tell(found, cluster_id)
    if cluster_id is None:
        raise typer.Exit(EXIT_FAILED)


def _tell(found: Found, cluster_id: str | None) -> None:
    others = [name for name in found.members if name != found.node]
    typer.echo(
        f"server {found.node} of cluster {found.cluster_id}: records {found.start:,} to before {found.end:,}"
    )
    typer.echo(
        f"last entry {found.last_index:,} of term {found.term}, {found.commit_index:,} known to be committed"
    )
    typer.echo(
        "May be lost: what was acknowledged behind these records, while this server was behind or away. May appear: "
        f"what is in the last {found.last_index - found.commit_index:,} entries and was never acknowledged."
    )
    typer.echo(f"No members any more: {', '.join(others) or 'none'}")
    if cluster_id is None:
        typer.echo("Nothing was changed; run again with --yes to do it.")
    else:
        typer.echo(
            f"{found.node} is cluster {cluster_id} now; start it, and let others join with empty directories"
        )
