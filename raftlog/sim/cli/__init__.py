"""The command line of the simulator and its checkers, one file for each command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from raftlog.sim.cli import check, run
from raftlog.sim.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNUSABLE

PROGRAM: Final = "python -m raftlog.sim"

app = typer.Typer(
    help="Run protocols in a simulated world that tries to break them, and check what clients saw.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (check, run):
    module.register(app)


@app.callback()
def simulator() -> None:
    """Run protocols in a simulated world that tries to break them, and check what clients saw."""


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's, and return its exit code."""
    try:
        app(arguments, prog_name=PROGRAM)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_UNUSABLE  # what is printed went nowhere: no verdict on what was run
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    return 0
