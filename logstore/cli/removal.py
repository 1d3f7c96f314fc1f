"""repair, retain and compact: commands that give records up, and say which."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from logstore import repair as repairing
from logstore.cli.inspection import check, finding_fields
from logstore.cli.output import Dir, Json, console, print_json, shown_bytes, stores_of
from logstore.config import Config
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.fsck import Harm
from logstore.log import Log


def register(app: typer.Typer) -> None:
    app.command()(repair)
    app.command()(retain)
    app.command()(compact)


def repair(
    directory: Dir,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, only say what would be lost.")] = False,
    json: Json = False,
) -> None:
    """Give up what is damaged, keep every whole record under its offset. Exits with 1 if damage remains."""
    stores_of(directory)
    fs = OsFileSystem()
    place = Directory(fs, os.fspath(directory))
    lock = fs.lock(place.lock_path) if yes else None
    stores, findings = check(directory)
    lost = [finding for finding in findings if finding.harm is Harm.LOST]
    for finding in lost:
        if json:
            print_json(finding_fields(finding) | {"repaired": yes})
        else:
            verb = "gave up" if yes else "would give up"
            console.print(f"{verb}: {finding}", highlight=False, markup=False, soft_wrap=True)
    if not lost and not json:
        console.print("nothing to repair", highlight=False)
    if lock is not None:
        repairing.repair(place, stores)
        lock.close()
    elif lost:
        if not json:
            console.print("nothing was changed; run again with --yes to do it", highlight=False)
        raise typer.Exit(1)


def retain(
    directory: Dir,
    bytes_max: Annotated[int | None, typer.Option(help="Keep at most so many bytes.", min=0)] = None,
    age_ms_max: Annotated[int | None, typer.Option(help="Keep records for so long.", min=0)] = None,
    records_max: Annotated[int | None, typer.Option(help="Keep at most so many records.", min=0)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what goes and why the rest stays.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove whole segments that the limits do not allow, oldest first."""
    limits = Config(
        retention_bytes_max=bytes_max, retention_age_ms_max=age_ms_max, retention_records_max=records_max
    )
    stores_of(directory)
    with Log(directory, read_only=dry_run) as log:
        decisions = log.apply_retention(dry_run=dry_run, limits=limits)
    if json:
        for decision in decisions:
            print_json(decision._asdict())
        return
    table = Table("offsets", "bytes", "", "why", box=None)
    for decision in decisions:
        offsets = f"{decision.base_offset}..{decision.end_offset}"
        verb = "stays" if decision.stays else "would go" if dry_run else "gone"
        table.add_row(offsets, shown_bytes(decision.bytes), verb, decision.reason)
    console.print(table)


def compact(
    directory: Dir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Keep only the last record of each key in the sealed segments."""
    stores_of(directory)
    with Log(directory) as log:
        done = log.compact(dry_run=dry_run)
    if json:
        print_json(
            {"segments": done.segments_rewritten, "records": done.records_removed, "bytes": done.bytes_freed}
        )
        return
    verb = "would remove" if dry_run else "removed"
    console.print(
        f"{verb} {done.records_removed:,} records from {done.segments_rewritten} segments"
        + ("" if dry_run else f", freed {shown_bytes(done.bytes_freed)}"),
        highlight=False,
    )
