"""The commands of `logstore`, one file for each family.

Exit status: 0 done, 1 it could not be done or something is damaged, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper

import typer

from logstore.cli import bench, importing, inspection, records, removal
from logstore.cli.output import errors
from logstore.errors import LogError

app = typer.Typer(
    name="logstore",
    help="Append to, read and look after a segmented log in a directory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (records, inspection, removal, importing, bench):
    module.register(app)


def run() -> None:
    """Parse the arguments, do it, and exit; an error is one line without a stack trace."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # where the locale cannot write every letter
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    try:
        app(prog_name="logstore")
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # whoever read our output has seen enough
        sys.exit(1)
    except (LogError, OSError) as error:
        errors.print(f"logstore: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
