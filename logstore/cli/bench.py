"""bench: how fast this machine appends and reads, beside what one would use instead."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from logstore.benchmark.cases import CASES, Bench
from logstore.benchmark.measure import Series, as_json
from logstore.benchmark.subjects import available
from logstore.cli.output import Json, console, errors

DECIMALS_BELOW = 100


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    directory: Annotated[
        Path, typer.Argument(help="Where to write test data; removed afterwards.", metavar="DIR")
    ],
    case: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CASES)}; all if not given.")
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs of each case; the median is shown.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.", min=0.05)] = 1.0,
    output: Annotated[Path | None, typer.Option(help="Write everything measured to this JSON file.")] = None,
    json: Json = False,
) -> None:
    """Measure this engine, a plain file, and the databases that are installed, in turn in one run."""
    unknown = sorted(set(case or []) - set(CASES))
    if unknown:
        raise typer.BadParameter(f"there is no case {', '.join(unknown)}; choose from {', '.join(CASES)}")
    directory.mkdir(parents=True, exist_ok=True)
    subjects, missing = available()
    for name in missing:
        errors.print(f"{name} is not installed and is left out", highlight=False)
    measured = Bench(directory, subjects, runs=runs, seconds=seconds)
    with errors.status("measuring") as status:
        series = measured.run(case or [], status.update)
    if output is not None:
        output.write_text(jsonlib.dumps(as_json(series), indent=1) + "\n")
    if json:
        console.print_json(data=as_json(series))
    else:
        print_series(series)


def print_series(series: list[Series]) -> None:
    """A table with the median, the spread, and the ratio to the first subject of each case."""
    table = Table("case", "subject", "unit", "survives", "median", "min", "max", "ratio", box=None)
    for column in table.columns[4:]:
        column.justify = "right"
    first: Series | None = None
    for one in sorted(series, key=lambda one: one.case):
        if first is None or first.case != one.case:
            first = one
        ratio = "" if one is first else f"{one.ratio_to(first):.2f}"
        numbers = (one.median, min(one.rates), max(one.rates))
        table.add_row(
            one.case, one.subject, one.unit, one.durability, *(shown(value) for value in numbers), ratio
        )
    console.print(table)
    console.print(f"medians of {len(series[0].rates)} runs; ratio to the first of each case", highlight=False)


def shown(value: float) -> str:
    """A figure as it is printed: with decimals only where it is small."""
    return f"{value:,.0f}" if value >= DECIMALS_BELOW else f"{value:.3g}"
