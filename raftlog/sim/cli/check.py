"""`python -m raftlog.sim check`: whether histories in files are linearizable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, assert_never

import typer

from raftlog.sim import linearizability
from raftlog.sim.cli.exit_codes import EXIT_FAILED, EXIT_UNUSABLE
from raftlog.sim.history_files import HistoryFileError, read_history
from raftlog.sim.linearizability import STEPS_MAX, Linearizable, NotLinearizable, Undecided, Verdict
from raftlog.sim.models import MODELS

PARTIAL_SHOWN_MAX: Final = 10  # operations before the one that fits nowhere; what is earlier explains little


class ModelName(StrEnum):
    """The keys of MODELS."""

    REGISTER = "register"
    KV_APPEND = "kv-append"


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Histories, one a file.")],
    *,
    model: Annotated[
        ModelName,
        typer.Option(
            help="register: one value, in a log of a Jepsen test; kv-append: keys with put, append and get, "
            "a map in EDN on each line."
        ),
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how far a history that is not linearizable makes sense.")
    ] = False,
    steps_max: Annotated[
        int,
        typer.Option(
            "--steps-max",
            metavar="COUNT",
            min=0,
            help="Steps of the search for each key before it is given up.",
        ),
    ] = STEPS_MAX,
) -> None:
    """Say of each file whether its history is linearizable.

    Exit codes: 0 all are, 1 one is not, 2 (and none is known not to be) one cannot be read or was not decided.
    """
    exit_code = 0
    for file in files:
        try:
            operations = read_history(file, model.value)
        except (HistoryFileError, OSError) as error:
            typer.echo(f"check: {_text_of(error, file)}", err=True)
            exit_code = exit_code or EXIT_UNUSABLE
            continue
        verdict = linearizability.check(MODELS[model.value], operations, steps_max=steps_max)
        typer.echo(f"{file}: {verdict}")
        if explain:
            for line in explanation(verdict):
                typer.echo(f"    {line}")
        match verdict:
            case Linearizable():
                pass
            case NotLinearizable():
                exit_code = EXIT_FAILED
            case Undecided():
                exit_code = exit_code or EXIT_UNUSABLE
            case _:
                assert_never(verdict)
    raise typer.Exit(exit_code)


def explanation(verdict: Verdict) -> list[str]:
    """What a person needs to see why; nothing if there is nothing to say."""
    match verdict:
        case Linearizable():
            return []
        case Undecided():
            return [f"key {verdict.key}: given up after {verdict.steps} steps; --steps-max allows more"]
        case NotLinearizable():
            shown = verdict.partial[-PARTIAL_SHOWN_MAX:]
            count = len(verdict.partial)
            return [
                f"key {verdict.key}: an order of {count} operations makes sense{'; it ends with' if count else ''}",
                *(f"  {operation}" for operation in shown),
                f"the value is then {verdict.state!r}, and this fits nowhere:",
                f"  {verdict.stuck}",
            ]
        case _:
            assert_never(verdict)


def _text_of(error: HistoryFileError | OSError, file: Path) -> str:
    if isinstance(error, OSError):
        return f"{file}: {error.strerror or error}"
    return str(error)
