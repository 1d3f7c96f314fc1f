"""stat, verify and dump: looking without touching."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from logstore.cli.output import (
    Dir,
    Json,
    byte_progress,
    console,
    print_json,
    shown_bytes,
    shown_time,
    stores_of,
)
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.frame import COMPACTED_MAGIC, FRAME_MAGIC, Kind
from logstore.fsck import Finding, Harm, Store, examine
from logstore.log import Log
from logstore.recovery import read_header
from logstore.walk import Item, Tail, Walk


def register(app: typer.Typer) -> None:
    app.command()(stat)
    app.command()(verify)
    app.command()(dump)


def stat(directory: Dir, json: Json = False) -> None:
    """Say what the log holds: offsets, entries, bytes and segments."""
    with Log(directory, read_only=True) as log:
        segments = log.segments()
        summary = {
            "start": log.start, "end": log.end, "first_entry": log.first_index, "last_entry": log.last_index,
            "bytes": sum(segment.bytes for segment in segments), "segments": len(segments),
        }  # fmt: skip
    if json:
        print_json(summary | {"segment": [segment._asdict() for segment in segments]})
        return
    console.print(
        f"{summary['end'] - summary['start']:,} records, offsets {summary['start']} to before {summary['end']}; "
        f"entries {summary['first_entry']} to before {summary['last_entry'] + 1}; {shown_bytes(summary['bytes'])}",
        highlight=False,
    )
    table = Table("entries", "offsets", "bytes", "last append", "state", box=None)
    for segment in segments:
        table.add_row(
            f"{segment.base_index}..{segment.end_index}", f"{segment.base_offset}..{segment.end_offset}",
            shown_bytes(segment.bytes), shown_time(segment.last_time) if segment.last_time else "", segment.state,
        )  # fmt: skip
    console.print(table)


def verify(directory: Dir, json: Json = False) -> None:
    """Check every byte of every frame; list what is damaged, and exit with 1 if anything is."""
    _, findings = check(directory)
    for finding in findings:
        if json:
            print_json(finding_fields(finding))
        else:
            console.print(str(finding), highlight=False, markup=False, soft_wrap=True)
    damaged = [finding for finding in findings if finding.harm is not Harm.TORN]
    if not json:
        torn = " (what a crash cut short is no damage: the next opening puts it aside)" if findings else ""
        console.print(
            "the log is whole" + torn if not damaged else f"{len(damaged)} damaged places", highlight=False
        )
    raise typer.Exit(1 if damaged else 0)


def check(directory: Dir) -> tuple[list[Store], list[Finding]]:
    """Examine all files under a progress bar."""
    total = sum(map(os.path.getsize, stores_of(directory)))
    with byte_progress("verifying", total) as advance:
        return examine(Directory(OsFileSystem(), os.fspath(directory)), advance)


def finding_fields(finding: Finding) -> dict[str, object]:
    return {
        "harm": finding.harm.name.lower(), "path": finding.path, "position": finding.position, "bytes": finding.bytes,
        "reason": finding.reason, "first_entry": finding.first_index, "end_entry": finding.end_index,
        "first_offset": finding.first_offset, "end_offset": finding.end_offset,
    }  # fmt: skip


def dump(
    directory: Dir,
    segment: Annotated[int | None, typer.Option(help="Only the segment with this base entry index.")] = None,
    json: Json = False,
) -> None:
    """Print the header of every segment and of every frame, up to the first damaged one of each segment."""
    stores = stores_of(directory)
    if segment is not None:
        path = Directory(OsFileSystem(), os.fspath(directory)).store_path(segment)
        if path not in stores:
            raise typer.BadParameter(f"there is no segment {segment}; see logstore stat {directory}")
        stores = [path]
    for path in stores:
        file = OsFileSystem().open(path, writable=False)
        header = read_header(file, path)
        if header is None:
            damage = "the segment's header is damaged"
            if json:
                print_json({"segment": path, "damage": damage})
            else:
                console.print(f"{path}: {damage}", highlight=False, markup=False, soft_wrap=True)
            continue
        if json:
            print_json(
                {"segment": path} | {k: v for k, v in header._asdict().items() if k != "configuration"}
            )
        else:
            console.print(f"{path}: id {header.segment_id:#018x}, base entry {header.base_index}, base offset "
                          f"{header.base_offset}, previous term {header.previous_term}, previous header CRC "
                          f"{header.previous_crc:#010x}", highlight=False, markup=False, soft_wrap=True)  # fmt: skip
        walk = Walk(file, Tail.at_start(header), segment_id=header.segment_id)
        for item in walk:
            _print_item(item, json=json)


def _print_item(item: Item, *, json: bool) -> None:
    what = {FRAME_MAGIC: "frame", COMPACTED_MAGIC: "compacted"}.get(item.magic, "hole")
    kind = Kind(item.kind).name.lower() if item.kind in Kind._value2member_map_ else str(item.kind)
    if json:
        print_json({
            "position": item.position, "bytes": item.length, "item": what, "kind": kind, "entry": item.entry_index,
            "first_offset": item.offset, "end_offset": item.end_offset, "term": item.term, "append_time": item.time,
            "header_crc": item.header_crc, "damage": item.damage,
        })  # fmt: skip
        return
    damage = f"  DAMAGED: {item.damage}" if item.damage else ""
    console.print(
        f"{item.position:>10}  {what} of {kind}, {item.length:,} bytes, entry {item.entry_index}, offsets "
        f"{item.offset}..{item.end_offset}, term {item.term}, {shown_time(item.time)}, header CRC "
        f"{item.header_crc:#010x}{damage}", highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
