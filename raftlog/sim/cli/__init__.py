"""The command line of the simulator and its checkers, one file for each command.

Exit codes: 0 done, and all was well; 1 something is wrong with what was run or checked; 2 the command line or a file
cannot be used, or a check was not finished; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from raftlog.sim.cli import check
from raftlog.sim.cli import run as run_command

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells do
PROGRAM: Final = "python -m raftlog.sim"

app = typer.Typer(
    help="Run protocols in a simulated world that tries to break them, and check what clients saw.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (check, run_command):
    module.register(app)


@app.callback()
def simulator() -> None:
    """Run protocols in a simulated world that tries to break them, and check what clients saw."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's, and return its exit code."""
    try:
        app(arguments, prog_name=PROGRAM)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    return 0
