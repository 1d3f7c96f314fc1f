"""import-proglog: records from a data directory of proglog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logstore.cli.output import Json, byte_progress, console, print_json
from logstore.config import MIB
from logstore.errors import LogError
from logstore.log import Log
from logstore.proglog import ProglogDamage, read_records, stores

BATCH_BYTES_MAX = MIB
RECORD_OVERHEAD_BYTES = 12  # of proglog: a length, and two tags with their lengths


def register(app: typer.Typer) -> None:
    app.command("import-proglog")(import_proglog)


def import_proglog(
    source: Annotated[
        Path, typer.Argument(help="Its log directory, with files such as 0.store.", metavar="SRC")
    ],
    target: Annotated[Path, typer.Argument(help="A new or empty directory.", metavar="DST")],
    json: Json = False,
) -> None:
    """Copy the records that proglog wrote into a new log, under the same offsets."""
    files = stores(source)
    total = sum(path.stat().st_size for _, path in files)
    with Log(target) as log, byte_progress("importing", total) as advance:
        if log.last_index >= log.first_index or log.end:
            raise LogError(f"{target} already holds a log; import into a new directory")
        first = files[0][0]
        if first:
            log.reset(start=first)
        batch: list[bytes] = []
        held = 0
        damage: ProglogDamage | None = None
        try:
            for record in read_records(source):
                batch.append(record.value)
                held += len(record.value) + RECORD_OVERHEAD_BYTES
                if held >= BATCH_BYTES_MAX:
                    log.append_batch(batch)
                    advance(held)
                    batch, held = [], 0
        except ProglogDamage as error:
            damage = error
        if batch:
            log.append_batch(batch)
        end = log.end
    if damage is not None:
        raise LogError(
            f"{damage}; only what comes before was imported into {target}: offsets {first} to before {end}"
        ) from damage
    if json:
        print_json({"first_offset": first, "end_offset": end, "records": end - first})
    else:
        console.print(f"imported {end - first:,} records, offsets {first} to before {end}", highlight=False)
